//! Restores of documents nobody honest would write, and into directories somebody prepared: whatever they say, nothing
//! outside the output changes, nothing hangs, and no name ever stands for half a file.

use crate::support_b;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use snapshotter::{Error, ErrorKind, File, LinkMode, RestoreReport, SnapshotRequest};
use support_b::document::{self, add, entry};
use support_b::outside::{self, assert_nothing_temporary};
use support_b::{Handle, refusal, restore_request};
use tempfile::TempDir;
use testkit::compare::assert_same;
use testkit::tree::Node;
use testkit::{Content, Tree};

const VICTIM: &str = "victim:v1";

/// A store with the snapshot to tamper with, an output, and a tree outside of it that must not change.
struct Scene {
    dir: TempDir,
    root: PathBuf,
    source: PathBuf,
    output: PathBuf,
    /// What must not change, and what it must stay like.
    outside: PathBuf,
    pristine: PathBuf,
    /// The document as we wrote it.
    honest: Value,
}

fn sentinel() -> Tree {
    Tree::new()
        .file("secret", "outside bytes")
        .mode("secret", 0o640)
        .mtime("secret", 1_000_000_000, 1)
        .file("dir/x", "another outside")
        .mtime("dir/x", 1_000_000_000, 2)
        .dir("empty")
        .mode("empty", 0o700)
        .mtime("empty", 1_000_000_000, 3)
        .mtime("dir", 1_000_000_000, 4)
}

/// Files of both kinds at the top and in a directory, a second name, a symlink, an empty directory.
fn honest_tree() -> Tree {
    let files = [
        ("plain", "plain bytes"),
        ("shared", "shared bytes"),
        ("d/plain", "plain bytes below"),
        ("d/shared", "shared bytes below"),
        ("twice", "one inode"),
    ];
    let tree = files.iter().fold(Tree::new(), |tree, (path, text)| {
        tree.file(path, *text).mtime(path, 1_700_000_000, 5)
    });
    tree.hardlink("twice-again", "twice")
        .dir("empty")
        .symlink("link", "plain")
        .mtime("link", 1_700_000_000, 6)
        .mtime("empty", 1_700_000_000, 7)
        .mtime("d", 1_700_000_000, 8)
}

impl Scene {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let (root, source) = (at("root"), at("source"));
        honest_tree().write_to(&source).unwrap();
        for copy in ["world/outside", "pristine/outside"] {
            sentinel().write_to(&at(copy)).unwrap();
            testkit::tree::set_mtime(&at(copy), (1_000_000_000, 9)).unwrap();
        }
        let request = ["shared", "d/shared"].iter().fold(
            SnapshotRequest::new("victim", "v1", &source).file(File::new(".")),
            |request, path| request.file(File::new(path).read_only(true)),
        );
        let handle = Handle::open(&root).unwrap();
        handle.snapshot(&request).unwrap();
        handle.close().unwrap();
        Self {
            honest: document::read(&root, VICTIM),
            output: at("world/output"),
            outside: at("world/outside"),
            pristine: at("pristine/outside"),
            dir,
            root,
            source,
        }
    }

    /// Restores another document in the place of ours.
    fn restore_instead(&self, document: &[u8]) -> Result<RestoreReport, Error> {
        document::replace(&self.root, VICTIM, document);
        self.restore()
    }

    fn restore(&self) -> Result<RestoreReport, Error> {
        let handle = Handle::open(&self.root).unwrap();
        let result = handle.restore(VICTIM, &self.output);
        handle.close().unwrap();
        self.assert_outside_untouched();
        result
    }

    #[track_caller]
    fn assert_outside_untouched(&self) {
        assert_same(&self.pristine, &self.outside);
        let looks = |path: &Path| {
            let of = fs::metadata(path).unwrap();
            (of.mode(), of.uid(), of.gid(), of.mtime(), of.mtime_nsec())
        };
        assert_eq!(looks(&self.pristine), looks(&self.outside));
        let there = outside::names(self.outside.parent().unwrap());
        assert!(
            there
                .iter()
                .all(|name| name == "outside" || name == "output"),
            "{there:?}"
        );
    }

    /// A document that must be refused before anything is made.
    #[track_caller]
    fn assert_damaged(&self, what: &str, document: &[u8]) -> Error {
        let error = refusal(self.restore_instead(document));
        assert_eq!(error.kind(), ErrorKind::Damaged, "{what}: {error:?}");
        let made =
            fs::symlink_metadata(&self.output).is_ok() && !outside::names(&self.output).is_empty();
        assert!(!made, "{what} made something");
        error
    }

    /// The same for a change of our document.
    #[track_caller]
    fn assert_change_damages(&self, what: &str, change: impl FnOnce(&mut Value)) {
        let mut document = self.honest.clone();
        change(&mut document);
        self.assert_damaged(what, document.to_string().as_bytes());
    }

    /// A change that does no harm: the restore succeeds.
    #[track_caller]
    fn restored_after(&self, change: impl FnOnce(&mut Value)) -> RestoreReport {
        let mut document = self.honest.clone();
        change(&mut document);
        self.restore_instead(document.to_string().as_bytes())
            .unwrap()
    }

    /// Restores into what was planted, which must be refused with nothing half made.
    #[track_caller]
    fn assert_in_the_way(&self) {
        let error = refusal(self.restore());
        assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error:?}");
        assert_nothing_temporary(&self.output);
    }
}

fn metadata() -> Value {
    json!({"mode": 420, "uid": 0, "gid": 0, "size": 0, "mtime": "2020-01-01T00:00:00Z"})
}

fn of_type(typeflag: u32) -> Value {
    let mut metadata = metadata();
    metadata["typeflag"] = typeflag.into();
    metadata
}

fn a_directory(path: &str) -> Value {
    json!({"relativePath": path, "metadata": of_type(5)})
}

fn a_symlink(path: &str, target: &str) -> Value {
    json!({"relativePath": path, "target": target, "metadata": of_type(2)})
}

/// An entry with the bytes of `plain`.
fn a_file(document: &Value, path: &str) -> Value {
    let mut document = document.clone();
    let mut file = entry(&mut document, "files", "plain").clone();
    file["relativePath"] = path.into();
    file
}

/// No path may be one of these.
const BAD_PATHS: [&str; 12] = [
    "",
    ".",
    "..",
    "/",
    "../x",
    "../outside/secret",
    "a/../../b",
    "a/..",
    "d/../../outside/secret",
    "a\0b",
    "\0",
    "d/\0/../../x",
];

/// A file may be called so by the Go library, which restores it as what follows. Nothing else may.
const UNCLEAN_PATHS: [(&str, &str); 8] = [
    ("a/../b", "b"),
    ("/etc/x", "etc/x"),
    ("//x", "x"),
    ("a//b", "a/b"),
    ("a/", "a"),
    ("./a", "a"),
    ("a/./b", "a/b"),
    ("a/.", "a"),
];

#[test]
fn paths_that_climb_out_or_are_not_normal_are_damage_in_every_list() {
    let scene = Scene::new();
    let long = "a/".repeat(2048) + "b";
    let component = "c".repeat(256);
    for path in BAD_PATHS.iter().copied().chain([&*long, &*component]) {
        scene.assert_change_damages(path, |document| {
            let file = a_file(document, path);
            add(document, "files", file);
        });
        scene.assert_change_damages(path, |document| {
            add(document, "directories", a_directory(path));
        });
        scene.assert_change_damages(path, |document| {
            add(document, "symlinks", a_symlink(path, "x"));
        });
        scene.assert_change_damages(path, |document| {
            entry(document, "files", "twice-again")["hardlinkOf"] = path.into();
        });
    }
    for (path, _) in UNCLEAN_PATHS {
        scene.assert_change_damages(path, |document| {
            add(document, "directories", a_directory(path));
        });
        scene.assert_change_damages(path, |document| {
            add(document, "symlinks", a_symlink(path, "x"));
        });
        scene.assert_change_damages(path, |document| {
            entry(document, "files", "twice-again")["hardlinkOf"] = path.into();
        });
    }
}

#[test]
fn files_that_are_called_in_an_unclean_way_are_in_the_output_all_the_same() {
    for (path, clean) in UNCLEAN_PATHS {
        let scene = Scene::new();
        scene.restored_after(|document| {
            let file = a_file(document, path);
            add(document, "files", file);
        });
        assert!(scene.output.join(clean).is_file(), "{path}");
    }
}

#[test]
fn paths_in_base64_are_held_to_the_same_rules() {
    let scene = Scene::new();
    for path in BAD_PATHS {
        for text in [path, "plain2", "\u{fffd}"] {
            scene.assert_change_damages(path, |document| {
                let mut file = a_file(document, text);
                file["relativePathBytes"] = STANDARD.encode(path).into();
                add(document, "files", file);
            });
        }
    }
    scene.assert_change_damages("no base64", |document| {
        entry(document, "files", "plain")["relativePathBytes"] = "*".into();
    });
    scene.assert_change_damages("another name than the text's", |document| {
        entry(document, "files", "plain")["relativePathBytes"] = STANDARD.encode("other").into();
    });
    scene.assert_change_damages("a link to what climbs out", |document| {
        entry(document, "files", "twice-again")["hardlinkOfBytes"] =
            STANDARD.encode("../outside/secret").into();
    });
}

#[test]
fn nothing_lies_below_a_symlink_of_the_same_document() {
    let scene = Scene::new();
    let outside = scene.outside.to_str().unwrap().to_owned();
    for target in [outside.as_str(), "../outside", "d", "."] {
        scene.assert_change_damages("a file below a symlink", |document| {
            add(document, "symlinks", a_symlink("s", target));
            let file = a_file(document, "s/x");
            add(document, "files", file);
        });
        scene.assert_change_damages("a directory below a symlink", |document| {
            add(document, "symlinks", a_symlink("s", target));
            add(document, "directories", a_directory("s/dir"));
        });
        scene.assert_change_damages("a symlink below a symlink", |document| {
            add(document, "symlinks", a_symlink("s", target));
            add(document, "symlinks", a_symlink("s/s", target));
        });
        scene.assert_change_damages("a directory that is a symlink too", |document| {
            add(document, "symlinks", a_symlink("d", target));
        });
    }
}

#[test]
fn a_symlink_to_outside_is_made_and_never_followed() {
    let scene = Scene::new();
    let outside = scene.outside.to_str().unwrap().to_owned();
    let secret = scene.outside.join("secret");
    for _ in 0..2 {
        scene.restored_after(|document| {
            add(document, "symlinks", a_symlink("s", &outside));
            let target = secret.to_str().unwrap();
            add(document, "symlinks", a_symlink("t", target));
        });
        assert_eq!(
            fs::read_link(scene.output.join("s")).unwrap(),
            scene.outside
        );
        assert_eq!(fs::read_link(scene.output.join("t")).unwrap(), secret);
    }
    // The links are there now: the same names as a directory and as a file.
    let mut next = scene.honest.clone();
    let file = a_file(&next, "t");
    add(&mut next, "files", file);
    scene.restore_instead(next.to_string().as_bytes()).unwrap();
    assert_eq!(fs::read(scene.output.join("t")).unwrap(), b"plain bytes");
    let file = a_file(&next, "s/x");
    add(&mut next, "files", file);
    document::replace(&scene.root, VICTIM, next.to_string().as_bytes());
    scene.assert_in_the_way();
}

#[test]
fn text_that_is_no_digest_is_never_part_of_a_name() {
    let scene = Scene::new();
    let long = format!("xxh3:{}", "1".repeat(17));
    let digests = [
        "",
        "xxh3:",
        "xxh3:../../x",
        "xxh3:..",
        "xxh3:/etc/passwd",
        "xxh3:0x1",
        "xxh3:ABC",
        "xxh3:01",
        "xxh3:-1",
        "xxh3:+1",
        "xxh3: 1",
        "xxh3:1\0",
        "XXH3:1",
        "sha256:1",
        "../x",
        &long,
    ];
    for digest in digests {
        scene.assert_change_damages(digest, |document| {
            entry(document, "files", "plain")["digest"] = digest.into();
        });
    }
    let real = scene.honest["files"][0]["checksum"].as_str().unwrap();
    let upper = real.to_uppercase().replace("BLAKE3", "blake3");
    let short = &real[..real.len() - 1];
    let longer = format!("{real}0");
    let below = format!("blake3:../../{}", "a".repeat(58));
    let checksums = [
        "",
        "blake3:",
        "blake3:../..",
        &below,
        short,
        &longer,
        &upper,
        "xxh3:1",
    ];
    for checksum in checksums {
        scene.assert_change_damages(checksum, |document| {
            entry(document, "files", "plain")["checksum"] = checksum.into();
        });
    }
}

#[test]
fn sizes_no_file_has_are_refused_and_nothing_is_allocated_for_them() {
    let scene = Scene::new();
    let sizes = [
        "9223372036854775807",
        "9223372036854775808",
        "18446744073709551615",
        "18446744073709551616",
        "1e30",
        "-1",
        "-9223372036854775808",
        "1.5",
        "\"11\"",
        "null",
        "[]",
        "13",
        "10",
        "0",
    ];
    for path in ["plain", "shared"] {
        for size in sizes {
            let size: Value = serde_json::from_str(size).unwrap();
            scene.assert_change_damages(&size.to_string(), |document| {
                entry(document, "files", path)["metadata"]["size"] = size;
            });
        }
    }
}

#[test]
fn numbers_that_are_no_ids_or_modes_are_refused() {
    let scene = Scene::new();
    for key in ["mode", "uid", "gid", "typeflag"] {
        for number in ["-1", "4294967296", "18446744073709551616", "1.5", "\"7\""] {
            let number: Value = serde_json::from_str(number).unwrap();
            scene.assert_change_damages(key, |document| {
                entry(document, "files", "plain")["metadata"][key] = number;
            });
        }
    }
}

#[test]
fn one_path_is_one_entry() {
    let scene = Scene::new();
    scene.assert_change_damages("a file twice, and not alike", |document| {
        let mut file = a_file(document, "plain");
        file["readOnly"] = true.into();
        add(document, "files", file);
    });
    scene.assert_change_damages("a file twice, and not alike, once unclean", |document| {
        let mut file = a_file(document, "./plain");
        file["readOnly"] = true.into();
        add(document, "files", file);
    });
    scene.assert_change_damages("a file and a directory", |document| {
        add(document, "directories", a_directory("plain"));
    });
    scene.assert_change_damages("a file and a symlink", |document| {
        add(document, "symlinks", a_symlink("plain", "x"));
    });
    scene.assert_change_damages("a directory twice", |document| {
        add(document, "directories", a_directory("d"));
    });
    scene.assert_change_damages("a second name that is a file too", |document| {
        let file = a_file(document, "twice-again");
        add(document, "files", file);
    });
    scene.assert_change_damages("a text and its base64", |document| {
        let mut file = a_file(document, "plain");
        file["readOnly"] = true.into();
        file["relativePathBytes"] = STANDARD.encode("plain").into();
        add(document, "files", file);
    });
}

#[test]
fn nothing_lies_below_a_file_of_the_same_document() {
    let scene = Scene::new();
    for below in ["plain/x", "plain/x/y", "d/plain/x"] {
        scene.assert_change_damages(below, |document| {
            let file = a_file(document, below);
            add(document, "files", file);
        });
        scene.assert_change_damages(below, |document| {
            add(document, "directories", a_directory(below));
        });
        scene.assert_change_damages(below, |document| {
            add(document, "symlinks", a_symlink(below, "x"));
        });
    }
}

#[test]
fn a_second_name_is_of_an_equal_file_and_of_nothing_else() {
    let scene = Scene::new();
    for of in ["missing", "twice-again", "d", "link", "plain", "", "../x"] {
        scene.assert_change_damages(of, |document| {
            entry(document, "files", "twice-again")["hardlinkOf"] = of.into();
        });
    }
    scene.assert_change_damages("a chain", |document| {
        let mut third = entry(document, "files", "twice-again").clone();
        third["relativePath"] = "third".into();
        third["hardlinkOf"] = "twice-again".into();
        add(document, "files", third);
    });
    scene.assert_change_damages("a ring", |document| {
        entry(document, "files", "twice")["hardlinkOf"] = "twice-again".into();
    });
    for (key, value) in [("mode", json!(0)), ("size", json!(8)), ("uid", json!(77))] {
        scene.assert_change_damages(key, |document| {
            entry(document, "files", "twice-again")["metadata"][key] = value;
        });
    }
    scene.assert_change_damages("read-only here only", |document| {
        entry(document, "files", "twice-again")["readOnly"] = true.into();
    });
}

/// Ours are at most a few KiB: this one has an entry more than a document may have, in little space.
#[test]
fn more_entries_than_the_limit_are_refused() {
    let scene = Scene::new();
    let entry =
        r#"{"relativePath":"a","metadata":{"mode":0,"mtime":"1970-01-01T00:00:00Z","typeflag":5}}"#;
    let mut document = String::from(r#"{"directories":["#);
    document.push_str(entry);
    for _ in 0..1 << 20 {
        document.push(',');
        document.push_str(entry);
    }
    document.push_str("]}");
    let error = scene.assert_damaged("1 Mi + 1 entries", document.as_bytes());
    assert!(error.to_string().contains("1,048,576"), "{error}");
}

#[test]
fn a_longer_document_than_the_limit_is_refused() {
    let scene = Scene::new();
    let mut document = scene.honest.to_string().into_bytes();
    document.resize((256 << 20) + 1, b' ');
    scene.assert_damaged("256 MiB + 1 byte", &document);
}

#[test]
fn what_is_no_document_is_damage() {
    let scene = Scene::new();
    let honest = scene.honest.to_string();
    let twice = honest.replacen("{\"", "{\"files\":[],\"", 1);
    let trailing = format!("{honest}{{}}");
    let invalid = honest.replace("plain", "pl\\ud800ain");
    let documents: [&str; 16] = [
        "",
        " ",
        "\0",
        "not JSON",
        "null",
        "true",
        "7",
        "\"files\"",
        "[]",
        "{",
        "{\"files\":{}}",
        "{\"files\":[[]]}",
        "{\"files\":[null]}",
        &twice,
        &trailing,
        &invalid,
    ];
    for document in documents {
        scene.assert_damaged(&document[..document.len().min(40)], document.as_bytes());
    }
    scene.assert_damaged("not UTF-8", b"{\"files\":[],\"\xff\":0}");
    for cut in [1, honest.len() / 3, honest.len() / 2, honest.len() - 1] {
        scene.assert_damaged("cut short", &honest.as_bytes()[..cut]);
    }
}

#[test]
fn deep_nesting_does_not_overflow_the_stack() {
    let scene = Scene::new();
    let deep = 200_000;
    let arrays = "[".repeat(deep) + &"]".repeat(deep);
    let objects = "{\"a\":".repeat(deep) + "1" + &"}".repeat(deep);
    for nested in [&arrays, &"[".repeat(deep), &"{\"a\":".repeat(deep)] {
        scene.assert_damaged("all of it", nested.as_bytes());
    }
    for nested in [&arrays, &objects] {
        scene.assert_damaged("files", format!("{{\"files\":{nested}}}").as_bytes());
        scene.assert_damaged(
            "an entry",
            format!("{{\"files\":[{{\"x\":{nested}}}]}}").as_bytes(),
        );
    }
    // Nobody reads what an unknown key holds, so this may be an empty snapshot.
    let unknown = format!("{{\"x\":{objects},\"files\":[]}}");
    match scene.restore_instead(unknown.as_bytes()) {
        Ok(report) => assert_eq!(report.files, 0),
        Err(error) => assert_eq!(error.kind(), ErrorKind::Damaged),
    }
}

#[test]
fn times_outside_the_years_0_to_9999_are_refused() {
    let scene = Scene::new();
    let times = [
        "10000-01-01T00:00:00Z",
        "9999-12-31T23:59:59-01:00",
        "0000-01-01T00:00:00+01:00",
        "-001-01-01T00:00:00Z",
        "2020-13-01T00:00:00Z",
        "2020-01-01T00:00:60Z",
        "2020-01-01T00:00:00.1234567890Z",
        "2020-01-01",
        "",
    ];
    for time in times {
        scene.assert_change_damages(time, |document| {
            entry(document, "files", "plain")["metadata"]["mtime"] = time.into();
        });
        scene.assert_change_damages(time, |document| {
            entry(document, "symlinks", "link")["metadata"]["mtime"] = time.into();
        });
    }
}

#[test]
fn setuid_and_setgid_bits_are_not_restored_unless_they_are_asked_for() {
    let scene = Scene::new();
    scene.restored_after(|document| {
        for path in ["plain", "shared", "d/shared"] {
            entry(document, "files", path)["metadata"]["mode"] = 0o107_755.into();
        }
        for path in ["d", "empty"] {
            entry(document, "directories", path)["metadata"]["mode"] = 0o7755.into();
        }
    });
    for path in ["plain", "shared", "d", "d/shared", "empty"] {
        let mode = fs::metadata(scene.output.join(path))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o6777, 0o755, "{path}");
    }
}

#[test]
fn an_entry_in_the_wrong_list_is_damage() {
    let scene = Scene::new();
    for (list, path, right) in [
        ("files", "plain", 0),
        ("directories", "d", 5),
        ("symlinks", "link", 2),
    ] {
        for lie in (0..8).filter(|typeflag| *typeflag != right) {
            scene.assert_change_damages(list, |document| {
                entry(document, list, path)["metadata"]["typeflag"] = lie.into();
            });
        }
    }
}

#[test]
fn symlinks_point_somewhere() {
    let scene = Scene::new();
    for target in ["", "a\0b", &"x".repeat(4097)] {
        scene.assert_change_damages("a target", |document| {
            entry(document, "symlinks", "link")["target"] = target.into();
        });
    }
}

#[test]
fn extended_attributes_linux_would_not_take_are_damage() {
    let scene = Scene::new();
    let long = format!("user.{}", "x".repeat(251));
    let large = STANDARD.encode(vec![0; 65537]);
    for (name, value) in [
        ("", "YQ=="),
        ("user.a\0b", "YQ=="),
        (&long, "YQ=="),
        ("user.a", "*"),
        ("user.a", &large),
    ] {
        scene.assert_change_damages(name, |document| {
            entry(document, "files", "plain")["xattrs"] = json!({ name: value });
        });
    }
}

/// A snapshot of something else in the same store, whose bytes the victim's document must not reach.
fn secret_of_another(scene: &Scene) -> Value {
    let source = scene.dir.path().join("other-source");
    Tree::new()
        .file("key", "a secret of another snapshot")
        .write_to(&source)
        .unwrap();
    let handle = Handle::open(&scene.root).unwrap();
    handle
        .snapshot(&SnapshotRequest::new("other", "v1", &source))
        .unwrap();
    handle.close().unwrap();
    let mut document = document::read(&scene.root, "other:v1");
    entry(&mut document, "files", "key").clone()
}

#[test]
fn a_document_reaches_no_blob_of_another_snapshot() {
    let scene = Scene::new();
    let secret = secret_of_another(&scene);
    for read_only in [false, true] {
        scene.assert_change_damages("named in full", |document| {
            let mut stolen = secret.clone();
            stolen["readOnly"] = read_only.into();
            add(document, "files", stolen);
        });
        scene.assert_change_damages("by its digest alone", |document| {
            let mut stolen = secret.clone();
            stolen["readOnly"] = read_only.into();
            stolen.as_object_mut().unwrap().remove("checksum");
            add(document, "files", stolen);
        });
        scene.assert_change_damages("by its checksum, with a digest of ours", |document| {
            let mut stolen = a_file(document, "stolen");
            stolen["readOnly"] = read_only.into();
            stolen["checksum"] = secret["checksum"].clone();
            add(document, "files", stolen);
        });
        scene.assert_change_damages("by its digest, with a checksum of ours", |document| {
            let mut stolen = a_file(document, "stolen");
            stolen["digest"] = secret["digest"].clone();
            add(document, "files", stolen);
        });
    }
}

#[test]
fn a_document_that_swaps_digest_and_checksum_of_its_files_is_damage() {
    let scene = Scene::new();
    scene.assert_change_damages("another file's checksum", |document| {
        let other = entry(document, "files", "shared")["checksum"].clone();
        entry(document, "files", "plain")["checksum"] = other;
    });
}

#[test]
fn a_hostile_snapshot_can_be_listed_and_removed() {
    let scene = Scene::new();
    scene.assert_damaged("not JSON", b"not JSON");
    let handle = Handle::open(&scene.root).unwrap();
    assert_eq!(handle.listed(), [VICTIM]);
    let error = refusal(handle.inspect(VICTIM));
    assert_eq!(error.kind(), ErrorKind::Damaged);
    handle.remove(VICTIM).unwrap();
    handle.assert_clean();
    handle.close().unwrap();
    outside::assert_at_rest(&scene.root);
    outside::assert_rows_and_files_agree(&scene.root);
}

/// Plants a symlink at `at` in the output.
fn plant_symlink(scene: &Scene, at: &str, target: &Path) {
    let at = scene.output.join(at);
    fs::create_dir_all(at.parent().unwrap()).unwrap();
    symlink(target, at).unwrap();
}

#[test]
fn no_entry_is_made_through_a_symlink_that_was_there() {
    let scene = Scene::new();
    for target in [scene.outside.clone(), scene.outside.join("dir"), ".".into()] {
        plant_symlink(&scene, "d", &target);
        scene.assert_in_the_way();
        fs::remove_dir_all(&scene.output).unwrap();
    }
    for (list, add_below) in [
        ("files", None),
        ("directories", Some(a_directory("p/q/inside"))),
        ("symlinks", Some(a_symlink("p/q/inside", "x"))),
    ] {
        plant_symlink(&scene, "p/q", &scene.outside);
        let mut document = scene.honest.clone();
        let below = add_below.unwrap_or_else(|| a_file(&document, "p/q/inside"));
        add(&mut document, list, below);
        document::replace(&scene.root, VICTIM, document.to_string().as_bytes());
        scene.assert_in_the_way();
        fs::remove_dir_all(&scene.output).unwrap();
    }
}

#[test]
fn no_second_name_is_made_through_a_symlink_that_was_there() {
    let scene = Scene::new();
    let mut document = scene.honest.clone();
    let again = entry(&mut document, "files", "twice-again");
    again["relativePath"] = "p/again".into();
    plant_symlink(&scene, "p", &scene.outside);
    document::replace(&scene.root, VICTIM, document.to_string().as_bytes());
    scene.assert_in_the_way();
}

#[test]
fn a_selected_path_below_a_planted_symlink_is_refused_too() {
    let scene = Scene::new();
    plant_symlink(&scene, "d", &scene.outside);
    let handle = Handle::open(&scene.root).unwrap();
    for mode in [LinkMode::Auto, LinkMode::Copy] {
        let request = restore_request(VICTIM, &scene.output)
            .path("d/plain")
            .link_mode(mode);
        let error = refusal(handle.restore_with(&request));
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
        let error = refusal(handle.restore_with(&request.no_clobber(true)));
        assert_eq!(error.kind(), ErrorKind::AlreadyExists);
    }
    scene.assert_outside_untouched();
}

#[test]
fn a_symlink_in_a_files_place_is_replaced_and_not_followed() {
    let scene = Scene::new();
    let secret = scene.outside.join("secret");
    let names = ["plain", "shared", "twice", "twice-again", "link", "d/plain"];
    for name in names {
        plant_symlink(&scene, name, &secret);
    }
    scene.restore().unwrap();
    assert_same(&scene.source, &scene.output);
    assert!(
        fs::symlink_metadata(scene.output.join("plain"))
            .unwrap()
            .is_file()
    );
}

#[test]
fn a_dangling_symlink_in_a_files_place_makes_nothing_where_it_points() {
    let scene = Scene::new();
    for name in ["plain", "shared", "twice-again"] {
        plant_symlink(&scene, name, &scene.outside.join("new"));
    }
    scene.restore().unwrap();
    assert_same(&scene.source, &scene.output);
}

#[test]
fn a_fifo_in_a_files_place_is_replaced_without_waiting_for_a_writer() {
    let scene = Scene::new();
    let names = [
        "plain",
        "shared",
        "twice",
        "twice-again",
        "link",
        "d/shared",
    ];
    let fifos = names.iter().fold(Tree::new(), |tree, name| tree.fifo(name));
    fifos.write_to(&scene.output).unwrap();
    scene.restore().unwrap();
    assert_same(&scene.source, &scene.output);
}

#[test]
fn a_socket_in_a_files_place_is_replaced() {
    let scene = Scene::new();
    fs::create_dir_all(&scene.output).unwrap();
    for name in ["plain", "shared"] {
        let socket = std::os::unix::net::UnixListener::bind(scene.output.join(name)).unwrap();
        drop(socket);
        let there = fs::symlink_metadata(scene.output.join(name)).unwrap();
        assert!(there.file_type().is_socket());
    }
    scene.restore().unwrap();
    assert_same(&scene.source, &scene.output);
}

#[test]
fn a_hardlink_to_a_file_outside_is_replaced_and_that_file_keeps_its_bytes() {
    let scene = Scene::new();
    fs::create_dir_all(scene.output.join("d")).unwrap();
    let secret = scene.outside.join("secret");
    for name in ["plain", "shared", "twice", "twice-again", "d/plain", "link"] {
        fs::hard_link(&secret, scene.output.join(name)).unwrap();
    }
    scene.restore().unwrap();
    assert_same(&scene.source, &scene.output);
    assert_eq!(fs::metadata(&secret).unwrap().nlink(), 1);
}

/// Equal bytes and attributes are no reason to leave a file that somebody else can write under another name.
#[test]
fn a_hardlink_to_an_equal_file_outside_is_replaced_too() {
    let scene = Scene::new();
    let elsewhere = scene.dir.path().join("elsewhere");
    honest_tree().write_to(&elsewhere).unwrap();
    fs::create_dir_all(scene.output.join("d")).unwrap();
    let names = ["plain", "shared", "twice", "d/plain", "d/shared"];
    for name in names {
        fs::hard_link(elsewhere.join(name), scene.output.join(name)).unwrap();
    }
    scene.restore().unwrap();
    assert_same(&scene.source, &scene.output);
    for name in names {
        let inode = |base: &Path| fs::metadata(base.join(name)).unwrap().ino();
        assert_ne!(inode(&elsewhere), inode(&scene.output), "{name}");
    }
}

#[test]
fn a_directory_in_a_files_place_stays_and_is_an_error() {
    let scene = Scene::new();
    for name in ["plain", "shared", "twice", "twice-again", "link"] {
        let kept = scene.output.join(name).join("kept");
        fs::create_dir_all(kept.parent().unwrap()).unwrap();
        fs::write(&kept, "kept").unwrap();
        scene.assert_in_the_way();
        assert_eq!(fs::read(&kept).unwrap(), b"kept");
        fs::remove_dir_all(&scene.output).unwrap();
    }
}

#[test]
fn a_file_in_a_directorys_place_stays_and_is_an_error() {
    let scene = Scene::new();
    for name in ["d", "empty"] {
        fs::create_dir_all(&scene.output).unwrap();
        fs::write(scene.output.join(name), "kept").unwrap();
        scene.assert_in_the_way();
        assert_eq!(fs::read(scene.output.join(name)).unwrap(), b"kept");
        fs::remove_dir_all(&scene.output).unwrap();
    }
}

#[test]
fn an_output_directory_that_is_a_file_is_refused() {
    let scene = Scene::new();
    fs::write(&scene.output, "kept").unwrap();
    let error = refusal(scene.restore());
    let kind = error.kind();
    assert!(
        matches!(kind, ErrorKind::InvalidInput | ErrorKind::AlreadyExists),
        "{error:?}"
    );
    assert_eq!(fs::read(&scene.output).unwrap(), b"kept");
}

#[test]
fn nothing_is_written_through_a_file_restored_before() {
    let scene = Scene::new();
    scene.restore().unwrap();
    // Somebody keeps second names of what was restored; the next restore brings other bytes.
    let kept = scene.dir.path().join("kept");
    fs::create_dir(&kept).unwrap();
    let names = ["plain", "shared", "twice"];
    for name in names {
        fs::hard_link(scene.output.join(name), kept.join(name)).unwrap();
    }
    scene.restored_after(|document| {
        let other = entry(document, "files", "d/plain").clone();
        for path in names {
            let mut changed = other.clone();
            changed["relativePath"] = path.into();
            changed["readOnly"] = entry(document, "files", path)["readOnly"].clone();
            *entry(document, "files", path) = changed;
        }
        let files = document["files"].as_array_mut().unwrap();
        files.retain(|file| file["relativePath"] != "twice-again");
    });
    for name in names {
        let bytes = |base: &Path| fs::read(base.join(name)).unwrap();
        assert_eq!(bytes(&scene.output), b"plain bytes below");
        assert_eq!(bytes(&kept), bytes(&scene.source), "{name}");
    }
    let handle = Handle::open(&scene.root).unwrap();
    handle.assert_clean();
}

fn assert_every_file_is_a_whole_one(tree: &Tree, place: &Path) {
    let texts: Vec<Vec<u8>> = tree
        .nodes()
        .filter_map(|(_, node)| match node {
            Node::File(Content::Bytes(bytes)) => Some(bytes.clone()),
            _ => None,
        })
        .collect();
    for (path, found) in testkit::fsstat::entries(place).unwrap() {
        let whole = !found.is_file() || texts.contains(&fs::read(place.join(&path)).unwrap());
        assert!(whole, "{}", path.display());
    }
}

/// Swaps two names until dropped.
struct Swapping<'s> {
    stop: &'s AtomicBool,
}

impl Drop for Swapping<'_> {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn swap_until(stop: &AtomicBool, one: &Path, other: &Path) -> u64 {
    use rustix::fs::{CWD, RenameFlags, renameat_with};
    let mut swaps = 0;
    while !stop.load(Ordering::Relaxed) {
        match renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE) {
            // One of the two need not be there yet.
            Ok(()) | Err(rustix::io::Errno::NOENT) => swaps += 1,
            Err(error) => panic!("{error}"),
        }
    }
    swaps
}

const RESTORES: usize = 150;

/// Restores again and again while a directory of the snapshot is a symlink to outside every other moment.
fn restore_while_swapping(modes: &[LinkMode], change: impl Fn(&mut Value)) {
    let scene = Scene::new();
    let mut document = scene.honest.clone();
    change(&mut document);
    document::replace(&scene.root, VICTIM, document.to_string().as_bytes());
    let handle = Handle::open(&scene.root).unwrap();
    fs::create_dir_all(scene.output.join("d")).unwrap();
    symlink(&scene.outside, scene.output.join("trap")).unwrap();
    let stop = AtomicBool::new(false);
    let (mut done, mut refused) = (0, 0);
    let swaps = std::thread::scope(|scope| {
        let swapper =
            scope.spawn(|| swap_until(&stop, &scene.output.join("d"), &scene.output.join("trap")));
        let swapping = Swapping { stop: &stop };
        for round in 0..RESTORES {
            let request = restore_request(VICTIM, &scene.output)
                .path("d")
                .link_mode(modes[round % modes.len()])
                .no_clobber(round % 10 == 9);
            match handle.restore_with(&request) {
                Ok(_) => done += 1,
                Err(error) => {
                    let kind = error.kind();
                    assert!(
                        matches!(
                            kind,
                            ErrorKind::AlreadyExists
                                | ErrorKind::InvalidInput
                                | ErrorKind::NotFound
                        ),
                        "{error:?}"
                    );
                    refused += 1;
                }
            }
            scene.assert_outside_untouched();
        }
        drop(swapping);
        swapper.join().unwrap()
    });
    assert_eq!(done + refused, RESTORES);
    assert!(swaps > 0);
    handle.assert_clean();
    // Whatever was restored is whole.
    for place in ["d", "trap"] {
        let place = scene.output.join(place);
        if !fs::symlink_metadata(&place).unwrap().is_symlink() {
            assert_every_file_is_a_whole_one(&honest_tree(), &place);
            assert_nothing_temporary(&place);
        }
    }
}

#[test]
fn a_symlink_swapped_in_for_a_directory_is_never_followed() {
    let modes = [LinkMode::Auto, LinkMode::Copy, LinkMode::Hardlink];
    restore_while_swapping(&modes, |_| {});
}

#[test]
fn a_symlink_swapped_in_is_not_followed_by_links_symlinks_and_directories_either() {
    restore_while_swapping(&[LinkMode::Auto], |document| {
        // Only what is made after the files: these lists go through their parents once more.
        let mut one = entry(document, "files", "twice").clone();
        one["relativePath"] = "d/twice".into();
        let mut again = one.clone();
        again["relativePath"] = "d/twice-again".into();
        again["hardlinkOf"] = "d/twice".into();
        add(document, "files", one);
        add(document, "files", again);
        let mut files = document["files"].take();
        files
            .as_array_mut()
            .unwrap()
            .retain(|file| file["relativePath"] != "d/plain" && file["relativePath"] != "d/shared");
        document["files"] = files;
    });
}
