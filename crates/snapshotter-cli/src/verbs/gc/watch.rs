//! `snapshotter gc --watch`: what an agent's worker does, for nodes that have none.

use std::path::Path;

use snapshotter::{GcRequest, PruneReport, PruneRequest, Snapshotter};

use super::{Collected, answer, metrics};
use crate::answer::Answer;
use crate::arguments::Early;
use crate::context::Context;
use crate::failure::Result;
use crate::output::Screen;

/// Collects, tells, waits, until a signal comes or the deadline passes.
pub fn run(context: &Context, request: &GcRequest, metrics: Option<&Path>) -> Result<Answer> {
    let global = &context.global;
    let early = Early {
        json: global.json,
        color: global.color,
    };
    let rounds = Rounds {
        request,
        prune: PruneRequest::new(context.settings.draft.prune.clone()),
        metrics,
        screen: Screen::new(&early).with(global),
        tells_all: global.json || global.verbose > 0,
    };
    let interval = context.settings.here().gc.interval;
    let watched = context.with_store_and_remote(async |store| {
        // A file that cannot be written is a mistake in the command line: it is told at once.
        rounds.write_metrics(store).await?;
        loop {
            rounds.round(store).await;
            tokio::time::sleep(interval).await;
        }
    })?;
    Ok(watched.value)
}

struct Rounds<'a> {
    request: &'a GcRequest,
    prune: PruneRequest,
    metrics: Option<&'a Path>,
    screen: Screen,
    tells_all: bool,
}

impl Rounds<'_> {
    /// One look. What goes wrong is told, and does not end the command.
    async fn round(&self, store: &Snapshotter) {
        let pruned = self.prune(store).await;
        match store.gc(self.request).await {
            Ok(report) if self.tells_all || Collected::new(&report, &pruned.removed).is_news() => {
                // Who does not listen any more need not be told.
                let _ = self.screen.answer(&answer(&report, &pruned));
            }
            Ok(_) => {}
            Err(error) => drop(self.screen.failure(&error.into())),
        }
        if let Err(failure) = self.write_metrics(store).await {
            self.screen.failure(&failure);
        }
    }

    /// What went because the settings do not keep it.
    async fn prune(&self, store: &Snapshotter) -> PruneReport {
        if self.prune.rules.is_empty() {
            return PruneReport::default();
        }
        store.prune(&self.prune).await.unwrap_or_else(|error| {
            self.screen.failure(&error.into());
            PruneReport::default()
        })
    }

    async fn write_metrics(&self, store: &Snapshotter) -> Result<()> {
        match self.metrics {
            Some(path) => metrics::write(store, path).await,
            None => Ok(()),
        }
    }
}
