//! One running call: its cancellation, its observer and the warnings it gathers.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::fs::Dir;
use crate::words::error::{Error, Result};
use crate::words::progress::{Event, Observer, Warning, WarningKind};
use crate::words::relpath::RelPath;

/// A running call, shared by its threads.
pub(crate) struct Activity {
    cancelled: Arc<AtomicBool>,
    observer: Option<Arc<dyn Observer>>,
    warnings: Arc<Warnings>,
}

/// What a call answers.
pub(crate) trait Report {
    /// Takes what the call gathered.
    fn carry(&mut self, warnings: Vec<Warning>);
}

/// Runs a call. Its report then has the warnings it gathered: nobody else can take them, so no verb can forget them.
pub(crate) fn run<T: Report>(
    cancelled: Arc<AtomicBool>,
    observer: Option<Arc<dyn Observer>>,
    work: impl FnOnce(&Activity) -> Result<T>,
) -> Result<T> {
    let activity = Activity::new(cancelled, observer);
    let mut report = work(&activity)?;
    report.carry(activity.into_warnings());
    Ok(report)
}

/// What a call gathers for its report. Who works for a call on other threads may hold on to it.
#[derive(Debug, Default)]
pub(crate) struct Warnings(Mutex<Vec<Warning>>);

impl Warnings {
    pub(crate) fn warn(&self, kind: WarningKind, path: Option<&Path>, message: impl Into<String>) {
        let warning = Warning {
            kind,
            path: path.map(Path::to_owned),
            message: message.into(),
        };
        tracing::warn!(kind = kind.as_str(), path = ?warning.path, "{}", warning.message);
        self.lock().push(warning);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Warning>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Activity {
    pub(crate) fn new(cancelled: Arc<AtomicBool>, observer: Option<Arc<dyn Observer>>) -> Self {
        Self {
            cancelled,
            observer,
            warnings: Arc::default(),
        }
    }

    /// The same call for work that nobody has planned to hear of: it ends with this one, and tells nothing.
    pub(crate) fn unobserved(&self) -> Self {
        Self::new(Arc::clone(&self.cancelled), None)
    }

    /// Set once the caller has given up: for those who look at it in ways of their own.
    pub(crate) fn cancelled(&self) -> &Arc<AtomicBool> {
        &self.cancelled
    }

    /// Fails once the caller has given up.
    pub(crate) fn check(&self) -> Result<()> {
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(Error::cancelled());
        }
        Ok(())
    }

    /// Opens a file for reading, waiting for whoever holds a lease on it for as long as the caller wants.
    pub(crate) fn open(&self, dir: &Dir, name: &OsStr) -> Result<io::Result<File>> {
        let opened = dir.open_leased(name, &|| self.advance(0));
        self.check()?;
        Ok(opened)
    }

    /// Tells the observer, if there is one, and the log how much there is to do.
    pub(crate) fn tell(&self, event: impl FnOnce() -> Event) {
        if self.observer.is_none() && !tracing::enabled!(tracing::Level::INFO) {
            return;
        }
        let event = event();
        if let Event::Planned { files, bytes, .. } = &event {
            tracing::info!("to do: {files} files or blobs, about {bytes} bytes");
        }
        if let Some(observer) = &self.observer {
            observer.event(&event);
        }
    }

    /// Tells that a file is worked on.
    pub(crate) fn start(&self, path: &RelPath, bytes: u64) {
        self.tell(|| Event::FileStarted {
            path: path.as_path().to_owned(),
            bytes,
        });
    }

    /// Tells of more bytes and stops a pass when the caller has given up: the error's text does not matter, because
    /// [`Activity::check`] is asked before it is looked at.
    pub(crate) fn advance(&self, bytes: u64) -> io::Result<()> {
        if bytes > 0 {
            self.tell(|| Event::Progressed { bytes });
        }
        if self.cancelled.load(Ordering::Relaxed) {
            return Err(io::ErrorKind::Interrupted.into());
        }
        Ok(())
    }

    pub(crate) fn warn(&self, kind: WarningKind, path: Option<&Path>, message: impl Into<String>) {
        self.warnings.warn(kind, path, message);
    }

    /// Adds a warning that the log has already.
    pub(crate) fn push(&self, warning: Warning) {
        self.warnings.lock().push(warning);
    }

    /// For those who work for this call.
    #[cfg(feature = "dragonfly")]
    pub(crate) fn warnings(&self) -> &Arc<Warnings> {
        &self.warnings
    }

    /// The warnings so far, in the order of their paths.
    fn into_warnings(self) -> Vec<Warning> {
        let mut warnings = std::mem::take(&mut *self.warnings.lock());
        warnings.sort_by(|a, b| a.path.cmp(&b.path).then(a.message.cmp(&b.message)));
        // A call that begins again, because what it found was damaged, warns again.
        warnings.dedup();
        warnings
    }

    /// The same for tests of those who work for a call.
    #[cfg(all(test, feature = "dragonfly"))]
    pub(crate) fn said(self) -> Vec<Warning> {
        self.into_warnings()
    }
}
