//! Bad buckets: what S3 servers, their policies and what stands before them do to users, each as a function that tells
//! [`proxy::Weather`](crate::proxy::Weather) what becomes of a request. The server behind it is a real one.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::proxy::{Act, Asked};

/// Whether it is the request that makes an upload in parts visible.
#[must_use]
pub fn completes(asked: &Asked) -> bool {
    asked.method == "POST" && asked.target.contains("uploadId=")
}

/// Whether it is the request that begins an upload in parts.
#[must_use]
pub fn begins(asked: &Asked) -> bool {
    asked.method == "POST" && asked.target.contains("uploads")
}

/// Does this to the first so many requests of a kind.
pub fn first(times: usize, of: fn(&Asked) -> bool, act: Act) -> impl Fn(&Asked) -> Act {
    let seen = AtomicUsize::new(0);
    move |asked| {
        if of(asked) && seen.fetch_add(1, Ordering::SeqCst) < times {
            return act.clone();
        }
        Act::Pass
    }
}

/// A provider's error in XML.
#[must_use]
pub fn error(code: &str) -> Vec<u8> {
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Error><Code>{code}</Code><Message>as a server says it</Message></Error>"
    )
    .into_bytes()
}

/// What Amazon says to a completion that fails after it has sent the head of its answer.
#[must_use]
pub fn error_inside_200() -> Act {
    Act::Answer("200 OK", "", error("InternalError"))
}

fn forbidden(asked: &Asked) -> Act {
    let body = match asked.method.as_str() {
        "HEAD" => Vec::new(),
        _ => error("AccessDenied"),
    };
    Act::Answer("403 Forbidden", "", body)
}

/// Whoever has these keys may not list `bucket`, a server's directory: what is absent is forbidden.
pub fn without_listing(bucket: PathBuf) -> impl Fn(&Asked) -> Act {
    move |asked| {
        let looks = matches!(asked.method.as_str(), "HEAD" | "GET");
        if looks && object(&bucket, asked).is_none() {
            return forbidden(asked);
        }
        Act::Pass
    }
}

/// Whoever has these keys may do all but this: `s3:PutObject`, `s3:GetObject` or `s3:DeleteObject`.
pub fn without(permission: &'static str) -> impl Fn(&Asked) -> Act {
    move |asked| {
        let needed = match asked.method.as_str() {
            "PUT" | "POST" => "s3:PutObject",
            "DELETE" if asked.target.contains("uploadId=") => "s3:AbortMultipartUpload",
            "DELETE" => "s3:DeleteObject",
            _ => "s3:GetObject",
        };
        if needed == permission {
            return forbidden(asked);
        }
        Act::Pass
    }
}

/// A server in another time, which a HEAD learns from the date alone.
#[must_use]
pub fn another_time(asked: &Asked) -> Act {
    let body = match asked.method.as_str() {
        "HEAD" => Vec::new(),
        _ => error("RequestTimeTooSkewed"),
    };
    let date = "date: Tue, 14 Nov 2023 22:13:20 GMT\r\n";
    Act::Answer("403 Forbidden", date, body)
}

/// A bucket with Object Lock: nothing is written to it without a checksum.
#[must_use]
pub fn object_lock(asked: &Asked) -> Act {
    let head = asked.head.to_ascii_lowercase();
    let has = |name: &str| head.contains(&format!("\r\n{name}"));
    if asked.method == "PUT" && !has("content-md5:") && !has("x-amz-checksum-") {
        return Act::Answer("400 Bad Request", "", error("InvalidRequest"));
    }
    Act::Pass
}

/// All of an object of `bucket`, whatever range of it is asked for.
pub fn without_ranges(bucket: PathBuf) -> impl Fn(&Asked) -> Act {
    move |asked| match object(&bucket, asked) {
        Some(bytes) if asked.method == "GET" => Act::Answer("200 OK", "etag: \"1\"\r\n", bytes),
        _ => Act::Pass,
    }
}

/// At most so many bytes of what is asked for, in answers that say that they are all of it and end well.
pub fn short_bodies(bucket: PathBuf, most: usize) -> impl Fn(&Asked) -> Act {
    move |asked| {
        let range = range(asked);
        let (Some(bytes), Some((from, to)), "GET") =
            (object(&bucket, asked), range, asked.method.as_str())
        else {
            return Act::Pass;
        };
        let to = to.min(bytes.len());
        let head = format!(
            "206 Partial Content\r\ncontent-range: bytes {from}-{}/{}\r\netag: \"1\"",
            to - 1,
            bytes.len()
        );
        Act::Say(head, bytes[from..to.min(from + most)].to_vec())
    }
}

/// The bytes that a request asks for: from, and to before.
fn range(asked: &Asked) -> Option<(usize, usize)> {
    let line = asked.head.lines().find_map(|line| {
        line.to_ascii_lowercase()
            .strip_prefix("range: bytes=")
            .map(str::to_owned)
    })?;
    let (first, last) = line.split_once('-')?;
    Some((first.parse().ok()?, last.parse::<usize>().ok()? + 1))
}

/// The object that a path-style request names.
fn object(bucket: &std::path::Path, asked: &Asked) -> Option<Vec<u8>> {
    let path = asked.target.split('?').next()?.trim_start_matches('/');
    let (_, key) = path.split_once('/')?;
    std::fs::read(bucket.join(key)).ok()
}
