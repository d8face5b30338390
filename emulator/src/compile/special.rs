//! Special registers.

use super::decode::Decoder;
use super::{Result, blank};
use crate::counters::Class;
use crate::isa::{self, Ins, exec};
use crate::program::{Bank, Special};

/// A special register that stands still while a warp runs. Every block is a cluster of its own.
pub(super) fn register(name: &str) -> Option<Special> {
    if let Some((base, dimension)) = name.split_once('.') {
        let axis = match dimension {
            "x" => 0,
            "y" => 1,
            "z" => 2,
            _ => return None,
        };
        return Some(match base {
            "%tid" => Special::Tid(axis),
            "%ntid" => Special::Ntid(axis),
            "%ctaid" | "%clusterid" => Special::Ctaid(axis),
            "%nctaid" | "%nclusterid" => Special::Nctaid(axis),
            "%cluster_ctaid" => Special::Bits(0),
            "%cluster_nctaid" => Special::Bits(1),
            _ => return None,
        });
    }
    Some(match name {
        "%laneid" => Special::LaneId,
        "%warpid" => Special::WarpId,
        "%nwarpid" => Special::NumWarps,
        "%smid" => Special::SmId,
        "%nsmid" => Special::NumSm,
        "%gridid" => Special::GridId,
        "%lanemask_eq" => Special::LaneMaskEq,
        "%lanemask_lt" => Special::LaneMaskLt,
        "%lanemask_le" => Special::LaneMaskLe,
        "%lanemask_gt" => Special::LaneMaskGt,
        "%lanemask_ge" => Special::LaneMaskGe,
        "%dynamic_smem_size" => Special::DynamicShared,
        "%total_smem_size" | "%aggr_smem_size" => Special::TotalShared,
        "%cluster_nctarank" => Special::Bits(1),
        // No cluster was asked for, no graph runs, nothing is reserved, no counter counts, no environment is given.
        "%cluster_ctarank"
        | "%is_explicit_cluster"
        | "%current_graph_exec"
        | "%reserved_smem_offset_begin"
        | "%reserved_smem_offset_end"
        | "%reserved_smem_offset_cap"
        | "%reserved_smem_offset_0"
        | "%reserved_smem_offset_1" => Special::Bits(0),
        _ => {
            let (number, most) = match name.strip_prefix("%envreg") {
                Some(number) => (number, 31),
                None => (name.strip_prefix("%pm")?.trim_end_matches("_64"), 7),
            };
            (number.parse::<u32>().ok()? <= most).then_some(Special::Bits(0))?
        }
    })
}

/// The elements of a special register that is a vector.
pub(crate) fn vector(name: &str) -> Option<[Special; 4]> {
    let element = |axis: &str| register(&format!("{name}.{axis}"));
    Some([element("x")?, element("y")?, element("z")?, Special::Bits(0)])
}

impl Decoder<'_, '_> {
    /// Clocks are read when asked: an instruction of their own before this one.
    pub(super) fn clock(&mut self, name: &str, bank: Bank) -> Result<Option<u16>> {
        let which = match name {
            "%clock" | "%clock64" => 0,
            "%clock_hi" => 1,
            "%globaltimer" | "%globaltimer_lo" => 2,
            "%globaltimer_hi" => 3,
            _ => return Ok(None),
        };
        let d = self.fresh(64)?;
        self.c.push(Ins { exec: isa::control::clock, flags: which, d, class: Class::Special, ..blank() });
        if bank == Bank::R64 {
            return Ok(Some(d));
        }
        let low = self.fresh(32)?;
        self.c.push(Ins { exec: exec!(|a: u64| a as u32), d: low, a: d, ..blank() });
        Ok(Some(low))
    }
}
