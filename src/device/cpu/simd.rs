//! Run-time choice of the instruction set.
//!
//! A row kernel is written once as plain Rust loops and compiled several times by `simd_kernel!`, each time with
//! other target features, so that the compiler vectorises it for AVX-512, AVX2, or what the target always has.
//! Products and sums are not contracted to fused ones there, so these kernels give the same bits on each of them.

use crate::error::{Error, Result};

/// An instruction set, in rising order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Isa {
    /// What every machine of the target architecture has.
    Portable,
    /// x86-64 with AVX2 and FMA.
    Avx2,
    /// x86-64 with AVX-512 F, VL, BW and DQ.
    Avx512,
    /// The same with AVX512-BF16.
    Avx512Bf16,
}

impl Isa {
    const ALL: [Isa; 4] = [Isa::Portable, Isa::Avx2, Isa::Avx512, Isa::Avx512Bf16];

    /// Its name, as `MANYHEAD_ISA` takes it.
    pub fn name(self) -> &'static str {
        match self {
            Isa::Portable => "portable",
            Isa::Avx2 => "avx2",
            Isa::Avx512 => "avx512",
            Isa::Avx512Bf16 => "avx512bf16",
        }
    }

    /// Those that this machine has, in rising order.
    pub fn usable() -> impl Iterator<Item = Isa> {
        let best = Isa::detect();
        Isa::ALL.into_iter().filter(move |isa| *isa <= best)
    }

    /// The best one that this machine has.
    pub fn detect() -> Isa {
        #[cfg(target_arch = "x86_64")]
        {
            let avx2 = is_x86_feature_detected!("avx2") && is_x86_feature_detected!("fma");
            let avx512 = is_x86_feature_detected!("avx512f")
                && is_x86_feature_detected!("avx512vl")
                && is_x86_feature_detected!("avx512bw")
                && is_x86_feature_detected!("avx512dq");
            if avx2 && avx512 {
                return if is_x86_feature_detected!("avx512bf16") { Isa::Avx512Bf16 } else { Isa::Avx512 };
            }
            if avx2 {
                return Isa::Avx2;
            }
        }
        Isa::Portable
    }

    /// Whether it has an instruction for sums of products of bytes (AVX-512 VNNI, or AVX-VNNI beside AVX2) on this machine.
    pub(super) fn has_vnni(self) -> bool {
        match self {
            #[cfg(target_arch = "x86_64")]
            Isa::Avx512 | Isa::Avx512Bf16 => is_x86_feature_detected!("avx512vnni"),
            #[cfg(target_arch = "x86_64")]
            Isa::Avx2 => is_x86_feature_detected!("avxvnni"),
            _ => false,
        }
    }

    /// The one that `MANYHEAD_ISA` names (see [`Isa::name`]), or the best one.
    ///
    /// # Errors
    /// An unknown name, or one that this machine lacks.
    pub fn from_environment() -> Result<Isa> {
        let best = Isa::detect();
        let Some(name) = std::env::var_os("MANYHEAD_ISA").filter(|name| !name.is_empty()) else {
            return Ok(best);
        };
        let name = name.to_string_lossy();
        let Some(wanted) = Isa::ALL.into_iter().find(|isa| isa.name() == name) else {
            let known = Isa::ALL.map(Isa::name).join(", ");
            return Err(Error::argument("MANYHEAD_ISA", format!("'{name}' is none of {known}")));
        };
        if wanted > best {
            let message = format!("this machine has no {}; its best is {}", wanted.name(), best.name());
            return Err(Error::argument("MANYHEAD_ISA", message));
        }
        Ok(wanted)
    }
}

/// What products are computed from. Everything but products is f32 in all of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precision {
    /// Products of f32.
    F32,
    /// Operands of products are rounded to bf16, sums are f32. Without instructions for it this is only slower.
    Bf16,
    /// On a CUDA device alone: operands of products are rounded to tf32 (10 binary digits after the point, the range of f32),
    /// all else is f32.
    Tf32,
    /// On a CUDA device alone: numbers are stored in f16, sums are f32. More digits than bf16, and a smaller range.
    F16,
    /// Linear layers of an encoder's blocks multiply whole numbers from −127 to 127, a scale for each row of x and each row
    /// of W, with exact sums; other products are f32. For inference only: it has no gradients.
    Int8,
}

impl Precision {
    /// The values of `--precision`.
    pub const NAMES: [&'static str; 6] = ["auto", "f32", "tf32", "bf16", "f16", "int8"];

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Precision::F32 => "f32",
            Precision::Tf32 => "tf32",
            Precision::Bf16 => "bf16",
            Precision::F16 => "f16",
            Precision::Int8 => "int8",
        }
    }

    /// What products that must not be quantised are computed from: those of heads and poolers.
    pub fn unquantised(self) -> Precision {
        match self {
            Precision::Int8 => Precision::F32,
            other => other,
        }
    }

    /// # Errors
    /// A precision without gradients; `name` is the option or call that asked for it.
    pub fn check_training(self, name: &str) -> Result<()> {
        if self == Precision::Int8 {
            let message = "int8 is for inference (eval, predict, embed, bench infer): it has no gradients; train in f32 or \
                           bf16, and use the trained model in int8";
            return Err(Error::argument(name, message));
        }
        Ok(())
    }

    /// Reads the value of `--precision`; `auto` takes bf16 where `isa` multiplies it faster than f32, and never int8, which
    /// costs accuracy.
    ///
    /// # Errors
    /// A name that is none of [`Precision::NAMES`].
    pub fn parse(name: &str, isa: Isa) -> Result<Precision> {
        Ok(match name {
            "auto" if isa == Isa::Avx512Bf16 => Precision::Bf16,
            "auto" | "f32" => Precision::F32,
            "tf32" => Precision::Tf32,
            "bf16" => Precision::Bf16,
            "f16" => Precision::F16,
            "int8" => Precision::Int8,
            _ => {
                let message = format!("'{name}' is none of {}", Self::NAMES.join(", "));
                return Err(Error::argument("--precision", message));
            }
        })
    }
}

/// Defines `fn name(isa: Isa, arguments…) -> result`, compiled once for each instruction set.
macro_rules! simd_kernel {
    ($(#[$meta:meta])* $visibility:vis fn $name:ident($($argument:ident: $type:ty),* $(,)?) $(-> $result:ty)? $body:block) => {
        $(#[$meta])*
        $visibility fn $name(isa: $crate::device::cpu::simd::Isa, $($argument: $type),*) $(-> $result)? {
            #[inline(always)]
            fn body($($argument: $type),*) $(-> $result)? $body

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma")]
            fn avx2($($argument: $type),*) $(-> $result)? { body($($argument),*) }

            #[cfg(target_arch = "x86_64")]
            #[target_feature(enable = "avx2,fma,avx512f,avx512vl,avx512bw,avx512dq")]
            fn avx512($($argument: $type),*) $(-> $result)? { body($($argument),*) }

            match isa {
                // SAFETY: an `Isa` above `Portable` only comes from `Isa::detect` or `Isa::from_environment`, which
                // have asked the processor for these features.
                #[cfg(target_arch = "x86_64")]
                $crate::device::cpu::simd::Isa::Avx512 | $crate::device::cpu::simd::Isa::Avx512Bf16 => unsafe {
                    avx512($($argument),*)
                },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::device::cpu::simd::Isa::Avx2 => unsafe { avx2($($argument),*) },
                _ => body($($argument),*),
            }
        }
    };
}
pub(crate) use simd_kernel;
