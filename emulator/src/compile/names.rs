//! What names mean inside a function: registers by width, variables by place. Registers get an index when first used.

use crate::program::{Bank, FramePlace, Special};
use std::collections::HashMap;

/// A register that a frame fills: bank, index, value.
pub(crate) type Filled = (Bank, u16, Special);

/// What a name that is no register stands for.
#[derive(Clone, Debug)]
pub(crate) enum Symbol {
    Variable(u32),
    Function(u32),
    Shared(u32),
    ExternShared,
    Frame(FramePlace),
    KernelParam(u32),
}

/// A register: where it is and how many bits it was declared with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Register {
    pub bank: Bank,
    pub bits: u32,
    pub index: u16,
}

#[derive(Default)]
struct Scope<'a> {
    number: u32,
    registers: HashMap<&'a str, u32>,
    /// Ranges by the name before the digits: bits and count.
    ranges: HashMap<&'a str, (u32, u32)>,
    /// Vector registers by name, or by the name before the digits: bits, elements, count.
    vectors: HashMap<&'a str, (u32, u32, Option<u32>)>,
    used: HashMap<String, Register>,
    symbols: HashMap<&'a str, Symbol>,
}

/// Names of a module and of the function at hand.
#[derive(Default)]
pub(crate) struct Names<'a> {
    pub module: HashMap<&'a str, Symbol>,
    scopes: Vec<Scope<'a>>,
    opened: u32,
    counts: [u32; 3],
    filled: Vec<Filled>,
    filled_by: HashMap<(Bank, Special), u16>,
}

/// Bits of a register of a declared type; 1 is a predicate.
fn register_bits(ty: &str) -> u32 {
    match ty {
        "pred" => 1,
        _ => crate::ptx::type_bytes(ty).unwrap_or(4) * 8,
    }
}

impl<'a> Names<'a> {
    /// Starts a function.
    pub fn start(&mut self) {
        self.scopes = vec![Scope::default()];
        self.opened = 0;
        // Predicate 0 is always true.
        self.counts = [1, 0, 0];
        self.filled = vec![(Bank::Pred, 0, Special::Bits(1))];
        self.filled_by.clear();
    }

    pub fn open(&mut self) {
        self.opened += 1;
        self.scopes.push(Scope { number: self.opened, ..Scope::default() });
    }

    pub fn close(&mut self) {
        if self.scopes.len() > 1 {
            self.scopes.pop();
        }
    }

    pub fn scope(&self) -> u32 {
        self.scopes.last().map_or(0, |scope| scope.number)
    }

    pub fn scopes(&self) -> Vec<u32> {
        self.scopes.iter().map(|scope| scope.number).collect()
    }

    pub fn declare(&mut self, ty: &'a str, name: &'a str, count: Option<u32>, vector: u32) {
        let bits = register_bits(ty);
        let Some(scope) = self.scopes.last_mut() else { return };
        if vector > 1 {
            scope.vectors.insert(name, (bits, vector, count));
        } else if let Some(count) = count {
            scope.ranges.insert(name, (bits, count));
        } else {
            scope.registers.insert(name, bits);
        }
    }

    pub fn insert(&mut self, name: &'a str, symbol: Symbol) {
        if let Some(scope) = self.scopes.last_mut() {
            scope.symbols.insert(name, symbol);
        }
    }

    /// A fresh register, or none when there are too many.
    pub fn fresh(&mut self, bits: u32) -> Option<Register> {
        let (bank, place, need) = match bits {
            1 => (Bank::Pred, 0, 1),
            0..=32 => (Bank::R32, 1, 1),
            64 => (Bank::R64, 2, 1),
            _ => (Bank::R64, 2, 2),
        };
        let index = u16::try_from(self.counts[place]).ok()?;
        self.counts[place] += need;
        (self.counts[place] <= u32::from(u16::MAX)).then_some(Register { bank, bits, index })
    }

    /// The register of a name, which may be an element of a vector register; `Some(None)` when there are too many.
    pub fn register(&mut self, name: &str) -> Option<Option<Register>> {
        let (stem, number) = crate::ptx::split_number(name);
        for at in (0..self.scopes.len()).rev() {
            let scope = &self.scopes[at];
            if let Some(register) = scope.used.get(name) {
                return Some(Some(*register));
            }
            let declared = scope.registers.get(name).copied().or_else(|| {
                let (bits, count) = *scope.ranges.get(stem)?;
                (number? < count).then_some(bits)
            });
            if let Some(bits) = declared {
                return Some(self.first_use(at, name.into(), bits));
            }
        }
        let (vector, element) = name.rsplit_once('.')?;
        let element = match element {
            "x" | "r" => 0,
            "y" | "g" => 1,
            "z" | "b" => 2,
            "w" | "a" => 3,
            _ => return None,
        };
        self.component(vector, element)
    }

    /// The register of a vector register's element.
    pub fn component(&mut self, name: &str, element: u32) -> Option<Option<Register>> {
        let (stem, number) = crate::ptx::split_number(name);
        let key = format!("{name}.{element}");
        for at in (0..self.scopes.len()).rev() {
            let scope = &self.scopes[at];
            if let Some(register) = scope.used.get(&key) {
                return Some(Some(*register));
            }
            let declared = match (scope.vectors.get(name), scope.vectors.get(stem)) {
                (Some((bits, elements, None)), _) => Some((*bits, *elements)),
                (_, Some((bits, elements, Some(count)))) if number? < *count => Some((*bits, *elements)),
                _ => None,
            };
            if let Some((bits, elements)) = declared {
                return if element < elements { Some(self.first_use(at, key, bits)) } else { None };
            }
        }
        None
    }

    fn first_use(&mut self, scope: usize, name: String, bits: u32) -> Option<Register> {
        let register = self.fresh(bits)?;
        self.scopes[scope].used.insert(name, register);
        Some(register)
    }

    pub fn symbol(&self, name: &str) -> Option<&Symbol> {
        self.scopes.iter().rev().find_map(|scope| scope.symbols.get(name)).or_else(|| self.module.get(name))
    }

    /// A register that holds a constant or a special value.
    pub fn filled(&mut self, bank: Bank, special: Special) -> Option<u16> {
        if let Some(index) = self.filled_by.get(&(bank, special)) {
            return Some(*index);
        }
        let bits = match bank {
            Bank::Pred => 1,
            Bank::R32 => 32,
            Bank::R64 => 64,
        };
        let index = self.fresh(bits)?.index;
        self.filled.push((bank, index, special));
        self.filled_by.insert((bank, special), index);
        Some(index)
    }

    /// The filled registers, and how many registers there are of each bank.
    pub fn take_registers(&mut self) -> (Vec<Filled>, (u16, u16, u16)) {
        let counts = (self.counts[0] as u16, self.counts[1] as u16, self.counts[2] as u16);
        (std::mem::take(&mut self.filled), counts)
    }
}
