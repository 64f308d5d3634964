//! The threads that talk to servers. Calls of the library run on threads that block; connections need some with timers and
//! sockets that outlive them all. So there are two for the process, made when they are first needed and never ended, each
//! with a runtime of its own: one that has several threads of its own panics where it gets none.

use std::future::pending;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::{Builder, Handle};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::limit::GLANCE;
use crate::lock::lock;
use crate::rate::Rate;
use crate::threads;
use crate::transport::{ContentTransport, Ranges};
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::object::Object;

static RUNTIMES: [Mutex<Option<Handle>>; 2] = [Mutex::new(None), Mutex::new(None)];

static TURN: AtomicUsize = AtomicUsize::new(0);

/// A runtime, made if it is not there; calls take turns. One thread does where there is none for the other.
///
/// # Errors
/// `Busy` where there is no thread at all.
pub(super) fn start() -> Result<Handle> {
    let turn = TURN.fetch_add(1, Ordering::Relaxed);
    let of = |turn: usize| handle(&RUNTIMES[turn % RUNTIMES.len()]);
    of(turn).or_else(|_| of(turn + 1))
}

fn handle(of: &Mutex<Option<Handle>>) -> Result<Handle> {
    let mut of = lock(of);
    if let Some(handle) = &*of {
        return Ok(handle.clone());
    }
    let made = build()?;
    *of = Some(made.clone());
    Ok(made)
}

/// A runtime, and the thread that drives it: who waits for a call does not.
fn build() -> Result<Handle> {
    let made = Builder::new_current_thread().enable_all().build();
    let made = Arc::new(made.map_err(|error| {
        let text = "cannot start what talks to servers";
        Error::new(ErrorKind::of_io(&error), text).with_source(error)
    })?);
    let driven = Arc::clone(&made);
    let driver = thread::Builder::new().name("snapshotter-net".to_owned());
    match driver.spawn(move || driven.block_on(pending::<()>())) {
        Ok(_) => Ok(made.handle().clone()),
        Err(error) => {
            // This may be within the caller's runtime, where nobody may wait for another one to end.
            if let Some(made) = Arc::into_inner(made) {
                made.shutdown_background();
            }
            Err(threads::none_left(error))
        }
    }
}

/// Whether a call is still wanted; the error says that it was cancelled.
pub(super) type Wanted<'a> = &'a (dyn Fn() -> Result<()> + Sync);

/// Waits for a call to a server for as long as it is wanted, then drops it, which cancels it.
pub(super) fn wait<T>(wanted: Wanted<'_>, call: impl Future<Output = Result<T>>) -> Result<T> {
    start()?.block_on(async {
        tokio::select! {
            biased;
            result = call => result,
            cancelled = unwanted(wanted) => Err(cancelled),
        }
    })
}

async fn unwanted(wanted: Wanted<'_>) -> Error {
    loop {
        match wanted() {
            Ok(()) => tokio::time::sleep(GLANCE).await,
            Err(cancelled) => return cancelled,
        }
    }
}

/// Waits until so many bytes may move; others have their turns in between.
pub(super) fn wait_turn(rate: &Rate, bytes: usize, wanted: Wanted<'_>) -> Result<()> {
    let mut left = bytes;
    while left > 0 {
        let slice = rate.slice(left);
        left -= slice;
        match rate.turn(slice) {
            Duration::ZERO => {}
            turn => wait(wanted, async {
                tokio::time::sleep(turn).await;
                Ok(())
            })?,
        }
    }
    Ok(())
}

/// Hands on what an object, or ranges of it, comes to, at a rate.
pub(super) fn stream(
    transport: &Arc<dyn ContentTransport>,
    (object, ranges): (Object, Ranges),
    rate: &Rate,
    wanted: Wanted<'_>,
    take: &mut dyn FnMut(&Bytes) -> Result<()>,
) -> Result<()> {
    let rate = rate_for(transport, rate);
    let transport = Arc::clone(transport);
    let start_fetching = |sink| {
        let call = async move { transport.fetch(object, ranges, sink).await };
        Ok(start()?.spawn(call))
    };
    receive(start_fetching, wanted, &mut |bytes| {
        if let Some(rate) = rate {
            wait_turn(rate, bytes.len(), wanted)?;
        }
        take(bytes)
    })
    .map(drop)
}

/// The rate that counts for a place: a directory is no network, or at least not one that we can tell.
pub(super) fn rate_for<'a>(
    transport: &Arc<dyn ContentTransport>,
    rate: &'a Rate,
) -> Option<&'a Rate> {
    transport.local_files().is_none().then_some(rate)
}

/// What a call comes to. Who drops this, waiting for it or not yet, stops the call: a task goes on when its handle is dropped.
pub(super) fn joined<T>(call: JoinHandle<Result<T>>) -> impl Future<Output = Result<T>> {
    let mut call = Stopped(call);
    async move {
        match (&mut call.0).await {
            Ok(result) => result,
            Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
            Err(_) => Err(Error::cancelled()),
        }
    }
}

/// Stops its task when it is dropped.
struct Stopped<T>(JoinHandle<T>);

impl<T> Drop for Stopped<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Pieces between the server and the thread that takes them.
const AHEAD: usize = 4;

/// Starts a download elsewhere and takes its pieces here.
pub(super) fn receive<T>(
    start: impl FnOnce(mpsc::Sender<Bytes>) -> Result<JoinHandle<Result<T>>>,
    wanted: Wanted<'_>,
    take: &mut dyn FnMut(&Bytes) -> Result<()>,
) -> Result<T> {
    let (sink, mut pieces) = mpsc::channel(AHEAD);
    let call = joined(start(sink)?);
    while let Some(bytes) = wait(wanted, async { Ok(pieces.recv().await) })? {
        take(&bytes)?;
    }
    wait(wanted, call)
}
