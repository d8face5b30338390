//! One instruction: its modifiers are taken one by one (what is left over is refused by name), its operands become
//! register indices.

use super::names::Register;
use super::{Compiler, Result, blank};
use crate::counters::Class;
use crate::error::ParseError;
use crate::isa::spread::Spread;
use crate::isa::types::{Round, Ty};
use crate::isa::{self, Ins};
use crate::program::{Bank, Special};
use crate::ptx::ast::{Instruction, Operand};

pub(crate) struct Decoder<'c, 'a> {
    pub c: &'c mut Compiler<'a>,
    pub(super) text: &'c Instruction<'a>,
    /// The opcode up to its first dot.
    pub op: &'a str,
    mods: Vec<&'a str>,
    /// The type suffixes, in order.
    pub types: Vec<Ty>,
    guard: u16,
    flip: u32,
    pub(super) after: Vec<Ins>,
    /// What undefined bits do in what this text becomes.
    spread: Spread,
    /// The number of an instruction that lets values out of the registers.
    effect: Option<u16>,
}

/// An address operand.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Address {
    pub base: u16,
    /// The base is a 64-bit register.
    pub wide: bool,
    pub offset: i64,
    /// A parameter of the kernel: the offset is into the parameter buffer, the base is nothing.
    pub kernel_param: bool,
    /// The name of a variable in the thread's frame.
    pub frame: bool,
}

/// Flag of an instruction whose address register has 64 bits.
pub(crate) const WIDE: u16 = 0x8000;

impl<'c, 'a> Decoder<'c, 'a> {
    /// Decodes and appends one instruction. One that only later chips have is refused with the first that does: it is
    /// tried for them, which does no harm since nothing is made of a module with an error.
    pub fn decode(c: &'c mut Compiler<'a>, text: &'c Instruction<'a>) -> Result<()> {
        let target = c.program.target;
        let Err(error) = Decoder::decode_for_target(c, text) else { return Ok(()) };
        for later in [86, 89, 90].into_iter().filter(|later| error.unsupported && *later > target) {
            c.program.target = later;
            if Decoder::decode_for_target(c, text).is_ok() {
                let note = format!(
                    "'{}' needs sm_{later} and the module is for sm_{target}: compile it for compute_90, and set SOFTWARE_GPU_ARCH=90",
                    text.opcode
                );
                return Err(ParseError::unsupported(text.line, note));
            }
        }
        Err(error)
    }

    fn decode_for_target(c: &mut Compiler<'a>, text: &Instruction<'a>) -> Result<()> {
        let mut parts = text.opcode.split('.');
        let op = parts.next().unwrap_or("");
        let (mut mods, mut types) = (Vec::new(), Vec::new());
        for part in parts {
            match Ty::parse(part) {
                Some(ty) => types.push(ty),
                None => mods.push(part),
            }
        }
        let (spread, after, effect) = (Spread::of(op, &types, &mods), Vec::new(), None);
        let mut decoder = Decoder { c, text, op, mods, types, guard: 0, flip: 0, after, spread, effect };
        let start = decoder.c.program.code.len() as u32;
        if let Some((name, negated)) = text.guard {
            let register = decoder.register(name)?;
            if register.bank != Bank::Pred {
                return decoder.error(format!("the guard '{name}' is not a predicate"));
            }
            decoder.guard = register.index;
            decoder.flip = if negated { u32::MAX } else { 0 };
        }
        if decoder.c.program.target < isa::first_target(op, |part| text.opcode.split('.').any(|m| m == part)) {
            return decoder.refuse();
        }
        // Some types are for elements of matrices and of packed numbers only.
        if decoder.types.iter().any(|ty| ty.element_only()) && op != "mma" && !decoder.has("pack") {
            return decoder.refuse();
        }
        let mut known = false;
        for decode in isa::decoders(op) {
            known = decode(&mut decoder)?;
            if known {
                break;
            }
        }
        if !known || !decoder.mods.is_empty() {
            return decoder.refuse();
        }
        for mut ins in std::mem::take(&mut decoder.after) {
            ins.guard = decoder.guard;
            ins.flip = decoder.flip;
            decoder.c.push(ins);
        }
        // An instruction of the text counts once, as what it is and not as what moves its operands about.
        let parts = &mut decoder.c.program.code[start as usize..];
        let main = parts.iter().rposition(|ins| ins.class != Class::Move).unwrap_or(parts.len().saturating_sub(1));
        parts.iter_mut().enumerate().for_each(|(at, ins)| ins.counted = u8::from(at == main));
        let (effect, function) = (decoder.effect, decoder.c.function);
        let Compiler { program, names, .. } = decoder.c;
        program.dataflow.note(start, function, text, effect, |name| names.register(name).flatten());
        Ok(())
    }

    /// Counts the instruction among those that let values out of the registers.
    pub fn effect(&mut self) -> u16 {
        let number = self.c.program.dataflow.new_effect();
        self.effect = Some(number);
        number
    }

    pub fn error<T>(&self, message: impl Into<String>) -> Result<T> {
        Err(ParseError::new(self.text.line, format!("{}: {}", self.text.opcode, message.into())))
    }

    /// Refuses the instruction by its name.
    pub fn refuse<T>(&self) -> Result<T> {
        let opcode = self.text.opcode;
        let why = isa::absent(opcode).map_or(String::new(), |why| format!(": {why}"));
        Err(ParseError::unsupported(self.text.line, format!("instruction '{opcode}' is not supported{why}")))
    }

    // Modifiers.

    /// Takes a modifier if it is there.
    pub fn take(&mut self, name: &str) -> bool {
        match self.mods.iter().position(|m| *m == name) {
            Some(at) => {
                self.mods.remove(at);
                true
            }
            None => false,
        }
    }

    /// Whether a modifier is there, without taking it.
    pub fn has(&self, name: &str) -> bool {
        self.mods.contains(&name)
    }

    /// Takes the first of these modifiers that is there.
    pub fn take_any(&mut self, names: &[&'static str]) -> Option<&'static str> {
        names.iter().find(|name| self.take(name)).copied()
    }

    /// Takes the layouts of matrices, in order.
    pub fn take_layouts(&mut self) -> Vec<&'a str> {
        let (layouts, others) = self.mods.iter().partition(|m| matches!(**m, "row" | "col"));
        self.mods = others;
        layouts
    }

    /// Takes all modifiers that a condition holds for.
    pub fn take_if(&mut self, condition: impl Fn(&str) -> bool) {
        self.mods.retain(|m| !condition(m));
    }

    pub fn rounding(&mut self) -> Option<Round> {
        match self.take_any(&["rn", "rz", "rm", "rp"])? {
            "rn" => Some(Round::Nearest),
            "rz" => Some(Round::Zero),
            "rm" => Some(Round::Down),
            _ => Some(Round::Up),
        }
    }

    /// The one type suffix.
    pub fn ty(&self) -> Result<Ty> {
        match self.types.first() {
            Some(ty) => Ok(*ty),
            None => self.refuse(),
        }
    }

    // Operands.

    pub fn count(&self) -> usize {
        self.text.operands.len()
    }

    pub fn operand(&self, k: usize) -> Result<&'c Operand<'a>> {
        let text = self.text;
        match text.operands.get(k) {
            Some(operand) => Ok(operand),
            None => self.error(format!("operand {} is missing", k + 1)),
        }
    }

    /// Checks the number of operands.
    pub fn expect(&self, least: usize, most: usize) -> Result<()> {
        if (least..=most).contains(&self.count()) {
            Ok(())
        } else {
            self.error(format!("{} operands where {least} to {most} are needed", self.count()))
        }
    }

    pub(super) fn too_many<T>(&self) -> Result<T> {
        self.error("the function uses more than 65,535 registers")
    }

    pub fn register(&mut self, name: &str) -> Result<Register> {
        match self.c.names.register(name) {
            Some(Some(register)) => Ok(register),
            Some(None) => self.too_many(),
            None => self.error(format!("'{name}' is not declared")),
        }
    }

    pub(super) fn component(&mut self, name: &str, element: u32) -> Result<Register> {
        match self.c.names.component(name, element) {
            Some(Some(register)) => Ok(register),
            Some(None) => self.too_many(),
            None => self.error(format!("'{name}' has no element {element}")),
        }
    }

    pub fn fresh(&mut self, bits: u32) -> Result<u16> {
        match self.c.names.fresh(bits) {
            Some(register) => Ok(register.index),
            None => self.too_many(),
        }
    }

    pub fn filled(&mut self, bank: Bank, special: Special) -> Result<u16> {
        match self.c.names.filled(bank, special) {
            Some(index) => Ok(index),
            None => self.too_many(),
        }
    }

    pub fn constant32(&mut self, value: u32) -> Result<u16> {
        self.filled(Bank::R32, Special::Bits(u64::from(value)))
    }

    pub fn constant64(&mut self, value: u64) -> Result<u16> {
        self.filled(Bank::R64, Special::Bits(value))
    }

    /// Starts a list of register indices.
    pub fn list(&mut self, indices: &[u16]) -> u32 {
        let start = self.c.program.lists.len() as u32;
        self.c.program.lists.extend_from_slice(indices);
        start
    }

    /// Appends the instruction under the guard.
    pub fn emit(&mut self, ins: Ins) -> usize {
        self.c.push(Ins { guard: self.guard, flip: self.flip, spread: self.spread, ..ins })
    }

    /// Appends a part of the instruction that has its own way with undefined bits.
    pub fn emit_part(&mut self, ins: Ins, spread: Spread) -> usize {
        self.c.push(Ins { guard: self.guard, flip: self.flip, spread, ..ins })
    }

    /// `ret` under the guard.
    pub fn emit_return(&mut self) -> Result<()> {
        self.c.emit_return(self.guard, self.flip)
    }

    /// `d, a` of one type.
    pub fn unary(&mut self, ty: Ty, class: Class, exec: crate::isa::Exec) -> Result<bool> {
        self.expect(2, 2)?;
        let a = self.source(1, ty)?;
        let d = self.dest(0, ty)?;
        self.emit(Ins { exec, class, d, a, ..blank() });
        Ok(true)
    }

    /// `d, a, b` of one type.
    pub fn binary(&mut self, ty: Ty, class: Class, exec: crate::isa::Exec) -> Result<bool> {
        self.expect(3, 3)?;
        let (a, b) = (self.source(1, ty)?, self.source(2, ty)?);
        let d = self.dest(0, ty)?;
        self.emit(Ins { exec, class, d, a, b, ..blank() });
        Ok(true)
    }

    /// `d, a, b, c` of one type.
    pub fn ternary(&mut self, ty: Ty, class: Class, exec: crate::isa::Exec) -> Result<bool> {
        self.expect(4, 4)?;
        let (a, b, c) = (self.source(1, ty)?, self.source(2, ty)?, self.source(3, ty)?);
        let d = self.dest(0, ty)?;
        self.emit(Ins { exec, class, d, a, b, c, ..blank() });
        Ok(true)
    }

    /// The operands with types of their own: destination first.
    pub fn mixed(&mut self, d: Ty, sources: &[Ty], class: Class, exec: crate::isa::Exec) -> Result<bool> {
        self.expect(1 + sources.len(), 1 + sources.len())?;
        let mut at = [0; 4];
        for (k, ty) in sources.iter().enumerate() {
            at[k] = self.source(k + 1, *ty)?;
        }
        let d = self.dest(0, d)?;
        self.emit(Ins { exec, class, d, a: at[0], b: at[1], c: at[2], e: at[3], ..blank() });
        Ok(true)
    }
}
