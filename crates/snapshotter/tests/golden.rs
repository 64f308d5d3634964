//! What the Go library made of the golden inputs, we make too; and what it takes for one file, we keep apart.

use crate::support_a;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::Value;
use snapshotter::{Config, File, SnapshotDetails, SnapshotRequest, Snapshotter};
use support_a::*;
use testkit::compare::{Options, assert_same, assert_same_with};
use testkit::{Tree, fsstat, golden};

/// The inputs on disk, if its blocks give them the extents they had.
fn inputs(place: &Place) -> Option<PathBuf> {
    let dir = place.path("inputs");
    golden::write_inputs(&dir).unwrap();
    if fsstat::block_size(&dir).unwrap() != 4096 {
        testkit::mount::report_skip("the filesystem's blocks aren't 4 KiB");
        return None;
    }
    Some(dir)
}

async fn inspected(store: &Snapshotter, request: &SnapshotRequest) -> SnapshotDetails {
    let taken = store.snapshot(request).await.unwrap();
    store.inspect(&taken.reference).await.unwrap()
}

/// The `files` of a document as text, by path; keys that we add and the Go library does not know cut out.
fn entries(document: &[u8]) -> BTreeMap<String, String> {
    let text = std::str::from_utf8(document).unwrap();
    let files = text
        .strip_prefix(r#"{"files":["#)
        .and_then(|rest| rest.strip_suffix("]}"))
        .expect("files and nothing else");
    let mut found = BTreeMap::new();
    for entry in files.split_inclusive("}}") {
        let entry = entry.trim_start_matches(',');
        let value: Value = serde_json::from_str(entry).unwrap();
        let path = value["relativePath"].as_str().unwrap().to_owned();
        found.insert(path, entry.to_owned());
    }
    found
}

/// Cuts the checksum that each of our entries has.
fn without_checksums(document: &[u8]) -> Vec<u8> {
    let mut text = std::str::from_utf8(document).unwrap().to_owned();
    const KEY: &str = r#","checksum":"blake3:"#;
    while let Some(start) = text.find(KEY) {
        let end = start + KEY.len() + 64 + 1;
        assert_eq!(&text[end - 1..end], "\"");
        text.replace_range(start..end, "");
    }
    text.into_bytes()
}

/// A golden document as it would be had this user made it.
fn made_by_this_user(document: &[u8], inputs: &Path) -> Vec<u8> {
    let own = fs::metadata(inputs.join("b5000.bin")).unwrap();
    let owner = format!(r#""uid":{},"gid":{}"#, own.uid(), own.gid());
    std::str::from_utf8(document)
        .unwrap()
        .replace(r#""uid":0,"gid":0"#, &owner)
        .into_bytes()
}

fn golden_document(tag: &str) -> Vec<u8> {
    let index = golden::index();
    let found = index
        .snapshots
        .iter()
        .find(|one| one.repository.ends_with(tag));
    found.unwrap_or_else(|| panic!("no {tag}")).config()
}

/// The request a golden document answers.
fn request_of(document: &[u8], base: &Path) -> SnapshotRequest {
    let document: Value = serde_json::from_slice(document).unwrap();
    let files = document["files"].as_array().unwrap().iter();
    SnapshotRequest::new("golden", "v1", base).files(files.map(|file| {
        File::new(file["relativePath"].as_str().unwrap())
            .read_only(file["readOnly"].as_bool().unwrap())
    }))
}

#[tokio::test]
async fn every_input_has_the_digest_the_go_library_gave_it() {
    let place = Place::new();
    let Some(base) = inputs(&place) else { return };
    let index = golden::index();
    let store = place.open().await;
    for read_only in [true, false] {
        let files = index.inputs.iter();
        let request = all(&format!("{read_only}"), &base)
            .files(files.map(|input| File::new(&input.name).read_only(read_only)));
        let details = inspected(&store, &request).await;
        assert_eq!(details.files.len(), index.inputs.len());
        for file in &details.files {
            let input = index.input(file.entry.relative_path.to_str().unwrap());
            assert_eq!(
                file.digest.unwrap().to_string(),
                input.digest,
                "{}",
                input.name
            );
            assert_eq!(file.size, input.logical_size);
            assert_eq!(file.entry.mode, input.mode);
            let checksum = format!("blake3:{}", blake3::hash(&input.spf1()).to_hex());
            assert_eq!(file.checksum.unwrap().to_string(), checksum);
        }
        let output = place.fresh();
        give(&store, &format!("{read_only}"), &output).await;
        let without_parents = Options {
            directories: false,
            ..shared()
        };
        assert_same_with(&base, &output, &without_parents);
    }
}

async fn document_of(store: &Snapshotter, details: &SnapshotDetails) -> Vec<u8> {
    store.document(&details.summary.reference).await.unwrap()
}

#[tokio::test]
async fn a_document_has_the_go_librarys_entries_byte_for_byte() {
    for tag in ["golden-multi", "nested/golden-one"] {
        let place = Place::new();
        let Some(base) = inputs(&place) else { return };
        let golden = made_by_this_user(&golden_document(tag), &base);
        let store = place.open().await;
        let details = inspected(&store, &request_of(&golden, &base)).await;
        let ours = without_checksums(&document_of(&store, &details).await);
        assert_eq!(entries(&ours), entries(&golden), "{tag}");
        // The order is ours: by the bytes of the path.
        let order = |document: &[u8]| -> Vec<String> {
            let document: Value = serde_json::from_slice(document).unwrap();
            let files = document["files"].as_array().unwrap().iter();
            files
                .map(|file| file["relativePath"].as_str().unwrap().to_owned())
                .collect()
        };
        assert!(order(&ours).is_sorted(), "{:?}", order(&ours));
        if order(&golden).is_sorted() {
            assert_eq!(ours, golden, "{tag}");
        }
    }
}

#[tokio::test]
async fn two_names_of_equal_bytes_are_described_as_the_go_library_does() {
    let place = Place::new();
    let Some(inputs) = inputs(&place) else { return };
    let golden = made_by_this_user(&golden_document("golden-dup"), &inputs);
    let source = fs::read(inputs.join("b5000.bin")).unwrap();
    let tree = ["x", "y"].into_iter().fold(Tree::new(), |tree, name| {
        tree.file(name, source.as_slice())
            .mode(name, 0o755)
            .mtime(name, 1_700_000_002, 123_456_789)
    });
    let base = place.write("base", &tree);
    let store = place.open().await;
    let details = inspected(&store, &request_of(&golden, &base)).await;
    let ours = without_checksums(&document_of(&store, &details).await);
    assert_eq!(
        String::from_utf8_lossy(&ours),
        String::from_utf8_lossy(&golden)
    );
}

#[tokio::test]
async fn an_empty_snapshot_has_the_go_librarys_document() {
    let place = Place::new();
    let base = place.write("base", &Tree::new());
    let store = place.open().await;
    let details = inspected(&store, &all("v1", &base)).await;
    let document = document_of(&store, &details).await;
    assert_eq!(document, golden_document("golden-empty"));
}

#[tokio::test]
async fn the_manifest_differs_from_the_go_librarys_in_its_layers_alone() {
    let place = Place::new();
    let base = place.write("base", &Tree::new());
    let store = place.open().await;
    let details = inspected(&store, &all("v1", &base)).await;
    let index = golden::index();
    let empty = index
        .snapshots
        .iter()
        .find(|one| one.repository.ends_with("golden-empty"));
    let golden = String::from_utf8(empty.unwrap().manifest()).unwrap();
    let layer = concat!(
        r#"[{"mediaType":"application/vnd.oci.empty.v1+json","digest":"#,
        r#""sha256:44136fa355b3678a1146ad16f7e8649e94fb4fc21fe77e8310c060f61caaff8a","size":2}]"#
    );
    let expected = golden.replace(r#""layers":null"#, &format!(r#""layers":{layer}"#));
    assert_eq!(String::from_utf8(details.manifest).unwrap(), expected);
}

fn colliding() -> [Vec<u8>; 2] {
    golden::COLLISION.map(|path| fs::read(path).unwrap())
}

#[tokio::test]
async fn two_files_with_one_digest_both_come_back_from_snapshots_of_their_own() {
    let [a, b] = colliding();
    let place = Place::new();
    let a = place.write("a", &Tree::new().file("f", a));
    let b = place.write("b", &Tree::new().file("f", b));
    let store = place.open().await;
    for read_only in [false, true] {
        let root = place.path(&format!("root-{read_only}"));
        let store_of_its_own = Snapshotter::open(Config::new(root)).await.unwrap();
        for store in [&store_of_its_own, &store] {
            let mut digests = Vec::new();
            for (name, base) in [("a", &a), ("b", &b)] {
                let request = all(&format!("{name}-{read_only}"), base)
                    .file(File::new(".").read_only(read_only));
                let details = inspected(store, &request).await;
                digests.push((details.files[0].digest, details.files[0].checksum));
            }
            if digests[0].0.unwrap().to_string() != "xxh3:9014573cc2906160" {
                testkit::skip!("the filesystem gives the pair other extents");
            }
            assert_eq!(digests[0].0, digests[1].0);
            assert_ne!(digests[0].1, digests[1].1);
            for (name, base) in [("a", &a), ("b", &b)] {
                let output = place.fresh();
                give(store, &format!("{name}-{read_only}"), &output).await;
                assert_same(base, &output);
            }
            assert_sound(store).await;
        }
    }
}

#[tokio::test]
async fn two_files_with_one_digest_both_come_back_from_one_snapshot() {
    let [a, b] = colliding();
    let tree = Tree::new().file("a.bin", a).file("b.bin", b).dir("d");
    let place = Place::new();
    let base = place.write("base", &tree);
    for read_only in [false, true] {
        let root = place.path(&format!("root-{read_only}"));
        let store = Snapshotter::open(Config::new(root)).await.unwrap();
        let request = all("v1", &base).file(File::new(".").read_only(read_only));
        let taken = store.snapshot(&request).await.unwrap();
        assert_eq!((taken.blobs_stored, taken.stored_bytes), (2, 8192));
        let output = place.fresh();
        give(&store, "v1", &output).await;
        assert_same(&base, &output);
        // One of the two alone.
        let output = place.fresh();
        store
            .restore(&to("v1", &output).path("b.bin"))
            .await
            .unwrap();
        let bytes = fs::read(output.join("b.bin")).unwrap();
        assert!(bytes == fs::read(base.join("b.bin")).unwrap());
    }
}

#[tokio::test]
async fn removing_one_of_two_files_with_one_digest_leaves_the_other() {
    let [a, b] = colliding();
    let place = Place::new();
    let a = place.write("a", &Tree::new().file("f", a));
    let b = place.write("b", &Tree::new().file("f", b));
    let store = place.open().await;
    take(&store, "a", &a).await;
    take(&store, "b", &b).await;
    store.remove(&reference("test:a")).await.unwrap();
    let output = place.fresh();
    give(&store, "b", &output).await;
    assert_same(&b, &output);
    assert_eq!(place.blobs().len(), 1);
}

#[tokio::test]
async fn one_input_gives_one_document_and_one_manifest() {
    let place = Place::new();
    let base = place.write("base", &Tree::random(3, 120));
    let mut seen = Vec::new();
    for number in 0..3 {
        let config =
            Config::new(place.path(&format!("root-{number}"))).snapshot_concurrency(1 + 4 * number);
        let store = Snapshotter::open(config).await.unwrap();
        for version in ["v1", "v2"] {
            let details = inspected(&store, &all(version, &base)).await;
            seen.push((
                document_of(&store, &details).await,
                details.manifest,
                details.summary.manifest_digest,
            ));
        }
    }
    seen.dedup();
    assert_eq!(seen.len(), 1);
}

#[tokio::test]
async fn an_annotation_changes_the_manifest_and_not_the_document() {
    let place = Place::new();
    let base = place.write("base", &Tree::random(3, 20));
    let store = place.open().await;
    let plain = inspected(&store, &all("v1", &base)).await;
    let request = all("v2", &base)
        .annotation("kernel", "6.18 <&> \u{2028}\n\"")
        .annotation("a/b", "");
    let annotated = inspected(&store, &request).await;
    assert_eq!(
        document_of(&store, &plain).await,
        document_of(&store, &annotated).await
    );
    assert_ne!(
        plain.summary.manifest_digest,
        annotated.summary.manifest_digest
    );
    assert_eq!(annotated.annotations["kernel"], "6.18 <&> \u{2028}\n\"");
    assert_eq!(annotated.annotations["a/b"], "");
    assert!(plain.annotations.is_empty());
}

#[tokio::test]
async fn the_manifest_digest_is_the_sha256_of_the_manifest_that_names_the_document() {
    let place = Place::new();
    let base = place.write("base", &Tree::random(4, 20));
    let store = place.open().await;
    let taken = take(&store, "v1", &base).await;
    let details = store.inspect(&taken.reference).await.unwrap();
    assert_eq!(
        taken.manifest_digest,
        snapshotter::Sha256::of(&details.manifest)
    );
    let manifest: Value = serde_json::from_slice(&details.manifest).unwrap();
    let document = document_of(&store, &details).await;
    let digest = snapshotter::Sha256::of(&document).to_string();
    assert_eq!(manifest["config"]["digest"], digest);
    assert_eq!(manifest["config"]["size"], document.len());
}
