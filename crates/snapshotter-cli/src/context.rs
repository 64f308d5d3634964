//! What every verb works with: the flags, the settings, and the way into the store.

use std::io;
use std::path::PathBuf;

use snapshotter::{Config, ErrorKind, Snapshotter};
use tokio::runtime::Builder;

use crate::arguments::Global;
use crate::failure::{Failure, Result};
use crate::interrupt::Stop;
use crate::output::json::Warning;
use crate::progress::Progress;
use crate::settings::{Settings, Value};

const NO_REGISTRY: &str = "set registry.endpoint in a configuration file, or SNAPSHOTTER_REGISTRY_ENDPOINT: https://HOST, \
     or a directory: oci-layout:/PATH";

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
    pub fn root(&self) -> PathBuf {
        self.settings.root()
    }

    /// Where the registry is, if one is configured.
    pub fn registry(&self) -> Option<String> {
        let registry = &self.settings.draft.registry()?.endpoint;
        let shown = Value::Url(Some(registry.clone())).shown();
        Some(shown.trim_end_matches('/').to_owned())
    }

    /// Refuses what needs a registry where none is configured.
    pub fn require_registry(&self) -> Result<()> {
        self.settings.whole()?;
        match self.settings.draft.registry() {
            Some(_) => Ok(()),
            None => Err(Failure::invalid("no registry is configured").with_hint(NO_REGISTRY)),
        }
    }

    /// Refuses to publish where nothing says what to do with the bytes, before anything is read; `way_out` is what else
    /// there is to do.
    pub fn require_content(&self, way_out: &str) -> Result<()> {
        if self.settings.draft.content().is_some() {
            return Ok(());
        }
        Err(Failure::invalid(
            "a registry is configured, and no place to publish the snapshot's bytes to",
        )
        .with_hint(format!(
            "set content.provider: s3 and others, fs, or registry to keep them in the registry itself{way_out}"
        )))
    }

    /// Whether there is a store, or something that may be one: only opening it shows.
    pub fn has_store(&self) -> bool {
        // One that has lost its catalog still has its files.
        ["metadata", "storage"].iter().any(|part| {
            let found = std::fs::symlink_metadata(self.root().join(part));
            !matches!(found, Err(error) if error.kind() == io::ErrorKind::NotFound)
        })
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
        .with_path(&root)
        .with_hint(format!(
            "the first `snapshotter snapshot` makes it; --root DIR looks elsewhere (this root is from: {source})"
        )))
    }

    /// Opens the store, does `work` with it and closes it. A signal or the deadline drops `work`, which cancels it, and
    /// lets it clean up before the store is closed. What is remote is left out: nothing of it can fail.
    pub fn with_store<T>(
        &self,
        work: impl AsyncFnOnce(&Snapshotter) -> Result<T>,
    ) -> Result<Closed<T>> {
        self.with(self.settings.here(), work)
    }

    /// The same with an empty store that is gone afterwards.
    pub fn with_empty_store<T>(
        &self,
        work: impl AsyncFnOnce(&Snapshotter) -> Result<T>,
    ) -> Result<Closed<T>> {
        self.with_emptied(self.settings.here(), work)
    }

    /// The store, and what is remote where that is configured.
    pub fn with_store_and_remote<T>(
        &self,
        work: impl AsyncFnOnce(&Snapshotter) -> Result<T>,
    ) -> Result<Closed<T>> {
        self.with(self.settings.whole()?, work)
    }

    /// What is remote, and no store: an empty one that is gone afterwards stands in for it.
    pub fn with_remote<T>(
        &self,
        work: impl AsyncFnOnce(&Snapshotter) -> Result<T>,
    ) -> Result<Closed<T>> {
        self.require_registry()?;
        self.with_emptied(self.settings.whole()?, work)
    }

    fn with_emptied<T>(
        &self,
        mut config: Config,
        work: impl AsyncFnOnce(&Snapshotter) -> Result<T>,
    ) -> Result<Closed<T>> {
        let directory = tempfile::tempdir().map_err(|error| cannot_start(&error))?;
        config.root_dir = directory.path().join("root");
        self.with(config, work)
    }

    /// The store that a configuration describes.
    pub fn with<T>(
        &self,
        mut config: Config,
        work: impl AsyncFnOnce(&Snapshotter) -> Result<T>,
    ) -> Result<Closed<T>> {
        // Nothing goes behind a person's back: `gc` collects, and no other command.
        config.gc.background = false;
        self.until_stopped(async |stop| self.run(stop, config, work).await)
    }

    /// Does something on a runtime of its own, where signals and the deadline are heard.
    fn until_stopped<T>(&self, work: impl AsyncFnOnce(&mut Stop) -> Result<T>) -> Result<T> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .build()
            .map_err(|error| cannot_start(&error))?;
        let result = runtime.block_on(async {
            let mut stop = Stop::new(self.global.timeout).map_err(|error| cannot_start(&error))?;
            work(&mut stop).await
        });
        runtime.shutdown_timeout(PATIENCE);
        result
    }

    /// Does what needs no open store. A signal or the deadline drops it.
    pub fn without_store<T>(&self, work: impl Future<Output = Result<T>>) -> Result<T> {
        self.until_stopped(async |stop| {
            tokio::select! {
                biased;
                failure = stop.wait() => Err(failure),
                result = work => result.map_err(|failure| self.settings.explain(failure)),
            }
        })
    }

    /// Opens the store and what is remote, does `work`, and then serves what that made until it is over or a signal comes, which
    /// is no failure then. The deadline is one for `work`.
    pub fn serve<T>(
        &self,
        work: impl AsyncFnOnce(&Snapshotter) -> Result<T>,
        served: impl AsyncFnOnce(&mut T) -> Result<()>,
    ) -> Result<()> {
        let mut config = self.settings.whole()?;
        config.gc.background = false;
        self.until_stopped(async |stop| {
            let Worked {
                store, mut value, ..
            } = self.work(stop, config, work).await?;
            let result = tokio::select! {
                biased;
                _ = stop.signal() => Ok(()),
                result = served(&mut value) => result,
            };
            drop(value);
            // What it leaves, the next opener cleans up.
            let _ = store.close().await;
            result
        })
    }

    async fn run<T>(
        &self,
        stop: &mut Stop,
        config: Config,
        work: impl AsyncFnOnce(&Snapshotter) -> Result<T>,
    ) -> Result<Closed<T>> {
        let Worked {
            store,
            value,
            found,
        } = self.work(stop, config, work).await?;
        // What was asked for is done: a signal now ends the cleaning up alone.
        let warning = tokio::select! {
            biased;
            closed = store.close() => closed.err().map(|error| Warning::deferred(&error.to_string())),
            failure = stop.signal() => Some(Warning::deferred(&failure.message)),
        };
        Ok(Closed {
            value,
            warnings: found.into_iter().chain(warning).collect(),
        })
    }

    /// Opens the store and does `work`, after which it is still open; if it fails it is closed.
    async fn work<T>(
        &self,
        stop: &mut Stop,
        config: Config,
        work: impl AsyncFnOnce(&Snapshotter) -> Result<T>,
    ) -> Result<Worked<T>> {
        let store = tokio::select! {
            biased;
            failure = stop.wait() => return Err(failure),
            store = Snapshotter::open(config) => {
                store.map_err(|error| self.settings.explain(error.into()))?
            }
        };
        let found: Vec<_> = store.warnings().into_iter().map(Warning::from).collect();
        let result = tokio::select! {
            biased;
            failure = stop.wait() => Err(failure),
            result = work(&store) => {
                result.map_err(|failure| self.settings.explain_contents(failure))
            }
        };
        match result {
            Ok(value) => Ok(Worked {
                store,
                value,
                found,
            }),
            Err(failure) => {
                // What this leaves, the next opener cleans up; the failure is what matters.
                let _ = store.close().await;
                let older = found.iter().filter(|one| one.is_older_catalog());
                Err(older.fold(failure, blame_store))
            }
        }
    }

    /// Shows how a call gets on; ends when it is dropped.
    pub fn progress(&self, title: &str) -> Progress {
        Progress::start(self.global.progress, self.global.quiet, title)
    }
}

/// What was done in a store that is open.
struct Worked<T> {
    store: Snapshotter,
    value: T,
    /// What is wrong with the store as such.
    found: Vec<Warning>,
}

/// What was done in a store that has been closed since.
pub struct Closed<T> {
    /// What was done.
    pub value: T,
    /// What is wrong with the store as such, and what closing left for later.
    pub warnings: Vec<Warning>,
}

/// Whatever failed, it may be because of this, unless it says so itself.
fn blame_store(mut failure: Failure, warning: &Warning) -> Failure {
    let text = warning.shown();
    if failure.message != text {
        failure.causes.push(text);
    }
    failure
}

fn cannot_start(error: &io::Error) -> Failure {
    Failure {
        causes: vec![error.to_string()],
        ..Failure::new(ErrorKind::Internal, "the command cannot start")
    }
}
