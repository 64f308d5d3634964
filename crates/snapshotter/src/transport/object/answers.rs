//! Answers that are not what their status says, made into what they are before anybody believes them: an error inside a
//! 200, all of an object where a part was asked for, and a refusal that is about the clock.

use http::header::{CONTENT_LENGTH, CONTENT_RANGE, DATE, HeaderMap, RANGE};
use http::request::Parts as Asked;
use http::response::Parts as Head;
use http::{HeaderValue, Method, StatusCode};
use opendal::{Error, ErrorKind, Result};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc2822;

/// Answers that are not an object's bytes: XML, JSON, error pages, in bytes.
const ANSWER: u64 = 1 << 20;

/// What is read past to get at a part, where a server sends all of an object whatever was asked for, in bytes. The parts of a
/// large object would cost its size each.
const READ_PAST: u64 = 64 << 20;

/// How far two clocks may be apart, in seconds: S3 refuses what was signed more than 15 minutes from its own time.
const APART: u64 = 15 * 60;

/// Which bytes of an answer's body are what was asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Read, and not handed on.
    pub(super) skip: u64,
    /// Handed on at most.
    pub(super) take: u64,
    /// Whether more is an error. What follows a part in an answer that has all of the object is not.
    pub(super) is_all: bool,
}

impl Wanted {
    /// What there is to have of an answer. Where the server did not know of ranges, its head says afterwards what it would
    /// have said if it did.
    pub(super) fn of(asked: &Asked, head: &mut Head) -> Result<Self> {
        let range = range_of(asked).filter(|_| head.status.is_success());
        let Some((first, last)) = range else {
            return Ok(Self::all(ANSWER));
        };
        let len = last - first + 1;
        match length(&head.headers) {
            // All of it, and nobody says how much that is: where it ends would be where a connection does.
            None if head.status == StatusCode::OK && first > 0 => Err(ignores_ranges()),
            Some(size) if head.status == StatusCode::OK && (first > 0 || size > len) => {
                part_of_all(head, first, last, size)
            }
            _ => Ok(Self::all(len)),
        }
    }

    fn all(take: u64) -> Self {
        Self {
            skip: 0,
            take,
            is_all: true,
        }
    }
}

fn part_of_all(head: &mut Head, first: u64, last: u64, size: u64) -> Result<Wanted> {
    if first >= size {
        let text = format!("the object has {size} bytes, and those from {first} on were asked for");
        return Err(Error::new(ErrorKind::RangeNotSatisfied, text));
    }
    if first > READ_PAST {
        return Err(ignores_ranges());
    }
    let last = last.min(size - 1);
    let take = last - first + 1;
    head.status = StatusCode::PARTIAL_CONTENT;
    head.headers.insert(CONTENT_LENGTH, take.into());
    if let Ok(range) = HeaderValue::from_str(&format!("bytes {first}-{last}/{size}")) {
        head.headers.insert(CONTENT_RANGE, range);
    }
    Ok(Wanted {
        skip: first,
        take,
        is_all: false,
    })
}

fn ignores_ranges() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "the server, or what stands before it, ignores ranges: it sends all of an object for a part of it",
    )
}

/// The first and the last byte that a GET asks for.
fn range_of(asked: &Asked) -> Option<(u64, u64)> {
    if asked.method != Method::GET {
        return None;
    }
    let range = asked.headers.get(RANGE)?.to_str().ok()?;
    let (first, last) = range.strip_prefix("bytes=")?.split_once('-')?;
    let (first, last) = (first.parse::<u64>().ok()?, last.parse::<u64>().ok()?);
    let is_one = first <= last && (last - first).checked_add(1).is_some();
    is_one.then_some((first, last))
}

/// How many bytes an answer's body has, as its head says.
pub(super) fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Whether a 200 to a POST is no success: S3 sends it before it knows how a completion goes, and says in the body that it
/// went wrong. An empty one is the other way not to say how it went.
pub(super) fn hides_an_error(body: &[u8]) -> bool {
    let text = String::from_utf8_lossy(body);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    let declared = text
        .strip_prefix("<?xml")
        .and_then(|rest| rest.split_once("?>"));
    let root = declared.map_or(text, |(_, rest)| rest.trim_start());
    root.is_empty() || root.starts_with("<Error>") || root.starts_with("<Error ")
}

/// Statuses that opendal could only pass on without a word: of redirects, and of refusals whose body a HEAD lacks.
pub(super) fn refused(method: &Method, status: StatusCode, headers: &HeaderMap) -> Result<()> {
    let (kind, text) = match status.as_u16() {
        301 | 302 | 307 | 308 => (
            ErrorKind::ConfigInvalid,
            "the server redirects to another place: the bucket is in another region or at another endpoint",
        ),
        400 if method == Method::HEAD => (
            ErrorKind::ConfigInvalid,
            "the server calls the request bad (400): the region may be another one",
        ),
        401 => (
            ErrorKind::PermissionDenied,
            "the server wants other keys (401)",
        ),
        403 => return clocks(headers, OffsetDateTime::now_utc()),
        407 => (
            ErrorKind::PermissionDenied,
            "the proxy wants a user and a password (407)",
        ),
        _ => return Ok(()),
    };
    Err(Error::new(kind, text))
}

/// A refusal's date tells whether the clocks are what is wrong, also where there is no body to say so.
fn clocks(headers: &HeaderMap, now: OffsetDateTime) -> Result<()> {
    let date = headers.get(DATE).and_then(|date| date.to_str().ok());
    let theirs = date.and_then(|date| OffsetDateTime::parse(date, &Rfc2822).ok());
    let Some(theirs) = theirs else { return Ok(()) };
    let apart = (now - theirs).whole_seconds();
    if apart.unsigned_abs() <= APART {
        return Ok(());
    }
    let (minutes, way) = (
        apart.unsigned_abs() / 60,
        if apart > 0 { "ahead" } else { "behind" },
    );
    Err(Error::new(
        ErrorKind::PermissionDenied,
        format!("this machine's clock is {minutes} minutes {way} of the server's"),
    ))
}

#[cfg(test)]
mod tests {
    use http::{Request, Response};

    use super::*;

    fn asked(range: Option<&str>) -> Asked {
        let mut request = Request::get("http://host/key").body(()).unwrap();
        if let Some(range) = range {
            request.headers_mut().insert(RANGE, range.parse().unwrap());
        }
        request.into_parts().0
    }

    fn answered(status: u16, length: u64) -> Head {
        let response = Response::builder().status(status);
        let response = response.header(CONTENT_LENGTH, length).body(());
        response.unwrap().into_parts().0
    }

    fn wanted(range: Option<&str>, status: u16, length: u64) -> Wanted {
        Wanted::of(&asked(range), &mut answered(status, length)).unwrap()
    }

    #[test]
    fn an_answer_may_be_as_long_as_what_was_asked_for() {
        assert_eq!(wanted(Some("bytes=10-19"), 206, 10), Wanted::all(10));
        assert_eq!(wanted(Some("bytes=0-19"), 200, 10), Wanted::all(20));
        for range in [
            None,
            Some("bytes=5-"),
            Some("bytes=9-5"),
            Some("bytes=0-18446744073709551615"),
        ] {
            assert_eq!(wanted(range, 200, 10), Wanted::all(ANSWER));
        }
        assert_eq!(wanted(Some("bytes=0-99999999"), 404, 10).take, ANSWER);
    }

    #[test]
    fn a_part_is_taken_out_of_all() {
        let mut head = answered(200, 25);
        let part = Wanted::of(&asked(Some("bytes=10-19")), &mut head).unwrap();
        assert_eq!((part.skip, part.take, part.is_all), (10, 10, false));
        assert_eq!(head.status, StatusCode::PARTIAL_CONTENT);
        assert_eq!(head.headers[CONTENT_RANGE], "bytes 10-19/25");
        assert_eq!(length(&head.headers), Some(10));
        let part = wanted(Some("bytes=20-99"), 200, 25);
        assert_eq!((part.skip, part.take), (20, 5));
    }

    #[test]
    fn a_part_that_is_not_there_or_too_far_in_is_refused() {
        let of = |range: &str| Wanted::of(&asked(Some(range)), &mut answered(200, 1 << 40));
        let behind = Wanted::of(&asked(Some("bytes=25-26")), &mut answered(200, 25));
        assert_eq!(behind.unwrap_err().kind(), ErrorKind::RangeNotSatisfied);
        of("bytes=67108864-67108865").unwrap();
        let far = of("bytes=67108865-67108866").unwrap_err();
        assert_eq!(far.kind(), ErrorKind::Unsupported);
    }

    /// A 200 without a length was taken for the part itself: the first bytes of the object in place of those asked for.
    #[test]
    fn all_of_unknown_length_is_no_part() {
        let of = |range: &str, status: u16| {
            let head = Response::builder().status(status).body(()).unwrap();
            Wanted::of(&asked(Some(range)), &mut head.into_parts().0)
        };
        let whole = of("bytes=10-19", 200).unwrap_err();
        assert_eq!(whole.kind(), ErrorKind::Unsupported);
        assert_eq!(of("bytes=10-19", 206).unwrap(), Wanted::all(10));
        assert_eq!(of("bytes=0-19", 200).unwrap(), Wanted::all(20));
    }

    #[test]
    fn an_error_is_one_whatever_comes_before_it() {
        for body in [
            "",
            " \n",
            "<Error><Code>InternalError</Code></Error>",
            "<?xml version=\"1.0\"?>\n  <Error>",
            "\u{feff}<?xml version=\"1.0\"?><Error xmlns=\"x\">",
        ] {
            assert!(hides_an_error(body.as_bytes()), "{body}");
        }
        for body in ["<Errors/>", "<CompleteMultipartUploadResult/>", "x <Error>"] {
            assert!(!hides_an_error(body.as_bytes()), "{body}");
        }
    }

    #[test]
    fn clocks_are_named_where_they_are_far_apart() {
        let mut headers = HeaderMap::new();
        let now = OffsetDateTime::from_unix_timestamp(1_700_000_000).unwrap();
        clocks(&headers, now).unwrap();
        headers.insert(DATE, HeaderValue::from_static("no date"));
        clocks(&headers, now).unwrap();
        headers.insert(
            DATE,
            HeaderValue::from_static("Tue, 14 Nov 2023 22:13:20 GMT"),
        );
        clocks(&headers, now).unwrap();
        clocks(&headers, now + time::Duration::minutes(15)).unwrap();
        let ahead = clocks(&headers, now + time::Duration::minutes(90)).unwrap_err();
        assert!(
            ahead.message().contains("90 minutes ahead"),
            "{}",
            ahead.message()
        );
        let behind = clocks(&headers, now - time::Duration::minutes(90)).unwrap_err();
        assert!(behind.message().contains("90 minutes behind"));
    }
}
