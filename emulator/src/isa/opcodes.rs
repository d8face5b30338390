//! The opcodes that the compiler knows, and the groups of instructions that each may belong to.

use super::*;
use crate::compile::Result;
use crate::compile::decode::Decoder;

/// Decodes an instruction; false when it is none of the group.
pub(crate) type Decode = fn(&mut Decoder) -> Result<bool>;

/// Sorted by name. The groups are asked in order.
const OPCODES: &[(&str, &[Decode])] = &[
    ("abs", &[integer::decode, float::decode, half::decode]),
    ("activemask", &[warp::decode]),
    ("add", &[integer::decode, wide::decode, float::decode, half::decode]),
    ("addc", &[wide::decode]),
    ("alloca", &[calls::decode]),
    ("and", &[logic::decode]),
    ("applypriority", &[memory::decode]),
    ("atom", &[atomics::decode]),
    ("bar", &[barrier::decode]),
    ("barrier", &[barrier::decode]),
    ("bfe", &[integer::decode]),
    ("bfi", &[integer::decode]),
    ("bfind", &[integer::decode]),
    ("bmsk", &[integer::decode]),
    ("bra", &[control::decode]),
    ("brev", &[integer::decode]),
    ("brkpt", &[control::decode]),
    ("brx", &[control::decode]),
    ("call", &[calls::decode]),
    ("clz", &[integer::decode]),
    ("cnot", &[logic::decode]),
    ("copysign", &[float::decode]),
    ("cos", &[float::decode]),
    ("cp", &[async_copy::decode]),
    ("createpolicy", &[memory::decode]),
    ("cvt", &[convert::decode]),
    ("cvta", &[memory::decode]),
    ("discard", &[memory::decode]),
    ("div", &[integer::decode, float::decode]),
    ("dp2a", &[integer::decode]),
    ("dp4a", &[integer::decode]),
    ("elect", &[warp::decode]),
    ("ex2", &[float::decode, half::decode]),
    ("exit", &[control::decode]),
    ("fence", &[barrier::decode]),
    ("fma", &[float::decode, half::decode]),
    ("fns", &[integer::decode]),
    ("griddepcontrol", &[control::decode]),
    ("isspacep", &[memory::decode]),
    ("ld", &[memory::decode]),
    ("ldmatrix", &[matrix::decode]),
    ("ldu", &[memory::decode]),
    ("lg2", &[float::decode]),
    ("lop3", &[logic::decode]),
    ("mad", &[integer::decode, wide::decode, float::decode]),
    ("mad24", &[integer::decode]),
    ("madc", &[wide::decode]),
    ("match", &[warp::decode]),
    ("max", &[integer::decode, float::decode, half::decode]),
    ("mbarrier", &[mbarrier::decode]),
    ("membar", &[barrier::decode]),
    ("min", &[integer::decode, float::decode, half::decode]),
    ("mma", &[mma_narrow::decode, matrix::decode]),
    ("mov", &[logic::decode]),
    ("movmatrix", &[mma_narrow::decode]),
    ("mul", &[integer::decode, float::decode, half::decode]),
    ("mul24", &[integer::decode]),
    ("nanosleep", &[control::decode]),
    ("neg", &[integer::decode, float::decode, half::decode]),
    ("not", &[logic::decode]),
    ("or", &[logic::decode]),
    ("pmevent", &[control::decode]),
    ("popc", &[integer::decode]),
    ("prefetch", &[memory::decode]),
    ("prefetchu", &[memory::decode]),
    ("prmt", &[logic::decode]),
    ("rcp", &[float::decode]),
    ("red", &[atomics::decode]),
    ("redux", &[warp::decode]),
    ("rem", &[integer::decode]),
    ("ret", &[calls::decode]),
    ("rsqrt", &[float::decode]),
    ("sad", &[integer::decode]),
    ("selp", &[logic::decode]),
    ("set", &[compare::decode]),
    ("setp", &[compare::decode]),
    ("shf", &[integer::decode]),
    ("shfl", &[warp::decode]),
    ("shl", &[integer::decode]),
    ("shr", &[integer::decode]),
    ("sin", &[float::decode]),
    ("slct", &[logic::decode]),
    ("sqrt", &[float::decode]),
    ("st", &[memory::decode]),
    ("stackrestore", &[calls::decode]),
    ("stacksave", &[calls::decode]),
    ("stmatrix", &[matrix::decode]),
    ("sub", &[integer::decode, wide::decode, float::decode, half::decode]),
    ("subc", &[wide::decode]),
    ("szext", &[integer::decode]),
    ("tanh", &[float::decode, half::decode]),
    ("testp", &[compare::decode]),
    ("trap", &[control::decode]),
    ("vabsdiff", &[video::decode]),
    ("vabsdiff2", &[video::decode]),
    ("vabsdiff4", &[video::decode]),
    ("vadd", &[video::decode]),
    ("vadd2", &[video::decode]),
    ("vadd4", &[video::decode]),
    ("vavrg2", &[video::decode]),
    ("vavrg4", &[video::decode]),
    ("vmad", &[video::decode]),
    ("vmax", &[video::decode]),
    ("vmax2", &[video::decode]),
    ("vmax4", &[video::decode]),
    ("vmin", &[video::decode]),
    ("vmin2", &[video::decode]),
    ("vmin4", &[video::decode]),
    ("vote", &[warp::decode]),
    ("vset", &[video::decode]),
    ("vset2", &[video::decode]),
    ("vset4", &[video::decode]),
    ("vshl", &[video::decode]),
    ("vshr", &[video::decode]),
    ("vsub", &[video::decode]),
    ("vsub2", &[video::decode]),
    ("vsub4", &[video::decode]),
    ("xor", &[logic::decode]),
];

/// The groups of an opcode; none for an unknown one.
pub(crate) fn decoders(opcode: &str) -> &'static [Decode] {
    match OPCODES.binary_search_by_key(&opcode, |entry| entry.0) {
        Ok(at) => OPCODES[at].1,
        Err(_) => &[],
    }
}

/// The first chip that has an instruction, where that is later than the first one supported; forms that differ by their
/// types stand with their group.
pub(crate) fn first_target(opcode: &str, has: impl Fn(&str) -> bool) -> u32 {
    match opcode {
        "elect" | "griddepcontrol" | "stmatrix" => 90,
        "min" | "max" if has("relu") => 90,
        "mbarrier" if has("try_wait") => 90,
        "fence" if has("cluster") || has("async") => 90,
        "atom" | "red" if has("bf16") || has("bf16x2") || has("b128") => 90,
        _ => 0,
    }
}

/// Why an instruction is not there, or what to take for it, where more can be said than its name.
pub(crate) fn absent(opcode: &str) -> Option<&'static str> {
    const WHYS: &[(&str, &str)] = &[
        ("wmma.", "use mma.sync"),
        ("mma.sp", "sparse products are not there"),
        ("wgmma.", "sm_90's products of warp groups are not there yet; use mma.sync"),
        ("cp.async.bulk", "bulk copies and tensor maps are not there yet; use cp.async"),
        ("cp.reduce.async.bulk", "bulk copies are not there yet"),
        ("prefetch.tensormap", "tensor maps are not there yet"),
        ("tensormap.", "tensor maps are not there yet"),
        ("setmaxnreg.", "registers are not counted; leave it out"),
        ("barrier.cluster", "clusters are not there yet"),
        ("mapa.", "clusters are not there yet"),
        ("getctarank.", "clusters are not there yet"),
        ("ld.shared::cluster", "clusters are not there yet"),
        ("st.async", "clusters are not there yet"),
        ("red.async", "clusters are not there yet"),
        ("tex.", "textures are not there"),
        ("suld.", "surfaces are not there"),
        ("sust.", "surfaces are not there"),
    ];
    WHYS.iter().find(|(start, _)| opcode.starts_with(start)).map(|(_, why)| *why)
}

/// Names of all opcodes that are known, sorted; forms of them may still be refused.
pub fn opcodes() -> impl Iterator<Item = &'static str> {
    OPCODES.iter().map(|entry| entry.0)
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_table_is_sorted() {
        assert!(super::OPCODES.is_sorted_by_key(|entry| entry.0));
    }
}
