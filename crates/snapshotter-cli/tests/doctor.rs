//! `snapshotter doctor`. What it finds is the machine's, so only the form is compared.

use crate::support;

use support::Place;
use testkit::buckets;
use testkit::dragonfly::{Cluster, FakeDaemon, Options};
use testkit::proxy::{Act, Asked, Weather};
use testkit::s3::{ACCESS_KEY, S3, SECRET_KEY};

#[test]
fn says_what_the_machine_can_do() {
    let place = Place::new();
    let said = place.run(["doctor", "vm"]).succeeded();
    for line in [
        "root (root)",
        "filesystem",
        "safe paths",
        "open files",
        "hardlinks",
        "reflinks",
    ] {
        assert!(said.out.contains(line), "{line}: {said:#?}");
    }
    let json = place.run(["doctor", "vm", "--json"]).succeeded().json();
    assert_eq!(json["root"]["path"], "root");
    assert_eq!(json["output"]["hardlink"]["works"], true);
    assert_eq!(json["output"]["sameFilesystem"], true);
    assert!(json["availableBytes"].is_u64() && json["openFilesLimit"].is_u64());
    let left: Vec<_> = std::fs::read_dir(place.path("vm")).unwrap().collect();
    assert_eq!(left.len(), 4, "it left something: {left:?}");
}

#[test]
fn another_filesystem_is_seen() {
    let place = Place::new();
    let Some(other) = testkit::mount::or_skip(testkit::mount::TmpfsMount::new(1 << 20)) else {
        return;
    };
    let json = place
        .run(["doctor", other.path().to_str().unwrap(), "--json"])
        .succeeded()
        .json();
    assert_eq!(json["output"]["sameFilesystem"], false);
    assert_eq!(json["output"]["hardlink"]["works"], false);
}

#[test]
fn the_registry_and_the_place_of_contents_are_asked() {
    let place = Place::new();
    let json = place.run(["doctor", "--json"]).succeeded().json();
    assert!(
        json["registry"].is_null() && json["content"].is_null(),
        "{json}"
    );
    let place = Place::with_registry();
    let said = place.run(["doctor"]).succeeded();
    for line in [
        "\nElsewhere\n",
        "  ok  registry       oci-layout:[DIR]/registry can be used\n",
        "  ok  contents       fs://[DIR]/contents can be used\n",
    ] {
        assert!(said.out.contains(line), "{line}: {said:#?}");
    }
    let json = place.run(["doctor", "--json"]).succeeded().json();
    let registry = json["registry"]["place"].as_str().unwrap();
    assert!(registry.ends_with("/registry"), "{json}");
    assert!(json["registry"]["error"].is_null(), "{json}");
    assert!(json["content"]["error"].is_null(), "{json}");
    let left = std::fs::read_dir(place.path("contents")).unwrap().count();
    assert_eq!(left, 0, "asking changed something");
}

#[test]
fn what_cannot_be_used_is_said_with_its_kind() {
    let place = Place::with_registry()
        .set("SNAPSHOTTER_REGISTRY_ENDPOINT", "http://127.0.0.1:1")
        .set("SNAPSHOTTER_REGISTRY_RETRIES", "0");
    std::fs::remove_dir(place.path("contents")).unwrap();
    let said = place.run(["doctor"]).succeeded();
    for line in [
        "  --  registry       127.0.0.1:1: cannot ",
        "  --  contents       fs://[DIR]/contents: ",
    ] {
        assert!(said.out.contains(line), "{line}: {said:#?}");
    }
    let json = place.run(["doctor", "--json"]).succeeded().json();
    assert_eq!(json["registry"]["error"]["kind"], "unavailable");
    assert!(json["content"]["error"]["kind"].is_string(), "{json}");
    assert!(json["content"]["error"]["message"].is_string(), "{json}");
    let place = Place::with_registry()
        .unset("SNAPSHOTTER_CONTENT_PROVIDER")
        .unset("SNAPSHOTTER_CONTENT_ROOT");
    let said = place.run(["doctor"]).succeeded();
    let line = "--  contents       content.provider is not set";
    assert!(said.out.contains(line), "{said:#?}");
}

#[test]
fn dragonflys_daemon_is_tried() {
    let s3 = S3::start("ckpt");
    let cluster = Cluster::over(s3.bucket(), s3.dir());
    let daemon = FakeDaemon::start(&cluster, Options::default());
    let place = Place::with_registry()
        .unset("SNAPSHOTTER_CONTENT_ROOT")
        .set("SNAPSHOTTER_CONTENT_PROVIDER", "s3")
        .set("SNAPSHOTTER_CONTENT_BUCKET", s3.bucket())
        .set("SNAPSHOTTER_CONTENT_ENDPOINT", s3.endpoint())
        .set("SNAPSHOTTER_CONTENT_ACCESS_KEY_ID", ACCESS_KEY)
        .set("SNAPSHOTTER_CONTENT_ACCESS_KEY_SECRET", SECRET_KEY)
        .set("SNAPSHOTTER_DRAGONFLY_ENDPOINT", daemon.endpoint());
    let said = place.run(["doctor"]).succeeded();
    for line in [
        "dfdaemon.sock serves\n",
        "  ok  its files      it finds this root's files\n",
        "  ok  its hardlinks  what it brings shares an inode with its cache\n",
    ] {
        assert!(said.out.contains(line), "{line}: {said:#?}");
    }
    // The empty file's object, and nothing else.
    assert_eq!(s3.keys().len(), 1);
    daemon.set_cross_device(true);
    daemon.clear_cache();
    let json = place.run(["doctor", "--json"]).succeeded().json();
    let dragonfly = &json["dragonfly"];
    assert_eq!(dragonfly["endpoint"], daemon.endpoint());
    assert_eq!(dragonfly["files"]["works"], true);
    assert_eq!(dragonfly["hardlink"]["works"], false);
    cluster.set_scheduler_down(true);
    let said = place.run(["doctor"]).succeeded();
    let line = "  --  its files      it cannot be used with this root: ";
    assert!(said.out.contains(line), "{said:#?}");
    drop(daemon);
    let json = place.run(["doctor", "--json"]).succeeded().json();
    assert_eq!(json["dragonfly"]["error"]["kind"], "unavailable");
    assert!(json["dragonfly"]["files"].is_null(), "{json}");
    assert!(json["content"]["error"].is_null(), "{json}");
}

/// `doctor` looked for an object and called the bucket usable; publishing then failed for want of a permission.
#[test]
fn a_bucket_is_tried_as_a_snapshot_uses_it() {
    let s3 = S3::start("ckpt");
    let said_of = |decide: Box<dyn Fn(&Asked) -> Act + Send + Sync>| {
        let weather = Weather::before(s3.address(), decide);
        let place = Place::with_registry()
            .unset("SNAPSHOTTER_CONTENT_ROOT")
            .set("SNAPSHOTTER_CONTENT_PROVIDER", "s3")
            .set("SNAPSHOTTER_CONTENT_BUCKET", s3.bucket())
            .set("SNAPSHOTTER_CONTENT_ENDPOINT", weather.endpoint())
            .set("SNAPSHOTTER_CONTENT_ACCESS_KEY_ID", ACCESS_KEY)
            .set("SNAPSHOTTER_CONTENT_ACCESS_KEY_SECRET", SECRET_KEY);
        let json = place.run(["doctor", "--json"]).succeeded().json();
        (
            place.run(["doctor"]).succeeded().out,
            json["content"].clone(),
        )
    };
    let (text, json) = said_of(Box::new(|_| Act::Pass));
    assert!(
        text.contains("  ok  contents       s3://ckpt can be used\n"),
        "{text}"
    );
    assert_eq!(json["denied"].as_array().unwrap().len(), 0, "{json}");
    assert!(s3.keys().is_empty(), "the probe is still there");
    let (text, json) = said_of(Box::new(buckets::without("s3:PutObject")));
    let line = "  --  contents       s3://ckpt: the keys may not write (s3:PutObject)";
    assert!(text.contains(line), "{text}");
    assert_eq!(json["error"]["kind"], "permission_denied", "{json}");
    let (text, json) = said_of(Box::new(buckets::without_listing(s3.dir())));
    assert!(text.contains("can be used"), "{text}");
    let line = "  --  its keys       may not list the bucket (s3:ListBucket)";
    assert!(text.contains(line), "{text}");
    assert_eq!(json["denied"].as_array().unwrap().len(), 1, "{json}");
}

#[test]
fn the_codes() {
    let place = Place::new();
    place.run(["doctor", "nowhere"]).exited(3);
    place.run(["doctor", "vm/memory"]).exited(2);
}

#[test]
fn help() {
    assert_session!("help", Place::new().run(["doctor", "--help"]).succeeded());
}

/// The bug: contents in a registry that is down "can be used".
#[test]
fn contents_in_the_registry_fare_as_it_does() {
    let place = Place::with_registry()
        .unset("SNAPSHOTTER_CONTENT_ROOT")
        .set("SNAPSHOTTER_CONTENT_PROVIDER", "registry")
        .set("SNAPSHOTTER_REGISTRY_ENDPOINT", "http://127.0.0.1:1")
        .set("SNAPSHOTTER_REGISTRY_RETRIES", "0");
    let said = place.run(["doctor"]).succeeded();
    assert!(!said.out.contains("can be used"), "{said:#?}");
    let json = place.run(["doctor", "--json"]).succeeded().json();
    assert_eq!(json["content"]["error"]["kind"], "unavailable");
    assert_eq!(json["content"]["error"], json["registry"]["error"]);
}

/// The bug: a directory that cannot be written "can be used" as a registry.
#[test]
fn a_registry_in_a_directory_that_cannot_be_written_is_said() {
    for made in [true, false] {
        let place = Place::with_registry();
        std::fs::create_dir_all(place.path("home")).unwrap();
        let closed = if made { "registry" } else { "closed" };
        std::fs::create_dir_all(place.path(closed)).unwrap();
        place.chmod(closed, 0o555);
        let inside = format!("oci-layout:{}/{closed}/in", place.path("").display());
        let place = if made {
            place
        } else {
            place.set("SNAPSHOTTER_REGISTRY_ENDPOINT", &inside)
        };
        place.chmod("", 0o777);
        let said = place.run_unprivileged(["doctor", "--json"]).succeeded();
        let json = said.json();
        assert_eq!(
            json["registry"]["error"]["kind"], "permission_denied",
            "{json}"
        );
    }
}
