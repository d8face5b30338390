//! Device memory: allocations at distinct addresses with gaps between them, each with its shadow (which bytes were
//! ever written, who touched which word last).

use crate::bytes::Bytes;
use crate::error::Error;
use crate::race::GlobalShadow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

/// The lowest address handed out: beyond 32 bits, so that a truncation shows, and below where systems map host memory, so
/// that the two are never mistaken for each other.
const FIRST_ADDRESS: u64 = 0x0a00_0000_0000;
/// Bytes between two allocations that belong to neither.
const GAP: u64 = 4096;
/// How many freed allocations stay known.
const REMEMBERED: usize = 1 << 20;

/// One allocation with its shadows.
pub(crate) struct Allocation {
    pub address: u64,
    pub bytes: u64,
    /// The variable's name for memory of a module.
    pub name: Option<String>,
    pub data: Bytes,
    /// One byte per byte: 1 where something was written.
    written: OnceLock<Option<Bytes>>,
    /// Every byte was written: the shadow need not be asked.
    pub all_written: AtomicBool,
    /// Every byte below was written: what [`Allocation::settle`] found, so that it looks at each byte once.
    prefix: AtomicU64,
    race: OnceLock<Option<GlobalShadow>>,
}

impl Allocation {
    /// The written-shadow; none when the host has no memory for it (then everything counts as written).
    #[inline]
    pub fn written(&self) -> Option<&Bytes> {
        self.written.get_or_init(|| Bytes::zeroed(self.bytes as usize)).as_ref()
    }

    /// The race shadow, made when first asked for.
    #[inline]
    pub fn race(&self) -> Option<&GlobalShadow> {
        self.race.get_or_init(|| GlobalShadow::new(self.bytes)).as_ref()
    }

    /// Marks bytes as written.
    pub fn mark(&self, offset: u64, bytes: u64) {
        if self.all_written.load(Ordering::Relaxed) {
            return;
        }
        if offset == 0 && bytes == self.bytes {
            self.all_written.store(true, Ordering::Relaxed);
        } else if let Some(shadow) = self.written() {
            shadow.set(offset as usize, bytes as usize, 1);
        }
    }

    /// Takes over which bytes were written from a range of another shadow.
    fn mark_as(&self, offset: u64, written: &[u8]) {
        let Some(shadow) = self.written() else { return };
        if self.all_written.swap(false, Ordering::Relaxed) {
            // The shadow was not kept up to date while nobody needed it.
            shadow.set(0, self.bytes as usize, 1);
        }
        self.prefix.fetch_min(offset, Ordering::Relaxed);
        shadow.write(offset as usize, written);
    }

    /// Looks whether every byte is written by now, so that loads can be fast.
    pub fn settle(&self) {
        if self.all_written.load(Ordering::Relaxed) {
            return;
        }
        let Some(Some(shadow)) = self.written.get() else { return };
        let end = self.bytes as usize;
        let mut at = self.prefix.load(Ordering::Relaxed) as usize;
        while at < end {
            if at.is_multiple_of(8) && end - at >= 8 && shadow.load64(at) == 0x0101_0101_0101_0101 {
                at += 8;
            } else if shadow.load8(at) == 1 {
                at += 1;
            } else {
                break;
            }
        }
        self.prefix.store(at as u64, Ordering::Relaxed);
        if at == end {
            self.all_written.store(true, Ordering::Relaxed);
        }
    }

    /// Name or address and size, for reports.
    pub fn describe(&self) -> String {
        match &self.name {
            Some(name) => format!("{name} ({} bytes at {:#x})", self.bytes, self.address),
            None => format!("{:#x} of {} bytes", self.address, self.bytes),
        }
    }
}

#[derive(Default)]
struct Table {
    living: BTreeMap<u64, Arc<Allocation>>,
    freed: BTreeMap<u64, u64>,
    next: u64,
    used: u64,
    /// The living ones as the last launch got them, while none has come or gone since.
    list: Option<Arc<[Arc<Allocation>]>>,
}

/// What is known about an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Inside a living allocation.
    Living { address: u64, bytes: u64 },
    /// Inside an allocation that was freed.
    Freed { address: u64, bytes: u64 },
    /// Outside; the allocation below it, if any.
    Nowhere { below: Option<(u64, u64)> },
}

/// The memory of one device. Every method takes `&self` and may be called from any thread.
pub struct Memory {
    table: Mutex<Table>,
    total: u64,
    /// Counts launches, so that race shadows of earlier launches are known to be stale.
    launches: AtomicU64,
}

impl Memory {
    /// A device with `total` bytes. Nothing is reserved on the host before it is allocated.
    pub fn new(total: u64) -> Memory {
        Memory {
            table: Mutex::new(Table { next: FIRST_ADDRESS, ..Table::default() }),
            total,
            launches: AtomicU64::new(0),
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(|poisoned| poisoned.into_inner())
    }

    /// A new allocation, uninitialised, at an address that is a multiple of 256 and was never used before.
    pub fn alloc(&self, bytes: u64) -> Result<u64, Error> {
        self.alloc_named(bytes, None)
    }

    pub(crate) fn alloc_named(&self, bytes: u64, name: Option<String>) -> Result<u64, Error> {
        if bytes == 0 {
            return Err(Error::EmptyAllocation);
        }
        let mut table = self.table();
        let free = self.total - table.used;
        if bytes > free {
            return Err(Error::OutOfMemory { asked: bytes, free });
        }
        let data = Bytes::zeroed(bytes as usize).ok_or(Error::OutOfMemory { asked: bytes, free })?;
        let address = table.next;
        table.next = (address + bytes + GAP).next_multiple_of(256);
        table.used += bytes;
        let allocation = Allocation {
            address,
            bytes,
            name,
            data,
            written: OnceLock::new(),
            all_written: AtomicBool::new(false),
            prefix: AtomicU64::new(0),
            race: OnceLock::new(),
        };
        table.living.insert(address, Arc::new(allocation));
        table.list = None;
        Ok(address)
    }

    /// Gives an allocation back. Its address is never handed out again, so that later uses can be told.
    pub fn free(&self, address: u64) -> Result<(), Error> {
        let mut table = self.table();
        match table.living.remove(&address) {
            Some(allocation) => {
                table.list = None;
                table.used -= allocation.bytes;
                table.freed.insert(address, allocation.bytes);
                if table.freed.len() > REMEMBERED {
                    table.freed.pop_first();
                }
                Ok(())
            }
            None if table.freed.contains_key(&address) => Err(Error::DoubleFree { address }),
            None => Err(Error::BadAddress { address, bytes: 0, note: "not the start of an allocation".into() }),
        }
    }

    /// Free and total bytes.
    pub fn info(&self) -> (u64, u64) {
        (self.total - self.table().used, self.total)
    }

    /// Living allocations as (address, bytes), by address; variables of modules are left out.
    pub fn living(&self) -> Vec<(u64, u64)> {
        self.table().living.values().filter(|a| a.name.is_none()).map(|a| (a.address, a.bytes)).collect()
    }

    /// What lies at an address.
    pub fn find(&self, address: u64) -> Place {
        let table = self.table();
        let below = table.living.range(..=address).next_back().map(|(_, a)| (a.address, a.bytes));
        if let Some((start, bytes)) = below
            && address - start < bytes
        {
            return Place::Living { address: start, bytes };
        }
        if let Some((&start, &bytes)) = table.freed.range(..=address).next_back()
            && address - start < bytes
        {
            return Place::Freed { address: start, bytes };
        }
        Place::Nowhere { below }
    }

    fn range(&self, address: u64, bytes: u64) -> Result<(Arc<Allocation>, usize), Error> {
        let table = self.table();
        if let Some((_, allocation)) = table.living.range(..=address).next_back() {
            let offset = address - allocation.address;
            if offset < allocation.bytes && bytes <= allocation.bytes - offset {
                return Ok((allocation.clone(), offset as usize));
            }
            if offset < allocation.bytes {
                let note = format!(
                    "only {} bytes are left of allocation {}",
                    allocation.bytes - offset,
                    allocation.describe()
                );
                return Err(Error::BadAddress { address, bytes, note });
            }
        }
        drop(table);
        let note = match self.find(address) {
            Place::Freed { address, bytes } => format!("allocation {address:#x} of {bytes} bytes was freed"),
            _ => "no allocation is there".into(),
        };
        Err(Error::BadAddress { address, bytes, note })
    }

    /// Copies from the host.
    pub fn write(&self, address: u64, data: &[u8]) -> Result<(), Error> {
        if data.is_empty() {
            return Ok(());
        }
        let (allocation, offset) = self.range(address, data.len() as u64)?;
        allocation.data.write(offset, data);
        allocation.mark(offset as u64, data.len() as u64);
        Ok(())
    }

    /// Copies to the host. Bytes never written read as zero.
    pub fn read(&self, address: u64, out: &mut [u8]) -> Result<(), Error> {
        if out.is_empty() {
            return Ok(());
        }
        let (allocation, offset) = self.range(address, out.len() as u64)?;
        allocation.data.read(offset, out);
        Ok(())
    }

    /// Writes `pattern` `count` times, one after the other.
    pub fn fill(&self, address: u64, pattern: &[u8], count: u64) -> Result<(), Error> {
        if pattern.is_empty() || count == 0 {
            return Ok(());
        }
        let bytes = count.checked_mul(pattern.len() as u64).ok_or_else(|| Error::BadAddress {
            address,
            bytes: u64::MAX,
            note: "the size overflows".into(),
        })?;
        let (allocation, offset) = self.range(address, bytes)?;
        if pattern.iter().all(|byte| *byte == pattern[0]) {
            allocation.data.set(offset, bytes as usize, pattern[0]);
        } else {
            let chunk = pattern.repeat((4096 / pattern.len()).max(1));
            let mut at = 0;
            while at < bytes as usize {
                let part = chunk.len().min(bytes as usize - at);
                allocation.data.write(offset + at, &chunk[..part]);
                at += part;
            }
        }
        allocation.mark(offset as u64, bytes);
        Ok(())
    }

    /// Copies within the device, with what is known about which bytes were written. The ranges may overlap.
    pub fn copy(&self, to: u64, from: u64, bytes: u64) -> Result<(), Error> {
        if bytes == 0 {
            return Ok(());
        }
        let (source, source_offset) = self.range(from, bytes)?;
        let (target, target_offset) = self.range(to, bytes)?;
        let mut data = vec![0; bytes as usize];
        source.data.read(source_offset, &mut data);
        target.data.write(target_offset, &data);
        if source.all_written.load(Ordering::Relaxed) {
            target.mark(target_offset as u64, bytes);
        } else if let Some(from) = source.written() {
            from.read(source_offset, &mut data);
            target.mark_as(target_offset as u64, &data);
        }
        Ok(())
    }

    /// The allocations as they stand, for a launch, and the launch's number.
    pub(crate) fn snapshot(&self) -> Snapshot {
        let mut table = self.table();
        let Table { living, list, .. } = &mut *table;
        let allocations = list.get_or_insert_with(|| living.values().cloned().collect()).clone();
        drop(table);
        for allocation in &*allocations {
            allocation.settle();
        }
        Snapshot { allocations, launch: self.launches.fetch_add(1, Ordering::Relaxed) + 1 }
    }
}

/// The allocations a launch can reach.
pub(crate) struct Snapshot {
    /// By address.
    pub allocations: Arc<[Arc<Allocation>]>,
    /// Number of the launch on this device, from 1.
    pub launch: u64,
}

impl Snapshot {
    /// Index of the allocation that holds the address.
    #[inline]
    pub fn find(&self, address: u64) -> Option<usize> {
        let above = self.allocations.partition_point(|a| a.address <= address);
        let index = above.checked_sub(1)?;
        (address - self.allocations[index].address < self.allocations[index].bytes).then_some(index)
    }
}
