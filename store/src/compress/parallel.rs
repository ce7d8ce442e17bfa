//! Blocks in, blocks out: in parallel, in order, and never many at once.
//!
//! ```text
//! read ──(block, slot)──► workers ──► slot
//!   └───────(slot)───────────────────► write, slot by slot
//! ```
//!
//! Each block travels with a slot, a channel for one answer. The slots reach the writer in the
//! order of the blocks through a queue of bounded length, which is what bounds the blocks.

use std::io::{self, Read};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Mutex, PoisonError};
use std::thread;

/// One block on its way.
pub(super) struct Block {
    /// Its bytes, all of the block size except in the last one.
    pub(super) bytes: Vec<u8>,
    /// Whether no block follows.
    pub(super) is_last: bool,
}

/// A block to be encoded, and where the result goes.
type Job = (Block, SyncSender<io::Result<Vec<u8>>>);

/// Reads blocks of `block_bytes`, encodes them on `workers` threads, and writes what they became.
///
/// At least one block, if only an empty one, is the last. `observe` sees every block in its order
/// before it is encoded, on the reading thread. Each worker has an encoder of its own, from
/// `encoder`. The reader is read to its end, unless something fails.
pub(super) fn encode<E>(
    input: &mut (impl Read + Send),
    block_bytes: usize,
    workers: usize,
    mut observe: impl FnMut(&[u8]) + Send,
    encoder: impl Fn() -> E + Sync,
    mut write: impl FnMut(&[u8]) -> io::Result<()>,
) -> io::Result<()>
where
    E: FnMut(&Block) -> io::Result<Vec<u8>>,
{
    let workers = workers.max(1);
    let (give_job, jobs) = sync_channel::<Job>(workers);
    let (give_slot, slots) = sync_channel::<io::Result<Receiver<io::Result<Vec<u8>>>>>(2 * workers);
    let jobs = Mutex::new(jobs);
    thread::scope(|scope| {
        for _ in 0..workers {
            scope.spawn(|| work(&jobs, encoder()));
        }
        scope.spawn(move || {
            let mut send = |block: Block| {
                observe(&block.bytes);
                let (answer, slot) = sync_channel(1);
                // A failing send means that the writer gave up, and says why.
                give_slot.send(Ok(slot)).is_ok() && give_job.send((block, answer)).is_ok()
            };
            if let Err(error) = read(input, block_bytes, &mut send) {
                let _writer_gave_up = give_slot.send(Err(error));
            }
        });
        let result = slots.iter().try_for_each(|slot| {
            let encoded = slot?.recv().map_err(|_| io::Error::other("a worker died"))??;
            write(&encoded)
        });
        // Ends the reader, which ends the workers, before the scope waits for them.
        drop(slots);
        result
    })
}

/// Cuts the input into blocks, as long as they are taken.
fn read(
    input: &mut impl Read,
    block_bytes: usize,
    send: &mut impl FnMut(Block) -> bool,
) -> io::Result<()> {
    let mut bytes = read_block(input, block_bytes)?;
    loop {
        // Only a further read tells whether a full block is the last.
        let next =
            if bytes.len() == block_bytes { read_block(input, block_bytes)? } else { Vec::new() };
        let is_last = next.is_empty();
        if !send(Block { bytes, is_last }) || is_last {
            return Ok(());
        }
        bytes = next;
    }
}

fn read_block(input: &mut impl Read, block_bytes: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::with_capacity(block_bytes);
    input.take(block_bytes as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn work(jobs: &Mutex<Receiver<Job>>, mut encode: impl FnMut(&Block) -> io::Result<Vec<u8>>) {
    loop {
        let job = jobs.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok((block, answer)) = job else { return };
        // Nobody waits for the answer if the writer gave up.
        let _writer_gave_up = answer.send(encode(&block));
    }
}

#[cfg(test)]
mod tests {
    use super::{Block, encode};
    use proptest::prelude::*;
    use std::io;

    /// Marks each block's borders, and takes its time for some.
    fn brackets(block: &Block) -> io::Result<Vec<u8>> {
        if block.bytes.len() % 3 == 1 {
            std::thread::sleep(std::time::Duration::from_micros(200));
        }
        let last: &[u8] = if block.is_last { b"." } else { b"" };
        Ok([b"[", &block.bytes[..], b"]", last].concat())
    }

    fn run(input: &[u8], block: usize, workers: usize) -> Vec<u8> {
        let mut output = Vec::new();
        let write = |bytes: &[u8]| {
            output.extend_from_slice(bytes);
            Ok(())
        };
        encode(&mut &*input, block, workers, |_| {}, || brackets, write).unwrap();
        output
    }

    #[test]
    fn blocks_come_out_in_order_and_the_last_is_known() {
        assert_eq!(run(b"", 4, 2), b"[].");
        assert_eq!(run(b"abcd", 4, 2), b"[abcd].");
        assert_eq!(run(b"abcde", 4, 2), b"[abcd][e].");
    }

    #[test]
    fn failures_of_each_part_end_all_of_them() {
        struct Broken(usize);
        impl io::Read for Broken {
            fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
                self.0 = self.0.checked_sub(1).ok_or_else(|| io::Error::other("broken input"))?;
                buffer.fill(0);
                Ok(buffer.len())
            }
        }
        let text = |result: io::Result<()>| result.unwrap_err().to_string();
        let input = encode(&mut Broken(9), 8, 2, |_| {}, || brackets, |_| Ok(()));
        assert_eq!(text(input), "broken input");
        let zeros = || io::repeat(0);
        let full =
            encode(&mut zeros(), 8, 2, |_| {}, || brackets, |_| Err(io::Error::other("full")));
        assert_eq!(text(full), "full");
        let bad = || |_: &Block| Err(io::Error::other("bad block"));
        let bad = encode(&mut zeros(), 8, 2, |_| {}, bad, |_| Ok(()));
        assert_eq!(text(bad), "bad block");
    }

    proptest! {
        #[test]
        fn the_number_of_workers_does_not_show(
            input in proptest::collection::vec(any::<u8>(), 0..2000), block in 1..300_usize,
        ) {
            let one = run(&input, block, 1);
            prop_assert_eq!(&one, &run(&input, block, 2));
            prop_assert_eq!(&one, &run(&input, block, 5));
        }
    }
}
