//! The mistakes people are most likely to make, and what they are told: what is wrong, and what to do next. Each
//! message is pinned word for word.

use crate::support;

use std::fs;

use support::{Place, Said};
use testkit::registry::{Kind, RegistryServer, or_skip};
use testkit::s3::{ACCESS_KEY, S3, SECRET_KEY};

/// With `vm:v1` here, and a registry and a place of contents that have nothing yet.
fn remote() -> Place {
    let place = Place::with_registry();
    let args = ["snapshot", "vm:v1", "vm", "--link-mode", "copy", "--local"];
    place.run(args).succeeded();
    place
}

/// With another registry.
fn at(registry: &str) -> Place {
    remote()
        .set("SNAPSHOTTER_REGISTRY_ENDPOINT", registry)
        .set("SNAPSHOTTER_REGISTRY_RETRIES", "0")
}

fn without_contents() -> Place {
    remote()
        .unset("SNAPSHOTTER_CONTENT_PROVIDER")
        .unset("SNAPSHOTTER_CONTENT_ROOT")
}

/// With the bucket of a server as the place of contents.
fn s3(server: &S3) -> Place {
    without_contents()
        .set("SNAPSHOTTER_CONTENT_PROVIDER", "s3")
        .set("SNAPSHOTTER_CONTENT_ENDPOINT", server.endpoint())
        .set("SNAPSHOTTER_CONTENT_BUCKET", server.bucket())
        .set("SNAPSHOTTER_CONTENT_ACCESS_KEY_ID", ACCESS_KEY)
        .set("SNAPSHOTTER_CONTENT_ACCESS_KEY_SECRET", SECRET_KEY)
}

macro_rules! mistakes {
    ($($name:ident: $run:expr;)*) => {$(
        #[test]
        fn $name() {
            let place = Place::with_snapshot();
            let run: fn(&Place) -> Option<Said> = $run;
            let Some(said) = run(&place) else { return };
            assert_ne!(said.code, Some(0), "{said:#?}");
            assert!(!format!("{said:?}").contains("hunter2"), "{said:#?}");
            let ways_out = ["hint:", "tip:", "Usage:", "it should be ", "try '--help'"];
            assert!(ways_out.iter().any(|way| said.err.contains(way)), "{said:#?}");
            assert_session!(stringify!($name), said);
        }
    )*};
}

mistakes! {
    a_version_is_missing: |place| Some(place.run(["restore", "vm", "out"]));
    a_version_is_missing_from_a_new_snapshot: |place| Some(place.run(["snapshot", "vm", "vm"]));
    a_name_has_capitals: |place| Some(place.run(["snapshot", "VM:v1", "vm"]));
    a_reference_names_a_registry: |place| Some(place.run(["restore", "localhost:5000/vm:v1", "out"]));
    the_directory_comes_first: |place| Some(place.run(["snapshot", "./vm", "vm:v1"]));
    the_version_exists: |place| Some(place.run(["snapshot", "vm:v1", "vm"]));
    the_version_is_not_there: |place| Some(place.run(["restore", "vm:v2", "out"]));
    the_name_is_not_there: |place| Some(place.run(["restore", "mv:v1", "out"]));
    the_base_directory_is_not_there: |place| Some(place.run(["snapshot", "vm:v2", "vn"]));
    the_base_directory_is_a_file: |place| Some(place.run(["snapshot", "vm:v2", "vm/memory"]));
    a_path_is_relative_to_the_working_directory: |place| Some(place.run(["snapshot", "vm:v2", "vm", "vm/memory"]));
    a_path_is_absolute: |place| {
        let path = place.path("vm/memory");
        let base = place.path("vm");
        Some(place.run(["snapshot", "vm:v2", base.to_str().unwrap(), path.to_str().unwrap()]))
    };
    a_path_is_a_pattern: |place| Some(place.run(["snapshot", "vm:v2", "vm", "*.json"]));
    a_pattern_is_malformed: |place| Some(place.run(["snapshot", "vm:v2", "vm", "--exclude", "a["]));
    the_root_is_not_there: |place| Some(place.run(["--root", "rot", "list"]));
    the_root_is_a_go_librarys: |place| {
        fs::create_dir_all(place.path("go/metadata")).unwrap();
        place.write("go/metadata/snapshotter.db", b"");
        Some(place.run(["--root", "go", "list"]))
    };
    the_root_is_a_file: |place| Some(place.run(["--root", "vm/memory", "list"]));
    the_root_may_not_be_written: |place| {
        place.chmod("vm", 0o555);
        let said = place.run_unprivileged(["--root", "vm/root", "snapshot", "a:v1", "vm/images"]);
        Some(said)
    };
    the_output_is_a_file: |place| Some(place.run(["restore", "vm:v1", "vm/memory"]));
    the_output_has_something_that_may_not_be_replaced: |place| Some(place.run(["restore", "vm:v1", "vm", "--no-clobber"]));
    a_path_is_not_in_the_snapshot: |place| Some(place.run(["restore", "vm:v1", "out", "memroy"]));
    the_store_is_damaged: |place| {
        fs::write(place.largest_blob(), [8; 300_000]).unwrap();
        Some(place.run(["restore", "vm:v1", "out"]))
    };
    the_disk_is_full: |place| {
        let small = testkit::mount::or_skip(testkit::mount::TmpfsMount::new(9 << 20))?;
        place.write("vm/large", &vec![1; 20 << 20]);
        let root = small.path().join("root");
        let said = place.said(place.command(["snapshot", "vm:v1", "vm"]).env("SNAPSHOTTER_ROOT_DIR", root));
        Some(said)
    };
    a_key_is_misspelt: |place| {
        place.write("c.toml", b"root-dir = \"/store\"\n");
        Some(place.run(["--config", "c.toml", "list"]))
    };
    a_parent_is_for_another_format: |place| Some(place.run(["snapshot", "vm:v2", "vm", "--parent", "vm:v1"]));
    a_parent_is_not_there: |place| {
        Some(place.run(["snapshot", "vm:v2", "vm", "--format", "v2", "--parent", "vm:v7"]))
    };
    a_directory_to_compare_with_is_not_there: |place| Some(place.run(["diff", "vm:v1", "resumd"]));
    a_section_is_misspelt: |place| {
        place.write("c.toml", b"[registri]\nendpoint = \"https://registry.example\"\n");
        Some(place.run(["--config", "c.toml", "list"]))
    };
    a_command_is_misspelt: |place| Some(place.run(["snaphot", "vm:v2", "vm"]));
    a_flag_is_misspelt: |place| Some(place.run(["snapshot", "vm:v2", "vm", "--readonly", "memory"]));
    no_registry_is_configured: |place| Some(place.run(["push", "vm:v1"]));
    no_registry_is_configured_to_list: |place| Some(place.run(["list", "--remote"]));
    no_place_of_contents_is_configured: |_| Some(without_contents().run(["snapshot", "vm:v2", "vm"]));
    no_place_of_contents_is_configured_to_push: |_| Some(without_contents().run(["push", "vm:v1"]));
    no_place_of_contents_is_configured_to_fetch: |_| {
        let place = without_contents();
        let contents = place.path("contents");
        let mut command = place.command(["snapshot", "vm:v2", "vm"]);
        command.env("SNAPSHOTTER_CONTENT_PROVIDER", "fs").env("SNAPSHOTTER_CONTENT_ROOT", contents);
        place.said(&mut command).succeeded();
        Some(place.on("other", ["restore", "vm:v2", "out"]))
    };
    the_place_of_contents_has_no_registry: |_| {
        let place = remote().unset("SNAPSHOTTER_REGISTRY_ENDPOINT").unset("SNAPSHOTTER_REGISTRY_NAMESPACE");
        Some(place.run(["push", "vm:v1"]))
    };
    the_endpoint_is_missing: |place| {
        place.write("c.toml", b"[registry]\nnamespace = \"team\"\n");
        Some(place.run(["push", "vm:v1", "--config", "c.toml"]))
    };
    the_provider_is_missing: |_| Some(remote().unset("SNAPSHOTTER_CONTENT_PROVIDER").run(["push", "vm:v1"]));
    the_provider_is_misspelt: |_| Some(remote().set("SNAPSHOTTER_CONTENT_PROVIDER", "S3").run(["push", "vm:v1"]));
    the_bucket_is_missing: |_| {
        let place = remote().set("SNAPSHOTTER_CONTENT_PROVIDER", "s3").unset("SNAPSHOTTER_CONTENT_ROOT");
        Some(place.run(["push", "vm:v1"]))
    };
    the_layout_is_relative: |_| Some(at("oci-layout:registry").run(["push", "vm:v1"]));
    a_password_is_in_the_endpoint: |_| Some(at("https://me:hunter2@registry.example").run(["push", "vm:v1"]));
    a_password_is_no_text: |place| {
        place.write("c.toml", b"[registry]\nendpoint = \"registry.example\"\npassword = 12345\n");
        Some(place.run(["push", "vm:v1", "--config", "c.toml"]))
    };
    a_password_has_no_user: |_| Some(remote().set("SNAPSHOTTER_REGISTRY_PASSWORD", "hunter2").run(["push", "vm:v1"]));
    the_proxy_is_of_another_kind: |_| {
        let place = at("https://registry.example").set("ALL_PROXY", "socks5://me:hunter2@proxy.example:1080");
        Some(place.run(["push", "vm:v1"]))
    };
    the_credentials_are_wrong: |_| {
        let user = Some(("me", "right"));
        let registry = or_skip(RegistryServer::start(Kind { user, ..Kind::default() }))?;
        let place = at(&registry.url())
            .set("SNAPSHOTTER_REGISTRY_USERNAME", "me")
            .set("SNAPSHOTTER_REGISTRY_PASSWORD", "hunter2");
        Some(place.run(["push", "vm:v1"]).exited(10).without(registry.address()))
    };
    the_keys_are_wrong: |_| {
        let server = S3::start("ckpt");
        let place = s3(&server).set("SNAPSHOTTER_CONTENT_ACCESS_KEY_SECRET", "hunter2");
        Some(place.run(["push", "vm:v1"]).exited(10))
    };
    what_is_taken_cannot_be_published: |_| {
        let server = S3::start("ckpt");
        let place = s3(&server).set("SNAPSHOTTER_CONTENT_ACCESS_KEY_SECRET", "hunter2");
        let said = place.run(["snapshot", "vm:v2", "vm"]).exited(10);
        place.run(["inspect", "vm:v2"]).succeeded();
        Some(said)
    };
    the_place_of_contents_is_not_there: |_| {
        let place = remote();
        fs::remove_dir(place.path("contents")).unwrap();
        Some(place.run(["push", "vm:v1"]))
    };
    the_registry_is_down: |_| Some(at("http://127.0.0.1:1").run(["push", "vm:v1"]).exited(6));
    the_registry_is_down_for_a_snapshot: |_| Some(at("http://127.0.0.1:1").run(["snapshot", "vm:v2", "vm"]).exited(6));
    the_version_exists_in_the_registry: |_| {
        let place = remote();
        place.run(["push", "vm:v1"]).succeeded();
        Some(place.on("other", ["snapshot", "vm:v1", "vm/images"]).exited(4))
    };
    the_version_is_another_in_the_registry: |_| {
        let place = remote();
        place.on("other", ["snapshot", "vm:v1", "vm/images"]).succeeded();
        Some(place.run(["push", "vm:v1"]).exited(4))
    };
    the_version_is_neither_here_nor_in_the_registry: |_| Some(remote().run(["restore", "vm:v9", "out"]).exited(3));
    the_version_is_not_in_the_registry: |_| Some(remote().run(["inspect", "--remote", "vm:v9"]).exited(3));
    what_is_to_be_pushed_is_not_here: |_| Some(remote().run(["push", "vm:v9"]).exited(3));
    the_deadline_is_no_duration: |place| Some(place.run(["list", "--timeout", "30"]).exited(2));
    the_list_of_files_is_empty: |place| Some(place.run(["snapshot", "vm:v2", "vm", "--files-from", "-"]));
}

/// What a person is told is what a program is told.
#[test]
fn json_has_the_same_words() {
    let place = Place::with_snapshot();
    for args in [
        &["restore", "vm", "out"][..],
        &["snapshot", "vm:v1", "vm"],
        &["restore", "vm:v2", "out"],
        &["--root", "rot", "list"],
    ] {
        let text = place.run(args);
        let json = place.run(args.iter().copied().chain(["--json"]));
        assert_eq!(text.code, json.code);
        assert_eq!(json.err, "");
        let error = &json.json()["error"];
        let said = format!(
            "error: {}\n   hint: {}\n",
            error["message"].as_str().unwrap(),
            error["hint"].as_str().unwrap()
        );
        assert_eq!(text.err, said);
    }
}

#[test]
fn a_wrong_command_line_is_json_too() {
    let place = Place::new();
    assert_session!("usage_json", place.run(["snaphot", "--json"]).exited(2));
}
