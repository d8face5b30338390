//! Operands of an instruction: registers, numbers, addresses of variables, predicates, and where results go.

use super::decode::{Address, Decoder};
use super::names::{Register, Symbol};
use super::{Result, blank};
use crate::isa::spread::Spread;
use crate::isa::types::Ty;
use crate::isa::{self, Ins, exec};
use crate::program::{Bank, Special};
use crate::ptx::ast::Operand;

impl<'a> Decoder<'_, 'a> {
    /// An immediate's bits in a type.
    fn literal(&self, operand: &Operand, ty: Ty) -> Option<u64> {
        Some(match (operand, ty) {
            (Operand::Int(value), Ty::F32) => u64::from((*value as i64 as f32).to_bits()),
            (Operand::Int(value), Ty::F64) => (*value as i64 as f64).to_bits(),
            (Operand::Int(value), _) => match ty.bits() {
                8 => *value & 0xff,
                16 => *value & 0xffff,
                32 => *value & 0xffff_ffff,
                _ => *value,
            },
            (Operand::F32(bits), Ty::F64) => f64::from(f32::from_bits(*bits)).to_bits(),
            (Operand::F32(bits), _) => u64::from(*bits),
            (Operand::F64(bits), Ty::F32) => u64::from((f64::from_bits(*bits) as f32).to_bits()),
            (Operand::F64(bits), Ty::F64 | Ty::B64) => *bits,
            _ => return None,
        })
    }

    /// An immediate integer.
    pub fn integer(&self, k: usize) -> Result<u64> {
        match self.operand(k)? {
            Operand::Int(value) => Ok(*value),
            _ => self.error(format!("operand {} must be an integer constant", k + 1)),
        }
    }

    /// Operand `k` as a source of a type.
    pub fn source(&mut self, k: usize, ty: Ty) -> Result<u16> {
        let operand = self.operand(k)?;
        self.source_of(operand, ty)
    }

    pub fn source_of(&mut self, operand: &Operand<'a>, ty: Ty) -> Result<u16> {
        let bank = if ty.bits() <= 32 { Bank::R32 } else { Bank::R64 };
        match operand {
            Operand::Name { name, negated: false } => {
                if *name == "WARP_SZ" {
                    return self.filled(bank, Special::Bits(32));
                }
                // Filled registers take their value modulo their width, so either width is right.
                if let Some(special) = super::special::register(name) {
                    return self.filled(bank, special);
                }
                if let Some(index) = self.clock(name, bank)? {
                    return Ok(index);
                }
                match self.c.names.register(name) {
                    Some(Some(register)) => self.narrowed(register, bank, ty),
                    Some(None) => self.too_many(),
                    None => self.symbol_address(name, 0, bank),
                }
            }
            Operand::Component(name, element) => {
                let register = self.component(name, *element)?;
                self.narrowed(register, bank, ty)
            }
            Operand::Offset(name, offset) => self.symbol_address(name, *offset, bank),
            _ => match self.literal(operand, ty) {
                Some(bits) => self.filled(bank, Special::Bits(bits)),
                None => self.error("an operand that does not fit the type"),
            },
        }
    }

    fn narrowed(&mut self, register: Register, bank: Bank, ty: Ty) -> Result<u16> {
        match (register.bank, bank) {
            (has, wants) if has == wants => {
                if ty.bits() > register.bits && !(ty.bits() <= 16 || register.bits == 8) {
                    return self.error(format!("a register of {} bits where {} are needed", register.bits, ty.bits()));
                }
                Ok(register.index)
            }
            (Bank::R64, Bank::R32) => {
                let d = self.fresh(32)?;
                let spread = Spread::Bits(1);
                let ins = Ins { exec: exec!(|a: u64| a as u32), d, a: register.index, spread, ..blank() };
                self.c.push(ins);
                Ok(d)
            }
            (Bank::Pred, _) => self.error("a predicate where a value is needed"),
            _ => self.error(format!("a register of {} bits where {} are needed", register.bits, ty.bits())),
        }
    }

    fn symbol_address(&mut self, name: &str, offset: i64, bank: Bank) -> Result<u16> {
        let special = match self.c.names.symbol(name) {
            Some(Symbol::Variable(number)) => Special::Variable(*number, offset),
            Some(Symbol::Function(number)) => Special::FunctionAddress(*number),
            Some(Symbol::Shared(place)) => Special::Bits((i64::from(*place) + offset) as u64),
            Some(Symbol::KernelParam(place)) => Special::Bits((i64::from(*place) + offset) as u64),
            Some(Symbol::Frame(place)) => Special::Frame((i64::from(place.offset) + offset) as u32),
            Some(Symbol::ExternShared) if offset == 0 => Special::ExternShared,
            Some(Symbol::ExternShared) => {
                let (a, b, d) =
                    (self.filled(Bank::R32, Special::ExternShared)?, self.constant32(offset as u32)?, self.fresh(32)?);
                self.c.push(Ins { exec: exec!(|a: u32, b: u32| a.wrapping_add(b)), a, b, d, ..blank() });
                if bank == Bank::R32 {
                    return Ok(d);
                }
                let wide = self.fresh(64)?;
                self.c.push(Ins { exec: exec!(|a: u32| u64::from(a)), a: d, d: wide, ..blank() });
                return Ok(wide);
            }
            None => return self.error(format!("'{name}' is not declared")),
        };
        self.filled(bank, special)
    }

    /// Declared bits of the register that operand `k` names; none for anything else.
    pub fn declared_bits(&mut self, k: usize) -> Option<u32> {
        let Some(Operand::Name { name, .. }) = self.text.operands.get(k) else { return None };
        self.c.names.register(name).flatten().map(|register| register.bits)
    }

    /// Operand `k` as a predicate, negated or not; constants stand for themselves.
    pub fn predicate(&mut self, k: usize) -> Result<u16> {
        let operand = self.operand(k)?;
        self.predicate_of(operand)
    }

    pub fn predicate_of(&mut self, operand: &Operand<'a>) -> Result<u16> {
        match operand {
            Operand::Name { name, negated } => {
                if let Some(special) = super::special::register(name) {
                    return self.filled(Bank::Pred, special);
                }
                let register = self.register(name)?;
                if register.bank != Bank::Pred {
                    return self.error(format!("'{name}' is not a predicate"));
                }
                if !negated {
                    return Ok(register.index);
                }
                let d = self.fresh(1)?;
                self.c.push(Ins { exec: isa::moves::not_pred, d, a: register.index, ..blank() });
                Ok(d)
            }
            Operand::Int(value) => self.filled(Bank::Pred, Special::Bits(u64::from(*value != 0))),
            _ => self.error("an operand that is no predicate"),
        }
    }

    /// Operand `k` as a destination of a type: its register, or a stand-in that is widened afterwards.
    pub fn dest(&mut self, k: usize, ty: Ty) -> Result<u16> {
        let operand = self.operand(k)?;
        self.dest_of(operand, ty)
    }

    pub fn dest_of(&mut self, operand: &Operand<'a>, ty: Ty) -> Result<u16> {
        let bank = if ty.bits() <= 32 { Bank::R32 } else { Bank::R64 };
        match operand {
            Operand::Sink => self.fresh(ty.bits()),
            Operand::Component(name, element) => {
                let register = self.component(name, *element)?;
                self.dest_register(register, bank, ty)
            }
            Operand::Name { name, negated: false } => {
                let register = self.register(name)?;
                self.dest_register(register, bank, ty)
            }
            _ => self.error("a destination that is no register"),
        }
    }

    fn dest_register(&mut self, register: Register, bank: Bank, ty: Ty) -> Result<u16> {
        match (bank, register.bank) {
            (wants, has) if wants == has => {
                if ty.bits() > register.bits && ty.bits() > 16 {
                    return self.error(format!("a destination of {} bits for a value of {}", register.bits, ty.bits()));
                }
                Ok(register.index)
            }
            (Bank::R32, Bank::R64) => {
                let low = self.fresh(32)?;
                let exec = match ty.signed() {
                    true => exec!(|a: u32| a as i32 as i64 as u64),
                    false => exec!(|a: u32| u64::from(a)),
                };
                self.after.push(Ins { exec, d: register.index, a: low, spread: Spread::Bits(1), ..blank() });
                Ok(low)
            }
            _ => self.error(format!("a destination of {} bits for a value of {}", register.bits, ty.bits())),
        }
    }

    pub fn dest_pred(&mut self, operand: &Operand<'a>) -> Result<u16> {
        match operand {
            Operand::Sink => self.fresh(1),
            Operand::Name { name, negated: false } => {
                let register = self.register(name)?;
                if register.bank == Bank::Pred {
                    return Ok(register.index);
                }
                self.error(format!("'{name}' is not a predicate"))
            }
            _ => self.error("a destination that is no predicate"),
        }
    }

    /// The address that operand `k` names in brackets.
    pub fn address(&mut self, k: usize) -> Result<Address> {
        let Operand::Memory { base, offset } = self.operand(k)? else {
            return self.error(format!("operand {} must be an address in brackets", k + 1));
        };
        let offset = *offset;
        let Some(name) = base else {
            let base = self.constant64(0)?;
            return Ok(Address { base, wide: true, offset, kernel_param: false, frame: false });
        };
        let of = |base, wide| Address { base, wide, offset, kernel_param: false, frame: false };
        match self.c.names.register(name) {
            Some(Some(Register { bank: Bank::R64, index, .. })) => Ok(of(index, true)),
            Some(Some(Register { bank: Bank::R32, index, .. })) => Ok(of(index, false)),
            Some(Some(_)) => self.error(format!("'{name}' is no address")),
            Some(None) => self.too_many(),
            None => match self.c.names.symbol(name) {
                Some(Symbol::KernelParam(place)) => {
                    let offset = offset + i64::from(*place);
                    Ok(Address { base: 0, wide: true, offset, kernel_param: true, frame: false })
                }
                Some(Symbol::Frame(_)) => {
                    let base = self.symbol_address(name, 0, Bank::R64)?;
                    Ok(Address { frame: true, ..of(base, true) })
                }
                _ => {
                    let base = self.symbol_address(name, 0, Bank::R64)?;
                    Ok(of(base, true))
                }
            },
        }
    }
}
