//! What is measured.

mod chain;
mod large;
mod months;
mod nodes;
mod small;
mod travel;

use std::path::Path;

use testkit::compare::{Options, compare_with};
use testkit::s3::{ACCESS_KEY, S3, SECRET_KEY};

use crate::measure::Bench;
use crate::operation::{Operation, Place};
use crate::process::timed;
use crate::{Result, settle};

/// A kind of source and all comparisons with it.
pub(crate) struct Case {
    /// What its rows' names begin with.
    pub(crate) name: &'static str,
    /// Runs it.
    pub(crate) run: fn(&mut Bench) -> Result<()>,
}

/// All cases. Small files come first, when no other case has removed any file yet.
pub(crate) const ALL: [Case; 8] = [
    Case {
        name: small::NAME,
        run: small::run,
    },
    Case {
        name: large::DENSE,
        run: large::dense,
    },
    Case {
        name: large::SPARSE,
        run: large::sparse,
    },
    Case {
        name: chain::NAME,
        run: chain::run,
    },
    Case {
        name: nodes::NAME,
        run: nodes::run,
    },
    Case {
        name: travel::NAME,
        run: travel::run,
    },
    Case {
        name: travel::HUGE,
        run: travel::huge,
    },
    Case {
        name: months::NAME,
        run: months::run,
    },
];

const MIB: u64 = 1 << 20;

const FULL: &str = "full";
const BACKGROUND: &str = "background";
const NOT_SYNCED: &str = "not synced";

/// Empties the directory that runs write to, and reads what the next one reads.
fn settled(scratch: &Path, read: &Path) -> Result<()> {
    settle::remove(scratch)?;
    std::fs::create_dir_all(scratch)?;
    settle::warm(read)?;
    settle::sync();
    settle::wait_for_quiet()
}

/// Does an operation that is not measured.
fn take(operation: &Operation) -> Result<()> {
    timed(&mut [operation.command()?])?;
    Ok(())
}

/// A bucket as the place of contents, by this way and through this daemon.
fn bucket(s3: &S3, endpoint: String, daemon: Option<String>) -> Place {
    Place::S3 {
        endpoint,
        bucket: s3.bucket().to_owned(),
        key: ACCESS_KEY.to_owned(),
        secret: SECRET_KEY.to_owned(),
        daemon,
    }
}

/// That a restored tree has the source's files and bytes.
fn check(source: &Path, output: &Path) -> Result<()> {
    let differences = compare_with(source, output, &Options::contents());
    match differences.first() {
        None => Ok(()),
        Some(first) => Err(format!("restored wrongly: {first}").into()),
    }
}
