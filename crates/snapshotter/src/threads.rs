//! Threads for work that blocks: calls, and what they ask of files and names while they wait for something else.
//!
//! Tokio has such threads too, but it panics where the system gives it none, and where it has some, work waits for one of
//! them, which may be waiting for that very work. Here work gets a thread at once, one that has nothing to do or a new one,
//! or it is an error and has not begun.
//!
//! Who has threads. A call has one of these, which is kept for ten seconds for the next, and brings in others while it works:
//! for files at most as many as `snapshot_concurrency` or `restore_concurrency` says, itself counted (`limit.rs`); for a stream
//! of more than a piece that is fetched one that hashes, and perhaps one that writes a second file (`pass/wire.rs`). All passes,
//! and captures and restores of pages, share as many helpers as there are processors less one (`pass/lanes.rs`). The process
//! has two for servers once there is a remote (`remote/runtime.rs`); a handle one that syncs, while there is something to sync
//! (`store/background.rs`), and one that collects, if it is to (`gc/worker.rs`). Where the system gives no thread, that of a
//! call, the first for servers and those for files of a transport are an error (`busy`); what the others would have done the
//! call does by itself, and nothing waits for a thread that is not there. Tokio's own threads for blocking work are used by a
//! daemon that is named by a host instead of a socket, and by providers' files of credentials, alone.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::mpsc::{self, RecvTimeoutError, Sender};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread::{self, Builder, ThreadId};
use std::time::Duration;

use tokio::sync::oneshot;

use crate::words::error::{Error, ErrorKind, Result};

/// How long a thread waits for more work.
const KEPT: Duration = Duration::from_secs(10);

/// Does it, and returns what tells of that.
type Work = Box<dyn FnOnce() -> Box<dyn FnOnce()> + Send>;

/// Threads that have nothing to do, the latest last.
static IDLE: Mutex<Vec<(ThreadId, Sender<Work>)>> = Mutex::new(Vec::new());

/// Begins work on a thread of its own, and says how to wait for its end. Whoever does not wait does not stop it.
///
/// # Errors
/// `Busy` where there is no thread; that of the work, where it is waited for.
pub(crate) fn begin<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<impl Future<Output = Result<T>>> {
    let (tell, told) = oneshot::channel();
    start(Box::new(move || {
        let ended = catch_unwind(AssertUnwindSafe(work));
        // Nobody may want to know.
        Box::new(|| drop(tell.send(ended)))
    }))?;
    Ok(async {
        let ended: Result<thread::Result<Result<T>>, _> = told.await;
        let lost = || Box::new("work was lost") as Box<dyn Any + Send>;
        ended
            .unwrap_or_else(|_| Err(lost()))
            .unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// Begins work and waits for its end.
///
/// # Errors
/// `Busy` where there is no thread; that of the work.
pub(crate) async fn run<T: Send + 'static>(
    work: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    begin(work)?.await
}

/// Looks up the names of servers. What HTTP clients bring for that asks Tokio for a thread.
#[cfg(feature = "registry")]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Names;

#[cfg(feature = "registry")]
impl reqwest::dns::Resolve for Names {
    fn resolve(&self, name: reqwest::dns::Name) -> reqwest::dns::Resolving {
        use std::net::ToSocketAddrs;
        Box::pin(async move {
            let asked = run(move || Ok((name.as_str(), 0).to_socket_addrs()));
            let found: reqwest::dns::Addrs = Box::new(asked.await??);
            Ok(found)
        })
    }
}

/// There is no thread to be had.
pub(crate) fn none_left(error: io::Error) -> Error {
    Error::new(ErrorKind::Busy, "there is no thread to be had")
        .with_source(error)
        .with_hint(
            "the limit on processes and threads is reached (`ulimit -u`, `TasksMax` of a unit, `pids.max` of a control \
             group): raise it, or wait until something has ended",
        )
}

fn start(mut work: Work) -> Result<()> {
    let mut idle = lock();
    while let Some((_, thread)) = idle.pop() {
        match thread.send(work) {
            Ok(()) => return Ok(()),
            Err(mpsc::SendError(returned)) => work = returned,
        }
    }
    drop(idle);
    let thread = Builder::new().name("snapshotter-call".to_owned());
    thread.spawn(|| live(work)).map(drop).map_err(none_left)
}

/// Works, and waits for more, until there was nothing for a while.
fn live(mut work: Work) {
    let own = thread::current().id();
    let (sender, more) = mpsc::channel();
    loop {
        let tell = work();
        // Whoever hears of the end may want the next thing done, and this may be the only thread there is for it.
        lock().push((own, sender.clone()));
        tell();
        work = match more.recv_timeout(KEPT) {
            Ok(next) => next,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
                lock().retain(|(thread, _)| *thread != own);
                // Given before that.
                match more.try_recv() {
                    Ok(next) => next,
                    Err(_) => return,
                }
            }
        }
    }
}

fn lock() -> MutexGuard<'static, Vec<(ThreadId, Sender<Work>)>> {
    IDLE.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_that_waits_for_work_has_a_thread_of_its_own() {
        async fn deep(left: u32) -> Result<u32> {
            if left == 0 {
                return Ok(0);
            }
            run(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().build();
                runtime.unwrap().block_on(Box::pin(deep(left - 1)))
            })
            .await
            .map(|depth| depth + 1)
        }
        assert_eq!(deep(20).await.unwrap(), 20);
        assert_eq!(deep(20).await.unwrap(), 20);
    }

    #[tokio::test]
    async fn a_panic_reaches_whoever_waits_and_the_thread_lives_on() {
        let waiting = begin(|| -> Result<()> { panic!("as planned") }).unwrap();
        let told = tokio::spawn(waiting).await.unwrap_err();
        assert!(told.is_panic());
        assert_eq!(run(|| Ok(5)).await.unwrap(), 5);
    }
}
