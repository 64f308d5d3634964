//! The command with a daemon in front of the bucket: through it, past it, and interrupted in the middle of it.

use crate::support;

use std::fs;
use std::process::Stdio;

use rustix::process::{Pid, Signal, kill_process};
use support::Place;
use testkit::dragonfly::{Cluster, FakeDaemon, Gate, Options, Upload};
use testkit::s3::{ACCESS_KEY, S3, SECRET_KEY};

/// A bucket, a daemon in front of it, and settings for both in a file.
struct Stand {
    place: Place,
    daemon: FakeDaemon,
    cluster: Cluster,
    s3: S3,
}

fn stand() -> Stand {
    let s3 = S3::start("ckpt");
    let cluster = Cluster::over(s3.bucket(), s3.dir());
    let daemon = FakeDaemon::start(&cluster, Options::default());
    let place = Place::with_registry()
        .unset("SNAPSHOTTER_CONTENT_PROVIDER")
        .unset("SNAPSHOTTER_CONTENT_ROOT")
        .set("SNAPSHOTTER_CONFIG", "c.toml");
    let text = format!(
        "[content]\nprovider = \"s3\"\nbucket = \"ckpt\"\nendpoint = \"{}\"\n\
         access_key_id = \"{ACCESS_KEY}\"\naccess_key_secret = \"{SECRET_KEY}\"\nretries = 0\n\
         [dragonfly]\nendpoint = \"{}\"\nreplicas = 3\nttl = \"1h\"\n",
        s3.endpoint(),
        daemon.endpoint(),
    );
    place.write("c.toml", text.as_bytes());
    place.chmod("c.toml", 0o600);
    Stand {
        place,
        daemon,
        cluster,
        s3,
    }
}

#[test]
fn a_snapshot_goes_through_the_daemon_and_comes_back() {
    let Stand {
        place,
        daemon,
        s3: _s3,
        ..
    } = stand();
    let taken = place.on("one", ["snapshot", "vm:v1", "vm", "--json"]);
    let taken = taken.succeeded().json();
    assert_eq!(taken["warnings"].as_array().unwrap().len(), 0, "{taken}");
    let uploads = daemon.uploads();
    assert_eq!(taken["publication"]["sentBlobs"], uploads.len());
    assert_eq!(uploads[0].persistent_replica_count, 3);
    assert_eq!(uploads[0].ttl.unwrap().seconds, 3600);
    // A root that is given relative to the working directory is absolute for the daemon.
    let root = place.path("one").display().to_string();
    assert!(uploads[0].path.starts_with(&root), "{:?}", uploads[0]);
    let restored = place.on("two", ["restore", "vm:v1", "out"]).succeeded();
    assert!(!restored.err.contains("warning"), "{restored:#?}");
    testkit::compare::assert_same(&place.path("vm"), &place.path("out"));
    assert_eq!(daemon.downloads().len(), uploads.len());
}

#[test]
fn a_daemon_that_is_gone_is_a_warning() {
    let Stand {
        place,
        daemon,
        s3: _s3,
        ..
    } = stand();
    drop(daemon);
    let said = place.on("one", ["snapshot", "vm:v1", "vm"]).succeeded();
    let text = "warning: contents take the way past dragonfly, straight to and from s3://ckpt: dfdaemon at unix://";
    assert!(said.err.contains(text), "{said:#?}");
    let args = ["restore", "vm:v1", "out", "--strict", "--json"];
    let json = place.on("two", args).exited(9).json();
    assert_eq!(json["warnings"][0]["kind"], "direct");
    testkit::compare::assert_same(&place.path("vm"), &place.path("out"));
}

#[test]
fn an_interrupt_in_the_middle_of_an_upload_does_not_cut_it_off() {
    let Stand {
        place,
        daemon,
        cluster,
        s3,
    } = stand();
    let gate = Gate::default();
    let held = gate.clone();
    daemon.answer_uploads(move |_, _| Upload::Hold(held.clone()));
    let mut command = place.command(["snapshot", "vm:v1", "vm"]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    gate.wait(1);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    gate.open();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130), "{output:?}");
    // Nothing is left at the scheduler that the next upload would run into, and nothing here.
    assert_eq!(cluster.uploading(), 0);
    let keys = s3.keys().into_iter();
    let contents = keys.filter(|key| !key.starts_with("snapshotter/"));
    assert_eq!(contents.count(), daemon.uploads().len());
    assert_eq!(fs::read_dir(place.path("root/staging")).unwrap().count(), 0);
    place.run(["push", "vm:v1"]).succeeded();
}
