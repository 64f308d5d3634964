//! Another time for a program: Debian's `libfaketime`, which a program that is linked dynamically loads before the C library.
//! Where it is not installed that is a [`Skip`].

use std::path::PathBuf;
use std::process::Command;

use crate::mount::Skip;

/// The library on this machine.
#[derive(Debug, Clone)]
pub struct Clock(PathBuf);

impl Clock {
    /// Looks for it.
    ///
    /// # Errors
    /// If it is not here: says so.
    pub fn find() -> Result<Self, Skip> {
        let machine = std::env::consts::ARCH;
        let path = format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketime.so.1");
        let path = PathBuf::from(path);
        match path.exists() {
            true => Ok(Self(path)),
            false => Err(Skip::new("faketime is not installed")),
        }
    }

    /// Has a command begin at this time of UTC's, `2026-01-05 10:00:00`; files' times stay what they are.
    pub fn set(&self, command: &mut Command, time: &str) {
        command
            .env("TZ", "UTC")
            .env("LD_PRELOAD", &self.0)
            .env("NO_FAKE_STAT", "1")
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
            .env("FAKETIME", format!("@{time}"));
    }
}
