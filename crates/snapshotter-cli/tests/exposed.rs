//! What others can change or read, and roots that are only read.

use crate::support;

use std::fs;
use std::path::Path;
use std::process::Command;

use support::{Place, Said};
use testkit::mount::{BindMount, or_skip, run};

/// What is warned of as exposed.
fn exposed(said: &Said) -> Vec<String> {
    let json = said.json();
    let warnings = json["warnings"].as_array().unwrap().iter();
    let exposed = warnings.filter(|one| one["kind"] == "exposed");
    exposed
        .map(|one| one["message"].as_str().unwrap().to_owned())
        .collect()
}

// A root that everybody could write was used without a word.
#[test]
fn a_root_that_others_can_change_is_said_by_every_verb() {
    let place = Place::with_snapshot();
    for verb in ["list", "doctor", "df"] {
        assert_eq!(exposed(&place.run([verb, "--json"])), [""; 0]);
    }
    place.chmod("root", 0o777);
    for verb in ["list", "doctor", "df"] {
        let said = exposed(&place.run([verb, "--json"]).succeeded());
        assert!(
            said.len() == 1 && said[0].contains("mode is 0777"),
            "{said:?}"
        );
    }
    let failed = place.run(["inspect", "vm:none"]);
    assert!(
        !failed.err.contains("0777"),
        "it is to blame for nothing: {failed:#?}"
    );
}

// Passwords in files that everybody could read were used without a word.
#[test]
fn files_with_secrets_that_everybody_can_read_are_said() {
    let place = Place::with_snapshot();
    place.write("config.toml", b"[registry]\nendpoint = \"http://127.0.0.1:1\"\nusername = \"me\"\npassword = \"hunter2\"\nretries = 0\n");
    place.write("env", b"REGISTRY_ENDPOINT=http://127.0.0.1:1\nREGISTRY_RETRIES=0\nREGISTRY_PROXY=http://me:hunter2@127.0.0.1:1\n");
    place.write(
        "plain.toml",
        b"[registry]\nendpoint = \"http://127.0.0.1:1\"\n",
    );
    let said =
        |flag: &str, file: &str| exposed(&place.run([flag, file, "list", "--json"]).succeeded());
    for (flag, file) in [("--config", "config.toml"), ("--env-file", "env")] {
        place.chmod(file, 0o640);
        assert_eq!(said(flag, file), [""; 0], "{file}");
        place.chmod(file, 0o644);
        let warned = said(flag, file);
        assert!(warned.len() == 1 && warned[0].contains(file), "{warned:?}");
        assert!(!warned[0].contains("hunter2"), "{warned:?}");
        let doctor = place.run([flag, file, "doctor"]);
        assert!(
            doctor.err.contains("which everybody can read"),
            "{doctor:#?}"
        );
    }
    assert_eq!(said("--config", "plain.toml"), [""; 0]);
    // Nobody gets to it.
    fs::create_dir(place.path("private")).unwrap();
    place.chmod("private", 0o700);
    fs::rename(place.path("env"), place.path("private/env")).unwrap();
    assert_eq!(said("--env-file", "private/env"), [""; 0]);
}

fn read_only(mounted: &Path) {
    run(Command::new("mount")
        .args(["-o", "remount,bind,ro"])
        .arg(mounted))
    .unwrap();
}

// Nothing could be done with a root on a read-only mount, and what was said was that it cannot be written.
#[test]
fn a_root_on_a_read_only_mount_is_read_and_what_writes_says_so() {
    let place = Place::with_snapshot();
    let Some(_bind) = or_skip(BindMount::new(&place.path("root"), &place.path("root"))) else {
        return;
    };
    read_only(&place.path("root"));
    for line in [
        "list",
        "inspect vm:v1",
        "df",
        "diff vm:v1 vm:v1",
        "verify",
        "restore vm:v1 output",
        "restore vm:v1 planned --dry-run",
        "remove vm:v1 --dry-run",
        "gc --dry-run",
        "doctor",
        "doctor vm",
    ] {
        let said = place.run(line.split(' '));
        assert!(said.code == Some(0), "{line}: {said:#?}");
    }
    let doctor = place.run(["doctor"]).succeeded();
    assert!(
        doctor.out.contains("mount          read-only"),
        "{doctor:#?}"
    );
    for line in [
        "snapshot vm:v2 vm",
        "remove vm:v1",
        "pin vm:v1",
        "gc",
        "verify --repair",
        "verify --rebuild",
    ] {
        let said = place.run(line.split(' '));
        assert_eq!(said.code, Some(10), "{line}: {said:#?}");
        assert!(
            said.err.contains("is on a read-only mount"),
            "{line}: {said:#?}"
        );
        assert!(said.err.contains("hint: "), "{line}: {said:#?}");
    }
}
