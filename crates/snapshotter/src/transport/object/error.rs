//! What went wrong at a server, in our words.
//!
//! opendal's errors carry addresses, headers and whole answers as context. None of that is shown: only the message, as
//! one bounded line, with every secret we know of cut out of it, should a server or a proxy have sent one back.

use std::fmt;

use crate::transport::config::Content;
use crate::words::digest::{Digest, visible};
use crate::words::error::{Error, ErrorKind};

/// Shown of what a server says, in characters.
const SHOWN: usize = 240;

/// Turns opendal's errors into ours.
#[derive(Clone)]
pub(super) struct Explain {
    place: String,
    bucket: String,
    secrets: Vec<String>,
}

impl Explain {
    pub(super) fn new(content: &Content) -> Self {
        let bucket = content.bucket.clone().unwrap_or_default();
        Self {
            place: format!("{}://{bucket}", content.provider),
            bucket,
            secrets: secrets(content),
        }
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// `doing` reads after "cannot" and before the digest: `fetch`.
    pub(super) fn error(
        &self,
        doing: &str,
        digest: Option<Digest>,
        error: &opendal::Error,
    ) -> Error {
        let said = self.scrub(error.message());
        let (kind, hint) = judge(error, &said);
        let place = &self.place;
        let text = match digest {
            _ if is_absent_bucket(&said) => format!("there is no bucket {}", self.bucket),
            Some(digest) if kind == ErrorKind::NotFound => {
                format!("there is no {digest} in {place}")
            }
            Some(digest) => format!("cannot {doing} {digest} in {place}"),
            None => format!("cannot {doing} {place}"),
        };
        let text = Error::new(kind, text).with_source(Said(said));
        match hint {
            Some(hint) => text.with_hint(hint),
            None => text,
        }
    }

    fn scrub(&self, message: &str) -> String {
        let mut text = without_signatures(message);
        for secret in &self.secrets {
            text = text.replace(secret.as_str(), "…");
        }
        let mut line: String = text.chars().take(SHOWN).flat_map(visible).collect();
        if text.chars().nth(SHOWN).is_some() {
            line.push('…');
        }
        line
    }
}

/// Signatures are good for minutes and one request, but nobody else's business: a server that sends a request back shows
/// them in its URL or in a header.
fn without_signatures(text: &str) -> String {
    let mut clean = String::with_capacity(text.len());
    for line in text.split_inclusive('\n') {
        let lower = line.to_ascii_lowercase();
        let found = ["authorization", "signature=", "sig="]
            .iter()
            .filter_map(|name| lower.find(name).map(|at| at + name.len()))
            .min();
        match found {
            // The rest of the line may have more of it: nothing after a signature is worth the risk.
            Some(end) => clean.extend([&line[..end], " …\n"]),
            None => clean.push_str(line),
        }
    }
    clean
}

impl fmt::Debug for Explain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Explain").field(&self.place).finish()
    }
}

/// Whether it is the object that is missing, and not its bucket.
pub(super) fn is_absent_object(error: &opendal::Error) -> bool {
    error.kind() == opendal::ErrorKind::NotFound && !is_absent_bucket(error.message())
}

/// The providers' ways to say so; opendal tells them apart for some of them only.
fn is_absent_bucket(said: &str) -> bool {
    [
        "NoSuchBucket",
        "ContainerNotFound",
        "bucket does not exist",
        "container does not exist",
    ]
    .iter()
    .any(|name| said.contains(name))
}

fn judge(error: &opendal::Error, said: &str) -> (ErrorKind, Option<&'static str>) {
    use opendal::ErrorKind as Theirs;
    match error.kind() {
        _ if is_absent_bucket(said) => (
            ErrorKind::NotFound,
            Some("make the bucket, or check content.bucket and content.endpoint"),
        ),
        Theirs::NotFound => (ErrorKind::NotFound, None),
        Theirs::PermissionDenied => (ErrorKind::PermissionDenied, Some(denied(said))),
        Theirs::ConfigInvalid => (
            ErrorKind::InvalidInput,
            Some("check content.region and content.endpoint"),
        ),
        Theirs::RateLimited => (ErrorKind::Unavailable, None),
        Theirs::RangeNotSatisfied => (ErrorKind::Damaged, None),
        Theirs::Unsupported => (ErrorKind::Unsupported, None),
        _ if error.is_temporary() => (ErrorKind::Unavailable, None),
        _ if said.contains("AuthorizationHeaderMalformed") => (
            ErrorKind::InvalidInput,
            Some("check content.region and content.endpoint"),
        ),
        _ => (ErrorKind::Internal, None),
    }
}

fn denied(said: &str) -> &'static str {
    if said.contains("RequestTimeTooSkewed") {
        return "the clocks of this machine and of the server differ too much";
    }
    "check the keys, and that they may list, read and write in the bucket (an absent object is forbidden, not absent, to \
     those who may not list)"
}

fn secrets(content: &Content) -> Vec<String> {
    let fields = [
        &content.access_key_id,
        &content.access_key_secret,
        &content.session_token,
        &content.proxy,
    ];
    let mut secrets: Vec<String> = fields.into_iter().flatten().cloned().collect();
    let parts = secrets.clone();
    // The signature of a SAS token, and the user and password of a proxy, may come back without the rest.
    for part in parts.iter().flat_map(|whole| whole.split(['&', '@', '/'])) {
        let value = part.split_once("sig=").map_or(part, |(_, value)| value);
        if value.len() >= 12 || part.contains(':') && value.len() > 4 {
            secrets.push(value.to_owned());
        }
    }
    secrets.retain(|secret| secret.len() > 3 && secret != "http:" && secret != "https:");
    // The longest first, so that what is left of one is not taken for the whole.
    secrets.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    secrets
}

/// What a server, or the way to it, had to say.
#[derive(Debug)]
struct Said(String);

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_str() {
            "" => f.write_str("the server did not say why"),
            said => f.write_str(said),
        }
    }
}

impl std::error::Error for Said {}
