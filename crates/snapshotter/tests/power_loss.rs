//! Power cuts, for real: a root on an ext4 that writes nothing by itself; a child stopped at each of its steps; a copy of
//! the device, which has only what was synced, mounted and looked at as after a reboot.

#![expect(
    clippy::print_stderr,
    reason = "counts and seeds are for whoever reads the log"
)]

use crate::support_b;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use snapshotter::hook::{self, Action};
use snapshotter::{Config, Durability, ErrorKind};
use support_b::children::{part, playing, start, tell, told, told_number};
use support_b::outside::catalog;
use support_b::steps::NEVER;
use support_b::{Handle, checkpoint, keepsake, request};
use tempfile::TempDir;
use testkit::child::State;
use testkit::compare::assert_same;
use testkit::mount::{Kind, LoopMount, or_skip};

const BASE: &str = "base:v1";
const KEPT: &str = "kept:v1";

#[test]
fn children_start_here() {
    let Some(part) = part() else { return };
    let root = told("ROOT");
    let durability = match part.as_str() {
        "background" | "touched" => Durability::Background,
        _ => Durability::Full,
    };
    hook::arm(Action::Stop, told_number("AT"));
    let config = Config::new(&root)
        .snapshot_concurrency(1)
        .durability(durability);
    let handle = Handle::with(config).unwrap();
    match part.as_str() {
        "remove" => _ = handle.remove(BASE).unwrap(),
        part => {
            let name = if part == "touched" { "other" } else { "base" };
            let request = request(name, "v1", &told("SOURCE"));
            handle.snapshot(&request).unwrap();
        }
    }
    // Here the call has returned: its promise holds from now on.
    fs::write(told("RETURNED"), hook::count().to_string()).unwrap();
    if part != "background" {
        handle.close().unwrap();
    }
    fs::write(told("COUNT"), hook::count().to_string()).unwrap();
    std::process::exit(0);
}

struct Scene {
    mount: LoopMount,
    elsewhere: TempDir,
    part: &'static str,
}

impl Scene {
    fn new(part: &'static str) -> Option<Self> {
        let scene = Self {
            mount: or_skip(LoopMount::new(
                Kind::Ext4,
                64 << 20,
                &["commit=300", "noauto_da_alloc"],
            ))?,
            elsewhere: tempfile::tempdir().unwrap(),
            part,
        };
        checkpoint().write_to(&scene.at("source")).unwrap();
        keepsake().write_to(&scene.at("keepsake")).unwrap();
        let handle = Handle::open(&scene.at("template")).unwrap();
        handle
            .snapshot(&request("kept", "v1", &scene.at("keepsake")))
            .unwrap();
        if matches!(part, "remove" | "touched") {
            handle
                .snapshot(&request("base", "v1", &scene.at("source")))
                .unwrap();
        }
        handle.close().unwrap();
        let _ = fs::remove_dir_all(scene.at("template/reserve"));
        Some(scene)
    }

    fn at(&self, name: &str) -> PathBuf {
        self.elsewhere.path().join(name)
    }

    fn root(&self) -> PathBuf {
        self.mount.path().join("root")
    }

    /// A copy of the template on the device, all of it durable.
    fn renew(&self) {
        let _ = fs::remove_dir_all(self.root());
        let _ = fs::remove_file(self.at("returned"));
        let copied = Command::new("cp")
            .arg("-a")
            .args([&self.at("template"), &self.root()])
            .status()
            .unwrap();
        assert!(copied.success());
        if self.part == "touched" {
            touch(&self.root().join("storage"));
        }
        rustix::fs::syncfs(fs::File::open(self.mount.path()).unwrap()).unwrap();
    }

    fn life(&self, step: u64) -> Command {
        let mut command = playing(module_path!(), self.part);
        tell(&mut command, "ROOT", self.root());
        tell(&mut command, "SOURCE", self.at("source"));
        tell(&mut command, "RETURNED", self.at("returned"));
        tell(&mut command, "COUNT", self.at("count"));
        tell(&mut command, "AT", step.to_string());
        command
    }

    fn steps(&self) -> u64 {
        self.renew();
        let end = start(&mut self.life(NEVER)).wait().unwrap();
        assert_eq!(end, State::Exited(0));
        fs::read_to_string(self.at("count"))
            .unwrap()
            .parse()
            .unwrap()
    }

    /// Stops the child at each step and has `look` at what the device has then. It is told whether the call had returned.
    fn cut_power_at_every_step(&self, look: impl Fn(&Handle, bool)) {
        let steps = self.steps();
        for step in 1..=steps {
            self.renew();
            let mut child = start(&mut self.life(step));
            let _stopped_or_over = child.wait().unwrap();
            let returned = self.at("returned").exists();
            let Some(device) = or_skip(self.mount.after_power_cut()) else {
                return;
            };
            child.kill().unwrap();
            let root = device.path().join("root");
            reboot(&root);
            eprintln!("{}: power cut at step {step} of {steps}", self.part);
            let handle = Handle::open(&root).unwrap();
            look(&handle, returned);
            handle.close().unwrap();
        }
    }

    fn assert_restores(&self, handle: &Handle, reference: &str, source: &str) {
        let output = self.at("output");
        handle.restore(reference, &output).unwrap();
        assert_same(&self.at(source), &output);
        fs::remove_dir_all(&output).unwrap();
    }
}

/// The machine has not been started again, so what is marked with this boot is given another's.
fn reboot(root: &Path) {
    catalog(root)
        .execute_batch(
            "UPDATE objects SET unsynced = 'another boot' WHERE unsynced IS NOT NULL;
             UPDATE views SET boot = 'another boot';",
        )
        .unwrap();
}

/// Gives all files below a directory another time, so that the store no longer vouches for them.
fn touch(dir: &Path) {
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            touch(&entry.path());
        } else {
            let file = fs::File::open(entry.path()).unwrap();
            file.set_modified(std::time::UNIX_EPOCH).unwrap();
        }
    }
}

#[test]
fn a_snapshot_that_is_visible_after_a_power_cut_is_whole() {
    let Some(scene) = Scene::new("full") else {
        return;
    };
    scene.cut_power_at_every_step(|handle, returned| {
        scene.assert_restores(handle, KEPT, "keepsake");
        let there = handle.listed().contains(&BASE.to_owned());
        assert!(there || !returned, "a durable snapshot is gone");
        if there {
            scene.assert_restores(handle, BASE, "source");
        }
        handle.assert_clean();
    });
}

#[test]
fn a_background_snapshot_lost_in_a_power_cut_is_found_out_and_never_served() {
    let Some(scene) = Scene::new("background") else {
        return;
    };
    scene.cut_power_at_every_step(|handle, _| {
        scene.assert_restores(handle, KEPT, "keepsake");
        if handle.listed().contains(&BASE.to_owned()) {
            let output = scene.at("output");
            match handle.restore(BASE, &output) {
                Ok(_) => assert_same(&scene.at("source"), &output),
                Err(error) => assert_eq!(error.kind(), ErrorKind::Damaged, "{error:?}"),
            }
            let _ = fs::remove_dir_all(&output);
        }
        // It can be taken again, which mends what was lost.
        let again = handle.snapshot(&request("again", "v1", &scene.at("source")));
        again.unwrap();
        scene.assert_restores(handle, "again:v1", "source");
    });
}

#[test]
fn a_removal_cut_off_by_power_has_happened_or_not() {
    let Some(scene) = Scene::new("remove") else {
        return;
    };
    scene.cut_power_at_every_step(|handle, _| {
        scene.assert_restores(handle, KEPT, "keepsake");
        if handle.listed().contains(&BASE.to_owned()) {
            scene.assert_restores(handle, BASE, "source");
        }
        handle.assert_clean();
    });
}

// Bytes that were only not vouched for were replaced by the same that were nowhere but in memory: both were gone then.
#[test]
fn what_replaces_stored_bytes_in_the_background_is_on_the_disk_before_they_go() {
    let Some(scene) = Scene::new("touched") else {
        return;
    };
    scene.cut_power_at_every_step(|handle, _| {
        scene.assert_restores(handle, KEPT, "keepsake");
        scene.assert_restores(handle, BASE, "source");
    });
}

in_pages_too!(
    what_replaces_stored_bytes_in_the_background_is_on_the_disk_before_they_go,
    a_snapshot_that_is_visible_after_a_power_cut_is_whole,
    a_background_snapshot_lost_in_a_power_cut_is_found_out_and_never_served,
);
