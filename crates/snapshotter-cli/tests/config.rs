//! `snapshotter config`, and where settings come from.

use crate::support;

use std::fs;

use support::{Place, Said};
use testkit::weather::{Reply, Weather};

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
          CONTENT_ENDPOINT=https://me:hunter2@s3.example\nDRAGONFLY_ENDPOINT=unix:///run/d.sock\nOTHER=hunter2\n\
          CONTENT_PROVIDER=s3\nCONTENT_ACCESS_KEY_ID=hunter2\nSNAPSHOTTER_CONTENT_SESSION_TOKEN=hunter2\n",
    );
    place.chmod(".env", 0o600);
    let mut command = place.command(["config", "--env-file", ".env"]);
    command
        .env("SNAPSHOTTER_PORT", "tcp://10.0.0.1:80")
        .env("DOCKER_CONFIG", "/etc/docker")
        .env("HTTPS_PROXY", "http://me:hunter2@proxy.example:3128");
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
    let json = said.json();
    let mut settings = json["settings"].as_array().unwrap().iter();
    let password = settings.find(|setting| setting["key"] == "registry.password");
    assert!(password.unwrap()["value"].is_null());
    assert_eq!(password.unwrap()["hidden"], true);
}

#[test]
fn the_environment_is_not_searched_for_other_peoples_names() {
    let place = Place::with_snapshot();
    let mut command = place.command(["list"]);
    command
        .env("REGISTRY_ENDPOINT", "x")
        .env("CONTENT_PROVIDER", "y")
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
fn sections_are_read_from_a_file() {
    let place = Place::new();
    place.write(
        "c.toml",
        b"[registry]\nendpoint = \"registry.example\"\nusername = \"u\"\npassword = \"hunter2\"\n\
          [content]\nprovider = \"s3\"\nregion = \"eu-1\"\nbucket = \"ckpt\"\nretries = 2\ntimeout = \"5s\"\n",
    );
    let said = place.run(["config", "--json", "--config", "c.toml"]);
    for (key, expected) in [
        ("registry.endpoint", "registry.example".into()),
        ("registry.namespace", serde_json::Value::Null),
        ("registry.password", serde_json::Value::Null),
        ("content.provider", "s3".into()),
        ("content.retries", 2.into()),
        ("content.timeout", "5s".into()),
        ("content.credentials", "ambient".into()),
    ] {
        assert_eq!(value(&said, key).0, expected, "{key}");
    }
    assert_eq!(value(&said, "content.region").1["line"], 7);
}

#[test]
fn a_daemon_without_a_bucket_is_refused() {
    let place = Place::with_registry().set("SNAPSHOTTER_DRAGONFLY_ENDPOINT", "unix:///run/d.sock");
    let said = place.run(["doctor"]).exited(2);
    assert!(
        said.err.contains("provider fs does not go with it"),
        "{said:#?}"
    );
    let place = place
        .unset("SNAPSHOTTER_CONTENT_PROVIDER")
        .unset("SNAPSHOTTER_CONTENT_ROOT");
    let said = place.run(["doctor"]).exited(2);
    let text = "dragonfly.endpoint is set, and content.provider is not";
    assert!(said.err.contains(text), "{said:#?}");
    let place = Place::with_registry().set("SNAPSHOTTER_DRAGONFLY_REPLICAS", "3");
    let said = place.run(["doctor"]).exited(2);
    let text = "dragonfly.replicas is set, and dragonfly.endpoint is not";
    assert!(said.err.contains(text), "{said:#?}");
    let place = Place::with_registry()
        .unset("SNAPSHOTTER_CONTENT_ROOT")
        .set("SNAPSHOTTER_CONTENT_PROVIDER", "s3")
        .set("SNAPSHOTTER_CONTENT_BUCKET", "ckpt")
        .set("SNAPSHOTTER_CONTENT_REGION", "eu-1")
        .set("SNAPSHOTTER_DRAGONFLY_ENDPOINT", "/run/d.sock");
    let said = place.run(["doctor"]).exited(2);
    assert!(
        said.err
            .contains("dragonfly.endpoint \"/run/d.sock\" must be"),
        "{said:#?}"
    );
    assert!(
        said.err.contains("SNAPSHOTTER_DRAGONFLY_ENDPOINT"),
        "{said:#?}"
    );
    // What is here works all the same.
    place.run(["config"]).succeeded();
}

#[test]
fn what_other_programs_know_is_used_and_its_source_is_shown() {
    let place = Place::new()
        .set("SNAPSHOTTER_REGISTRY_ENDPOINT", "registry.example")
        .set("SNAPSHOTTER_CONTENT_PROVIDER", "s3")
        .set("SNAPSHOTTER_CONTENT_ENDPOINT", "http://s3.inside.example");
    let mut command = place.command(["config", "--json"]);
    let said = place.said(&mut command).succeeded();
    let (file, source) = value(&said, "registry.docker_config");
    assert_eq!(file, "[DIR]/home/.docker/config.json");
    assert_eq!(source["kind"], "default");
    assert!(value(&said, "registry.proxy").0.is_null());
    command
        .env("DOCKER_CONFIG", "/etc/docker")
        .env("https_proxy", "http://proxy.example:3128")
        .env("http_proxy", "http://proxy.example:3128")
        .env("no_proxy", ".inside.example");
    let said = place.said(&mut command).succeeded();
    let (file, source) = value(&said, "registry.docker_config");
    assert_eq!(file, "/etc/docker/config.json");
    assert_eq!(source["name"], "DOCKER_CONFIG");
    let (proxy, source) = value(&said, "registry.proxy");
    assert_eq!(proxy, "http://proxy.example:3128");
    assert_eq!(source["name"], "https_proxy");
    assert!(value(&said, "content.proxy").0.is_null());
    command.env("SNAPSHOTTER_REGISTRY_PROXY", "http://other.example:1");
    let said = place.said(&mut command).succeeded();
    let (proxy, source) = value(&said, "registry.proxy");
    assert_eq!(proxy, "http://other.example:1");
    assert_eq!(source["name"], "SNAPSHOTTER_REGISTRY_PROXY");
}

/// With a registry and a bucket whose servers refuse everything.
fn refused(servers: &Weather) -> Place {
    Place::with_snapshot()
        .set("SNAPSHOTTER_REGISTRY_ENDPOINT", servers.url())
        .set("SNAPSHOTTER_REGISTRY_USERNAME", "me")
        .set("SNAPSHOTTER_REGISTRY_PASSWORD", "hunter2")
        .set("SNAPSHOTTER_REGISTRY_RETRIES", "0")
        .set("SNAPSHOTTER_CONTENT_PROVIDER", "s3")
        .set("SNAPSHOTTER_CONTENT_ENDPOINT", servers.url())
        .set("SNAPSHOTTER_CONTENT_BUCKET", "ckpt")
        .set("SNAPSHOTTER_CONTENT_RETRIES", "0")
        .set("SNAPSHOTTER_CONTENT_ACCESS_KEY_ID", "hunter2id")
        .set("SNAPSHOTTER_CONTENT_ACCESS_KEY_SECRET", "hunter2secret")
        .set("SNAPSHOTTER_CONTENT_SESSION_TOKEN", "hunter2token")
}

/// However much is logged.
fn assert_nothing_is_told(place: &Place, args: &[&str]) {
    for more in [&[][..], &["-vvv"], &["-vvv", "--log-format", "json"]] {
        let said = format!("{:?}", place.run(args.iter().chain(more)));
        // `me:hunter2` is in base64 where Basic authentication sends it.
        for secret in ["hunter2", "aHVudGVyMg", "bWU6aHVudGVyM"] {
            assert!(!said.contains(secret), "{said}");
        }
    }
}

#[test]
fn secrets_are_in_no_error_and_no_log() {
    let servers = Weather::new(|asked, _| {
        let sent = asked.header("authorization").unwrap_or("nothing");
        Reply::status(403).with("x-echo", sent)
    });
    let place = refused(&servers);
    for args in [
        &["config"][..],
        &["config", "--json"],
        &["push", "vm:v1"],
        &["pull", "vm:v2", "--json"],
        &["restore", "vm:v2", "out"],
        &["snapshot", "vm:v3", "vm"],
        &["list", "--remote"],
        &["doctor"],
    ] {
        assert_nothing_is_told(&place, args);
    }
    assert!(!servers.asked().is_empty());
}

#[test]
fn secrets_in_the_wrong_place_are_in_no_error_either() {
    let servers = Weather::new(|_, _| Reply::status(403));
    for (name, value) in [
        ("REGISTRY_ENDPOINT", "https://me:hunter2@registry.example"),
        ("REGISTRY_PROXY", "socks5://me:hunter2@proxy.example"),
        ("CONTENT_PROXY", "me:hunter2@proxy.example"),
        ("CONTENT_ENDPOINT", "https://me:hunter2@s3.example"),
        ("CONTENT_ACCESS_KEY_SECRET", "hunter2 with blanks"),
        ("REGISTRY_USERNAME", ""),
    ] {
        let place = refused(&servers).set(&format!("SNAPSHOTTER_{name}"), value);
        for args in [&["config"][..], &["push", "vm:v1"], &["list", "--remote"]] {
            assert_nothing_is_told(&place, args);
        }
        place.run(["push", "vm:v1"]).exited(2);
    }
}

/// A local command has nothing to do with a registry that is badly configured.
#[test]
fn what_is_here_works_whatever_the_registry() {
    let place = Place::with_snapshot()
        .set("SNAPSHOTTER_REGISTRY_ENDPOINT", "no/such/place")
        .set("SNAPSHOTTER_CONTENT_BUCKET", "left over");
    for args in [
        &["list"][..],
        &["inspect", "vm:v1"],
        &["verify"],
        &["df"],
        &["config"],
        &["snapshot", "vm:v2", "vm", "--local"],
        &["diff", "vm:v1", "vm:v2"],
        &["remove", "vm:v2"],
    ] {
        place.run(args).succeeded();
    }
    place.run(["push", "vm:v1"]).exited(2);
}

#[test]
fn help() {
    assert_session!("help", Place::new().run(["config", "--help"]).succeeded());
}

#[test]
fn the_page_of_settings_has_every_key_and_its_default() {
    let page = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/settings.md");
    let page = fs::read_to_string(page).unwrap();
    let printed = Place::new().run(["config", "--defaults"]).succeeded().out;
    let mut section = String::new();
    let mut keys = 0;
    for line in printed.lines() {
        if let Some(name) = line
            .strip_prefix('[')
            .and_then(|line| line.strip_suffix(']'))
        {
            section = format!("{name}.");
        }
        let Some((key, default)) = line
            .strip_prefix("# ")
            .and_then(|line| line.split_once(" = "))
            .filter(|(key, _)| !key.contains(' '))
        else {
            continue;
        };
        let default = match default {
            "\"\"" => String::new(),
            default => format!("`{default}`"),
        };
        let row = format!("| `{section}{key}` | {default} | ");
        assert!(page.contains(&row), "docs/settings.md lacks {row}");
        keys += 1;
    }
    assert_eq!(page.matches("\n| `").count(), keys, "a row too many");
}

/// `--config /dev/zero` ate all memory, and a fifo that nobody writes was waited for without end.
/// Whatever has the name of a file of settings, it is refused at once, with its name and the limit.
#[test]
fn files_that_do_not_end_are_refused_at_once() {
    let place = Place::new();
    let fifo = std::process::Command::new("mkfifo")
        .arg(place.path("fifo"))
        .status();
    assert!(fifo.unwrap().success());
    fs::File::create(place.path("huge"))
        .and_then(|file| file.set_len(1 << 40))
        .unwrap();
    for (name, why) in [
        ("/dev/zero", "it has more than "),
        ("huge", "it has more than "),
        ("fifo", "it is a fifo, not a file"),
        ("vm", "it is a directory"),
    ] {
        let refused = |command: &mut std::process::Command, what: &str| {
            let said = place.said(command).exited(2);
            let expected = format!("error: cannot read {what} {name}: {why}");
            assert!(said.err.starts_with(&expected), "{said:#?}");
        };
        let mut command = place.command(["config", "--config", name]);
        refused(&mut command, "the configuration file");
        let mut command = place.command(["config"]);
        command.env("SNAPSHOTTER_CONFIG", name);
        refused(&mut command, "the configuration file");
        let mut command = place.command(["config", "--env-file", name]);
        refused(&mut command, "the env file");
        let mut command = place.command(["snapshot", "vm:v1", "vm", "--files-from", name]);
        refused(&mut command, "the list of files");
        let mut command = place.command(["pull", "vm:v1"]);
        command
            .env("SNAPSHOTTER_REGISTRY_ENDPOINT", "https://127.0.0.1:1")
            .env("SNAPSHOTTER_REGISTRY_CA_FILE", name);
        refused(&mut command, "the certificates");
        // What the providers' own tools read is read by others, and looked at before.
        let mut command = place.command(["pull", "vm:v1"]);
        command
            .env("SNAPSHOTTER_REGISTRY_ENDPOINT", "https://127.0.0.1:1")
            .env("SNAPSHOTTER_CONTENT_PROVIDER", "s3")
            .env("SNAPSHOTTER_CONTENT_BUCKET", "bucket")
            .env("AWS_SHARED_CREDENTIALS_FILE", name);
        refused(&mut command, "the file of AWS_SHARED_CREDENTIALS_FILE,");
    }
}

#[test]
fn what_a_shell_opens_for_the_command_is_a_file_of_settings_too() {
    let place = Place::new();
    for line in [
        "echo 'snapshot_concurrency = 3' | snapshotter config --json --config /dev/stdin",
        "snapshotter config --json --config <(echo 'snapshot_concurrency = 3')",
        "snapshotter config --json --config /dev/null --env-file <(echo SNAPSHOTTER_SNAPSHOT_CONCURRENCY=3)",
    ] {
        let said = place.run_in_shell(line).succeeded();
        assert_eq!(value(&said, "snapshot_concurrency").0, 3, "{line}");
    }
    let endless = place.run_in_shell("snapshotter config --config <(cat /dev/zero)");
    assert!(
        endless
            .exited(2)
            .err
            .contains("it has more than 1048576 bytes")
    );
}

/// The bug: the page said that a size without a unit is bytes, and a file with `min_rate = 4096` was refused.
#[test]
fn a_size_is_a_number_of_bytes_too() {
    let place = Place::new();
    for (text, read) in [
        ("4096", "4KiB"),
        ("\"4096\"", "4KiB"),
        ("1_000", "1000B"),
        ("0", "0B"),
    ] {
        let file = format!("[registry]\nmin_rate = {text}\n");
        place.write("c.toml", file.as_bytes());
        let said = place.run(["config", "--config", "c.toml", "--json"]);
        assert_eq!(value(&said.succeeded(), "registry.min_rate").0, read);
    }
    for wrong in ["4.5", "true", "-1"] {
        let file = format!("[registry]\nmin_rate = {wrong}\n");
        place.write("c.toml", file.as_bytes());
        place.run(["config", "--config", "c.toml"]).exited(2);
    }
}

/// The bug: what was set and did nothing, because what it belongs to was not set, was shown as if it did.
#[test]
fn what_belongs_to_nothing_is_unused() {
    let place = Place::new();
    let file = "[gc]\ntrust_daemon = true\n\n[content]\nmin_rate = \"1KiB\"\naccess_key_secret = \"hunter2\"\n";
    place.write("c.toml", file.as_bytes());
    let said = place
        .run(["config", "--config", "c.toml", "--json"])
        .succeeded();
    let json = said.json();
    let unused = json["unused"].as_array().unwrap();
    let names: Vec<_> = unused
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "content.access_key_secret",
            "content.min_rate",
            "gc.trust_daemon"
        ]
    );
    assert_eq!(unused[1]["value"], "1KiB");
    assert_eq!(unused[1]["source"]["line"], 5);
    assert!(!said.out.contains("hunter2"), "{said:#?}");
    let whole =
        "[registry]\nendpoint = \"oci-layout:/r\"\n[content]\nprovider = \"fs\"\nmin_rate = 1024\n";
    place.write("c.toml", whole.as_bytes());
    let said = place.run(["config", "--config", "c.toml", "--json"]);
    assert_eq!(
        said.succeeded().json()["unused"].as_array().unwrap().len(),
        0
    );
}

#[test]
fn flags_are_settings() {
    let place = Place::new().set("SNAPSHOTTER_LIMIT_UPLOAD", "1MiB");
    let args = [
        "config",
        "--json",
        "--limit-upload",
        "2MiB",
        "--limit-download=3MiB",
        "-j7",
    ];
    let said = place.run(args).succeeded();
    for (key, wanted, flag) in [
        ("limit_upload", "2MiB", "--limit-upload"),
        ("limit_download", "3MiB", "--limit-download"),
        ("snapshot_concurrency", "7", "--jobs"),
        ("restore_concurrency", "7", "--jobs"),
    ] {
        let (found, source) = value(&said, key);
        assert_eq!(source["name"], flag, "{key}");
        assert_eq!(found.to_string().trim_matches('"'), wanted, "{key}");
    }
    for args in [
        &["list", "--jobs", "many"][..],
        &["list", "--limit-upload", "quick"],
    ] {
        let said = place.run(args).exited(2);
        assert!(said.err.contains(args[1]), "{said:#?}");
    }
    // What the library refuses.
    place.run(["snapshot", "vm:v1", "vm", "-j", "0"]).exited(2);
    place
        .run(["snapshot", "vm:v1", "vm", "--limit-upload", "1B"])
        .exited(2);
}

/// A typo in a variable left its setting at the default, and only `config` said so. What Kubernetes sets is none.
#[test]
fn a_variable_that_is_almost_a_setting_is_warned_of_by_every_command() {
    let place = Place::with_snapshot();
    let mut command = place.command(["list"]);
    command
        .env("SNAPSHOTTER_REGISTRY_ENDPOINTS", "https://registry.example")
        .env("SNAPSHOTTER_SERVICE_PORT", "80");
    let said = place.said(&mut command).succeeded();
    let meant = "SNAPSHOTTER_REGISTRY_ENDPOINTS is set and means nothing here: is SNAPSHOTTER_REGISTRY_ENDPOINT meant?";
    assert_eq!(said.err, format!("warning: {meant}\n"));
}
