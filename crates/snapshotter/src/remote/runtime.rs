//! The threads that talk to servers. Calls of the library run on blocking threads of whatever runtime their caller has;
//! connections need one with timers and sockets that outlives them all. So there is one for the process, made when the
//! first remote is opened.

use std::io;
use std::sync::OnceLock;

use tokio::runtime::{Builder, Runtime};

use crate::limit::GLANCE;
use crate::words::error::{Error, ErrorKind, Result};

static RUNTIME: OnceLock<Runtime> = OnceLock::new();

/// The runtime, made if it is not there.
pub(super) fn start() -> Result<&'static Runtime> {
    if let Some(runtime) = RUNTIME.get() {
        return Ok(runtime);
    }
    let made = build().map_err(|error| {
        Error::new(
            ErrorKind::Internal,
            "cannot start the threads that talk to servers",
        )
        .with_source(error)
    })?;
    Ok(keep(&RUNTIME, made))
}

/// Of two made at once one stays. The other never had work, but must not be dropped here: this may be within the
/// caller's runtime, where nobody may wait for another one to end.
fn keep(cell: &OnceLock<Runtime>, made: Runtime) -> &Runtime {
    if let Err(other) = cell.set(made) {
        other.shutdown_background();
    }
    // Set above, by this thread or another.
    cell.wait()
}

fn build() -> io::Result<Runtime> {
    Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("snapshotter-net")
        .enable_all()
        .build()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn of_two_runtimes_made_at_once_one_stays_and_the_other_ends_quietly() {
        let cell = OnceLock::new();
        let first = keep(&cell, build().unwrap()).handle().id();
        let second = keep(&cell, build().unwrap()).handle().id();
        assert_eq!(first, second);
        // Nor may the one of this test be dropped within a runtime.
        cell.into_inner().unwrap().shutdown_background();
    }
}
