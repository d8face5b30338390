//! Reading ahead: what comes next is made in a second thread while what is there is computed with.
//!
//! A source is an iterator whose `next` is work: reading, tokenising, cutting a batch. [`ahead()`] drives it in a thread
//! of its own, at most so many items ahead of the consumer, and hands the items on in order: which thread made them
//! changes nothing about them. Errors are items too, so an error comes out at its place. A device of one thread is the
//! wish for one core: there everything happens in place, each item when it is asked for.
//!
//! A source that panics does so in the consumer, behind the items that stand before it. A consumer that goes away, in
//! whatever way, ends the source after the item in hand. [`ahead()`] returns when both are done; [`ahead_detached`] is for
//! sources that can wait for ever (a pipe), which nothing could wake. A source may use the device's own threads only
//! where the consumer is not one of them: it would wait for the source in the place of doing its work.

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex};
use std::thread;

use crate::device::Cpu;

const THREAD_NAME: &str = "manyhead-ahead";

/// An item, or what the source panicked with.
type Sent<T> = Result<T, Box<dyn Any + Send>>;

/// Calls `work` with the items of `source`, up to `depth` of which (at least 1) are made before they are asked for.
/// When it returns, `source` has ended: no thread is left. So a source that blocks holds up the return, and an error of the
/// consumer with it, until it has made the item in hand.
pub fn ahead<T: Send, R>(
    cpu: &Cpu,
    depth: usize,
    source: impl Iterator<Item = T> + Send,
    work: impl FnOnce(&mut dyn Iterator<Item = T>) -> R,
) -> R {
    if cpu.threads() == 1 {
        let mut source = source;
        return work(&mut source);
    }
    // Taken by the thread that runs it: the second one, or this one if there is none to be had.
    let source = Mutex::new(Some(source));
    let take = || source.lock().ok().and_then(|mut source| source.take());
    thread::scope(|scope| {
        let (sender, receiver) = channel(depth);
        let second = move || take().into_iter().for_each(|source| feed(source, &sender));
        match thread::Builder::new().name(THREAD_NAME.into()).spawn_scoped(scope, second) {
            // In here, so that it is gone, and the source ends, before the scope waits for the thread.
            Ok(_) => work(&mut Made(receiver)),
            Err(_) => work(&mut take().into_iter().flatten()),
        }
    })
}

/// The same without an end that is waited for: the thread goes on until its item in hand is made, even if nobody wants
/// it any more. Only for what may outlive its consumer, as a blocked read does until the process ends.
pub fn ahead_detached<T: Send + 'static>(
    cpu: &Cpu,
    depth: usize,
    source: impl Iterator<Item = T> + Send + 'static,
) -> Box<dyn Iterator<Item = T>> {
    if cpu.threads() == 1 {
        return Box::new(source);
    }
    let source = Arc::new(Mutex::new(Some(source)));
    let theirs = source.clone();
    let (sender, receiver) = channel(depth);
    let second = move || {
        let source = theirs.lock().ok().and_then(|mut source| source.take());
        source.into_iter().for_each(|source| feed(source, &sender));
    };
    match thread::Builder::new().name(THREAD_NAME.into()).spawn(second) {
        Ok(_) => Box::new(Made(receiver)),
        Err(_) => Box::new(source.lock().ok().and_then(|mut source| source.take()).into_iter().flatten()),
    }
}

/// One item waits in the hand of the source, the others in the channel.
fn channel<T>(depth: usize) -> (SyncSender<Sent<T>>, Receiver<Sent<T>>) {
    sync_channel(depth.saturating_sub(1))
}

/// Sends all items, until the end, a panic, or nobody who wants more.
fn feed<T>(mut source: impl Iterator<Item = T>, sender: &SyncSender<Sent<T>>) {
    loop {
        // After a panic the source is not touched any more, so it does not matter what state it is in.
        let sent = match catch_unwind(AssertUnwindSafe(|| source.next())) {
            Ok(None) => return,
            Ok(Some(item)) => sender.send(Ok(item)),
            Err(panic) => {
                let _ = sender.send(Err(panic));
                return;
            }
        };
        if sent.is_err() {
            return;
        }
    }
}

/// The items that another thread makes.
struct Made<T>(Receiver<Sent<T>>);

impl<T> Iterator for Made<T> {
    type Item = T;

    fn next(&mut self) -> Option<T> {
        match self.0.recv() {
            Ok(Ok(item)) => Some(item),
            Ok(Err(panic)) => resume_unwind(panic),
            Err(_) => None,
        }
    }
}
