//! Streams in bad weather: resumed where that is safe, never complete where they are not.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use testkit::weather::{Asked, Reply};

use super::*;
use crate::ErrorKind;

/// Answers a GET as a registry that takes ranges.
fn ranged(asked: &Asked, bytes: &[u8]) -> Reply {
    let Some(range) = asked.header("range") else {
        return Reply::ok(bytes);
    };
    let (first, last) = range
        .strip_prefix("bytes=")
        .unwrap()
        .split_once('-')
        .unwrap();
    let (first, last): (usize, usize) = (first.parse().unwrap(), last.parse().unwrap());
    Reply::Full(206, Vec::new(), bytes[first..=last].to_vec()).with(
        "Content-Range",
        format!("bytes {first}-{last}/{}", bytes.len()),
    )
}

#[tokio::test]
async fn a_connection_that_breaks_is_resumed_where_it_broke() {
    let bytes = some_bytes(1, 300_000);
    let served = bytes.clone();
    let weather = Weather::new(move |asked, number| match number {
        0 => Reply::Cut(served[..100_000].to_vec(), 300_000),
        1 => Reply::status(503),
        _ => ranged(asked, &served),
    });
    let sha256 = Sha256::of(&bytes);
    let (result, back) = pulled(&*under(&weather), &repository(), sha256, 300_000, None).await;
    result.unwrap();
    assert!(back == bytes);
    let ranges: Vec<_> = weather
        .asked()
        .iter()
        .map(|a| a.header("range").map(str::to_owned))
        .collect();
    assert_eq!(ranges[0], None);
    assert!(
        ranges[2].as_ref().unwrap().ends_with("-299999"),
        "{ranges:?}"
    );
}

#[tokio::test]
async fn a_server_without_ranges_sends_all_and_we_take_what_we_need() {
    let bytes = some_bytes(2, 300_000);
    let served = bytes.clone();
    let weather = Weather::new(move |_, number| match number {
        0 => Reply::Cut(served[..100_000].to_vec(), 300_000),
        _ => Reply::ok(served.clone()),
    });
    let (registry, sha256) = (under(&weather), Sha256::of(&bytes));
    let (result, back) = pulled(&*registry, &repository(), sha256, 300_000, None).await;
    result.unwrap();
    assert!(back == bytes);
    let (result, part) = pulled(&*registry, &repository(), sha256, 300_000, Some(5..10)).await;
    result.unwrap();
    assert_eq!(part, bytes[5..10]);
}

#[tokio::test]
async fn a_resumed_stream_of_other_bytes_is_damage() {
    let bytes = some_bytes(3, 300_000);
    let (served, other) = (bytes.clone(), some_bytes(4, 300_000));
    let weather = Weather::new(move |asked, number| match number {
        0 => Reply::Cut(served[..100_000].to_vec(), 300_000),
        _ => ranged(asked, &other),
    });
    let sha256 = Sha256::of(&bytes);
    let (result, back) = pulled(&*under(&weather), &repository(), sha256, 300_000, None).await;
    let error = result.unwrap_err();
    assert_eq!((error.kind(), back.len()), (ErrorKind::Damaged, 300_000));
    assert!(error.to_string().contains("its bytes are"), "{error}");
}

#[tokio::test]
async fn a_stream_that_ends_early_or_lies_of_its_range_is_damage() {
    let cases = [
        (Reply::ok(vec![0; 9]), None, "it has 9 bytes, not 10"),
        (Reply::status(416), None, "fewer bytes than 10"),
        (
            Reply::Full(206, Vec::new(), vec![0; 5]).with("Content-Range", "bytes 0-4/10"),
            Some(5..10),
            "for one from 5",
        ),
        (
            Reply::Full(206, Vec::new(), vec![0; 4]).with("Content-Range", "bytes 5-8/10"),
            Some(5..10),
            "it ends after 9 bytes of 10",
        ),
        (
            Reply::Full(206, Vec::new(), vec![0; 6]).with("Content-Range", "bytes 5-10/10"),
            Some(5..10),
            "it has more than 10 bytes",
        ),
    ];
    for (reply, range, text) in cases {
        let weather = Weather::new(move |_, _| reply.clone());
        let sha256 = Sha256::of(b"x");
        let (result, _) = pulled(&*under(&weather), &repository(), sha256, 10, range).await;
        let error = result.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Damaged);
        assert!(error.to_string().contains(text), "{error}");
        assert_eq!(weather.asked().len(), 1);
    }
}

#[tokio::test]
async fn a_server_that_drips_does_not_keep_us_for_ever() {
    let weather = Weather::new(|_, _| Reply::Cut(vec![0], 1 << 30));
    let sha256 = Sha256::of(b"x");
    let (result, back) = pulled(&*under(&weather), &repository(), sha256, 1 << 30, None).await;
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Unavailable);
    assert!(back.len() <= 5 && weather.asked().len() == 5);
}

fn registry_that_takes(patch: Reply) -> Weather {
    Weather::new(move |asked, _| match asked.method.as_str() {
        "POST" => Reply::status(202).with("Location", "uploads/1"),
        "PATCH" => patch.clone(),
        "DELETE" => Reply::status(204),
        _ => created(asked),
    })
}

fn methods(weather: &Weather) -> Vec<String> {
    weather
        .asked()
        .into_iter()
        .map(|asked| asked.method)
        .collect()
}

#[tokio::test]
async fn a_stream_goes_up_in_one_request_and_is_committed_by_its_digest() {
    let weather = registry_that_takes(Reply::status(202).with("Location", "/v2/ns/up/2?s=1"));
    let bytes = some_bytes(5, 200_000);
    let sha256 = pushed(&*under(&weather), &repository(), &bytes, End::Well).await;
    let sha256 = sha256.unwrap();
    let asked = weather.asked();
    assert_eq!(methods(&weather), ["POST", "PATCH", "PUT"]);
    assert!(asked[1].body == bytes && asked[1].complete);
    assert_eq!(
        asked[2].target.replace("%3A", ":"),
        format!("/v2/ns/up/2?s=1&digest={sha256}")
    );
}

#[tokio::test]
async fn an_unfinished_stream_is_never_committed() {
    for patch in [202, 201, 500, 401, 413].map(Reply::status) {
        let weather = registry_that_takes(patch.with("Location", "/v2/ns/up/2"));
        let bytes = some_bytes(6, 200_000);
        for end in [End::Early, End::Failed("disk")] {
            pushed(&*under(&weather), &repository(), &bytes, end)
                .await
                .unwrap_err();
        }
        let asked = weather.asked();
        assert!(asked.iter().all(|asked| asked.method != "PUT"));
        let patches = asked.iter().filter(|asked| asked.method == "PATCH");
        assert!(patches.into_iter().all(|asked| !asked.complete));
        assert!(asked.iter().any(|asked| asked.method == "DELETE"));
    }
}

#[tokio::test]
async fn a_refused_stream_is_the_registrys_error_and_is_not_sent_again() {
    let weather = registry_that_takes(Reply::status(413));
    let error = pushed(&*under(&weather), &repository(), b"bytes", End::Well)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
    assert!(error.hint().unwrap().contains("registry.chunk_bytes"));
    assert_eq!(methods(&weather), ["POST", "PATCH", "DELETE"]);
}

/// A registry that takes `appetite` bytes of each of the first `cuts` PATCHes, and then closes the connection. What it
/// says of an upload is made by `say` from how much it has.
fn hungry(cuts: usize, appetite: usize, say: fn(usize) -> Reply) -> Weather {
    let (eaten, patches) = (Mutex::new(Vec::new()), Arc::new(AtomicUsize::new(0)));
    let is_cut = {
        let patches = Arc::clone(&patches);
        move || patches.load(Ordering::SeqCst) < cuts
    };
    let is_cut_now = is_cut.clone();
    let appetite = move |asked: &Asked, _| match &*asked.method {
        "PATCH" if is_cut() => appetite,
        _ => usize::MAX,
    };
    Weather::with_appetite(appetite, move |asked, _| {
        let mut eaten = eaten.lock().unwrap();
        match asked.method.as_str() {
            "POST" => {
                eaten.clear();
                Reply::status(202).with("Location", "/v2/ns/up/1")
            }
            "PATCH" => {
                eaten.extend_from_slice(&asked.body);
                let is_cut = is_cut_now();
                patches.fetch_add(1, Ordering::SeqCst);
                if is_cut {
                    Reply::HangUp
                } else {
                    Reply::status(202).with("Location", "/v2/ns/up/2")
                }
            }
            "GET" => say(eaten.len()),
            "PUT" if asked.target.contains(&Sha256::of(&eaten).hex()) => created(asked),
            "PUT" => Reply::status(400),
            _ => Reply::status(204),
        }
    })
}

fn says_how_far_it_is(eaten: usize) -> Reply {
    let range = format!("0-{}", eaten.saturating_sub(1));
    Reply::status(204)
        .with("Range", range)
        .with("Location", "/v2/ns/up/1")
}

/// Pushes 5 MB, and says what was asked and how many bytes the registry got in all.
async fn pushed_to(weather: &Weather) -> (Result<Sha256>, Vec<String>, usize) {
    let bytes = some_bytes(9, 5_000_000);
    let pushed = pushed(&*under(weather), &repository(), &bytes, End::Well).await;
    if let Ok(stored) = &pushed {
        assert_eq!(*stored, Sha256::of(&bytes));
    }
    let asked = weather.asked();
    let patches = asked.iter().filter(|asked| asked.method == "PATCH");
    let sent = patches.map(|asked| asked.body.len()).sum();
    (pushed, methods(weather), sent)
}

/// A connection that was cut after 29 of 30 GB was an error, and the next push began with the first byte. The registry is
/// asked how far it is, and sent the rest.
#[tokio::test]
async fn an_upload_that_is_cut_off_goes_on_where_the_registry_is() {
    let weather = hungry(2, 2_000_000, says_how_far_it_is);
    let (pushed, methods, sent) = pushed_to(&weather).await;
    pushed.unwrap();
    assert_eq!(
        methods,
        ["POST", "PATCH", "GET", "PATCH", "GET", "PATCH", "PUT"]
    );
    assert_eq!(sent, 5_000_000, "nothing twice");
    let asked = weather.asked();
    let ranges = [1, 3, 5].map(|at: usize| asked[at].header("content-range"));
    let expected = [None, Some("2000000-4999999"), Some("4000000-4999999")];
    assert_eq!(ranges, expected);
}

/// The last bytes arrived and the answer did not: there is nothing to send, only to commit.
#[tokio::test]
async fn an_upload_that_is_all_there_is_committed() {
    let weather = hungry(1, 5_000_000, says_how_far_it_is);
    let (pushed, methods, sent) = pushed_to(&weather).await;
    pushed.unwrap();
    assert_eq!(methods, ["POST", "PATCH", "GET", "PUT"]);
    assert_eq!(sent, 5_000_000);
}

/// The reference implementation forgets an upload that was cut off; others say how much they have, and have something else.
#[tokio::test]
async fn an_upload_begins_anew_where_a_registry_does_not_know_how_far_it_is() {
    let forgets = hungry(1, 2_000_000, |_| Reply::status(404));
    let (pushed, methods, sent) = pushed_to(&forgets).await;
    pushed.unwrap();
    let again = ["DELETE", "POST", "PATCH", "PUT"];
    assert_eq!(methods, [&["POST", "PATCH", "GET"][..], &again].concat());
    assert_eq!(sent, 7_000_000);

    let errs = hungry(1, 2_000_000, |eaten| says_how_far_it_is(eaten - 1));
    let (pushed, methods, _) = pushed_to(&errs).await;
    pushed.unwrap();
    let believed = ["POST", "PATCH", "GET", "PATCH", "PUT"];
    assert_eq!(methods, [&believed[..], &again].concat());
}

/// A registry that answers before it has read the body keeps the connection waiting for the rest of it: whoever sends that is
/// stopped, and begins the next one.
#[tokio::test]
async fn an_upload_that_is_answered_early_is_tried_again() {
    let early = |asked: &Asked, number| match (&*asked.method, number) {
        ("PATCH", 1) => 1,
        _ => usize::MAX,
    };
    let weather = Weather::with_appetite(early, |asked, number| match &*asked.method {
        "PATCH" if number == 1 => Reply::Held(503),
        "POST" | "PATCH" => Reply::status(202).with("Location", "/v2/ns/up/1"),
        "PUT" => created(asked),
        _ => Reply::status(404),
    });
    let bytes = some_bytes(10, 30_000_000);
    let stored = pushed(&*under(&weather), &repository(), &bytes, End::Well).await;
    assert_eq!(stored.unwrap(), Sha256::of(&bytes));
}

#[tokio::test]
async fn an_upload_that_gets_nowhere_ends() {
    let weather = hungry(usize::MAX, 2, says_how_far_it_is);
    let (pushed, methods, _) = pushed_to(&weather).await;
    assert_eq!(pushed.unwrap_err().kind(), ErrorKind::Unavailable);
    // The last GET's upload is given up.
    let patches = methods.iter().filter(|method| *method == "PATCH").count();
    assert!((5..=20).contains(&patches), "{methods:?}");
    assert_eq!(methods.last().unwrap(), "DELETE");
}

#[tokio::test]
async fn a_commit_whose_answer_is_lost_is_looked_for() {
    let weather = Weather::new(|asked, _| match asked.method.as_str() {
        "POST" | "PATCH" => Reply::status(202).with("Location", "/v2/ns/up/2"),
        "GET" => Reply::ok("bytes"),
        _ => Reply::HangUp,
    });
    let stored = pushed(&*under(&weather), &repository(), b"bytes", End::Well).await;
    assert_eq!(stored.unwrap(), Sha256::of(b"bytes"));
    assert_eq!(methods(&weather), ["POST", "PATCH", "PUT", "GET"]);
}
