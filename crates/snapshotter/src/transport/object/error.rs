//! What went wrong at a server, in our words.
//!
//! opendal's errors carry addresses, headers and whole answers as context. None of that is shown: only the message, as
//! `said.rs` makes it fit to be shown.

use std::fmt;

use crate::transport::config::Content;
use crate::transport::said::{Said, Scrub};
use crate::words::error::{Error, ErrorKind};
use crate::words::object::Object;

/// Turns opendal's errors into ours.
#[derive(Clone)]
pub(super) struct Explain {
    place: String,
    bucket: String,
    scrub: Scrub,
}

impl Explain {
    pub(super) fn new(content: &Content) -> Self {
        let bucket = content.bucket.clone().unwrap_or_default();
        Self {
            place: format!("{}://{bucket}", content.provider),
            bucket,
            scrub: Scrub::new(content),
        }
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// `doing` reads after "cannot" and before the object: `fetch`.
    pub(super) fn error(
        &self,
        doing: &str,
        object: Option<Object>,
        error: &opendal::Error,
    ) -> Error {
        let said = self.scrub.line(error.message());
        let (kind, hint) = judge(error, &said);
        let place = &self.place;
        let text = match object {
            _ if is_absent_bucket(&said) => format!("there is no bucket {}", self.bucket),
            Some(object) if kind == ErrorKind::NotFound => {
                format!("there is no {object} in {place}")
            }
            Some(object) => format!("cannot {doing} {object} in {place}"),
            None => format!("cannot {doing} {place}"),
        };
        let text = Error::new(kind, text).with_source(Said(said));
        match hint {
            Some(hint) => text.with_hint(hint),
            None => text,
        }
    }
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

/// Whether the keys are right, and may not do what was asked. A HEAD is refused without a word.
pub(super) fn lacks_permission(error: &opendal::Error) -> bool {
    let said = error.message();
    error.kind() == opendal::ErrorKind::PermissionDenied
        && (said.is_empty() || code(said).is_some_and(|code| code.ends_with("AccessDenied")))
}

/// Whether an answer ended well, and before all of its range had come.
pub(super) fn is_short(error: &opendal::Error) -> bool {
    error.message() == "reader got too little data"
}

const CONFIGURATION: &str = "check content.region and content.endpoint";

/// What came is no answer of such a server: whoever stands before it has spoken.
const STRANGER: &str =
    "something on the way answers in the server's place: check content.endpoint and content.proxy";

const KEYLESS: &str = "no keys were found: set content.access_key_id and content.access_key_secret, or what content.credentials looks for";

/// None of these is a mistake of ours: whatever a server says, or fails to say, is about it, about the way there, or about
/// how we are to use it.
fn judge(error: &opendal::Error, said: &str) -> (ErrorKind, Option<&'static str>) {
    use opendal::ErrorKind as Theirs;
    match error.kind() {
        _ if is_absent_bucket(said) => (
            ErrorKind::NotFound,
            Some("make the bucket, or check content.bucket and content.endpoint"),
        ),
        Theirs::NotFound => (ErrorKind::NotFound, None),
        Theirs::PermissionDenied => (ErrorKind::PermissionDenied, Some(denied(said))),
        Theirs::ConfigInvalid => (ErrorKind::InvalidInput, Some(CONFIGURATION)),
        Theirs::RateLimited => (ErrorKind::Unavailable, None),
        Theirs::RangeNotSatisfied => (ErrorKind::Damaged, None),
        Theirs::Unsupported => (ErrorKind::Unsupported, None),
        _ if error.is_temporary() => (ErrorKind::Unavailable, None),
        _ if is_short(error) => (ErrorKind::Damaged, None),
        _ if said.starts_with("signing") => (ErrorKind::PermissionDenied, Some(KEYLESS)),
        _ => match code(said) {
            Some(code) => refusal(code),
            None => (ErrorKind::Unavailable, Some(STRANGER)),
        },
    }
}

/// A provider's word for what is wrong, as opendal shows its XML.
fn code(said: &str) -> Option<&str> {
    let (_, rest) = said.split_once("code: \"")?;
    let (code, _) = rest.split_once('"')?;
    (!code.is_empty()).then_some(code)
}

/// What a refusal means that opendal does not know.
fn refusal(code: &str) -> (ErrorKind, Option<&'static str>) {
    match code {
        "AuthorizationHeaderMalformed" | "PermanentRedirect" | "InvalidBucketName" => {
            (ErrorKind::InvalidInput, Some(CONFIGURATION))
        }
        "InvalidStorageClass" | "InvalidEncryptionAlgorithmError" => (
            ErrorKind::InvalidInput,
            Some("check content.storage_class and content.server_side_encryption"),
        ),
        _ if code.starts_with("KMS") => (ErrorKind::InvalidInput, Some("check content.kms_key_id")),
        "QuotaExceeded" | "XMinioStorageFull" | "InsufficientCapacity" => {
            (ErrorKind::NoSpace, None)
        }
        _ => (ErrorKind::Unsupported, None),
    }
}

fn denied(said: &str) -> &'static str {
    if said.contains("RequestTimeTooSkewed") || said.contains("'s clock is") {
        return "the clocks of this machine and of the server differ too much: set this machine's";
    }
    "check the keys, and that they may list, read and write in the bucket (an absent object is forbidden, not absent, to \
     those who may not list); `snapshotter doctor` says what is missing"
}
