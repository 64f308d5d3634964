//! What months leave: ten thousand snapshots that are pruned, and a bucket of a thousand manifests and a hundred thousand objects
//! that is gone over for garbage.
//!
//! The registry is a real one. The bucket is a real S3 server, but for its lists: that one walks through all of its directory for
//! each thousand objects, so what it does is answered from an index here, as real servers have it. The peer is `curl`, which is
//! told what to ask for: the same lists from the same server, one after the other, and the manifests and documents, sixteen at
//! once.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use testkit::proxy::{Act, Asked, Weather};
use testkit::registry::{Kind, RegistryServer};
use testkit::s3::S3;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{FULL, MIB, NOT_SYNCED, bucket};
use crate::measure::{Bench, Side, Spec, Target};
use crate::operation::{Action, Between, Many, Operation, Place};
use crate::{Result, say, settle};

/// What its rows' names begin with.
pub(crate) const NAME: &str = "months";

const MEMORY: u64 = 64 * MIB;

/// Objects in one answer, as S3 has it.
const PAGE: usize = 1000;

/// Runs it.
pub(crate) fn run(bench: &mut Bench) -> Result<()> {
    prune(bench)?;
    collect(bench)
}

fn spec(title: &str, durability: &str, peer: &str, target: Target) -> Spec {
    Spec {
        case: NAME.into(),
        title: title.into(),
        durability: durability.into(),
        peer: peer.into(),
        target,
        data: MIB,
        memory: MEMORY,
    }
}

fn prune(bench: &mut Bench) -> Result<()> {
    let title = "prune of 10,000 snapshots, half of them go";
    let spec = spec(title, FULL, "", Target::Seconds(1.0));
    if !bench.wants(&spec) {
        return Ok(());
    }
    let many = Many {
        names: 1000 / bench.divisor,
        versions: 10,
        files: 2,
    };
    let (filled, root) = (bench.dir.join("filled"), bench.dir.join("pruned"));
    say(&format!("{NAME}: ten thousand snapshots"));
    super::take(&Operation::of_all(&filled, Action::Fill(many)))?;
    let ours = Side::new(
        |_| {
            settle::remove(&root)?;
            let mut copy = Command::new("cp");
            copy.arg("-a").args([&filled, &root]);
            crate::process::timed(&mut [copy])?;
            settle::sync();
            settle::wait_for_quiet()
        },
        |_| Operation::of_all(&root, Action::Prune { keep: 5 }),
    );
    bench.compare(spec, None, &ours)?;
    let went = bench
        .rows
        .last()
        .map_or(0, |row| row.most(|one| one.pruned));
    require(went, many.names * 5, "snapshots went")
}

fn collect(bench: &mut Bench) -> Result<()> {
    let title = "gc --remote over 1,000 manifests and 100,000 objects";
    let peer = "curl of the same";
    let spec = spec(title, NOT_SYNCED, peer, Target::Ratio(1.2));
    if !bench.wants(&spec) {
        return Ok(());
    }
    let registry = match RegistryServer::start(Kind::default()) {
        Ok(registry) if Command::new("curl").arg("--version").output().is_ok() => registry,
        _ => {
            say(&format!("{NAME}: no registry, or no curl"));
            return Ok(());
        }
    };
    let s3 = S3::start("bench");
    let many = Many {
        names: 100,
        versions: 10 / bench.divisor.min(5),
        files: 100,
    };
    say(&format!("{NAME}: a thousand manifests"));
    let root = bench.dir.join("published");
    let published = Between {
        registry: registry.url(),
        place: Place::Directory(s3.dir()),
    };
    super::take(&Operation::of_all(&root, Action::Fill(many)).between(&published))?;
    let index = Index::of(&s3);
    let ends = index.ends();
    let server = Weather::before(s3.address(), move |asked| index.answer(asked));
    let (lists, reads) = (bench.dir.join("lists"), bench.dir.join("reads"));
    fs::write(&lists, lists_of(&server, &s3, &ends))?;
    fs::write(&reads, reads_of(&registry)?)?;
    let peer = Side::new(
        |_| settle::wait_for_quiet(),
        |_| vec![curl(&lists, "1"), curl(&reads, "16")],
    );
    let between = Between {
        registry: registry.url(),
        place: bucket(&s3, server.endpoint(), None),
    };
    let ours = Side::new(
        |_| settle::wait_for_quiet(),
        |_| Operation::of_all(&root, Action::Collect).between(&between),
    );
    bench.compare(spec, Some(&peer), &ours)?;
    let found =
        |of: fn(&crate::operation::Outcome) -> u64| bench.rows.last().map_or(0, |row| row.most(of));
    let manifests = many.names * many.versions;
    require(found(|one| one.manifests), manifests, "manifests were read")?;
    let objects = manifests * many.files;
    require(found(|one| one.objects), objects, "objects were found")
}

fn require(found: u64, wanted: u64, what: &str) -> Result<()> {
    match found == wanted {
        true => Ok(()),
        false => Err(format!("{found} {what}, not {wanted}").into()),
    }
}

fn curl(config: &Path, at_once: &str) -> Command {
    let mut curl = Command::new("curl");
    curl.args([
        "--no-progress-meter",
        "--fail",
        "--parallel",
        "--parallel-max",
    ]);
    curl.arg(at_once).arg("--config").arg(config);
    curl
}

/// What curl asks the bucket: all pages of the list, each after the last key of the one before.
fn lists_of(server: &Weather, s3: &S3, ends: &[String]) -> String {
    let list = |after: &str| {
        let bucket = format!("{}/{}", server.endpoint(), s3.bucket());
        let query = format!("list-type=2&prefix=xxh3/&start-after={after}");
        format!("url = \"{bucket}?{query}\"\noutput = \"/dev/null\"\n")
    };
    let rest = ends.iter().map(|last| list(last));
    std::iter::once(list("")).chain(rest).collect()
}

/// What it asks the registry: the lists of versions, the manifests and their documents.
fn reads_of(registry: &RegistryServer) -> Result<String> {
    let data = registry.data().join("docker/registry/v2");
    let mut text =
        String::from("header = \"Accept: application/vnd.oci.image.manifest.v1+json\"\n");
    let mut add = |target: String| {
        let url = format!("{}/v2/{target}", registry.url());
        writeln!(text, "url = \"{url}\"\noutput = \"/dev/null\"")
    };
    let mut repositories = Vec::new();
    find(&data.join("repositories"), &mut repositories)?;
    for repository in repositories {
        let tags = repository.join("_manifests/tags");
        let name = repository.strip_prefix(data.join("repositories"))?;
        let name = name.display();
        add(format!("{name}/tags/list"))?;
        for tag in fs::read_dir(tags)? {
            let tag = tag?;
            let digest = fs::read_to_string(tag.path().join("current/link"))?;
            let hex = digest.trim().trim_start_matches("sha256:");
            let manifest = data.join(format!("blobs/sha256/{}/{hex}/data", &hex[..2]));
            let manifest: serde_json::Value = serde_json::from_slice(&fs::read(manifest)?)?;
            let config = manifest["config"]["digest"].as_str();
            let config = config.ok_or("a manifest has a document")?;
            add(format!("{name}/manifests/{}", tag.file_name().display()))?;
            add(format!("{name}/blobs/{config}"))?;
        }
    }
    Ok(text)
}

/// Directories of repositories.
fn find(dir: &Path, found: &mut Vec<PathBuf>) -> Result<()> {
    if dir.join("_manifests").is_dir() {
        found.push(dir.into());
        return Ok(());
    }
    for entry in fs::read_dir(dir)? {
        find(&entry?.path(), found)?;
    }
    Ok(())
}

/// Answers what lists ask.
struct Index {
    dir: PathBuf,
    bucket: String,
    /// Contents, which stay as they are.
    contents: OnceLock<Vec<Listed>>,
}

struct Listed {
    key: String,
    size: u64,
    modified: String,
}

impl Index {
    fn of(s3: &S3) -> Self {
        Self {
            dir: s3.dir(),
            bucket: s3.bucket().into(),
            contents: OnceLock::new(),
        }
    }

    /// The last keys of pages that are followed by another.
    fn ends(&self) -> Vec<String> {
        let all = self.contents();
        let pages = all.len().div_ceil(PAGE).saturating_sub(1);
        (1..=pages)
            .map(|page| all[page * PAGE - 1].key.clone())
            .collect()
    }

    fn contents(&self) -> &[Listed] {
        self.contents.get_or_init(|| self.walk("xxh3/"))
    }

    fn answer(&self, asked: &Asked) -> Act {
        let query = asked.target.strip_prefix(&format!("/{}", self.bucket));
        let query = query.map(|rest| rest.trim_start_matches('/'));
        let Some(query) = query.and_then(|rest| rest.strip_prefix('?')) else {
            return Act::Pass;
        };
        let value = |name: &str| {
            let mut pairs = query.split('&').filter_map(|pair| pair.split_once('='));
            let found = pairs.find(|(key, _)| *key == name);
            found.map(|(_, value)| value.replace("%2F", "/"))
        };
        let Some(prefix) = value("prefix").filter(|_| asked.method == "GET") else {
            return Act::Pass;
        };
        let after = ["continuation-token", "start-after", "marker"];
        let after = after.into_iter().find_map(value).unwrap_or_default();
        let now;
        let all = match prefix.starts_with("xxh3/") {
            true => self.contents(),
            false => {
                now = self.walk(&prefix);
                &now[..]
            }
        };
        let rest = &all[all.partition_point(|one| one.key <= after)..];
        Act::Answer("200 OK", "content-type: application/xml", page(rest).into())
    }

    fn walk(&self, prefix: &str) -> Vec<Listed> {
        let mut found = Vec::new();
        // A directory that is not there has nothing.
        let _ = self.walk_into(&self.dir.join(prefix), &mut found);
        found.sort_by(|one, other| one.key.cmp(&other.key));
        found
    }

    fn walk_into(&self, dir: &Path, found: &mut Vec<Listed>) -> Result<()> {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            if metadata.is_dir() {
                self.walk_into(&entry.path(), found)?;
                continue;
            }
            found.push(Listed {
                key: entry.path().strip_prefix(&self.dir)?.display().to_string(),
                size: metadata.len(),
                modified: OffsetDateTime::from(metadata.modified()?).format(&Rfc3339)?,
            });
        }
        Ok(())
    }
}

fn page(rest: &[Listed]) -> String {
    let is_cut = rest.len() > PAGE;
    let page = &rest[..rest.len().min(PAGE)];
    let mut text = String::from(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?><ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\">",
    );
    for Listed {
        key,
        size,
        modified,
    } in page
    {
        text += &format!(
            "<Contents><Key>{key}</Key><LastModified>{modified}</LastModified><ETag>&quot;0&quot;</ETag><Size>{size}</Size><StorageClass>STANDARD</StorageClass></Contents>"
        );
    }
    if let Some(last) = page.last().filter(|_| is_cut) {
        let last = &last.key;
        text += &format!(
            "<NextContinuationToken>{last}</NextContinuationToken><NextMarker>{last}</NextMarker>"
        );
    }
    text + &format!("<IsTruncated>{is_cut}</IsTruncated></ListBucketResult>")
}
