//! Going over all contents of a place: what is needed stays, what a ripe list names goes, and what nothing needs besides is
//! for the next list. Nothing is kept of an object but eight bytes, and that only if it may go later.

use std::collections::HashSet;
use std::sync::Mutex;

use super::lease::{Lease, QUARTER};
use super::list::{MOST, Print};
use super::mark::Marked;
use super::rules::may_go;
use super::shelf::Shelf;
use super::{CollectReport, Context};
use crate::lock::lock;
use crate::transport::Listed;
use crate::words::error::{Error, ErrorKind, Result};
use crate::words::object::ObjectName;
use crate::words::progress::WarningKind;

/// Refusals that are named one by one.
const NAMED: u64 = 20;

/// What may go: what lists name that are old enough, and when the first of those was written.
pub(super) struct Condemned {
    pub(super) prints: HashSet<Print>,
    pub(super) written: Option<i64>,
}

pub(super) struct Sweep<'a> {
    pub(super) context: &'a Context<'a>,
    pub(super) shelf: Shelf<'a>,
    /// None in a dry run.
    pub(super) lease: Option<&'a Lease<'a>>,
    pub(super) marked: &'a Marked,
    pub(super) condemned: Condemned,
    pub(super) done: Mutex<Done>,
}

#[derive(Default)]
pub(super) struct Done {
    pub(super) report: CollectReport,
    pub(super) candidates: Vec<Print>,
}

impl Sweep<'_> {
    pub(super) fn run(&self) -> Result<()> {
        for prefix in ObjectName::PREFIXES {
            self.shelf
                .each(&format!("{prefix}/"), &mut |some| self.some(some))?;
        }
        Ok(())
    }

    fn some(&self, some: Vec<Listed>) -> Result<()> {
        let mut goes = Vec::new();
        for listed in some.into_iter().filter(|listed| is_contents(&listed.key)) {
            let print = Print::of(&listed.key);
            let is_needed = self.marked.prints.contains(&print);
            let mut done = lock(&self.done);
            done.report.objects += 1;
            done.report.bytes = done.report.bytes.saturating_add(listed.size);
            if is_needed {
                continue;
            }
            match may_go(is_needed, self.written(print), listed.modified) {
                true => goes.push((listed, print)),
                false => done.keep(&listed, print),
            }
        }
        self.context
            .limit
            .for_each(self.shelf.activity, goes.len(), |index| {
                let (listed, print) = &goes[index];
                self.remove(listed, *print)
            })
    }

    /// When the list was written that names it.
    fn written(&self, print: Print) -> Option<i64> {
        let is_named = self.condemned.prints.contains(&print);
        self.condemned.written.filter(|_| is_named)
    }

    fn remove(&self, listed: &Listed, print: Print) -> Result<()> {
        self.shelf.activity.check()?;
        let removed = match self.lease {
            None => Ok(true),
            Some(lease) => {
                lease.hold()?;
                self.look_and_remove(listed, print)
            }
        };
        let mut done = lock(&self.done);
        match removed {
            Ok(true) => done.removed(listed),
            Ok(false) => done.keep(listed, print),
            Err(error) if is_refusal(&error) => {
                done.report.refused += 1;
                if done.report.refused <= NAMED {
                    let text = format!("{} stays: {}", listed.key, error.line());
                    self.shelf.activity.warn(WarningKind::Locked, None, text);
                }
                done.keep(listed, print);
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Looks right before, because a publisher may have sent it since it was listed; says whether it went. Nothing is left
    /// under way when the time is over: a request that is dropped is not sent again.
    fn look_and_remove(&self, listed: &Listed, print: Print) -> Result<bool> {
        let found = self.timely(self.shelf.look_now(&listed.key))?;
        let Some(found) = found else {
            return Ok(true);
        };
        if !may_go(false, self.written(print), found.modified) {
            return Ok(false);
        }
        self.timely(self.shelf.remove(&listed.key))?;
        Ok(true)
    }

    fn timely<T>(&self, call: impl Future<Output = Result<T>>) -> Result<T> {
        self.shelf.wait(async {
            match tokio::time::timeout(QUARTER / 2, call).await {
                Ok(ended) => ended,
                Err(_) => {
                    let text = format!(
                        "{} took more than {} s to remove an object",
                        self.shelf.place(),
                        (QUARTER / 2).as_secs()
                    );
                    Err(Error::new(ErrorKind::Unavailable, text))
                }
            }
        })
    }
}

/// A probe of `doctor` may go like contents; what else somebody put there is his.
fn is_contents(key: &str) -> bool {
    let Some((prefix, name)) = key.split_once('/') else {
        return false;
    };
    let is_hex = name.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    let is_name = match prefix {
        "xxh3" => (1..=16).contains(&name.len()) && (name == "0" || !name.starts_with('0')),
        _ => name.len() == 64,
    };
    is_hex && is_name || name.starts_with("doctor-probe-")
}

/// Object Lock, a legal hold, a policy, an immutable file: what cannot go is no reason to keep the rest.
fn is_refusal(error: &Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::PermissionDenied | ErrorKind::Unsupported
    )
}

impl Done {
    fn keep(&mut self, listed: &Listed, print: Print) {
        if self.candidates.len() < MOST {
            self.candidates.push(print);
            self.report.candidates += 1;
            let bytes = &mut self.report.candidate_bytes;
            *bytes = bytes.saturating_add(listed.size);
        }
    }

    fn removed(&mut self, listed: &Listed) {
        self.report.removed += 1;
        let bytes = &mut self.report.removed_bytes;
        *bytes = bytes.saturating_add(listed.size);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contents_are_told_by_their_names() {
        let pack = format!("packs/{}", "0a".repeat(32));
        for key in ["xxh3/0", "xxh3/abc", &pack, "xxh3/doctor-probe-1"] {
            assert!(is_contents(key), "{key}");
        }
        for key in [
            "xxh3/00", "xxh3/", "xxh3/ABC", "packs/0a", "xxh3/a/b", "xxh3",
        ] {
            assert!(!is_contents(key), "{key}");
        }
    }
}
