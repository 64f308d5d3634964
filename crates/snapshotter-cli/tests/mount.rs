//! `snapshotter mount` and `umount`: what is mounted is what would be restored, for whoever reads it; nobody writes it; whichever way
//! it ends, nobody hangs and nothing is left.

use crate::support;

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::mount::{UnmountFlags, unmount};
use rustix::process::{Pid, Signal, kill_process};
use support::{Place, Said};
use testkit::compare::{Holes, Options, assert_same_with};
use testkit::fuse::FuseMount;
use testkit::mount::or_skip;
use testkit::prng::{Prng, random_bytes};
use testkit::{Content, Mapped, Tree};

const KIB: u64 = 1 << 10;

/// Where a snapshot is mounted; whatever is there at the end of a test goes.
struct Point(PathBuf);

impl Point {
    fn new(place: &Place) -> Self {
        let point = place.path("point");
        fs::create_dir(&point).unwrap();
        Self(point)
    }

    fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        fs::read(self.0.join(path))
    }
}

impl Drop for Point {
    fn drop(&mut self) {
        let _ = unmount(&self.0, UnmountFlags::DETACH);
    }
}

/// A place with a store, where a process can serve a filesystem.
fn place() -> Option<(Place, Point)> {
    or_skip(FuseMount::new(Vec::new()))?;
    let place = Place::with_snapshot();
    let point = Point::new(&place);
    Some((place, point))
}

/// Mounts and says which process serves it.
fn mount(place: &Place, reference: &str) -> i32 {
    let said = place.run(["mount", reference, "point", "--json"]);
    let document = said.succeeded().json();
    i32::try_from(document["pid"].as_i64().unwrap()).unwrap()
}

fn send(pid: i32, signal: Signal) {
    kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
}

fn wait_until(what: &str, condition: impl Fn() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(60), "not {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Whether a process runs: one that nobody waits for is as good as gone.
fn runs(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    !stat.is_empty() && !stat.contains(") Z ")
}

#[test]
fn what_is_mounted_is_what_would_be_restored() {
    let Some((place, point)) = place() else {
        return;
    };
    let sparse = Content::Pieces {
        size: 900 * KIB,
        pieces: vec![
            (64 * KIB, random_bytes(3, 8192)),
            (512 * KIB, vec![5; 4096]),
        ],
    };
    let tree = Tree::new()
        .file("memory", sparse)
        .mode("memory", 0o640)
        .owner("memory", 1234, 4321)
        .file(
            "d/e/disk",
            Content::Random {
                seed: 1,
                len: 300_001,
            },
        )
        .hardlink("again", "d/e/disk")
        .file("run", "#!/bin/sh\n")
        .mode("run", 0o755)
        .mtime("run", -77, 123_456_789)
        .xattr("run", "user.what", "a script")
        .file("empty", "")
        .file("twin", "")
        .dir("nothing")
        .mode("nothing", 0o1700)
        .mtime("nothing", 1_600_000_000, 5)
        .symlink("link", "d/e/disk");
    tree.write_to(&place.path("tree")).unwrap();
    for format in ["v1", "v2"] {
        let reference = format!("tree:{format}");
        let taken = ["snapshot", &reference, "tree", "--format", format];
        place.run(taken).succeeded();
        let output = format!("restored-{format}");
        place.run(["restore", &reference, &output]).succeeded();
        let pid = mount(&place, &reference);
        let same = Options {
            holes: Holes::NoMoreDataThan,
            ..Options::default()
        };
        assert_same_with(&place.path(output), &point.0, &same);
        let memory = fs::metadata(point.0.join("memory")).unwrap();
        assert!(memory.blocks() * 512 < 32 * KIB, "{}", memory.blocks());
        let links = |name: &str| fs::metadata(point.0.join(name)).unwrap().nlink();
        assert_eq!(["again", "twin", "d", "."].map(links), [2, 1, 3, 4]);
        let said = place.run(["umount", "point"]).succeeded();
        assert_eq!(
            said.out,
            format!("{reference} is not mounted on point any more\n")
        );
        wait_until("over", || !runs(pid));
        assert_eq!(fs::read_dir(&point.0).unwrap().count(), 0);
    }
    place.assert_tidy();
}

#[test]
fn many_read_at_once_and_nobody_writes() {
    let Some((place, point)) = place() else {
        return;
    };
    let bytes = random_bytes(8, 3 << 20);
    place.write("vm/memory", &bytes);
    let taken = ["snapshot", "vm:v2", "vm", "--format", "v2"];
    place.run(taken).succeeded();
    mount(&place, "vm:v2");
    let memory = point.0.join("memory");
    std::thread::scope(|scope| {
        for seed in 0..8 {
            let (bytes, memory) = (&bytes, &memory);
            let read = move || {
                let mut random = Prng::new(seed);
                let file = File::open(memory).unwrap();
                for _ in 0..100 {
                    let mut found = vec![0; 1 + random.below(9000) as usize];
                    let at = random.below(bytes.len() as u64 - 9001);
                    file.read_exact_at(&mut found, at).unwrap();
                    assert!(found == bytes[at as usize..][..found.len()]);
                }
            };
            std::thread::Builder::new()
                .spawn_scoped(scope, read)
                .unwrap();
        }
    });
    // As QEMU opens a guest's memory.
    let both = File::options()
        .read(true)
        .write(true)
        .open(&memory)
        .unwrap();
    let read_only = Some(rustix::io::Errno::ROFS.raw_os_error());
    let refused =
        |result: io::Result<()>| assert_eq!(result.unwrap_err().raw_os_error(), read_only);
    refused(both.write_all_at(b"mine", 5000));
    refused(both.set_len(7));
    let mut found = vec![0; bytes.len()];
    both.read_exact_at(&mut found, 0).unwrap();
    assert!(found == bytes);
    refused(
        File::options()
            .write(true)
            .truncate(true)
            .open(&memory)
            .map(drop),
    );
    refused(fs::write(point.0.join("new"), "n"));
    refused(fs::create_dir(point.0.join("dir")));
    refused(fs::remove_file(&memory));
    refused(fs::rename(&memory, point.0.join("other")));
    refused(std::os::unix::fs::symlink("a", point.0.join("b")));
    refused(fs::hard_link(&memory, point.0.join("c")));
    assert!(point.read("memory").unwrap() == bytes);
    // What is written into a shared mapping would be read by everybody.
    assert!(std::panic::catch_unwind(|| Mapped::new(&memory)).is_err());
    drop(both);
    place.run(["umount", "point"]).succeeded();
}

#[test]
fn what_is_mounted_stays_and_what_is_not_any_more_goes() {
    let Some((place, point)) = place() else {
        return;
    };
    let memory = fs::read(place.path("vm/memory")).unwrap();
    let pid = mount(&place, "vm:v1");
    let holders = place.run(["ps", "--json"]).succeeded().json();
    let holder = &holders["holders"][0];
    assert_eq!(
        (&holder["reference"], &holder["verb"]),
        (&"vm:v1".into(), &"read".into())
    );
    assert_eq!(holder["pid"], pid);
    place.run(["remove", "vm:v1"]).succeeded();
    place.run(["gc"]).succeeded();
    assert!(point.read("memory").unwrap() == memory);
    // Somebody is in it: nothing happens.
    let file = File::open(point.0.join("state.json")).unwrap();
    let said = place.run(["umount", "point", "--json"]).exited(8);
    assert_eq!(said.json()["error"]["kind"], "busy");
    assert_eq!(point.read("state.json").unwrap(), b"{}\n");
    drop(file);
    // The end of a file that is closed comes to who serves it a moment later.
    wait_until("closed", || place.run(["umount", "point"]).code == Some(0));
    assert!(!runs(pid));
    assert_eq!(place.blobs(), Vec::<PathBuf>::new());
    place.run(["umount", "point"]).exited(3);
}

#[test]
fn a_death_is_an_error_for_readers_and_is_cleaned_up_after() {
    let Some((place, point)) = place() else {
        return;
    };
    let pid = mount(&place, "vm:v1");
    let file = File::open(point.0.join("memory")).unwrap();
    send(pid, Signal::KILL);
    wait_until("dead", || !runs(pid));
    let gone = rustix::io::Errno::NOTCONN.raw_os_error();
    assert_eq!(
        point.read("state.json").unwrap_err().raw_os_error(),
        Some(gone)
    );
    // Not from the kernel's cache, where it was not read before.
    let error = (&file).read(&mut [0; 10]).unwrap_err();
    assert!(
        [Some(gone), Some(103)].contains(&error.raw_os_error()),
        "{error}"
    );
    let said = place.run(["mount", "vm:v1", "point"]);
    assert!(said.exited(6).err.contains("`snapshotter umount`"));
    place.run(["umount", "point"]).succeeded();
    mount(&place, "vm:v1");
    assert_eq!(point.read("state.json").unwrap(), b"{}\n");
    place.run(["umount", "point"]).succeeded();
    place.assert_tidy();
}

#[test]
fn a_signal_ends_it_even_while_it_is_in_use() {
    let Some((place, point)) = place() else {
        return;
    };
    let pid = mount(&place, "vm:v1");
    let file = File::open(point.0.join("memory")).unwrap();
    send(pid, Signal::TERM);
    wait_until("over", || !runs(pid));
    assert_eq!(fs::read_dir(&point.0).unwrap().count(), 0);
    assert!((&file).read(&mut [0; 10]).is_err());
    let mut command = place.command(["mount", "vm:v1", "point", "--foreground", "--json"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut line = [0; 9];
    child
        .stdout
        .as_mut()
        .unwrap()
        .read_exact(&mut line)
        .unwrap();
    assert_eq!(&line, b"{\"schema\"");
    assert_eq!(point.read("state.json").unwrap(), b"{}\n");
    send(i32::try_from(child.id()).unwrap(), Signal::INT);
    assert_eq!(child.wait().unwrap().code(), Some(0));
    assert_eq!(fs::read_dir(&point.0).unwrap().count(), 0);
    place.assert_tidy();
}

#[test]
fn what_cannot_be_mounted_is_said_by_who_was_called() {
    let Some((place, _point)) = place() else {
        return;
    };
    let refused = |args: [&str; 3], code, text: &str| -> Said {
        let said = place.run(args).exited(code);
        assert!(said.err.contains(text), "{said:#?}");
        said
    };
    refused(["mount", "vm:v9", "point"], 3, "versions of vm: v1");
    refused(["mount", "vm:v1", "vm"], 2, "is not empty");
    refused(["mount", "vm:v1", "absent"], 3, "absent");
    fs::create_dir(place.path("root/inside")).unwrap();
    refused(["mount", "vm:v1", "root/inside"], 2, "inside the store");
    place.run(["umount", "vm"]).exited(3);
    let said = place.run(["mount", "vm:v9", "point", "--json"]).exited(3);
    assert_eq!(said.json()["error"]["kind"], "not_found");
    place.assert_tidy();
}

#[test]
fn what_is_damaged_cannot_be_read_and_is_in_the_log() {
    let Some((place, point)) = place() else {
        return;
    };
    place.write("vm/memory", &random_bytes(5, 1 << 20));
    let taken = ["snapshot", "vm:v2", "vm", "--format", "v2"];
    place.run(taken).succeeded();
    place
        .run(["mount", "vm:v2", "point", "--log-file", "log"])
        .succeeded();
    let pack = place.largest_blob();
    let file = File::options().write(true).open(&pack).unwrap();
    file.write_all_at(b"something else", 600 << 10).unwrap();
    let error = point.read("memory").unwrap_err();
    assert_eq!(error.raw_os_error(), Some(5));
    assert_eq!(point.read("state.json").unwrap(), b"{}\n");
    let log = fs::read_to_string(place.path("log")).unwrap();
    assert!(
        log.contains("cannot be read") && log.contains("memory"),
        "{log}"
    );
    place.run(["umount", "point"]).succeeded();
}

#[test]
fn what_is_elsewhere_is_fetched_whole_and_then_mounted() {
    if or_skip(FuseMount::new(Vec::new())).is_none() {
        return;
    }
    let place = Place::with_published();
    let point = Point::new(&place);
    mount(&place, "vm:v1");
    assert!(point.read("memory").unwrap() == fs::read(place.path("vm/memory")).unwrap());
    assert_eq!(
        fs::read_link(point.0.join("latest")).unwrap(),
        Path::new("memory")
    );
    place.run(["umount", "point"]).succeeded();
    place.assert_tidy();
}

#[test]
fn help() {
    let place = Place::new();
    assert_session!("help", place.run(["mount", "--help"]).succeeded());
    assert_session!("umount_help", place.run(["umount", "--help"]).succeeded());
}
