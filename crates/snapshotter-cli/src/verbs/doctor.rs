//! `snapshotter doctor`.

use std::io;
use std::path::{Path, PathBuf};

use clap::ValueHint;
use serde::Serialize;
use snapshotter::{
    Capability, Diagnosis, DragonflyDiagnosis, ErrorKind, OutputDiagnosis, RemoteDiagnosis,
};

use crate::answer::{Answer, Document};
use crate::context::Context;
use crate::failure::{Failure, Result};
use crate::output::human::{self, bytes, visible};
use crate::output::json::Named;
use crate::output::{GOOD, Page, STRONG, WARNING};

/// Finds out what this machine can do, by trying
///
/// With OUTPUT_DIR, an existing directory, also how files get from the root to there. The root is made if it is not there
/// yet. A configured registry and place of contents are asked whether they let this command in. A bucket is tried as a
/// snapshot uses it: probes of 5 MiB, xxh3/doctor-probe-…, and of 2 bytes, packs/doctor-probe-…, are sent, looked at, read and
/// removed again.
/// Dragonfly's daemon is asked to publish and to bring an empty file: its object, of 20 bytes, is in the bucket afterwards.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
Examples:
  snapshotter doctor
  snapshotter doctor /run/vm
      whether restores into /run/vm can be hardlinks or share blocks")]
pub struct Args {
    /// A directory that snapshots are to be restored into
    #[arg(value_hint = ValueHint::DirPath)]
    output_dir: Option<PathBuf>,
}

/// Runs it.
pub fn run(context: &Context, args: &Args) -> Result<Answer> {
    let output = args.output_dir.as_deref();
    let found = context.with_store_and_remote(async |store| {
        let found = store.diagnose(output).await;
        let found = found.map_err(|error| explain(error.into(), output))?;
        Ok((found, store.diagnose_remote().await?))
    })?;
    let (here, there) = &found.value;
    Ok(Answer::new(Findings::new(here, there.as_ref())).with_warnings(found.warnings))
}

fn explain(failure: Failure, output: Option<&Path>) -> Failure {
    match output {
        Some(output) if !output.is_dir() => {
            failure.with_hint("OUTPUT_DIR must be an existing directory")
        }
        _ => failure,
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Findings {
    root: Named,
    filesystem: String,
    filesystem_bytes: u64,
    available_bytes: u64,
    privileged: bool,
    openat2: bool,
    open_files_limit: u64,
    read_only: bool,
    output: Option<Output>,
    registry: Option<Server>,
    content: Option<Server>,
    dragonfly: Option<Daemon>,
    #[serde(skip)]
    shown_root: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Output {
    #[serde(flatten)]
    dir: Named,
    filesystem: String,
    available_bytes: u64,
    same_filesystem: bool,
    hardlink: Can,
    reflink: Can,
    unnamed_files: Can,
    #[serde(skip)]
    shown_dir: String,
}

#[derive(Serialize)]
struct Can {
    works: bool,
    why: Option<String>,
}

/// A registry or a place of contents.
#[derive(Serialize)]
struct Server {
    place: String,
    error: Option<Trouble>,
    /// Of a place of contents: what the keys may not do that publications can do without.
    #[serde(skip_serializing_if = "Option::is_none")]
    denied: Option<Vec<&'static str>>,
}

#[derive(Serialize)]
struct Trouble {
    kind: &'static str,
    message: String,
}

impl Server {
    fn new(place: &str, error: Option<&(ErrorKind, String)>) -> Self {
        let trouble = |(kind, message): &(ErrorKind, String)| Trouble {
            kind: kind.as_str(),
            message: message.clone(),
        };
        Self {
            place: place.to_owned(),
            error: error.map(trouble),
            denied: None,
        }
    }

    fn text(&self, page: &mut Page<'_>, name: &str) -> io::Result<()> {
        let place = visible(&self.place);
        match &self.error {
            None => line(page, true, name, &format!("{place} can be used"))?,
            Some(error) => {
                let text = format!("{place}: {}", visible(&error.message));
                line(page, false, name, &text)?;
            }
        }
        for denied in self.denied.iter().flatten() {
            line(page, false, "its keys", &format!("may not {denied}"))?;
        }
        Ok(())
    }
}

/// Dragonfly's daemon.
#[derive(Serialize)]
struct Daemon {
    endpoint: String,
    error: Option<Trouble>,
    files: Option<Can>,
    hardlink: Option<Can>,
}

impl Daemon {
    fn new(diagnosis: &DragonflyDiagnosis) -> Self {
        let server = Server::new(&diagnosis.endpoint, diagnosis.error.as_ref());
        Self {
            endpoint: server.place,
            error: server.error,
            files: diagnosis.files.as_ref().map(Can::new),
            hardlink: diagnosis.hardlink.as_ref().map(Can::new),
        }
    }

    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        let endpoint = visible(&self.endpoint);
        match &self.error {
            None => line(page, true, "dragonfly", &format!("{endpoint} serves"))?,
            Some(error) => {
                let text = format!("{endpoint}: {}", visible(&error.message));
                line(page, false, "dragonfly", &text)?;
            }
        }
        if let Some(files) = &self.files {
            let (yes, no) = (
                "it finds this root's files",
                "it cannot be used with this root",
            );
            files.text(page, "its files", yes, no)?;
        }
        match &self.hardlink {
            Some(hardlink) => hardlink.text(
                page,
                "its hardlinks",
                "what it brings shares an inode with its cache",
                "what it brings takes space twice",
            ),
            None => Ok(()),
        }
    }
}

impl Findings {
    fn new(diagnosis: &Diagnosis, remote: Option<&RemoteDiagnosis>) -> Self {
        let registry = |remote: &RemoteDiagnosis| {
            Server::new(&remote.registry, remote.registry_error.as_ref())
        };
        let content = |remote: &RemoteDiagnosis| {
            let place = remote.content.as_deref()?;
            let mut server = Server::new(place, remote.content_error.as_ref());
            server.denied = Some(remote.content_denied.clone());
            Some(server)
        };
        Self {
            registry: remote.map(registry),
            content: remote.and_then(content),
            dragonfly: remote
                .and_then(|remote| remote.dragonfly.as_ref())
                .map(Daemon::new),
            root: Named::new(&diagnosis.root_dir),
            filesystem: diagnosis.filesystem.clone(),
            filesystem_bytes: diagnosis.filesystem_bytes,
            available_bytes: diagnosis.available_bytes,
            privileged: diagnosis.privileged,
            openat2: diagnosis.openat2,
            open_files_limit: diagnosis.open_files_limit,
            read_only: diagnosis.read_only,
            output: diagnosis.output.as_ref().map(Output::new),
            shown_root: human::path(&diagnosis.root_dir),
        }
    }
}

impl Output {
    fn new(output: &OutputDiagnosis) -> Self {
        Self {
            dir: Named::new(&output.dir),
            filesystem: output.filesystem.clone(),
            available_bytes: output.available_bytes,
            same_filesystem: output.same_filesystem,
            hardlink: Can::new(&output.hardlink),
            reflink: Can::new(&output.reflink),
            unnamed_files: Can::new(&output.unnamed_files),
            shown_dir: human::path(&output.dir),
        }
    }

    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        writeln!(page.out, "\n{STRONG}{}{STRONG:#}", self.shown_dir)?;
        let place = if self.same_filesystem {
            "the root's"
        } else {
            "another than the root's: files are copied"
        };
        line(
            page,
            true,
            "filesystem",
            &format!("{}, {place}", self.filesystem),
        )?;
        line(page, true, "available", &bytes(self.available_bytes))?;
        self.hardlink.text(
            page,
            "hardlinks",
            "read-only files share an inode with the store",
            "read-only files are cloned or copied",
        )?;
        self.reflink.text(
            page,
            "reflinks",
            "writable files share blocks with the store",
            "writable files are copied",
        )?;
        self.unnamed_files.text(
            page,
            "unnamed files",
            "a crash leaves no temporary names",
            "a crash can leave a temporary name",
        )
    }
}

impl Can {
    fn new(capability: &Capability) -> Self {
        let why = match capability {
            Capability::Yes => None,
            Capability::No(why) => Some(why.clone()),
            _ => Some("unknown".to_owned()),
        };
        Self {
            works: why.is_none(),
            why,
        }
    }

    fn text(&self, page: &mut Page<'_>, name: &str, yes: &str, no: &str) -> io::Result<()> {
        match &self.why {
            None => line(page, true, name, yes),
            Some(why) => line(page, false, name, &format!("{no}: {}", visible(why))),
        }
    }
}

/// Of what a memory dump of many pages needs at once: this is generous.
const ENOUGH_FILES: u64 = 256;

impl Document for Findings {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        writeln!(page.out, "{STRONG}{}{STRONG:#} (root)", self.shown_root)?;
        line(page, true, "filesystem", &self.filesystem)?;
        let space = format!(
            "{} of {}",
            bytes(self.available_bytes),
            bytes(self.filesystem_bytes)
        );
        line(page, true, "available", &space)?;
        let mount = if self.read_only {
            "read-only: what is there can be restored, and nothing keeps it from being removed elsewhere meanwhile"
        } else {
            "writable"
        };
        line(page, !self.read_only, "mount", mount)?;
        let owners = if self.privileged {
            "are restored"
        } else {
            "are not restored: that takes root"
        };
        line(page, self.privileged, "owners", owners)?;
        let openat2 = if self.openat2 {
            "openat2"
        } else {
            "no openat2 here: component by component, slower"
        };
        line(page, self.openat2, "safe paths", openat2)?;
        let enough = self.open_files_limit >= ENOUGH_FILES;
        line(
            page,
            enough,
            "open files",
            &format!("at most {}", self.open_files_limit),
        )?;
        if let Some(output) = &self.output {
            output.text(page)?;
        }
        self.write_remote(page)
    }
}

impl Findings {
    fn write_remote(&self, page: &mut Page<'_>) -> io::Result<()> {
        let Some(registry) = &self.registry else {
            return Ok(());
        };
        writeln!(page.out, "\n{STRONG}Elsewhere{STRONG:#}")?;
        registry.text(page, "registry")?;
        match &self.content {
            Some(content) => content.text(page, "contents")?,
            None => line(
                page,
                false,
                "contents",
                "content.provider is not set: nothing can be published",
            )?,
        }
        match &self.dragonfly {
            Some(daemon) => daemon.text(page),
            None => Ok(()),
        }
    }
}

fn line(page: &mut Page<'_>, well: bool, name: &str, text: &str) -> io::Result<()> {
    let (style, mark) = if well { (GOOD, "ok") } else { (WARNING, "--") };
    writeln!(page.out, "  {style}{mark}{style:#}  {name:<14} {text}")
}
