//! `snapshotter config`, and where settings come from.

mod support;

use std::fs;

use support::{Place, Said};

fn value(said: &Said, key: &str) -> (serde_json::Value, serde_json::Value) {
    let json = said.json();
    let settings = json["settings"].as_array().unwrap();
    let setting = settings
        .iter()
        .find(|setting| setting["key"] == key)
        .unwrap();
    (setting["value"].clone(), setting["source"].clone())
}

#[test]
fn flags_win_over_variables_over_env_files_over_files() {
    let place = Place::new();
    place.write(
        "c.toml",
        b"snapshot_concurrency = 2\nroot_dir = \"/from/file\"\n[gc]\nbatch_size = 3\n",
    );
    place.write(
        ".env",
        b"SNAPSHOTTER_SNAPSHOT_CONCURRENCY=4\nSNAPSHOTTER_GC_INTERVAL=1h\n",
    );
    let base = ["config", "--json", "--config", "c.toml"];
    let mut command = place.command(base);
    command.env_remove("SNAPSHOTTER_ROOT_DIR");
    let said = place.said(&mut command).succeeded();
    assert_eq!(value(&said, "root_dir").0, "/from/file");
    let source = value(&said, "gc.batch_size").1;
    assert_eq!(
        (&source["path"], &source["line"]),
        (&"c.toml".into(), &4.into())
    );
    command.args(["--env-file", ".env"]);
    let said = place.said(&mut command).succeeded();
    assert_eq!(value(&said, "snapshot_concurrency").0, 4);
    assert_eq!(value(&said, "gc.interval").0, "1h");
    command
        .env("SNAPSHOTTER_SNAPSHOT_CONCURRENCY", "6")
        .env("SNAPSHOTTER_ROOT_DIR", "/from/variable");
    let said = place.said(&mut command).succeeded();
    assert_eq!(value(&said, "snapshot_concurrency").0, 6);
    assert_eq!(value(&said, "root_dir").0, "/from/variable");
    command.args(["--root", "/from/flag"]);
    let (value, source) = value(&place.said(&mut command).succeeded(), "root_dir");
    assert_eq!(
        (value, &source["name"]),
        ("/from/flag".into(), &"--root".into())
    );
}

#[test]
fn the_users_file_is_found_where_xdg_says() {
    let place = Place::new();
    for dir in ["home/.config/snapshotter", "xdg/snapshotter"] {
        fs::create_dir_all(place.path(dir)).unwrap();
        let text = format!("root_dir = \"/of/{dir}\"\n");
        place.write(&format!("{dir}/config.toml"), text.as_bytes());
    }
    let mut command = place.command(["config", "--json"]);
    command.env_remove("SNAPSHOTTER_ROOT_DIR");
    let said = place.said(&mut command).succeeded();
    assert_eq!(value(&said, "root_dir").0, "/of/home/.config/snapshotter");
    let said = place
        .said(command.env("XDG_CONFIG_HOME", place.path("xdg")))
        .succeeded();
    assert_eq!(value(&said, "root_dir").0, "/of/xdg/snapshotter");
}

#[test]
fn the_default_root_is_roots_or_ones_own() {
    let place = Place::new();
    let mut command = place.command(["config", "--json"]);
    command
        .env_remove("SNAPSHOTTER_ROOT_DIR")
        .env("XDG_DATA_HOME", "/data");
    let root = value(&place.said(&mut command).succeeded(), "root_dir").0;
    let privileged = rustix::process::geteuid().is_root();
    assert_eq!(
        root,
        if privileged {
            "/var/lib/snapshotter"
        } else {
            "/data/snapshotter"
        }
    );
}

#[test]
fn everything_is_shown_and_secrets_are_hidden() {
    let place = Place::new();
    place.write(
        ".env",
        b"REGISTRY_ENDPOINT=https://registry.example\nREGISTRY_PASSWORD=hunter2\nCONTENT_ACCESS_KEY_SECRET=hunter2\n\
          CONTENT_ENDPOINT=https://me:hunter2@s3.example\nDRAGONFLY_ENDPOINT=unix:///run/d.sock\nOTHER=hunter2\n",
    );
    let mut command = place.command(["config", "--env-file", ".env"]);
    command.env("SNAPSHOTTER_PORT", "tcp://10.0.0.1:80");
    let said = place.said(&mut command).succeeded();
    assert!(!format!("{said:?}").contains("hunter2"), "{said:#?}");
    if !std::path::Path::new("/etc/snapshotter/config.toml").exists() {
        assert_session!("text", said);
    }
    let said = place
        .run(["config", "--env-file", ".env", "--json"])
        .succeeded();
    assert!(!said.out.contains("hunter2"), "{said:#?}");
    assert_eq!(said.json()["warnings"][0]["kind"], "unused_setting");
}

#[test]
fn the_environment_is_not_searched_for_other_peoples_names() {
    let place = Place::with_snapshot();
    let mut command = place.command(["list"]);
    command
        .env("REGISTRY_ENDPOINT", "x")
        .env("ROOT_DIR", "/nowhere")
        .env("RUST_LOG", "trace");
    let said = place.said(&mut command).succeeded();
    assert_eq!(said.err, "");
}

#[test]
fn what_is_wrong_in_a_file_has_its_line() {
    let place = Place::new();
    let refused = |text: &str| {
        place.write("c.toml", text.as_bytes());
        place.run(["config", "--config", "c.toml"]).exited(2).err
    };
    assert!(refused("# x\nsnapshot_concurency = 1\n").starts_with("error: c.toml:2: "));
    assert!(refused("[gc]\n\ninterval = 5\n").starts_with("error: c.toml:3: "));
    assert!(refused("a = [").starts_with("error: c.toml:1: "));
    assert!(refused("\nroot_dir = \"~/store\"\n").starts_with("error: c.toml:2: "));
    place.run(["config", "--config", "nowhere.toml"]).exited(3);
    place.run(["config", "--env-file", "nowhere"]).exited(3);
    let mut command = place.command(["list"]);
    place
        .said(command.env("SNAPSHOTTER_RELAXED_TIMES", "maybe"))
        .exited(2);
    let said = place
        .said(
            place
                .command(["doctor"])
                .env("SNAPSHOTTER_RESTORE_CONCURRENCY", "0"),
        )
        .exited(2);
    assert!(
        said.err
            .contains("it is set by: SNAPSHOTTER_RESTORE_CONCURRENCY"),
        "{said:#?}"
    );
}

#[test]
fn defaults_are_a_file_to_start_from() {
    let place = Place::new();
    let said = place.run(["config", "--defaults"]).succeeded();
    assert_session!("defaults", said);
    place.write("c.toml", said.out.as_bytes());
    place.run(["config", "--config", "c.toml"]).succeeded();
}

#[test]
fn help() {
    assert_session!("help", Place::new().run(["config", "--help"]).succeeded());
}
