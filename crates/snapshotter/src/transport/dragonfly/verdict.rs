//! What a failed call means. The daemon says `Internal` to almost everything, so its texts are read: those that are known
//! are judged here, the others may pass. The text itself is kept, as the cause of the error.

use tonic::{Code, Status};

use crate::words::error::ErrorKind;

/// What to do about a failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Way {
    /// It is in the bucket already.
    Exists,
    /// The scheduler takes the object for one that is being uploaded: it is, or an upload of it was cut off, and is
    /// remembered until the record expires.
    Wedged,
    /// The daemon's storage is on another filesystem.
    NoLink,
    /// Try again.
    Again,
    /// The daemon, or its scheduler, cannot be reached: the next call will find the same.
    Down,
    /// This daemon cannot do it; the bucket itself perhaps can.
    Aside,
    /// Nobody can.
    Final,
}

/// A judgement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Verdict {
    pub(super) way: Way,
    pub(super) kind: ErrorKind,
    pub(super) hint: Option<&'static str>,
}

pub(in crate::transport) const DOWN: &str = "check that dfdaemon runs, that dragonfly.endpoint is its socket, and that it reaches its scheduler";
const SOCKET: &str = "this user may not use the daemon's socket: see its owner and mode";
pub(super) const UNSEEN: &str = "the daemon does not see this root where dragonfly.storage_dir says, or where it is: mount the root \
     into its container and set dragonfly.storage_dir to the place";
const FORBIDDEN: &str =
    "the daemon may not open files in this root: run it as root, or as the user this runs as";
const FULL: &str = "the daemon's storage is full";
const KEYS: &str = "check the keys, and that they may read and write in the bucket";
const CONFIGURATION: &str = "check content.region, content.endpoint and content.bucket";
pub(super) const WEDGED: &str = "an earlier upload of it was cut off, which the scheduler remembers until dragonfly.ttl is \
     over (a day by default); putting the object straight into the bucket helps, as a build with the provider's \
     object-storage feature does by itself";

/// Texts, in the order they are looked for.
const TEXTS: [(&str, Way, ErrorKind, Option<&str>); 22] = [
    (
        "cannot upload",
        Way::Wedged,
        ErrorKind::Unavailable,
        Some(WEDGED),
    ),
    ("os error 18", Way::NoLink, ErrorKind::Unsupported, None),
    (
        "Invalid cross-device link",
        Way::NoLink,
        ErrorKind::Unsupported,
        None,
    ),
    ("os error 17", Way::Aside, ErrorKind::Internal, None),
    ("already exists", Way::Aside, ErrorKind::Internal, None),
    ("os error 28", Way::Aside, ErrorKind::NoSpace, Some(FULL)),
    ("o space left", Way::Aside, ErrorKind::NoSpace, Some(FULL)),
    (
        "not enough space",
        Way::Aside,
        ErrorKind::NoSpace,
        Some(FULL),
    ),
    (
        "os error 2)",
        Way::Aside,
        ErrorKind::InvalidInput,
        Some(UNSEEN),
    ),
    (
        "No such file or directory",
        Way::Aside,
        ErrorKind::InvalidInput,
        Some(UNSEEN),
    ),
    (
        "os error 13",
        Way::Aside,
        ErrorKind::PermissionDenied,
        Some(FORBIDDEN),
    ),
    (
        "os error 1)",
        Way::Aside,
        ErrorKind::PermissionDenied,
        Some(FORBIDDEN),
    ),
    (
        "NoSuchBucket",
        Way::Final,
        ErrorKind::NotFound,
        Some(CONFIGURATION),
    ),
    (
        "NotFound (permanent)",
        Way::Final,
        ErrorKind::NotFound,
        None,
    ),
    (
        "PermissionDenied (permanent)",
        Way::Final,
        ErrorKind::PermissionDenied,
        Some(KEYS),
    ),
    (
        "ConfigInvalid",
        Way::Final,
        ErrorKind::InvalidInput,
        Some(CONFIGURATION),
    ),
    ("(permanent)", Way::Final, ErrorKind::Internal, None),
    // Before what else is temporary: this is how the daemon says that its scheduler is not there.
    (
        "currently unavailable",
        Way::Down,
        ErrorKind::Unavailable,
        Some(DOWN),
    ),
    ("(temporary)", Way::Again, ErrorKind::Unavailable, None),
    (
        "io operation timeout",
        Way::Again,
        ErrorKind::Unavailable,
        None,
    ),
    ("imeout", Way::Again, ErrorKind::Unavailable, None),
    (
        "transport error",
        Way::Again,
        ErrorKind::Unavailable,
        Some(DOWN),
    ),
];

/// Judges what came back instead of an answer.
pub(super) fn judge(status: &Status) -> Verdict {
    let verdict = |way, kind, hint| Verdict { way, kind, hint };
    if let Some(lost) = lost_connection(status) {
        return lost;
    }
    match status.code() {
        Code::AlreadyExists => return verdict(Way::Exists, ErrorKind::AlreadyExists, None),
        Code::NotFound => return verdict(Way::Final, ErrorKind::NotFound, None),
        Code::Unimplemented => return verdict(Way::Aside, ErrorKind::Unsupported, None),
        Code::InvalidArgument => return verdict(Way::Aside, ErrorKind::Internal, None),
        Code::ResourceExhausted => return verdict(Way::Again, ErrorKind::Unavailable, None),
        _ => {}
    }
    let said = status.message();
    let known = TEXTS.iter().find(|(text, ..)| said.contains(text));
    match (known, status.code()) {
        (Some((_, way, kind, hint)), _) => verdict(*way, *kind, *hint),
        (None, Code::PermissionDenied | Code::Unauthenticated) => {
            verdict(Way::Aside, ErrorKind::PermissionDenied, None)
        }
        (None, Code::Unavailable) => verdict(Way::Down, ErrorKind::Unavailable, Some(DOWN)),
        (None, _) => verdict(Way::Again, ErrorKind::Unavailable, None),
    }
}

/// What our own side says when there is no connection, or no more. The bucket is none the wiser.
fn lost_connection(status: &Status) -> Option<Verdict> {
    let mut cause = std::error::Error::source(status)?;
    let is_transport = cause.is::<tonic::transport::Error>() || cause.is::<tonic::ConnectError>();
    let mut forbidden = false;
    loop {
        if let Some(io) = cause.downcast_ref::<std::io::Error>() {
            forbidden |= io.kind() == std::io::ErrorKind::PermissionDenied;
        }
        match cause.source() {
            Some(next) => cause = next,
            None => break,
        }
    }
    is_transport.then_some(Verdict {
        way: if forbidden { Way::Down } else { Way::Again },
        kind: if forbidden {
            ErrorKind::PermissionDenied
        } else {
            ErrorKind::Unavailable
        },
        hint: Some(if forbidden { SOCKET } else { DOWN }),
    })
}

/// What tonic says when a connection fails, wherever in the chain.
const TRANSPORT: &str = "transport error";

/// Everything a status says in words, outermost first, each thing once.
pub(super) fn text(status: &Status) -> String {
    let mut parts: Vec<String> = Vec::new();
    let mut is_connection = false;
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(status);
    while let Some(inner) = cause {
        let said = words(inner);
        is_connection |= said == TRANSPORT;
        let is_new = !parts.iter().any(|part| part.contains(&said));
        if said != TRANSPORT && is_new {
            parts.push(said);
        }
        cause = inner.source();
    }
    parts.retain(|part| !part.is_empty());
    if is_connection {
        parts.insert(0, "the connection failed".to_owned());
    }
    if parts.is_empty() {
        parts.push(format!("{:?}", status.code()));
    }
    parts.join(": ")
}

/// What one error of a chain says. A status would print the `Debug` of all that is below it, which the chain has anyway.
fn words(error: &(dyn std::error::Error + 'static)) -> String {
    let said = match error.downcast_ref::<Status>() {
        Some(status) => status.message().to_owned(),
        None => error.to_string(),
    };
    passed_on(&said).unwrap_or(said)
}

/// What the daemon passes on of its own calls is a status as tonic prints it, with the `Debug` of its causes: code, message
/// and the system's error, if there is one, say the same in words.
fn passed_on(said: &str) -> Option<String> {
    let (before, rest) = said.split_once("code: '")?;
    let (code, rest) = rest.split_once("', message: \"")?;
    let end = ["\", details: ", "\", metadata: ", "\", source: "]
        .iter()
        .filter_map(|next| rest.find(next))
        .min()
        .or_else(|| rest.rfind('"'))?;
    let (message, causes) = rest.split_at(end);
    let mut text = format!("{before}{code}: {message}");
    if let Some((number, cause)) = system_error(causes) {
        text += &format!(": {cause} (os error {number})");
    }
    Some(text)
}

/// Number and text of `Os { code: 111, kind: ConnectionRefused, message: "Connection refused" }`.
fn system_error(printed: &str) -> Option<(&str, &str)> {
    let (_, rest) = printed.split_once("Os { code: ")?;
    let (number, rest) = rest.split_once(',')?;
    let (_, rest) = rest.split_once("message: \"")?;
    Some((number, rest.split_once('"')?.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ways(texts: &[&str], way: Way, kind: ErrorKind) {
        for text in texts {
            let verdict = judge(&Status::internal(*text));
            assert_eq!((verdict.way, verdict.kind), (way, kind), "{text}");
        }
    }

    #[test]
    fn known_texts_have_a_kind() {
        use ErrorKind::{Internal, InvalidInput, NoSpace, NotFound, PermissionDenied, Unavailable};
        ways(&["NotFound (permanent) at stat => x"], Way::Final, NotFound);
        ways(
            &["PermissionDenied (permanent) at stat, context: { response: 403 }"],
            Way::Final,
            PermissionDenied,
        );
        ways(
            &["ConfigInvalid (permanent) at Builder::build"],
            Way::Final,
            InvalidInput,
        );
        ways(&["Unexpected (permanent) at write"], Way::Final, Internal);
        ways(
            &["io: No such file or directory (os error 2)"],
            Way::Aside,
            InvalidInput,
        );
        ways(&["File exists (os error 17)"], Way::Aside, Internal);
        ways(
            &["Invalid cross-device link (os error 18)"],
            Way::NoLink,
            ErrorKind::Unsupported,
        );
        ways(
            &[
                "No space left on device (os error 28)",
                "no space left",
                "not enough space to store the persistent task",
            ],
            Way::Aside,
            NoSpace,
        );
        ways(
            &["Permission denied (os error 13)"],
            Way::Aside,
            PermissionDenied,
        );
        ways(
            &["persistent task 1 is Uploading cannot upload"],
            Way::Wedged,
            Unavailable,
        );
        ways(
            &["The service is currently unavailable"],
            Way::Down,
            Unavailable,
        );
        ways(
            &[
                "Unexpected (temporary) at write",
                "io operation timeout",
                "who knows",
                "",
            ],
            Way::Again,
            Unavailable,
        );
    }

    #[test]
    fn what_the_daemon_passes_on_is_said_in_words() {
        for (printed, said) in [
            (
                "code: 'The service is currently unavailable', message: \"tcp connect error\", source: \
                 tonic::transport::Error(Transport, ConnectError(ConnectError(\"tcp connect error\", 127.0.0.1:27106, \
                 Os { code: 111, kind: ConnectionRefused, message: \"Connection refused\" })))",
                "The service is currently unavailable: tcp connect error: Connection refused (os error 111)",
            ),
            (
                "register: code: 'Internal error', message: \"a \\\"quoted\\\", word\"",
                "register: Internal error: a \\\"quoted\\\", word",
            ),
            (
                "No space left on device (os error 28)",
                "No space left on device (os error 28)",
            ),
        ] {
            assert_eq!(text(&Status::internal(printed)), said);
        }
    }

    #[test]
    fn a_status_within_another_error_does_not_print_its_causes() {
        let mut inner = Status::unavailable("no answer");
        inner.set_source(std::sync::Arc::new(std::io::Error::other("gone")));
        let outer = Status::from_error(Box::new(std::io::Error::other(inner)));
        assert_eq!(
            text(&outer),
            "The service is currently unavailable: no answer: gone"
        );
    }

    #[test]
    fn codes_that_mean_something_do() {
        for (status, way) in [
            (
                Status::already_exists("persistent task already exists"),
                Way::Exists,
            ),
            (Status::not_found("x"), Way::Final),
            (Status::resource_exhausted("too many requests"), Way::Again),
            (Status::unavailable("x"), Way::Down),
            (
                Status::permission_denied("upload rejected by blocklist policy"),
                Way::Aside,
            ),
        ] {
            assert_eq!(judge(&status).way, way, "{status}");
        }
    }
}
