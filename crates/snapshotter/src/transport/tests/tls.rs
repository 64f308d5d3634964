//! TLS with a private authority: trusted when configured, refused when not, taken unseen when that is asked for.

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use super::bucket::configuration;
use crate::transport::object::{ObjectStorage, Tuning};
use crate::transport::{Content, ContentTransport};
use crate::words::error::{Error, ErrorKind};

/// openssl's own little server, which answers every GET with a page of its own and so proves the handshake.
struct Server {
    dir: tempfile::TempDir,
    child: Child,
    port: u16,
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn openssl(dir: &Path, arguments: &str) -> Command {
    let mut command = Command::new("openssl");
    command
        .args(arguments.split(' '))
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command
}

fn run(dir: &Path, arguments: &str) -> bool {
    openssl(dir, arguments)
        .status()
        .is_ok_and(|status| status.success())
}

/// `None` where there is no openssl.
fn server() -> Option<Server> {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path();
    std::fs::write(at.join("leaf.cnf"), "subjectAltName=IP:127.0.0.1\n").unwrap();
    let new = "req -newkey rsa:2048 -nodes -subj";
    let made = run(
        at,
        &format!("{new} /CN=ca -x509 -days 2 -keyout ca.key -out ca.pem"),
    ) && run(
        at,
        &format!("{new} /CN=leaf -keyout leaf.key -out leaf.csr"),
    ) && run(
        at,
        "x509 -req -in leaf.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile leaf.cnf -out leaf.pem",
    );
    if !made {
        return None;
    }
    let free = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = free.local_addr().unwrap().port();
    drop(free);
    let serve =
        format!("s_server -accept 127.0.0.1:{port} -cert leaf.pem -key leaf.key -www -quiet");
    let mut child = openssl(at, &serve).spawn().unwrap();
    while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(child.try_wait().unwrap().is_none(), "openssl has ended");
        std::thread::yield_now();
    }
    Some(Server { dir, child, port })
}

async fn said(content: &Content) -> Error {
    let transport = ObjectStorage::tuned(content, Tuning::default()).unwrap();
    transport.check().await.unwrap_err()
}

fn cause(error: &Error) -> String {
    std::error::Error::source(error).map_or_else(String::new, ToString::to_string)
}

#[tokio::test]
async fn a_private_authority_is_trusted_where_it_is_configured() {
    let Some(server) = server() else {
        testkit::mount::report_skip("there is no openssl");
        return;
    };
    let mut content = configuration(&format!("https://127.0.0.1:{}", server.port), "ckpt");
    content.retries = 0;
    let stranger = said(&content).await;
    assert_eq!(stranger.kind(), ErrorKind::Unavailable);
    assert!(
        cause(&stranger).contains("certificate"),
        "{}",
        cause(&stranger)
    );

    // Past the handshake the page is not what was asked for.
    content.ca_file = Some(server.dir.path().join("ca.pem"));
    let known = said(&content).await;
    assert!(!cause(&known).contains("certificate"), "{}", cause(&known));
    content.ca_file = None;
    content.insecure_skip_verify = true;
    let unseen = said(&content).await;
    assert!(
        !cause(&unseen).contains("certificate"),
        "{}",
        cause(&unseen)
    );
    assert_eq!(cause(&known), cause(&unseen));
}

#[test]
fn a_file_without_certificates_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut content = configuration("https://127.0.0.1:1", "ckpt");
    content.ca_file = Some(dir.path().join("none.pem"));
    let open = |content: &Content| ObjectStorage::tuned(content, Tuning::default()).unwrap_err();
    assert_eq!(open(&content).kind(), ErrorKind::NotFound);
    std::fs::write(dir.path().join("none.pem"), "nothing").unwrap();
    let error = open(&content);
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().starts_with("content.ca_file"), "{error}");
}
