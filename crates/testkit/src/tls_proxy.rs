//! Debian's `haproxy` as a process: https before a server that speaks http and does not know of it, as most registries run.
//! Where it is not installed that is a [`Skip`].

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::{Command, Stdio};

use tempfile::TempDir;

use crate::child::Child;
use crate::mount::Skip;
use crate::registry::{make_certificates, skip_of};

/// A running proxy on a port of its own, killed when dropped.
#[derive(Debug)]
pub struct TlsProxy {
    dir: TempDir,
    address: String,
    _process: Child,
}

impl TlsProxy {
    /// Starts one before a server's address. It takes its socket over from here, so that nobody can take its port, and nobody
    /// has to wait until it listens.
    ///
    /// # Errors
    /// If this machine can't: says why.
    pub fn before(server: &str) -> Result<Self, Skip> {
        let dir = TempDir::with_prefix("testkit-tls-").map_err(skip_of("a directory"))?;
        make_certificates(dir.path())?;
        let read = |name: &str| std::fs::read_to_string(dir.path().join(name));
        let both = read("server.pem").and_then(|pem| Ok(pem + &read("key.pem")?));
        let both = both.map_err(skip_of("the certificate"))?;
        std::fs::write(dir.path().join("both.pem"), both).map_err(skip_of("the certificate"))?;
        let config = dir.path().join("haproxy.cfg");
        let text = format!(
            "defaults\n  mode http\n  timeout connect 10s\n  timeout client 60s\n  timeout server 60s\n\
             frontend https\n  bind fd@0 ssl crt {root}/both.pem alpn h2,http/1.1\n  default_backend server\n\
             backend server\n  server one {server}\n",
            root = dir.path().display()
        );
        std::fs::write(&config, text).map_err(skip_of("the configuration"))?;
        let socket = TcpListener::bind("127.0.0.1:0").map_err(skip_of("a socket"))?;
        let address = socket.local_addr().map_err(skip_of("a socket"))?;
        let mut command = Command::new("haproxy");
        command
            .args(["-db", "-f"])
            .arg(&config)
            .stdin(OwnedFd::from(socket))
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let process = Child::spawn(&mut command).map_err(skip_of("haproxy"))?;
        Ok(Self {
            dir,
            address: address.to_string(),
            _process: process,
        })
    }

    /// `https://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("https://{}", self.address)
    }

    /// The certificate of its authority, in PEM.
    pub fn ca_file(&self) -> PathBuf {
        self.dir.path().join("ca.pem")
    }
}
