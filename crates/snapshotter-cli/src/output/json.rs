//! What `--json` prints: the parts that several documents share. `docs/json.md` is the promise; fields are added, never
//! renamed or removed, as long as `schema` is 1.

use std::fmt;
use std::io;
use std::ops::Deref;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::error::{ContextKind, ContextValue};
use serde::Serialize;
use snapshotter::{PlacementCount, Placements, PublishedAt, Reference, Sha256};

use super::{Page, human};
use crate::failure::{Failure, flag_for_field, with_our_verb};

const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Envelope<'a, D> {
    schema: u32,
    #[serde(flatten)]
    document: &'a D,
    warnings: &'a [Warning],
}

/// Writes a document and a newline.
pub fn write_document(
    out: &mut dyn io::Write,
    pretty: bool,
    document: &impl Serialize,
    warnings: &[Warning],
) -> io::Result<()> {
    let schema = SCHEMA;
    write(
        out,
        pretty,
        &Envelope {
            schema,
            document,
            warnings,
        },
    )
}

#[derive(Serialize)]
struct ErrorDocument<'a> {
    schema: u32,
    error: ErrorFields<'a>,
}

#[derive(Serialize)]
struct ErrorFields<'a> {
    kind: &'static str,
    message: &'a str,
    causes: &'a [String],
    hint: Option<&'a str>,
    #[serde(flatten)]
    path: Option<Named>,
    #[serde(flatten)]
    reference: Option<Called>,
}

impl<'a> ErrorFields<'a> {
    fn new(failure: &'a Failure) -> Self {
        Self {
            kind: failure.kind.as_str(),
            message: &failure.message,
            causes: &failure.causes,
            hint: failure.hint.as_deref(),
            path: failure.about.path.as_deref().map(Named::new),
            reference: failure.about.reference.as_ref().map(Called::new),
        }
    }
}

/// A snapshot's name: whole, and in its parts.
#[derive(Clone, Debug, Serialize)]
pub struct Called {
    reference: String,
    name: String,
    version: Option<String>,
}

impl Called {
    /// Of a reference.
    pub fn new(reference: &Reference) -> Self {
        Self {
            reference: reference.to_string(),
            name: reference.name().to_owned(),
            version: reference.version().map(str::to_owned),
        }
    }
}

impl Deref for Called {
    type Target = str;

    fn deref(&self) -> &str {
        &self.reference
    }
}

impl fmt::Display for Called {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self)
    }
}

/// What went wrong, for a document that says what was done before.
pub fn error(failure: &Failure) -> serde_json::Value {
    serde_json::json!(ErrorFields::new(failure))
}

/// Writes what went wrong.
pub fn write_failure(out: &mut dyn io::Write, pretty: bool, failure: &Failure) -> io::Result<()> {
    let (schema, error) = (SCHEMA, ErrorFields::new(failure));
    write(out, pretty, &ErrorDocument { schema, error })
}

/// What clap says, without its decoration: the first paragraph is what is wrong, a tip what may be meant.
pub fn usage(error: &clap::Error) -> Failure {
    let rendered = error.render().to_string();
    let paragraph = rendered.split("\n\n").next().unwrap_or_default();
    let message = paragraph.trim_start_matches("error: ").split_whitespace();
    let tip = rendered
        .lines()
        .find_map(|line| line.trim_start().strip_prefix("tip: "));
    let hint = match (tip, error.get(ContextKind::Usage)) {
        (Some(tip), _) => tip.to_owned(),
        (None, Some(ContextValue::StyledStr(usage))) => usage.to_string(),
        _ => "see `snapshotter --help`".to_owned(),
    };
    Failure::invalid(message.collect::<Vec<_>>().join(" ")).with_hint(hint)
}

fn write(out: &mut dyn io::Write, pretty: bool, value: &impl Serialize) -> io::Result<()> {
    if pretty {
        serde_json::to_writer_pretty(&mut *out, value)?;
    } else {
        serde_json::to_writer(&mut *out, value)?;
    }
    writeln!(out)
}

/// Where a snapshot was last seen.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Published {
    registry: Option<String>,
    content: Option<String>,
    #[serde(serialize_with = "as_text")]
    manifest_digest: Sha256,
    seen_at: Time,
}

impl Published {
    pub fn new(at: &PublishedAt) -> Self {
        Self {
            registry: at.registry.clone(),
            content: at.content.clone(),
            manifest_digest: at.manifest_digest,
            seen_at: Time(at.seen_at),
        }
    }

    /// For people; the place of contents too where that is another one.
    pub fn shown(&self, page: &Page<'_>) -> String {
        let visible = |place: &Option<String>| {
            human::visible(place.as_deref().unwrap_or("a place not noted"))
        };
        let contents = match &self.content {
            content if *content == self.registry => String::new(),
            content => format!(", contents in {}", visible(content)),
        };
        let seen = page.time(self.seen_at.0);
        format!("in {}{contents}, seen {seen}", visible(&self.registry))
    }
}

/// `path`, and `pathBytes` where that is not UTF-8.
#[derive(Clone, Debug, Serialize)]
pub struct Named {
    path: String,
    #[serde(rename = "pathBytes", skip_serializing_if = "Option::is_none")]
    bytes: Option<String>,
}

impl Named {
    /// Of a path.
    pub fn new(path: &Path) -> Self {
        let (path, bytes) = text_and_bytes(path);
        Self { path, bytes }
    }

    /// For people.
    pub fn shown(&self) -> String {
        human::visible(&self.path)
    }
}

/// `relativePath`, and `relativePathBytes` where that is not UTF-8.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Relative {
    relative_path: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    relative_path_bytes: Option<String>,
}

impl Relative {
    /// Of a path.
    pub fn new(path: &Path) -> Self {
        let (relative_path, relative_path_bytes) = text_and_bytes(path);
        Self {
            relative_path,
            relative_path_bytes,
        }
    }

    /// For people.
    pub fn shown(&self) -> String {
        human::visible(&self.relative_path)
    }
}

/// The text of a name, and its bytes in base64 where the text is not all of it.
pub fn text_and_bytes(path: &Path) -> (String, Option<String>) {
    let bytes = path.as_os_str().as_bytes();
    let encoded = || STANDARD.encode(bytes);
    (
        path.to_string_lossy().into_owned(),
        path.to_str().is_none().then(encoded),
    )
}

/// Base64, for what is bytes.
pub fn base64(bytes: &[u8]) -> String {
    STANDARD.encode(bytes)
}

/// What is shown only where it is asked for.
pub fn as_text<S: serde::Serializer>(
    value: &impl std::fmt::Display,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    serializer.collect_str(value)
}

/// A time, RFC 3339 in UTC in JSON.
#[derive(Clone, Copy, Debug)]
pub struct Time(pub SystemTime);

impl Serialize for Time {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&human::rfc3339(self.0))
    }
}

/// Something that did not stop the command.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Warning {
    kind: &'static str,
    path: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path_bytes: Option<String>,
    message: String,
}

impl Warning {
    /// A warning about the command itself.
    pub fn new(kind: &'static str, message: String) -> Self {
        Self {
            kind,
            path: None,
            path_bytes: None,
            message,
        }
    }

    /// Whether it is that the catalog is older than the store.
    pub fn is_older_catalog(&self) -> bool {
        self.kind == snapshotter::WarningKind::CatalogOlder.as_str()
    }

    /// Closing the store left something for later.
    pub fn deferred(why: &str) -> Self {
        let left = "closing the store left something for the next command";
        Self::new("deferred", format!("{left}: {why}"))
    }

    /// For people.
    pub fn shown(&self) -> String {
        let about = self.path.as_ref().map(|path| format!("{path}: "));
        human::visible(&(about.unwrap_or_default() + &self.message))
    }
}

impl From<snapshotter::Warning> for Warning {
    fn from(warning: snapshotter::Warning) -> Self {
        let (path, path_bytes) = warning.path.as_deref().map(text_and_bytes).unzip();
        Self {
            path,
            path_bytes: path_bytes.flatten(),
            ..Self::new(
                warning.kind.as_str(),
                flag_for_field(with_our_verb(&warning.message)),
            )
        }
    }
}

/// How many files got where they are in one way.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Count {
    files: u64,
    bytes: u64,
}

impl From<PlacementCount> for Count {
    fn from(count: PlacementCount) -> Self {
        Self {
            files: count.files,
            bytes: count.bytes,
        }
    }
}

/// How files got where they are.
#[derive(Clone, Copy, Debug, Serialize)]
pub struct Placed {
    hardlink: Count,
    reflink: Count,
    copy: Count,
    present: Count,
}

impl From<Placements> for Placed {
    fn from(placements: Placements) -> Self {
        Self {
            hardlink: placements.hardlink.into(),
            reflink: placements.reflink.into(),
            copy: placements.copy.into(),
            present: placements.present.into(),
        }
    }
}

impl Placed {
    /// `2 hardlinked, 1 copied`.
    pub fn shown(&self) -> String {
        let ways = [
            (self.hardlink, "hardlinked"),
            (self.reflink, "reflinked"),
            (self.copy, "copied"),
            (self.present, "there already"),
        ];
        let used = ways.iter().filter(|(count, _)| count.files > 0);
        let said: Vec<_> = used
            .map(|(count, way)| format!("{} {way}", count.files))
            .collect();
        said.join(", ")
    }
}
