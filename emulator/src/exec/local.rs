//! Local memory: the frames of a thread's functions, each with the variables that the function declares.

use super::Cx;
use super::access::lanes;
use crate::error::Kind;
use crate::isa::Flow;

impl Cx<'_> {
    /// Bounds and alignment of the lanes' local addresses.
    pub fn check_local(&self, at: &[u64; 32], mask: u32, bytes: u64, align: u64, write: bool) -> Result<(), Flow> {
        let what = if write { "write" } else { "read" };
        for lane in lanes(mask) {
            if let Err(size) = self.inside_local(lane, at[lane], bytes) {
                let place = Some(format!("local memory of {size} bytes"));
                let note = format!("{what} of {bytes} bytes");
                return Err(self.fault(Kind::OutOfBounds, lane as u32, Some(at[lane]), place, note));
            }
            if at[lane] & (align - 1) != 0 {
                let place = Some("local memory".into());
                let note = format!("{what} of {bytes} bytes needs an address that is a multiple of {align}");
                return Err(self.fault(Kind::Misaligned, lane as u32, Some(at[lane]), place, note));
            }
        }
        Ok(())
    }

    /// Whether bytes of a lane's local memory lie in one variable, or in what was taken from the stack; if not, the bytes of
    /// the variable before them.
    fn inside_local(&self, lane: usize, at: u64, bytes: u64) -> Result<(), u64> {
        let w = &*self.w;
        let (mut depth, mut place) = (w.depth as usize, w.pc);
        // A pointer may lead to the frame of a caller.
        while depth > 0 && at < u64::from(w.stack[depth][lane]) {
            place = w.returns[depth][lane].saturating_sub(1);
            depth -= 1;
        }
        let code = &self.g.program.functions[self.g.program.places[place as usize].2 as usize];
        let Some(offset) = at.checked_sub(u64::from(w.stack[depth][lane])) else { return Err(0) };
        let Some(end) = offset.checked_add(bytes) else { return Err(0) };
        let frame = u64::from(code.frame_bytes);
        if offset >= frame && end <= u64::from(w.tops[depth][lane] - w.stack[depth][lane]) {
            return Ok(());
        }
        let number = code.rooms.partition_point(|room| u64::from(room.offset) <= offset);
        let Some(room) = number.checked_sub(1).map(|number| code.rooms[number]) else { return Err(0) };
        if end <= u64::from(room.offset) + u64::from(room.bytes) { Ok(()) } else { Err(u64::from(room.bytes)) }
    }
}
