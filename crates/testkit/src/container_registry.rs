//! `container-registry` (from crates.io) as a process: a second registry, written by other people in another language than
//! docker-registry. It does what Docker needs and little else: no lists, no deletion, no ranges, names of two parts. Where it is
//! not installed that is a [`Skip`].

use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::child::Child;
use crate::mount::{Skip, or_skip_if};
use crate::registry::{address, skip_of};

/// Set to 1, this makes a test that can't have this server fail.
pub const REQUIRE: &str = "TESTKIT_REQUIRE_CONTAINER_REGISTRY";

/// What it wants; any user will do.
pub const PASSWORD: &str = "correct-horse";

/// A running registry on a port of its own, killed when dropped.
#[derive(Debug)]
pub struct ContainerRegistry {
    address: String,
    _dir: TempDir,
    _process: Child,
}

/// What was asked for, or nothing after saying that the test is skipped.
///
/// # Panics
/// If there is nothing and the environment has `TESTKIT_REQUIRE_CONTAINER_REGISTRY=1`.
#[track_caller]
pub fn or_skip<T>(asked: Result<T, Skip>) -> Option<T> {
    or_skip_if(REQUIRE, asked)
}

impl ContainerRegistry {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    /// If this machine can't: says why.
    pub fn start() -> Result<Self, Skip> {
        const NAME: &str = "container-registry";
        let dir = TempDir::with_prefix("testkit-registry-").map_err(skip_of("a directory"))?;
        let mut command = Command::new(NAME);
        command
            .args(["--bind", "127.0.0.1:0", "--password", PASSWORD, "--storage"])
            .arg(dir.path())
            .env("NO_COLOR", "1")
            .stdout(Stdio::piped())
            .stderr(Stdio::null());
        let mut process = Child::spawn(&mut command).map_err(skip_of(NAME))?;
        let stdout = process
            .stdout()
            .ok_or_else(|| Skip::new("it has no stdout"))?;
        Ok(Self {
            address: address(stdout, NAME, "addr=")?,
            _dir: dir,
            _process: process,
        })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}
