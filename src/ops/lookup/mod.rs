//! Embedding lookup: y[t] = table[ids[t]]; ids may repeat.
//!
//! table `[entries, width]`, y `[tokens, width]`. Gradient: dtable[i] = Σ_{t: ids[t] = i} dy[t], added up in the
//! order of the tokens.

pub(in crate::ops) mod cpu;
pub(in crate::ops) mod cuda;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use crate::device::Device;
use crate::error::{Error, Result};
use crate::tape::{Backward, Forward, Op, Role, Tape, Var};
use crate::tensor::Tensor;

struct Lookup {
    ids: Arc<[u32]>,
}

/// Rows `ids` of `table`.
///
/// # Errors
/// An id beyond the table.
pub fn lookup(tape: &mut Tape<'_>, table: Var, ids: &Arc<[u32]>) -> Result<Var> {
    tape.apply(Lookup { ids: ids.clone() }, &[table])
}

/// Checks that every id is a row of a table with so many `entries`.
pub(in crate::ops) fn check_ids(op: &'static str, what: &str, ids: &[u32], entries: usize) -> Result<()> {
    match ids.iter().position(|id| *id as usize >= entries) {
        None => Ok(()),
        Some(token) => {
            let message = format!("{what} {} of token {token} is beyond the table of {entries}", ids[token]);
            Err(Error::shape(op, message))
        }
    }
}

impl Op for Lookup {
    fn name(&self) -> &'static str {
        "lookup"
    }

    fn role(&self, _i: usize) -> Role {
        Role::Vector
    }

    fn forward(&self, ctx: &mut Forward<'_>) -> Result<Tensor> {
        let table = ctx.input(0);
        let (entries, width) = table.matrix();
        check_ids("lookup", "id", &self.ids, entries)?;
        let mut y = ctx.take([self.ids.len(), width])?;
        match ctx.device {
            Device::Cpu(cpu) => cpu::gather(cpu, width, table.data, &self.ids, y.data_mut()),
            Device::Cuda(cuda) => cuda::gather(cuda, width, table.span, &self.ids, y.on_mut(cuda)?)?,
        }
        Ok(y)
    }

    fn backward(&self, ctx: &mut Backward<'_>) -> Result<()> {
        let width = ctx.input(0).shape.width();
        match ctx.device {
            Device::Cpu(cpu) => {
                let upstream = ctx.upstream;
                ctx.scatter(0, |slot, rows| cpu::scatter_add(cpu, width, &self.ids, upstream, slot, rows));
            }
            Device::Cuda(cuda) => {
                if let Some(mut slot) = ctx.slot(0) {
                    cuda::scatter_add(cuda, width, &self.ids, ctx.upstream_span, &mut slot)?;
                }
            }
        }
        Ok(())
    }
}
