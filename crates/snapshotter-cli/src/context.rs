//! What every verb works with: the flags, the settings, and the way into the store.

use std::io;
use std::path::Path;

use snapshotter::{Config, ErrorKind, Snapshotter};
use tokio::runtime::Builder;

use crate::arguments::Global;
use crate::failure::{Failure, Result};
use crate::interrupt::Interrupt;
use crate::output::json::Warning;
use crate::progress::Progress;
use crate::settings::Settings;

/// How long the process waits for an opening that a signal interrupted; what it leaves, the next opener cleans up.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(1);

/// What every verb works with.
pub struct Context {
    /// The flags every command has.
    pub global: Global,
    /// The effective settings.
    pub settings: Settings,
}

impl Context {
    /// Gathers the settings.
    pub fn new(global: Global) -> Result<Self> {
        let settings = Settings::gather(&global)?;
        Ok(Self { global, settings })
    }

    /// The root.
    pub fn root(&self) -> &Path {
        &self.settings.config.root_dir
    }

    /// Whether there is a store, or something that may be one: only opening it shows.
    pub fn has_store(&self) -> bool {
        let metadata = std::fs::symlink_metadata(self.root().join("metadata"));
        !matches!(metadata, Err(error) if error.kind() == io::ErrorKind::NotFound)
    }

    /// Refuses to look for something in a root that is not there, instead of making an empty one.
    pub fn require_store(&self) -> Result<()> {
        if self.has_store() {
            return Ok(());
        }
        let root = self.root();
        let source = self.settings.source("root_dir");
        Err(Failure::new(
            ErrorKind::NotFound,
            format!("there is no store in {}", root.display()),
        )
        .with_path(root)
        .with_hint(format!(
            "the first `snapshotter snapshot` makes it; --root DIR looks elsewhere (this root is from: {source})"
        )))
    }

    /// Opens the store, does `work` with it and closes it. A signal drops `work`, which cancels it, and lets it clean
    /// up before the store is closed.
    pub fn with_store<T>(
        &self,
        work: impl AsyncFnOnce(&Snapshotter) -> Result<T>,
    ) -> Result<Closed<T>> {
        self.with(&self.settings.config, work)
    }

    /// The same with an empty store that is gone afterwards.
    pub fn with_empty_store<T>(
        &self,
        work: impl AsyncFnOnce(&Snapshotter) -> Result<T>,
    ) -> Result<Closed<T>> {
        let directory = tempfile::tempdir().map_err(|error| cannot_start(&error))?;
        let mut config = self.settings.config.clone();
        config.root_dir = directory.path().join("root");
        self.with(&config, work)
    }

    fn with<T>(
        &self,
        config: &Config,
        work: impl AsyncFnOnce(&Snapshotter) -> Result<T>,
    ) -> Result<Closed<T>> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .build()
            .map_err(|error| cannot_start(&error))?;
        let result = runtime.block_on(self.run(config, work));
        runtime.shutdown_timeout(PATIENCE);
        result
    }

    async fn run<T>(
        &self,
        config: &Config,
        work: impl AsyncFnOnce(&Snapshotter) -> Result<T>,
    ) -> Result<Closed<T>> {
        let mut interrupt = Interrupt::install().map_err(|error| cannot_start(&error))?;
        let store = tokio::select! {
            biased;
            failure = interrupt.wait() => return Err(failure),
            store = Snapshotter::open(config.clone()) => {
                store.map_err(|error| self.settings.explain(error.into()))?
            }
        };
        let result = tokio::select! {
            biased;
            failure = interrupt.wait() => Err(failure),
            result = work(&store) => result,
        };
        let value = match result {
            Ok(value) => value,
            Err(failure) => {
                // What this leaves, the next opener cleans up; the failure is what matters.
                let _ = store.close().await;
                return Err(failure);
            }
        };
        // What was asked for is done: a signal now ends the cleaning up alone.
        let warning = tokio::select! {
            biased;
            closed = store.close() => closed.err().map(|error| Warning::deferred(&error.to_string())),
            failure = interrupt.wait() => Some(Warning::deferred(&failure.message)),
        };
        Ok(Closed { value, warning })
    }

    /// Shows how a call gets on; ends when it is dropped.
    pub fn progress(&self, title: &str) -> Progress {
        Progress::start(self.global.progress, self.global.quiet, title)
    }
}

/// What was done in a store that has been closed since.
pub struct Closed<T> {
    /// What was done.
    pub value: T,
    /// What closing left for later.
    pub warning: Option<Warning>,
}

fn cannot_start(error: &io::Error) -> Failure {
    Failure {
        causes: vec![error.to_string()],
        ..Failure::new(ErrorKind::Internal, "the command cannot start")
    }
}
