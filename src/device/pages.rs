//! Large pages for large buffers.

/// `len` zeros, in large pages if there are many.
pub(crate) fn zeros(len: usize) -> Vec<f32> {
    let zeros = vec![0.0; len];
    prefer_large(&zeros);
    zeros
}

/// Asks the system to back a buffer that has just been allocated, and not been written to, by large pages, where it can.
///
/// A step goes through hundreds of megabytes of weights, gradients and moments, and packing reads them across rows: with
/// pages of 4 KB the processor looks up addresses for a good part of that time. A system that does not know, or refuses,
/// changes nothing.
pub(crate) fn prefer_large<T>(buffer: &[T]) {
    /// Below it a page of 2 MB, the usual size, would not be filled.
    const SMALLEST: usize = 4 << 20;
    let bytes = std::mem::size_of_val(buffer);
    if bytes >= SMALLEST {
        advise(buffer.as_ptr() as usize, bytes);
    }
}

#[cfg(target_os = "linux")]
fn advise(start: usize, bytes: usize) {
    use std::ffi::{c_int, c_void};
    // SAFETY: the declaration of the system's own function.
    unsafe extern "C" {
        fn madvise(start: *mut c_void, bytes: usize, advice: c_int) -> c_int;
    }
    const HUGE_PAGE: c_int = 14;
    /// Advice is given for whole pages; a multiple of every page size that is in use.
    const PAGE: usize = 1 << 16;
    let first = start.next_multiple_of(PAGE);
    let len = (start + bytes).saturating_sub(first) / PAGE * PAGE;
    // SAFETY: this advice changes how memory is paged, never what it holds, for any range of addresses; the range is
    // inside of a buffer that the caller has. The result is not of interest: it is advice.
    unsafe { madvise(first as *mut c_void, len, HUGE_PAGE) };
}

#[cfg(not(target_os = "linux"))]
fn advise(_: usize, _: usize) {}

#[cfg(test)]
mod tests {
    use super::prefer_large;

    #[test]
    fn advice_changes_no_number() {
        for len in [0, 1, 1 << 20, (3 << 20) + 5] {
            let numbers: Vec<f32> = (0..len).map(|i| i as f32).collect();
            for start in [0, 1, 7].into_iter().filter(|start| *start <= len) {
                prefer_large(&numbers[start..]);
            }
            assert!(numbers.iter().enumerate().all(|(i, number)| *number == i as f32));
        }
    }
}
