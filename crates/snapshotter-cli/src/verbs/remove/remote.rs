//! `snapshotter remove --remote`.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::io;

use serde::Serialize;
use snapshotter::{ErrorKind, Reference, Sha256, Snapshotter};

use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::Result;
use crate::hints;
use crate::output::Page;
use crate::output::human;
use crate::output::json;
use crate::output::json::Called;

/// A snapshot in the registry, as it was asked for.
struct Found {
    reference: Reference,
    /// Not known of one whose description is damaged; it can be removed all the same.
    digest: Option<Sha256>,
}

/// Removes snapshots from the registry, or shows which.
pub fn run(context: &Context, references: &[Reference], dry_run: bool) -> Result<Answer> {
    let done = RefCell::new(Vec::new());
    let work = async |store: &Snapshotter| {
        for mut one in look_up(store, references).await? {
            if !dry_run {
                one.digest = Some(remove(store, &one).await?);
            }
            done.borrow_mut().push(one);
        }
        Ok(())
    };
    // A store here is told that what it has is an only copy now.
    let closed = if context.has_store() && !dry_run {
        context.require_registry()?;
        context.with_store_and_remote(work)
    } else {
        context.with_remote(work)
    };
    let done = done.into_inner();
    let (warnings, failure) = super::unless_nothing_done(done.is_empty(), closed)?;
    let answer = Removed {
        dry_run,
        remote: true,
        removed: done.iter().map(One::new).collect(),
        error: failure.as_ref().map(json::error),
        place: context.registry().unwrap_or_default(),
    };
    Ok(Answer::new(answer)
        .with_warnings(warnings)
        .with_failure(failure))
}

/// Each manifest once: deleting it removes all its names.
async fn look_up(store: &Snapshotter, references: &[Reference]) -> Result<Vec<Found>> {
    let mut seen = BTreeSet::new();
    let mut found = Vec::new();
    for reference in references {
        let digest = match store.inspect_remote(reference).await {
            Ok(details) => Some(details.manifest_digest),
            Err(error) if error.kind() == ErrorKind::Damaged => None,
            Err(error) => return Err(hints::there(error.into())),
        };
        let is_new = seen.insert((
            reference.name(),
            digest.map(|digest| digest.to_string()),
            digest.is_none().then_some(reference),
        ));
        if is_new {
            found.push(Found {
                reference: reference.clone(),
                digest,
            });
        }
    }
    Ok(found)
}

/// What was found, and nothing that has taken its name since.
async fn remove(store: &Snapshotter, found: &Found) -> Result<Sha256> {
    let exactly = match found.digest {
        Some(digest) => found.reference.clone().with_digest(digest),
        None => found.reference.clone(),
    };
    let removed = store.remove_remote(&exactly).await;
    removed.map_err(|error| hints::there(error.into()))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Removed {
    dry_run: bool,
    remote: bool,
    removed: Vec<One>,
    /// What the others could not be removed for.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<serde_json::Value>,
    #[serde(skip)]
    place: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct One {
    #[serde(flatten)]
    reference: Called,
    manifest_digest: Option<String>,
}

impl One {
    fn new(found: &Found) -> Self {
        Self {
            reference: Called::new(&found.reference),
            manifest_digest: found.digest.map(|digest| digest.to_string()),
        }
    }
}

impl Document for Removed {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        if page.quiet && !self.dry_run {
            return Ok(());
        }
        let verb = if self.dry_run {
            "would remove"
        } else {
            "removed"
        };
        let place = human::visible(&self.place);
        for one in &self.removed {
            let digest = one.manifest_digest.as_deref().unwrap_or("damaged");
            let name = human::without_digest(&one.reference);
            writeln!(page.out, "{verb} {name} from {place}: {digest}")?;
        }
        Ok(())
    }
}
