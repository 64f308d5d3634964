//! The flags that are settings: they win over everything else.

use std::ffi::OsString;

use super::keys::Key;
use super::{Assignment, Source, bad_value};
use crate::arguments::Global;
use crate::failure::Result;

/// Which settings which flag sets, and to what.
fn given(global: &Global) -> impl Iterator<Item = (&'static str, &'static str, OsString)> {
    let text = |given: &Option<String>| given.clone().map(OsString::from);
    let root = global.root.clone().map(OsString::from);
    let jobs = text(&global.jobs);
    [
        (Key::ROOT.name, "--root", root),
        ("limit_upload", "--limit-upload", text(&global.limit_upload)),
        (
            "limit_download",
            "--limit-download",
            text(&global.limit_download),
        ),
        ("snapshot_concurrency", "--jobs", jobs.clone()),
        ("restore_concurrency", "--jobs", jobs),
    ]
    .into_iter()
    .filter_map(|(name, flag, text)| Some((name, flag, text?)))
}

/// What the flags set.
pub fn assignments(global: &Global) -> Result<Vec<Assignment>> {
    let assigned = |(name, flag, text): (&str, &'static str, OsString)| {
        let key = Key::named(name)?;
        let value = key.parse(&text).map_err(|why| bad_value(flag, &why));
        let source = Source::Flag(flag);
        Some(value.map(|value| Assignment { key, value, source }))
    };
    given(global).filter_map(assigned).collect()
}
