//! A document from arbitrary bytes, put into a real catalog and restored for real: whatever it says, nothing outside the
//! output directory is touched, no symlink in it is followed, and what is restored has the bytes of a blob.
//!
//! Input that begins with `{` is the document. Any other is a recipe: few bytes choose paths, targets and contents that
//! are valid one by one and hostile together, because random bytes are hardly ever JSON.
#![no_main]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use libfuzzer_sys::fuzz_target;
use snapshotter::fuzzing::restore::{Content, Stage};

/// In memory: hundreds of restores a second.
const PLACE: &str = "/dev/shm";
const PREFIX: &str = "snapshotter-fuzz-";

struct Jail {
    stage: Stage,
    contents: Vec<Content>,
    bytes: BTreeSet<Vec<u8>>,
    top: PathBuf,
    before: Vec<Seen>,
}

/// All that is to be seen of a path without reading it, and its bytes.
#[derive(Debug, PartialEq, Eq)]
struct Seen {
    path: PathBuf,
    inode: (u64, u64),
    mode: u32,
    owner: (u32, u32),
    /// Not of directories: the output is made and removed in one.
    changed: Option<(i64, i64, u64)>,
    bytes: Vec<u8>,
}

fn look(dir: &Path, except: &[&Path], seen: &mut Vec<Seen>) {
    let mut entries: Vec<PathBuf> = fs::read_dir(dir)
        .expect("a directory is listed")
        .map(|entry| entry.expect("a directory is listed").path())
        .collect();
    entries.sort();
    for path in entries {
        if except.contains(&path.as_path()) {
            continue;
        }
        let stat = fs::symlink_metadata(&path).expect("what is listed is there");
        let is_dir = stat.is_dir();
        let bytes = if stat.is_file() {
            fs::read(&path).expect("a canary can be read")
        } else {
            Vec::new()
        };
        seen.push(Seen {
            inode: (stat.dev(), stat.ino()),
            mode: stat.mode(),
            owner: (stat.uid(), stat.gid()),
            changed: (!is_dir).then(|| (stat.ctime(), stat.ctime_nsec(), stat.nlink())),
            bytes,
            path: path.clone(),
        });
        if is_dir {
            look(&path, except, seen);
        }
    }
}

impl Jail {
    fn new() -> Self {
        sweep_dead();
        let top = Path::new(PLACE).join(format!("{PREFIX}{}", std::process::id()));
        let files = top.join("files");
        fs::create_dir_all(&files).expect("a place in memory");
        fs::write(files.join("small"), "small").expect("a file is written");
        fs::write(files.join("empty"), "").expect("a file is written");
        fs::write(files.join("large"), vec![7; 9000]).expect("a file is written");
        let stage = Stage::new(&top.join("root"), &files).expect("a store");
        for dir in ["jail/outside", "jail/output"] {
            fs::create_dir_all(top.join(dir)).expect("a directory is made");
        }
        fs::write(top.join("jail/canary"), "canary").expect("a file is written");
        fs::write(top.join("jail/outside/canary"), "canary").expect("a file is written");
        fs::remove_dir(top.join("jail/output")).expect("it is empty");
        let contents = stage.contents().collect();
        let bytes = ["small", "empty", "large"]
            .map(|name| fs::read(files.join(name)).expect("it was written"));
        let mut jail = Self {
            stage,
            contents,
            bytes: bytes.into_iter().collect(),
            top,
            before: Vec::new(),
        };
        jail.before = jail.outside();
        jail
    }

    fn output(&self) -> PathBuf {
        self.top.join("jail/output")
    }

    /// Everything but the root, which changes, and the output.
    fn outside(&self) -> Vec<Seen> {
        let (root, output) = (self.top.join("root"), self.output());
        let mut seen = Vec::new();
        look(&self.top, &[&root, &output], &mut seen);
        seen
    }

    /// An output with traps in it: ways out, for whoever follows them.
    fn set_traps(&self) {
        let output = self.output();
        fs::create_dir_all(output.join("dir")).expect("a directory is made");
        symlink("../outside", output.join("link")).expect("a symlink is made");
        symlink("../canary", output.join("file-link")).expect("a symlink is made");
        symlink("../../outside", output.join("dir/link")).expect("a symlink is made");
    }

    fn check(&self) {
        assert_eq!(self.outside(), self.before, "something outside was touched");
        let output = self.output();
        if output.exists() {
            self.check_output(&output);
        }
    }

    fn check_output(&self, dir: &Path) {
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700)).expect("it is ours");
        for entry in fs::read_dir(dir).expect("a directory is listed") {
            let path = entry.expect("a directory is listed").path();
            let name = path.to_string_lossy();
            assert!(!is_temporary(&path), "a temporary stayed: {name}");
            let stat = fs::symlink_metadata(&path).expect("what is listed is there");
            assert_eq!(stat.mode() & 0o7000 & !0o1000, 0, "setuid: {name}");
            if stat.is_dir() {
                self.check_output(&path);
            } else if stat.is_file() {
                let bytes = fs::read(&path).unwrap_or_default();
                assert!(self.bytes.contains(&bytes), "wrong bytes in {name}");
            }
        }
    }
}

/// Called as the library calls what is not complete; a document may name files in a similar way.
fn is_temporary(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let random = name.strip_prefix(".snapshotter-");
    random.is_some_and(|random| random.len() == 16)
}

/// What fuzzers that were killed left in memory.
fn sweep_dead() {
    for entry in fs::read_dir(PLACE).expect("/dev/shm is there").flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some(pid) = name.strip_prefix(PREFIX) else {
            continue;
        };
        if !Path::new("/proc").join(pid).exists() {
            fs::remove_dir_all(entry.path()).ok();
        }
    }
}

/// Pieces of paths and targets.
const NAMES: [&str; 20] = [
    "a",
    "b",
    "dir",
    "link",
    "file-link",
    "canary",
    "outside",
    "output",
    "..",
    ".",
    "",
    "/",
    "a/b",
    "../outside",
    "/etc",
    "dir/..",
    "\\u0000",
    "\\ud800",
    ".snapshotter-0",
    "a\\\\b",
];

/// Reads a recipe.
struct Recipe<'a>(&'a [u8]);

impl Recipe<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn path(&mut self) -> String {
        let shape = self.byte();
        let mut path = String::new();
        for part in 0..=shape % 4 {
            if part > 0 {
                path.push('/');
            }
            path += NAMES[usize::from(self.byte()) % NAMES.len()];
        }
        if shape > 250 {
            path += &"x".repeat(260);
        }
        path
    }

    fn metadata(&mut self, kind: u8, size: u64) -> String {
        let mode = u32::from(self.byte()) << 4 | u32::from(self.byte() & 15);
        let owner = self.byte() & 1;
        let year = 1000 + u32::from(self.byte()) * 35;
        format!(
            "\"metadata\":{{\"mode\":{mode},\"uid\":{owner},\"gid\":{owner},\"size\":{size},\
             \"mtime\":\"{year:04}-01-02T03:04:05.6Z\",\"typeflag\":{kind}}}"
        )
    }

    fn xattrs(&mut self) -> &'static str {
        match self.byte() % 8 {
            0 => ",\"xattrs\":{\"user.x\":\"AAA=\"}",
            1 => ",\"xattrs\":{\"trusted.x\":\"\"}",
            2 => ",\"xattrs\":{\"security.capability\":\"AQAAAg==\"}",
            3 => ",\"xattrs\":{\"system.posix_acl_access\":\"AgAAAA==\"}",
            _ => "",
        }
    }

    fn file(&mut self, contents: &[Content]) -> String {
        let path = self.path();
        let choice = self.byte();
        let content = &contents[usize::from(choice) % contents.len()];
        let size = content.size + u64::from(choice > 240);
        let metadata = self.metadata(0, size);
        let link = if self.byte() % 4 == 0 {
            format!(",\"hardlinkOf\":\"{}\"", self.path())
        } else {
            String::new()
        };
        format!(
            "{{\"digest\":\"{}\",\"readOnly\":{},\"relativePath\":\"{path}\",{metadata},\"checksum\":\"{}\"{link}{}}}",
            content.digest,
            self.byte() % 2 == 0,
            content.checksum,
            self.xattrs()
        )
    }

    fn document(&mut self, contents: &[Content]) -> String {
        let (mut files, mut directories, mut symlinks) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..self.byte() % 8 {
            match self.byte() % 4 {
                0 => {
                    let path = self.path();
                    let metadata = self.metadata(5, 0);
                    let xattrs = self.xattrs();
                    directories.push(format!(
                        "{{\"relativePath\":\"{path}\",{metadata}{xattrs}}}"
                    ));
                }
                1 => {
                    let (path, target) = (self.path(), self.path());
                    let metadata = self.metadata(2, 0);
                    symlinks.push(format!(
                        "{{\"relativePath\":\"{path}\",\"target\":\"{target}\",{metadata}}}"
                    ));
                }
                _ => files.push(self.file(contents)),
            }
        }
        format!(
            "{{\"files\":[{}],\"directories\":[{}],\"symlinks\":[{}]}}",
            files.join(","),
            directories.join(","),
            symlinks.join(",")
        )
    }
}

fuzz_target!(|bytes: &[u8]| {
    static JAIL: OnceLock<Jail> = OnceLock::new();
    let jail = JAIL.get_or_init(Jail::new);
    let (document, traps) = match bytes.first() {
        Some(b'{') => (bytes.to_vec(), bytes.len() % 2 == 0),
        first => {
            let mut recipe = Recipe(bytes.get(1..).unwrap_or_default());
            let traps = first.is_some_and(|first| first % 2 == 0);
            (recipe.document(&jail.contents).into_bytes(), traps)
        }
    };
    if traps {
        jail.set_traps();
    }
    // Refused or restored: both are right.
    let restored = jail.stage.restore(&document, &jail.output());
    jail.check();
    drop(restored);
    fs::remove_dir_all(jail.output()).ok();
});
