//! Moto's S3 server (`moto_server`, from PyPI) as a process: a second server of the protocol, written by other people in
//! another language. It checks no signatures. Where it is not installed that is a [`Skip`].

use std::process::{Command, Stdio};

use crate::child::Child;
use crate::http;
use crate::mount::{Skip, or_skip_if};
use crate::registry::{address, skip_of};

/// Set to 1, this makes a test that can't have this server fail.
pub const REQUIRE: &str = "TESTKIT_REQUIRE_MOTO";

/// A running server with one bucket, killed when dropped.
#[derive(Debug)]
pub struct Moto {
    address: String,
    bucket: String,
    _process: Child,
}

/// What was asked for, or nothing after saying that the test is skipped.
///
/// # Panics
/// If there is nothing and the environment has `TESTKIT_REQUIRE_MOTO=1`.
#[track_caller]
pub fn or_skip<T>(asked: Result<T, Skip>) -> Option<T> {
    or_skip_if(REQUIRE, asked)
}

impl Moto {
    /// Starts one with an empty bucket, on a port that it chooses.
    ///
    /// # Errors
    /// If this machine can't: says why.
    pub fn start(bucket: &str) -> Result<Self, Skip> {
        let mut command = Command::new("moto_server");
        command
            .args(["-H", "127.0.0.1", "-p", "0"])
            .env("PYTHONUNBUFFERED", "1")
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = Child::spawn(&mut command).map_err(skip_of("moto_server"))?;
        let stderr = process
            .stderr()
            .ok_or_else(|| Skip::new("it has no stderr"))?;
        let server = Self {
            address: address(stderr, "moto_server", "Running on http://")?,
            bucket: bucket.to_owned(),
            _process: process,
        };
        server.send("PUT", "", b"");
        Ok(server)
    }

    /// Its URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The bucket's name.
    #[must_use]
    pub fn bucket(&self) -> &str {
        &self.bucket
    }

    /// What it says to a request about the bucket, or about what is in it.
    ///
    /// # Panics
    /// When it says nothing.
    pub fn send(&self, method: &str, target: &str, body: &[u8]) -> http::Answer {
        let target = format!("/{}{target}", self.bucket);
        let headers = [
            // Without one it takes the body for a form.
            ("Content-Type", "application/octet-stream"),
            // Anybody may do this and that; who says who he is may do all.
            (
                "Authorization",
                "AWS4-HMAC-SHA256 Credential=testkit/20260101/us-east-1/s3/aws4_request",
            ),
        ];
        http::send(&self.address, method, &target, &headers, body).expect("an answer")
    }

    /// Puts an object there.
    ///
    /// # Panics
    /// When it is not taken.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        let answer = self.send("PUT", &format!("/{key}"), bytes);
        assert_eq!(answer.status, 200, "{answer:?}");
    }

    /// The keys in the bucket, sorted.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let mut keys = self.listed("?list-type=2", "Key");
        keys.sort();
        keys
    }

    /// How many multipart uploads were begun and neither finished nor aborted.
    #[must_use]
    pub fn unfinished_uploads(&self) -> usize {
        self.listed("?uploads", "UploadId").len()
    }

    fn listed(&self, target: &str, element: &str) -> Vec<String> {
        let text = String::from_utf8(self.send("GET", target, b"").body).expect("XML");
        let (open, close) = (format!("<{element}>"), format!("</{element}>"));
        let after = text.split(&open).skip(1);
        after
            .filter_map(|rest| Some(rest.split_once(&close)?.0.to_owned()))
            .collect()
    }
}
