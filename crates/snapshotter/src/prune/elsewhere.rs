//! Whether a snapshot that is to go is elsewhere, as rows say that it is: the configured registry is asked, right before it goes,
//! what has its name there. Others may have removed or replaced it. Its contents need not be asked for: what a manifest names,
//! no collection takes.

use std::sync::Arc;

use crate::activity::Activity;
use crate::catalog::{PublicationRow, Snapshot};
use crate::confirmation::{Answer, PATIENCE, Question, could_not_be_asked};
use crate::remote::{Asked, Remote};
use crate::store::Store;
use crate::words::error::Result;
use crate::words::progress::WarningKind;

/// One call's questions.
pub(super) struct Elsewhere<'a> {
    store: &'a Arc<Store>,
    remote: Option<&'a Remote>,
    /// A dry run writes nothing.
    revises: bool,
    activity: &'a Activity,
    asked: Asked,
    unanswered: usize,
}

impl<'a> Elsewhere<'a> {
    pub(super) fn new(
        store: &'a Arc<Store>,
        remote: Option<&'a Remote>,
        revises: bool,
        activity: &'a Activity,
    ) -> Self {
        Self {
            store,
            remote,
            revises,
            activity,
            asked: Asked::default(),
            unanswered: 0,
        }
    }

    /// Asks. What nobody confirms counts as nowhere else.
    pub(super) fn has(&mut self, snapshot: &Snapshot, rows: &[PublicationRow]) -> Result<bool> {
        self.activity.check()?;
        let remote = self.remote.filter(|_| self.unanswered < PATIENCE);
        let said =
            remote.and_then(|remote| Some((remote, remote.said(&snapshot.reference, rows)?)));
        let Some((remote, said)) = said else {
            return Ok(false);
        };
        let question = Question {
            snapshot,
            said,
            blobs: &[],
            packs: &[],
            trust_daemon: false,
            revises: self.revises,
        };
        let answer = remote.confirm(self.store, &question, &mut self.asked, self.activity)?;
        let why = match answer {
            Answer::There(_) => {
                self.unanswered = 0;
                return Ok(true);
            }
            Answer::Otherwise(what) => what,
            Answer::Unknown(error) => {
                self.unanswered += 1;
                could_not_be_asked(&error)
            }
        };
        let text = format!("{} is kept: {why}", snapshot.reference);
        self.activity.warn(WarningKind::Kept, None, text);
        Ok(false)
    }
}
