//! What the tests of the command share: a directory with files and a root of its own, the command run in it with an
//! environment that holds nothing else, and what it said with everything that differs between runs replaced.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use rustix::fs::{Mode, OFlags, open};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tempfile::TempDir;

/// Replaces what differs from run to run and from machine to machine.
const FILTERS: [(&str, &str); 16] = [
    (r"sha256:[0-9a-f]{64}", "sha256:[HASH]"),
    (r"sha256:[0-9a-f]{12}\b", "sha256:[SHORT]"),
    (r"blake3:[0-9a-f]{64}", "blake3:[HASH]"),
    (r"xxh3:[0-9a-f]{1,16}", "xxh3:[HASH]"),
    (r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "[TIME]"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d UTC", "[TIME]"),
    (r"\d+ MiB are free", "[N] MiB are free"),
    (r"/\S*testkit-mount-[^/\s]+/mounted", "[MOUNT]"),
    (
        r#""durationSeconds":[0-9.e-]+"#,
        r#""durationSeconds":[SECONDS]"#,
    ),
    (r"in \d+(\.\d+)? m?s\b", "in [DURATION]"),
    (
        r#""(filesystemBytes|availableBytes)":\d+"#,
        r#""$1":[BYTES]"#,
    ),
    (r"(available  ).*", "$1[SPACE]"),
    (r"(on disk      ).*", "$1[SPACE]"),
    (
        r#""allocatedBytes":\d+,"allocated":\{[^}]*\}"#,
        r#""allocatedBytes":[BYTES],"allocated":{[BYTES]}"#,
    ),
    (r#""(uid|gid)":\d+"#, r#""$1":[ID]"#),
    (r"(?m)^([-dl][rwx-]{9}  )\d+:\d+ +", "$1[OWNER]  "),
];

/// The other user that tests run as, if they run as root.
const NOBODY: u32 = 65534;

/// A place to try things in.
pub struct Place {
    dir: TempDir,
    /// What else is in the command's environment.
    variables: Vec<(String, String)>,
}

/// What the command said.
#[derive(Debug)]
pub struct Said {
    pub line: String,
    pub code: Option<i32>,
    pub out: String,
    pub err: String,
}

impl Place {
    /// With a directory `vm` of three files, a directory and a symlink.
    pub fn new() -> Self {
        let place = Self {
            dir: TempDir::with_prefix("snapshotter-cli-").unwrap(),
            variables: Vec::new(),
        };
        place.chmod("", 0o755);
        fs::create_dir_all(place.path("vm/images")).unwrap();
        place.write("vm/memory", &[7; 300_000]);
        place.write("vm/images/disk.img", &[9; 70_000]);
        place.write("vm/state.json", b"{}\n");
        std::os::unix::fs::symlink("memory", place.path("vm/latest")).unwrap();
        place.chmod("vm", 0o755);
        place.chmod("vm/images", 0o755);
        place
    }

    /// The same, with a snapshot `vm:v1` of it.
    pub fn with_snapshot() -> Self {
        let place = Self::new();
        place
            .run(["snapshot", "vm:v1", "vm", "--link-mode", "copy"])
            .succeeded();
        place
    }

    /// With a registry and a place of contents, both of them directories, and nothing published yet.
    pub fn with_registry() -> Self {
        let place = Self::new();
        fs::create_dir(place.path("contents")).unwrap();
        let registry = format!("oci-layout:{}", place.path("registry").display());
        let contents = place.path("contents").display().to_string();
        place
            .set("SNAPSHOTTER_REGISTRY_ENDPOINT", registry)
            .set("SNAPSHOTTER_REGISTRY_NAMESPACE", "team")
            .set("SNAPSHOTTER_CONTENT_PROVIDER", "fs")
            .set("SNAPSHOTTER_CONTENT_ROOT", contents)
    }

    /// The same, with `vm:v1` taken on another node and published: here is no root yet.
    pub fn with_published() -> Self {
        let place = Self::with_registry();
        let taken = ["snapshot", "vm:v1", "vm", "--link-mode", "copy"];
        place.on("other", taken).succeeded();
        place
    }

    /// Adds a variable to the command's environment.
    pub fn set(mut self, name: &str, value: impl Into<String>) -> Self {
        self.variables.retain(|(other, _)| other != name);
        self.variables.push((name.to_owned(), value.into()));
        self
    }

    /// Takes a variable out of the command's environment.
    pub fn unset(mut self, name: &str) -> Self {
        self.variables.retain(|(other, _)| other != name);
        self
    }

    /// Runs the command on another node: with another root.
    pub fn on<S: AsRef<OsStr>>(&self, root: &str, args: impl IntoIterator<Item = S>) -> Said {
        self.said(self.command(args).env("SNAPSHOTTER_ROOT_DIR", root))
    }

    /// The objects in the directory that stands in for a bucket.
    pub fn contents(&self) -> Vec<PathBuf> {
        let objects = fs::read_dir(self.path("contents/xxh3"));
        let mut objects: Vec<_> = objects
            .into_iter()
            .flatten()
            .map(|entry| entry.unwrap().path())
            .collect();
        objects.sort();
        objects
    }

    /// Alters the last byte of one of these objects.
    pub fn alter_an_object(&self) {
        let object = &self.contents()[0];
        let mut bytes = fs::read(object).unwrap();
        *bytes.last_mut().unwrap() ^= 1;
        fs::remove_file(object).unwrap();
        fs::write(object, bytes).unwrap();
    }

    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.dir.path().join(name)
    }

    pub fn write(&self, name: &str, bytes: &[u8]) {
        fs::write(self.path(name), bytes).unwrap();
        self.chmod(name, 0o644);
    }

    pub fn chmod(&self, name: &str, mode: u32) {
        fs::set_permissions(self.path(name), Permissions::from_mode(mode)).unwrap();
    }

    /// The command, its root in `root`, and nothing else in its environment that could matter.
    pub fn command<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        self.program(env!("CARGO_BIN_EXE_snapshotter"), args)
    }

    pub fn program<S: AsRef<OsStr>>(
        &self,
        program: impl AsRef<OsStr>,
        args: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut command = Command::new(program);
        command
            .args(args)
            .current_dir(self.dir.path())
            .env_clear()
            .env("HOME", self.path("home"))
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("SNAPSHOTTER_ROOT_DIR", "root")
            .envs(self.variables.iter().cloned())
            .stdin(Stdio::null());
        command
    }

    /// Runs a line of shell, for which the command is on the path.
    pub fn run_in_shell(&self, line: &str) -> Said {
        let built = Path::new(env!("CARGO_BIN_EXE_snapshotter")).parent();
        let mut path = built.unwrap().as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap_or_default());
        let mut shell = self.program("bash", ["-euc", line]);
        self.said(shell.env("PATH", path))
    }

    pub fn run<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Said {
        self.said(&mut self.command(args))
    }

    /// Runs it with something on its standard input.
    pub fn run_with_input<S: AsRef<OsStr>>(
        &self,
        args: impl IntoIterator<Item = S>,
        input: &[u8],
    ) -> Said {
        let mut command = self.command(args);
        command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        child.stdin.take().unwrap().write_all(input).unwrap();
        let output = child.wait_with_output().unwrap();
        Said::new(&command, &output, self.dir.path())
    }

    /// Runs it as somebody who is not root; root's files are then somebody else's.
    pub fn run_unprivileged<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Said {
        let mut command = self.command(args);
        if rustix::process::geteuid().is_root() {
            // The directory it was built in may be closed to others.
            let copy = self.path("snapshotter");
            fs::copy(env!("CARGO_BIN_EXE_snapshotter"), &copy).unwrap();
            self.chmod("snapshotter", 0o755);
            let mut other = Command::new(copy);
            other
                .args(command.get_args())
                .env_clear()
                .current_dir(self.dir.path());
            for (name, value) in command.get_envs() {
                other.env(name, value.unwrap());
            }
            other.uid(NOBODY).gid(NOBODY).stdin(Stdio::null());
            command = other;
        }
        self.said(&mut command)
    }

    pub fn said(&self, command: &mut Command) -> Said {
        let output = command.output().unwrap();
        Said::new(command, &output, self.dir.path())
    }

    /// The files of the store.
    pub fn blobs(&self) -> Vec<PathBuf> {
        match fs::read_dir(self.path("root/storage/content/blake3/0000")) {
            Ok(names) => names.map(|entry| entry.unwrap().path()).collect(),
            Err(_) => Vec::new(),
        }
    }

    /// The file of the store that holds most bytes.
    pub fn largest_blob(&self) -> PathBuf {
        self.blobs()
            .into_iter()
            .max_by_key(|blob| fs::metadata(blob).unwrap().len())
            .unwrap()
    }

    /// Holds the catalog of the root, as another process might.
    pub fn hold_catalog(&self) -> rusqlite::Connection {
        let catalog = rusqlite::Connection::open(self.path("root/metadata/catalog.db")).unwrap();
        catalog.execute_batch("BEGIN IMMEDIATE").unwrap();
        catalog
    }

    /// Nothing of an interrupted command is left: no staging, no owner, and everything verifies.
    pub fn assert_tidy(&self) {
        self.run(["verify"]).succeeded();
        for name in ["staging", "leases", "trash"] {
            let left: Vec<_> = fs::read_dir(self.path("root").join(name))
                .unwrap()
                .collect();
            assert!(left.is_empty(), "{name}: {left:?}");
        }
    }
}

impl Said {
    fn new(command: &Command, output: &Output, dir: &Path) -> Self {
        let dir = dir.to_str().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).replace(dir, "[DIR]");
        let words: Vec<_> = command
            .get_args()
            .map(|arg| arg.to_string_lossy())
            .collect();
        Self {
            line: format!("snapshotter {}", words.join(" ")).replace(dir, "[DIR]"),
            code: output.status.code(),
            out: text(&output.stdout),
            err: text(&output.stderr),
        }
    }

    #[track_caller]
    pub fn succeeded(self) -> Self {
        self.exited(0)
    }

    #[track_caller]
    pub fn exited(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{self:#?}");
        self
    }

    /// The same with the address of a server, whose port differs from run to run, replaced.
    pub fn without(mut self, address: &str) -> Self {
        for text in [&mut self.out, &mut self.err] {
            *text = text.replace(address, "[SERVER]");
        }
        self
    }

    /// The document on stdout, and that nothing else is there.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        assert_eq!(self.out.lines().count(), 1, "{self:#?}");
        let document: serde_json::Value = serde_json::from_str(&self.out).unwrap();
        assert_eq!(document["schema"], 1, "{self:#?}");
        document
    }

    /// The session as a person saw it.
    pub fn shown(&self) -> String {
        let mut shown = format!("$ {}\n{}", self.line, self.out);
        if !self.err.is_empty() {
            shown += &format!("-- stderr\n{}", self.err);
        }
        let code = self.code.map_or("none".to_owned(), |code| code.to_string());
        shown + &format!("-- exit code {code}\n")
    }
}

/// The settings under which snapshots are compared.
pub fn settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    for (pattern, text) in FILTERS {
        settings.add_filter(pattern, text);
    }
    settings.set_omit_expression(true);
    settings.set_prepend_module_to_snapshot(true);
    settings
}

/// Compares a session with the one that was accepted.
macro_rules! assert_session {
    ($name:expr, $said:expr) => {
        support::settings().bind(|| insta::assert_snapshot!($name, $said.shown()))
    };
}

/// A pseudo-terminal of this many columns: our side and the command's.
pub fn terminal(columns: u16) -> (File, OwnedFd) {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&ours).unwrap();
    unlockpt(&ours).unwrap();
    let size = Winsize {
        ws_row: 24,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    tcsetwinsize(&ours, size).unwrap();
    let name = ptsname(&ours, Vec::new()).unwrap();
    let theirs = open(name, OFlags::RDWR | OFlags::NOCTTY, Mode::empty()).unwrap();
    (File::from(ours), theirs)
}

/// What the terminal was sent; it says EIO when nobody has its other side open any more.
pub fn read_all(mut ours: File) -> String {
    let mut bytes = Vec::new();
    let mut piece = [0; 4096];
    loop {
        match ours.read(&mut piece) {
            Ok(0) => break,
            Ok(read) => bytes.extend_from_slice(&piece[..read]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    String::from_utf8(bytes).unwrap()
}
