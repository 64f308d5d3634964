//! What the real daemon says when something goes wrong. Nearly everything has the code `Internal`: the text is all there
//! is to tell one thing from another.

use std::fmt::Display;

use tonic::{Code, Status};

/// An error of the daemon's own, of a system call for one.
pub(super) fn internal(why: impl Display) -> Status {
    Status::internal(why.to_string())
}

/// What the scheduler answered, as the daemon passes it on.
pub(super) fn scheduler(code: Code, message: &str) -> Status {
    internal(Status::new(code, message))
}

/// There is no scheduler.
pub(super) fn scheduler_down() -> Status {
    internal(
        "code: 'The service is currently unavailable', message: \"tcp connect error\", source: \
         tonic::transport::Error(Transport, ConnectError(ConnectError(\"tcp connect error\", 127.0.0.1:8002, \
         Os { code: 111, kind: ConnectionRefused, message: \"Connection refused\" })))",
    )
}

/// What the object storage says to a daemon that asks for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Storage {
    NoKey,
    NoBucket,
    Forbidden,
    Unreachable,
    NoRegion,
}

/// Which of the daemon's calls asks: of the same answer they make different texts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    Upload,
    Download,
}

pub(super) fn storage(said: Storage, asks: Asks, path: &str) -> Status {
    let answer = |status: u16| {
        format!(
            "response: Parts {{ status: {status}, version: HTTP/1.1, headers: {{}} }}, service: s3, path: {path}"
        )
    };
    let said = match said {
        Storage::NoKey => format!(
            "NotFound (permanent) at stat, context: {{ {} }}",
            answer(404)
        ),
        Storage::NoBucket => format!(
            "NotFound (permanent) at stat, context: {{ {} }} => S3Error {{ code: \"NoSuchBucket\" }}",
            answer(404)
        ),
        Storage::Forbidden => {
            let context = answer(403);
            format!("PermissionDenied (permanent) at stat, context: {{ {context} }}")
        }
        Storage::Unreachable => format!(
            "Unexpected (temporary) at stat, context: {{ called: http_util::Client::send, service: s3, path: {path} }} \
             => send http request, source: error sending request"
        ),
        Storage::NoRegion => {
            "ConfigInvalid (permanent) at Builder::build, context: { service: s3 } => region is \
             missing. Please find it by S3::detect_region() or set them in env."
                .to_owned()
        }
    };
    match asks {
        Asks::Upload => internal(said),
        // It never gets as far as asking.
        Asks::Download if said.starts_with("ConfigInvalid") => internal(said),
        Asks::Download => internal(format_args!("backend error: {said}")),
    }
}
