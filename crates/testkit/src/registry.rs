//! Debian's `docker-registry` as a process: open, with a password, or with TLS under a certificate authority of its own.
//! Where it is not installed that is a [`Skip`].

use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tempfile::TempDir;

use crate::child::Child;
use crate::mount::{Skip, or_skip_if};

/// Set to 1, this makes a test that can't have its server fail.
pub const REQUIRE: &str = "TESTKIT_REQUIRE_SERVERS";

const PATIENCE: Duration = Duration::from_secs(60);
const LISTENING: &str = "listening on ";

/// What kind of registry.
#[derive(Debug, Clone, Copy, Default)]
pub struct Kind {
    /// The user and password it wants; anybody is let in without.
    pub user: Option<(&'static str, &'static str)>,
    /// Speaks https.
    pub tls: bool,
    /// Lets manifests be deleted.
    pub delete: bool,
}

/// A running registry on a port of its own, killed when dropped.
#[derive(Debug)]
pub struct RegistryServer {
    dir: TempDir,
    address: String,
    tls: bool,
    _process: Child,
}

/// What was asked for, or nothing after saying that the test is skipped.
///
/// # Panics
/// If there is nothing and the environment has `TESTKIT_REQUIRE_SERVERS=1`.
#[track_caller]
pub fn or_skip<T>(asked: Result<T, Skip>) -> Option<T> {
    or_skip_if(REQUIRE, asked)
}

impl RegistryServer {
    /// Starts one and waits until it listens.
    ///
    /// # Errors
    /// If this machine can't: says why.
    pub fn start(kind: Kind) -> Result<Self, Skip> {
        let dir = TempDir::with_prefix("testkit-registry-").map_err(skip_of("a directory"))?;
        let config = dir.path().join("config.yml");
        let text = configuration(kind, dir.path())?;
        std::fs::write(&config, text).map_err(skip_of("the configuration"))?;
        let mut command = Command::new("docker-registry");
        command
            .arg("serve")
            .arg(&config)
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut process = Child::spawn(&mut command).map_err(skip_of("docker-registry"))?;
        let stderr = process
            .stderr()
            .ok_or_else(|| Skip::new("it has no stderr"))?;
        Ok(Self {
            address: address(stderr, "docker-registry", LISTENING)?,
            dir,
            tls: kind.tls,
            _process: process,
        })
    }

    /// Runs its garbage collection, beside it, as its documentation says: what no manifest has goes.
    ///
    /// # Errors
    /// If it fails: with what it said.
    pub fn collect_garbage(&self) -> Result<(), String> {
        let output = Command::new("docker-registry")
            .arg("garbage-collect")
            .arg(self.dir.path().join("config.yml"))
            .output()
            .map_err(|error| error.to_string())?;
        match output.status.success() {
            true => Ok(()),
            false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
        }
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// `http://127.0.0.1:PORT`, or with https.
    pub fn url(&self) -> String {
        let scheme = if self.tls { "https" } else { "http" };
        format!("{scheme}://{}", self.address)
    }

    /// The certificate of its authority, in PEM; there with TLS alone.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }

    /// Where it keeps its data: `docker/registry/v2/…` below this.
    pub fn data(&self) -> PathBuf {
        self.dir.path().join("data")
    }
}

/// It takes any free port and says which: there is no time in which another could take it.
fn configuration(kind: Kind, dir: &Path) -> Result<String, Skip> {
    let root = dir.display();
    let mut text = format!(
        "version: 0.1\nlog: {{level: info}}\nstorage:\n  cache: {{blobdescriptor: inmemory}}\n  filesystem: {{rootdirectory: {root}/data}}\n  \
         delete: {{enabled: {}}}\nhttp:\n  addr: 127.0.0.1:0\n",
        kind.delete
    );
    if kind.tls {
        make_certificates(dir)?;
        text += &format!("  tls: {{certificate: {root}/server.pem, key: {root}/key.pem}}\n");
    }
    if let Some((user, password)) = kind.user {
        make_htpasswd(dir, user, password)?;
        text += &format!("auth:\n  htpasswd: {{realm: testkit, path: {root}/htpasswd}}\n");
    }
    Ok(text)
}

fn make_htpasswd(dir: &Path, user: &str, password: &str) -> Result<(), Skip> {
    let output = Command::new("htpasswd")
        .args(["-Bbn", user, password])
        .output()
        .map_err(skip_of("htpasswd"))?;
    std::fs::write(dir.join("htpasswd"), output.stdout).map_err(skip_of("htpasswd"))
}

/// An authority and a certificate for 127.0.0.1 and localhost that it signed: `ca.pem`, `server.pem` and `key.pem`.
pub(crate) fn make_certificates(dir: &Path) -> Result<(), Skip> {
    let failed = |error: rcgen::Error| Skip::new(format!("certificates: {error}"));
    let mut authority = CertificateParams::default();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = KeyPair::generate().map_err(failed)?;
    let authority = CertifiedIssuer::self_signed(authority, key).map_err(failed)?;
    let names = ["127.0.0.1".to_owned(), "localhost".to_owned()];
    let server_key = KeyPair::generate().map_err(failed)?;
    let server = CertificateParams::new(names)
        .and_then(|server| server.signed_by(&server_key, &authority))
        .map_err(failed)?;
    for (name, pem) in [
        ("ca.pem", authority.pem()),
        ("server.pem", server.pem()),
        ("key.pem", server_key.serialize_pem()),
    ] {
        std::fs::write(dir.join(name), pem).map_err(skip_of(name))?;
    }
    Ok(())
}

/// Where it says that it listens. The rest of what it says is read too, so that it never waits for a reader.
pub(crate) fn address(
    said: impl Read + Send + 'static,
    who: &'static str,
    before: &'static str,
) -> Result<String, Skip> {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut last = String::new();
        for line in BufReader::new(said).lines().map_while(Result::ok) {
            if let Some((_, rest)) = line.split_once(before) {
                let end = rest.find([',', '"']).unwrap_or(rest.len());
                let _ = sender.send(Ok(rest[..end].to_owned()));
            }
            last = line;
        }
        let _ = sender.send(Err(last));
    });
    match receiver.recv_timeout(PATIENCE) {
        Ok(Ok(address)) => Ok(address),
        Ok(Err(said)) => Err(Skip::new(format!("{who} ended: {said}"))),
        Err(_) => Err(Skip::new(format!("{who} does not say where it listens"))),
    }
}

pub(crate) fn skip_of(what: &str) -> impl FnOnce(std::io::Error) -> Skip {
    move |error| Skip::new(format!("{what}: {error}"))
}
