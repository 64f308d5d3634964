//! What a list of the registry's snapshots shows of each: what its manifest says, which is one request a snapshot. Format v2 has
//! in annotations what a list wants to know; of format v1 the list of files says how much it is, and that is read only where
//! somebody asks, and only short ones. A list is worth having without some of its columns, so what cannot be read is one warning.

use std::sync::{Mutex, OnceLock};
use std::time::SystemTime;

use super::Remote;
use super::resolve::Said;
use super::runtime::wait;
use super::text::Text;
use crate::activity::Activity;
use crate::format::artifact::paged::{AnyManifest, Facts};
use crate::format::document::SHORT;
use crate::inspect::system_time;
use crate::limit::Limit;
use crate::lock::lock;
use crate::words::digest::Sha256;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::format::Format;
use crate::words::progress::{Warning, WarningKind};
use crate::words::reference::Reference;

/// How many manifests are read for one list.
const MOST: usize = 1000;

/// So many manifests that a registry is too busy to give are enough to leave it alone.
const PATIENCE: usize = 3;

/// What the registry says of snapshots in short.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteSummaries {
    /// One for each reference that was asked for, in their order.
    pub snapshots: Vec<RemoteSummary>,
    /// What could not be read.
    pub warnings: Vec<Warning>,
}

/// What the registry says of a snapshot in short; `None` is what it does not say.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RemoteSummary {
    /// The snapshot, as it was asked for.
    pub reference: Reference,
    /// SHA-256 of its manifest.
    pub manifest_digest: Option<Sha256>,
    /// Its format. `None` too where the manifest is no snapshot's.
    pub format: Option<Format>,
    /// When it was taken, as annotations say.
    pub created_at: Option<SystemTime>,
    /// How many regular files it has, second names of one inode included.
    pub files: Option<u64>,
    /// Sizes of the files, holes included, each inode once, in bytes.
    pub logical_bytes: Option<u64>,
}

impl RemoteSummary {
    fn new(reference: &Reference) -> Self {
        Self {
            reference: reference.clone(),
            manifest_digest: None,
            format: None,
            created_at: None,
            files: None,
            logical_bytes: None,
        }
    }

    fn take(&mut self, facts: &Facts) {
        self.created_at = facts.created.map(system_time);
        (self.files, self.logical_bytes) = (facts.files, facts.bytes);
    }
}

impl Remote {
    /// What manifests say of snapshots, and with `sizes` also what lists of files say that are not long.
    pub(crate) fn summaries(
        &self,
        limit: &Limit,
        references: &[Reference],
        sizes: bool,
        activity: &Activity,
    ) -> Result<RemoteSummaries> {
        let unread = Unread::default();
        let found: Vec<OnceLock<RemoteSummary>> = vec![OnceLock::new(); references.len().min(MOST)];
        limit.for_each(activity, found.len(), |index| {
            let mut summary = RemoteSummary::new(&references[index]);
            if !unread.is_enough() {
                let read = self.summarize(&mut summary, sizes, activity);
                unread.note(&summary.reference, read)?;
            }
            found[index].get_or_init(|| summary);
            Ok(())
        })?;
        unread.tell(references.len(), activity);
        let found = found.into_iter().filter_map(OnceLock::into_inner);
        let rest = references.iter().skip(MOST).map(RemoteSummary::new);
        Ok(RemoteSummaries {
            snapshots: found.chain(rest).collect(),
            warnings: Vec::new(),
        })
    }

    fn summarize(
        &self,
        summary: &mut RemoteSummary,
        sizes: bool,
        activity: &Activity,
    ) -> Result<()> {
        let reference = summary.reference.clone();
        let found = self.find(&reference, activity)?.ok_or_else(|| {
            let text = format!("{reference} is not there any more");
            Error::new(ErrorKind::NotFound, text)
        })?;
        summary.manifest_digest = Some(found.digest);
        // Whatever else has a name in the same registry has a digest too.
        let Ok(manifest) = AnyManifest::parse(&found.bytes) else {
            return Ok(());
        };
        summary.format = Some(manifest.format());
        summary.take(&Facts::of(manifest.annotations()));
        let (config, size) = manifest.config();
        let says_sizes = summary.files.is_some() && summary.logical_bytes.is_some();
        if says_sizes || !sizes || size > SHORT {
            return Ok(());
        }
        let repository = self.repository(&reference)?;
        let document = self.registry.blob(&repository, config, size);
        let document = Text::Short(wait(&|| activity.check(), document)?);
        let said = Said::new(manifest, &document).map_err(|error| {
            let text = format!("the document of {reference} cannot be used");
            Error::damaged(text).with_source(error)
        })?;
        let totals = said.totals();
        (summary.files, summary.logical_bytes) = (Some(totals.files), Some(totals.logical_bytes));
        Ok(())
    }
}

/// What could not be read.
#[derive(Default)]
struct Unread(Mutex<Failures>);

#[derive(Default)]
struct Failures {
    all: usize,
    busy: usize,
    one: Option<String>,
}

impl Unread {
    fn is_enough(&self) -> bool {
        lock(&self.0).busy >= PATIENCE
    }

    /// Only who gives up has no list.
    fn note(&self, reference: &Reference, read: Result<()>) -> Result<()> {
        let error = match read {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::Cancelled => return Err(error),
            Err(error) => error,
        };
        let mut failures = lock(&self.0);
        failures.all += 1;
        failures.busy += usize::from(error.kind() == ErrorKind::Unavailable);
        let line = || format!("{reference}: {}", error.line());
        failures.one.get_or_insert_with(line);
        Ok(())
    }

    fn tell(self, asked: usize, activity: &Activity) {
        let warn = |text| activity.warn(WarningKind::Unchecked, None, text);
        if asked > MOST {
            warn(format!(
                "of {asked} snapshots the first {MOST} were looked at more closely; ask for fewer"
            ));
        }
        let enough = self.is_enough();
        let failures = lock(&self.0);
        if let Some(one) = &failures.one {
            let rest = if enough {
                ", the rest was not asked for"
            } else {
                ""
            };
            let all = failures.all;
            warn(format!(
                "what the registry says of {all} snapshots could not be read{rest}: {one}"
            ));
        }
    }
}
