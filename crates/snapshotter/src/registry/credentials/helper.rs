//! Docker's credential helpers: `docker-credential-<name> get`, the server's name on its input, JSON on its output.
//!
//! A helper may wait for a person, a network or for ever, so it has a time limit and is killed after it. Whatever it
//! prints is a secret until it is known to be none: no output reaches an error.

use std::io::{Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Instant;

use serde::Deserialize;

use super::{Credentials, Helpers};
use crate::registry::secret::Secret;
use crate::words::digest::excerpt;
use crate::words::error::{Error, ErrorKind, Result};

const MAX_BYTES: u64 = 64 << 10;
/// What helpers print, and exit with 1, when they know nothing of a server.
const NOT_FOUND: &str = "credentials not found";
/// The user name that says the secret is a refresh token.
const IDENTITY: &str = "<token>";

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    secret: String,
}

/// What a helper knows of a server. Blocks.
pub(super) fn ask(name: &str, server: &str, helpers: &Helpers) -> Result<Option<Credentials>> {
    let program = program(name)?;
    let mut child = start(&program, helpers)?;
    let (said, status) = converse(&program, &mut child, server, helpers)?;
    if status.success() {
        return answer(&program, &said).map(Some);
    }
    if String::from_utf8_lossy(&said).contains(NOT_FOUND) {
        return Ok(None);
    }
    Err(failed(&program, &format!("failed ({status})")))
}

/// The helper's file name. It comes from a file and is searched for in the path, so it must not be a path itself.
fn program(name: &str) -> Result<String> {
    let valid = !name.is_empty()
        && name.len() <= 64
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'));
    if !valid {
        return Err(Error::invalid(format!(
            "the credential helper \"{}\" is not a name: letters, digits, '-', '_' and '.' are",
            excerpt(name)
        )));
    }
    Ok(format!("docker-credential-{name}"))
}

fn start(program: &str, helpers: &Helpers) -> Result<Child> {
    let path = helpers
        .dir
        .as_ref()
        .map_or_else(|| program.into(), |dir| dir.join(program));
    Command::new(path)
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| failed(program, "cannot be started").with_source(error))
}

/// Asks, reads the bounded answer and waits for the end, all within the limit.
fn converse(
    program: &str,
    child: &mut Child,
    server: &str,
    helpers: &Helpers,
) -> Result<(Vec<u8>, ExitStatus)> {
    let deadline = Instant::now() + helpers.limit;
    // A server's name fits the pipe; a helper that does not read it says what is wrong by its exit status.
    if let Some(mut stdin) = child.stdin.take() {
        let _ = stdin.write_all(server.as_bytes());
    }
    let (sender, receiver) = mpsc::channel();
    if let Some(stdout) = child.stdout.take() {
        // Not joined: a grandchild may keep the pipe open after the helper was killed.
        let reading = std::thread::Builder::new().spawn(move || {
            let mut said = Vec::new();
            let read = stdout.take(MAX_BYTES + 1).read_to_end(&mut said);
            let _ = sender.send(read.map(|_| said));
        });
        if reading.is_err() {
            end(child);
            return Err(failed(program, "cannot be read: there are no more threads"));
        }
    }
    let left = deadline.saturating_duration_since(Instant::now());
    let said = match receiver.recv_timeout(left) {
        Ok(Ok(said)) if said.len() as u64 <= MAX_BYTES => said,
        Ok(_) => {
            end(child);
            return Err(failed(program, "gave no answer that can be read"));
        }
        Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => {
            end(child);
            return Err(late(program, helpers));
        }
    };
    Ok((said, wait(program, child, deadline, helpers)?))
}

/// Its output is closed, so it is about to end; if not, it is killed.
fn wait(
    program: &str,
    child: &mut Child,
    deadline: Instant,
    helpers: &Helpers,
) -> Result<ExitStatus> {
    loop {
        match child.try_wait() {
            Ok(Some(status)) => return Ok(status),
            Ok(None) if Instant::now() < deadline => {
                std::thread::sleep(std::time::Duration::from_millis(2));
            }
            _ => {
                end(child);
                return Err(late(program, helpers));
            }
        }
    }
}

fn end(child: &mut Child) {
    let _ = child.kill();
    let _ = child.wait();
}

fn answer(program: &str, said: &[u8]) -> Result<Credentials> {
    let answer: Answer = serde_json::from_slice(said)
        .map_err(|_| failed(program, "gave an answer that is not of the right form"))?;
    let secret = Secret::new(answer.secret);
    Ok(if answer.username == IDENTITY {
        Credentials::Identity(secret)
    } else {
        Credentials::Basic {
            username: answer.username,
            password: secret,
        }
    })
}

fn failed(program: &str, how: &str) -> Error {
    let text = format!("the credential helper {program} {how}");
    Error::new(ErrorKind::PermissionDenied, text)
        .with_hint("log in again with docker login, or take the helper out of Docker's config.json")
}

fn late(program: &str, helpers: &Helpers) -> Error {
    let text = format!(
        "the credential helper {program} gave no answer within {:?}",
        helpers.limit
    );
    Error::new(ErrorKind::Unavailable, text)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;
    use std::path::Path;
    use std::time::Duration;

    use super::*;

    /// A helper of this script, made by `cp` in a process of its own: no descriptor of a file that this process wrote
    /// can keep another test's child from being executed.
    fn helper(dir: &Path, script: &str) -> Helpers {
        let (source, target) = (dir.join("source"), dir.join("docker-credential-test"));
        std::fs::write(&source, format!("#!/bin/sh\n{script}\n")).unwrap();
        let mut mode = std::fs::metadata(&source).unwrap().permissions();
        mode.set_mode(0o755);
        std::fs::set_permissions(&source, mode).unwrap();
        let copied = Command::new("cp").arg(&source).arg(&target).status();
        assert!(copied.unwrap().success());
        Helpers {
            limit: Duration::from_secs(20),
            dir: Some(dir.to_owned()),
        }
    }

    fn asked(script: &str) -> Result<Option<Credentials>> {
        let dir = tempfile::tempdir().unwrap();
        let helpers = helper(dir.path(), script);
        ask("test", "r.example.com:5000", &helpers)
    }

    #[test]
    fn answers() {
        let basic = asked(
            r#"test "$1" = get && printf '{"ServerURL":"x","Username":"%s","Secret":"s"}' "$(cat)""#,
        );
        let expected = Credentials::Basic {
            username: "r.example.com:5000".into(),
            password: Secret::new("s"),
        };
        assert_eq!(basic.unwrap(), Some(expected));
        let token = asked(r#"cat >/dev/null; echo '{"Username":"<token>","Secret":"t"}'"#);
        assert_eq!(
            token.unwrap(),
            Some(Credentials::Identity(Secret::new("t")))
        );
        let none = asked("echo credentials not found in native keychain; exit 1");
        assert_eq!(none.unwrap(), None);
    }

    #[test]
    fn what_a_helper_prints_is_in_no_error() {
        for script in [
            "echo hunter2; echo hunter2 >&2; exit 1",
            "echo hunter2",
            r#"echo '{"Secret":["hunter2"]}'"#,
            "while true; do echo hunter2; done",
        ] {
            let error = asked(script).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::PermissionDenied, "{error}");
            assert!(error.to_string().contains("docker-credential-test"));
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
    }

    #[test]
    fn a_helper_that_hangs_is_killed() {
        for script in ["exec sleep 1000", "exec sleep 1000 >/dev/null"] {
            let dir = tempfile::tempdir().unwrap();
            let helpers = Helpers {
                limit: Duration::from_millis(100),
                ..helper(dir.path(), script)
            };
            let error = ask("test", "r", &helpers).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Unavailable);
            assert!(error.to_string().contains("within 100ms"), "{error}");
        }
    }

    #[test]
    fn a_helper_that_is_not_there_or_no_name() {
        let dir = tempfile::tempdir().unwrap();
        let helpers = Helpers {
            dir: Some(dir.path().to_owned()),
            ..Helpers::default()
        };
        let error = ask("missing", "r", &helpers).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::PermissionDenied);
        assert!(
            error
                .to_string()
                .contains("docker-credential-missing cannot be started")
        );
        for name in ["", "../x", "a/b", "a b", "a;b", "é"] {
            let error = ask(name, "r", &helpers).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}");
        }
    }
}
