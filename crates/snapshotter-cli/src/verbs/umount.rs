//! `snapshotter umount`.

use std::io;
use std::path::PathBuf;

use serde::Serialize;

use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::Result;
use crate::output::Page;
use crate::output::human;

/// Takes away what mount has mounted
///
/// The process that served it ends, and with it what kept the snapshot. While something uses the filesystem this is an error (exit
/// code 8) and changes nothing. Where the process has died, what is left is taken away.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter umount /mnt/vm")]
pub struct Args {
    /// Where it is mounted
    #[arg(value_hint = clap::ValueHint::DirPath)]
    directory: PathBuf,
}

/// Runs it.
pub fn run(context: &Context, args: &Args) -> Result<Answer> {
    let mount_point = args.directory.clone();
    let unmounted =
        context.without_store(async { Ok(snapshotter::unmount(&args.directory).await?) });
    Ok(Answer::new(Unmounted {
        reference: unmounted?,
        mount_point,
    }))
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Unmounted {
    reference: String,
    mount_point: PathBuf,
}

impl Document for Unmounted {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        if page.quiet {
            return Ok(());
        }
        let point = human::path(&self.mount_point);
        writeln!(
            page.out,
            "{} is not mounted on {point} any more",
            self.reference
        )
    }
}
