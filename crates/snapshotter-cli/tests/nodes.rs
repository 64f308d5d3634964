//! A snapshot goes from one node to another through real servers, by the command alone: two roots, one registry.

use crate::support;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use support::Place;
use testkit::dragonfly::{Cluster, FakeDaemon, Options};
use testkit::moto::{self, Moto};
use testkit::registry::{Kind, RegistryServer, or_skip};
use testkit::s3::{ACCESS_KEY, S3, SECRET_KEY};
use testkit::weather::{Reply, Weather};

/// Takes it on one node, restores it on the other, and compares every byte and attribute.
fn goes_from_node_to_node(place: &Place) {
    let taken = place.on("one", ["snapshot", "vm:v1", "vm", "--json"]);
    let taken = taken.succeeded().json();
    assert_eq!(taken["publication"]["sentBlobs"], 3);
    let listed = place.on("two", ["list", "--remote", "-q"]).succeeded();
    assert_eq!(listed.out, "vm:v1\n");
    let restored = place.on("two", ["restore", "vm:v1", "out", "--json"]);
    let restored = restored.succeeded().json();
    assert_eq!(restored["fetchedBlobs"], 3);
    assert_eq!(restored["manifestDigest"], taken["manifestDigest"]);
    testkit::compare::assert_same(&place.path("vm"), &place.path("out"));
    place.on("one", ["push", "vm:v1", "--verify"]).succeeded();
    let doctor = place.on("two", ["doctor", "--json"]).succeeded().json();
    assert!(doctor["registry"]["error"].is_null(), "{doctor:#?}");
    assert!(doctor["content"]["error"].is_null(), "{doctor:#?}");
}

/// A registry that keeps the bytes too, and lets manifests be deleted.
fn registry(kind: Kind) -> Option<(RegistryServer, Place)> {
    let kind = Kind {
        delete: true,
        ..kind
    };
    let server = or_skip(RegistryServer::start(kind))?;
    let place = Place::new()
        .set("SNAPSHOTTER_REGISTRY_ENDPOINT", server.url())
        .set("SNAPSHOTTER_REGISTRY_NAMESPACE", "team")
        .set("SNAPSHOTTER_CONTENT_PROVIDER", "registry");
    Some((server, place))
}

#[test]
fn through_a_registry_alone() {
    let Some((_server, place)) = registry(Kind::default()) else {
        return;
    };
    goes_from_node_to_node(&place);
    place.on("two", ["remove", "--remote", "vm:v1"]).succeeded();
    place.on("three", ["pull", "vm:v1"]).exited(3);
}

#[test]
fn each_tenant_has_a_store_of_its_own() {
    let place = Place::new().set("SNAPSHOTTER_ISOLATION", "name");
    for name in ["a/vm:v1", "b/vm:v1"] {
        let taken = place
            .run(["snapshot", name, "vm", "--json"])
            .succeeded()
            .json();
        assert!(taken["storedBytes"].as_u64() > Some(0), "{taken:#?}");
    }
    let listed = place.run(["list", "-q", "--tenant", "a"]).succeeded();
    assert_eq!(listed.out, "a/vm:v1\n");
    assert_eq!(
        place.run(["list", "-q", "b/*"]).succeeded().out,
        "b/vm:v1\n"
    );
    place.run(["restore", "b/vm:v1", "out"]).succeeded();
    testkit::compare::assert_same(&place.path("vm"), &place.path("out"));
    for verb in ["verify", "gc", "df", "doctor"] {
        place.run([verb, "--tenant", "b"]).succeeded();
    }

    // Where nothing says whose is meant, and where two are.
    let said = place.run(["df"]).exited(2);
    assert!(
        said.err.contains("--tenant") && said.err.contains("a, b"),
        "{}",
        said.err
    );
    let said = place.run(["remove", "a/vm:v1", "b/vm:v1"]).exited(2);
    assert!(said.err.contains("a, b"), "{}", said.err);
    place.run(["config"]).succeeded();
    let said = place
        .set("SNAPSHOTTER_ISOLATION", "none")
        .run(["df", "--tenant", "a"])
        .exited(2);
    assert!(said.err.contains("isolation"), "{}", said.err);
}

#[test]
fn through_a_registry_and_s3() {
    let Some((_server, place)) = registry(Kind::default()) else {
        return;
    };
    let s3 = S3::start("ckpt");
    let place = place
        .set("SNAPSHOTTER_CONTENT_PROVIDER", "s3")
        .set("SNAPSHOTTER_CONTENT_ENDPOINT", s3.endpoint())
        .set("SNAPSHOTTER_CONTENT_BUCKET", s3.bucket())
        .set("SNAPSHOTTER_CONTENT_ACCESS_KEY_ID", ACCESS_KEY)
        .set("SNAPSHOTTER_CONTENT_ACCESS_KEY_SECRET", SECRET_KEY);
    goes_from_node_to_node(&place);
    let keys = s3.keys().into_iter();
    let contents = keys.filter(|key| !key.starts_with("snapshotter/"));
    assert_eq!(contents.count(), 3);
}

/// The same through a bucket of another server.
#[test]
fn through_a_registry_and_another_s3() {
    let Some((_server, place)) = registry(Kind::default()) else {
        return;
    };
    let Some(s3) = moto::or_skip(Moto::start("ckpt")) else {
        return;
    };
    let place = place
        .set("SNAPSHOTTER_CONTENT_PROVIDER", "s3")
        .set("SNAPSHOTTER_CONTENT_ENDPOINT", s3.endpoint())
        .set("SNAPSHOTTER_CONTENT_BUCKET", s3.bucket())
        .set("SNAPSHOTTER_CONTENT_ACCESS_KEY_ID", ACCESS_KEY)
        .set("SNAPSHOTTER_CONTENT_ACCESS_KEY_SECRET", SECRET_KEY);
    goes_from_node_to_node(&place);
    let keys = s3.keys().into_iter();
    let contents = keys.filter(|key| !key.starts_with("snapshotter/"));
    assert_eq!(contents.count(), 3);
}

/// The Go library's example has one file; it serves both programs.
#[test]
fn as_the_go_examples_env_file_says() {
    let user = Some(("admin", "hunter2"));
    let Some((server, place)) = registry(Kind {
        user,
        ..Kind::default()
    }) else {
        return;
    };
    let place = place
        .unset("SNAPSHOTTER_REGISTRY_ENDPOINT")
        .unset("SNAPSHOTTER_REGISTRY_NAMESPACE")
        .unset("SNAPSHOTTER_CONTENT_PROVIDER");
    let s3 = S3::start("test-bucket");
    let cluster = Cluster::over(s3.bucket(), s3.dir());
    let daemon = FakeDaemon::start(&cluster, Options::default());
    let text = format!(
        "SNAPSHOTTER_ROOT_DIR=unused\nREGISTRY_ENDPOINT={}\nREGISTRY_USERNAME=admin\nREGISTRY_PASSWORD=hunter2\n\
         REGISTRY_NAMESPACE=test\nREGISTRY_INSECURE=true\nDRAGONFLY_ENDPOINT={}\n\
         CONTENT_PROVIDER=s3\nCONTENT_BUCKET=test-bucket\nCONTENT_REGION=us-east-1\nCONTENT_ENDPOINT={}\n\
         CONTENT_ACCESS_KEY_ID={ACCESS_KEY}\nCONTENT_ACCESS_KEY_SECRET={SECRET_KEY}\n",
        server.url(),
        daemon.endpoint(),
        s3.endpoint(),
    );
    place.write(".env", text.as_bytes());
    place.chmod(".env", 0o600);
    let taken = place.on("one", ["--env-file", ".env", "snapshot", "vm:v1", "vm"]);
    assert!(!taken.succeeded().err.contains("warning"));
    assert!(!daemon.uploads().is_empty());
    let restored = place.on("two", ["--env-file", ".env", "restore", "vm:v1", "out"]);
    restored.succeeded();
    assert_eq!(daemon.downloads().len(), daemon.uploads().len());
    testkit::compare::assert_same(&place.path("vm"), &place.path("out"));
}

#[test]
fn with_a_private_authority() {
    let Some((server, place)) = registry(Kind {
        tls: true,
        ..Kind::default()
    }) else {
        return;
    };
    let place = place.set("SNAPSHOTTER_REGISTRY_RETRIES", "0");
    let said = place.on("one", ["list", "--remote"]);
    assert_ne!(said.code, Some(0), "{said:#?}");
    assert!(said.err.contains("certificate"), "{said:#?}");
    let ca_file = server.ca_file().display().to_string();
    goes_from_node_to_node(&place.set("SNAPSHOTTER_REGISTRY_CA_FILE", ca_file));
}

/// `docker login` leaves it in its own file, and the command looks there.
#[test]
fn with_what_docker_login_left() {
    let user = Some(("admin", "hunter2"));
    let Some((server, place)) = registry(Kind {
        user,
        ..Kind::default()
    }) else {
        return;
    };
    place.on("one", ["list", "--remote", "vm"]).exited(10);
    fs::create_dir_all(place.path("home/.docker")).unwrap();
    // `admin:hunter2` in base64.
    let auth = "YWRtaW46aHVudGVyMg==";
    let text = format!(
        r#"{{"auths":{{"{}":{{"auth":"{auth}"}}}}}}"#,
        server.address()
    );
    place.write("home/.docker/config.json", text.as_bytes());
    goes_from_node_to_node(&place);
}

#[test]
fn the_environments_proxy_is_asked() {
    let proxy = Weather::new(|_, _| Reply::status(403));
    let place = Place::new()
        .set("SNAPSHOTTER_REGISTRY_ENDPOINT", "http://registry.example")
        .set("SNAPSHOTTER_REGISTRY_RETRIES", "0")
        .set("http_proxy", proxy.url());
    place.run(["list", "--remote", "vm"]).exited(10);
    assert!(!proxy.asked().is_empty());
}

/// A memory dump of mode 0600 was published into a directory as 0644: whoever could look into the directory could read it.
#[test]
fn what_is_published_in_directories_is_for_its_user_alone_unless_it_is_shared() {
    for (others, mask, file, directory) in [
        (None, "000", 0o600, 0o700),
        (Some("group"), "077", 0o640, 0o770),
        (Some("everyone"), "077", 0o644, 0o775),
    ] {
        let mut place = Place::with_registry();
        if let Some(others) = others {
            place = place
                .set("SNAPSHOTTER_CONTENT_SHARED_WITH", others)
                .set("SNAPSHOTTER_REGISTRY_SHARED_WITH", others);
        }
        place.chmod("vm/memory", 0o600);
        let line = format!("umask {mask}; snapshotter snapshot vm:v1 vm --quiet");
        place.run_in_shell(&line).succeeded();
        let (contents, registry) = (place.path("contents"), place.path("registry"));
        for path in below(&contents).into_iter().chain(below(&registry)) {
            let mode = fs::metadata(&path).unwrap().permissions().mode() & 0o777;
            let is_lock = path.extension().is_some_and(|name| name == "lock");
            let wanted = match path.is_dir() {
                true => directory,
                // Whoever publishes locks it, and opens it for writing.
                false if is_lock => file | ((file & 0o040) >> 1),
                false => file,
            };
            assert_eq!(mode, wanted, "{others:?}: {}", path.display());
        }
        assert!(!place.contents().is_empty());
    }
}

fn below(directory: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(directory).unwrap();
    let mut found: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    for path in found.clone().iter().filter(|path| path.is_dir()) {
        found.extend(below(path));
    }
    found
}
