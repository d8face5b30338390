//! How numbers are stored on a device.

/// How the numbers of a tensor are stored on a CUDA device; on the host they are always f32.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Dtype {
    /// 32 bits.
    #[default]
    F32,
    /// 16 bits, 8 of them the exponent: the range of f32, 8 digits of the mantissa (with the implied one).
    Bf16,
    /// 16 bits, 5 of them the exponent: up to 65,504, 11 digits of the mantissa.
    F16,
}

impl Dtype {
    /// All of them.
    pub const ALL: [Dtype; 3] = [Dtype::F32, Dtype::Bf16, Dtype::F16];

    /// Bytes of a number.
    pub fn bytes(self) -> usize {
        match self {
            Dtype::F32 => 4,
            Dtype::Bf16 | Dtype::F16 => 2,
        }
    }

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Dtype::F32 => "f32",
            Dtype::Bf16 => "bf16",
            Dtype::F16 => "f16",
        }
    }

    /// Half the distance of 1 to the next larger number: the largest relative error of one rounding.
    pub fn rounding(self) -> f64 {
        match self {
            Dtype::F32 => f32::EPSILON as f64 / 2.0,
            Dtype::Bf16 => 2f64.powi(-8),
            Dtype::F16 => 2f64.powi(-11),
        }
    }
}
