//! What transports do with files: on blocking threads, of which one reads a whole range and hands the pieces to their
//! receiver itself. A hop between threads for each piece would cost more than the reading.

use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::budget::{Budget, held_by};
use super::parts::ranges;
use super::{Sink, receiver_gone, total_of};
use crate::pass::buffers::{Buffer, Buffers};
use crate::threads;
use crate::words::error::{At, Result};

/// Read at once, in bytes.
pub(super) const PIECE: u64 = 1 << 20;

/// The range of a file, in order, one piece ahead. The thread stops when the receiver is gone.
///
/// # Errors
/// `Busy` where there is no thread.
pub(super) fn read_ahead(
    file: Arc<File>,
    path: PathBuf,
    range: Range<u64>,
    buffers: Buffers,
) -> Result<mpsc::Receiver<Result<Bytes>>> {
    let (ahead, pieces) = mpsc::channel(1);
    drop(threads::begin(move || {
        for range in ranges(range, PIECE) {
            let piece = read(&file, &range, buffers.take()).at("read", &path);
            let failed = piece.is_err();
            if ahead.blocking_send(piece).is_err() || failed {
                break;
            }
        }
        Ok(())
    })?);
    Ok(pieces)
}

/// Gives the receiver ranges of a file, one after the other, each piece with its share of the budget, and says how many bytes
/// that were. The thread that reads stops after the piece under way when this future is dropped.
pub(super) async fn read_into(
    sink: Sink,
    file: File,
    path: PathBuf,
    wanted: Vec<Range<u64>>,
    budget: Budget,
    buffers: Buffers,
) -> Result<u64> {
    let runtime = Handle::current();
    let dropped = Arc::new(AtomicBool::new(false));
    let _guard = SetOnDrop(Arc::clone(&dropped));
    threads::run(move || {
        let bytes = total_of(&wanted);
        for range in wanted.into_iter().flat_map(|range| ranges(range, PIECE)) {
            let share = runtime.block_on(budget.take(range.end - range.start));
            let piece = read(&file, &range, buffers.take()).at("read", &path)?;
            let sent = sink.blocking_send(held_by(piece, Arc::new(share)));
            if sent.is_err() || dropped.load(Ordering::Relaxed) {
                return Err(receiver_gone());
            }
        }
        Ok(bytes)
    })
    .await
}

/// Tells a thread that the future it works for is gone.
struct SetOnDrop(Arc<AtomicBool>);

impl Drop for SetOnDrop {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn read(file: &File, range: &Range<u64>, mut buffer: Buffer) -> io::Result<Bytes> {
    // A range is at most a piece.
    let len = (range.end - range.start) as usize;
    file.read_exact_at(&mut buffer.bytes_mut()[..len], range.start)?;
    Ok(buffer.freeze(len))
}
