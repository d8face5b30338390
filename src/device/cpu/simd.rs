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
}

impl Isa {
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
                return Isa::Avx512;
            }
            if avx2 {
                return Isa::Avx2;
            }
        }
        Isa::Portable
    }

    /// The one that `MANYHEAD_ISA` names (`portable`, `avx2`, `avx512`), or the best one.
    ///
    /// # Errors
    /// An unknown name, or one that this machine lacks.
    pub fn from_environment() -> Result<Isa> {
        let best = Isa::detect();
        let Some(name) = std::env::var_os("MANYHEAD_ISA").filter(|name| !name.is_empty()) else {
            return Ok(best);
        };
        let wanted = match name.to_string_lossy().as_ref() {
            "portable" => Isa::Portable,
            "avx2" => Isa::Avx2,
            "avx512" => Isa::Avx512,
            "avx512bf16" => return Err(Error::unsupported("MANYHEAD_ISA=avx512bf16", "use portable, avx2 or avx512")),
            other => {
                return Err(Error::argument("MANYHEAD_ISA", format!("'{other}' is none of portable, avx2, avx512")));
            }
        };
        if wanted > best {
            return Err(Error::argument(
                "MANYHEAD_ISA",
                format!("this machine has no {wanted:?}; its best is {best:?}"),
            ));
        }
        Ok(wanted)
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
                $crate::device::cpu::simd::Isa::Avx512 => unsafe { avx512($($argument),*) },
                // SAFETY: as above.
                #[cfg(target_arch = "x86_64")]
                $crate::device::cpu::simd::Isa::Avx2 => unsafe { avx2($($argument),*) },
                _ => body($($argument),*),
            }
        }
    };
}
pub(crate) use simd_kernel;
