//! A real S3 protocol server on this machine: s3s over a temporary directory, signatures checked.
//!
//! It runs on a runtime of its own, so that a test's runtime can be paused, dropped or blocked without it. What it keeps
//! can be looked at from outside: an object is a file of its name in the bucket's directory, an upload that was begun
//! and not finished is a hidden file beside the bucket.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto::Builder;
use s3s::auth::SimpleAuth;
use s3s::service::{S3Service, S3ServiceBuilder};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::runtime::Runtime;

/// The one key the server knows.
pub const ACCESS_KEY: &str = "TESTKITACCESSKEY";

/// Its secret: long and odd enough to be found in whatever leaks it.
pub const SECRET_KEY: &str = "testkit/SECRET+key/0123456789abcdefghij";

/// A running server with one bucket. Dropping it stops the server and removes what it kept.
#[derive(Debug)]
pub struct S3 {
    dir: TempDir,
    bucket: String,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl S3 {
    /// Starts a server on a free port of 127.0.0.1 with an empty bucket.
    ///
    /// # Panics
    /// When the machine gives no directory, port or threads.
    #[must_use]
    pub fn start(bucket: &str) -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        std::fs::create_dir(dir.path().join(bucket)).expect("a bucket");
        let mut builder =
            S3ServiceBuilder::new(s3s_fs::FileSystem::new(dir.path()).expect("a file system"));
        builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .enable_all()
            .build()
            .expect("a runtime");
        // Bound here and not there: who starts it may be within a runtime, where nobody may wait for another one.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a free port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        runtime.spawn(serve(listener, builder.build()));
        Self {
            dir,
            bucket: bucket.to_owned(),
            address,
            runtime: Some(runtime),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
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

    /// The file an object is kept in.
    #[must_use]
    pub fn object(&self, key: &str) -> PathBuf {
        self.dir.path().join(&self.bucket).join(key)
    }

    /// Puts an object there without asking the server.
    ///
    /// # Panics
    /// When it cannot be written.
    pub fn put(&self, key: &str, bytes: &[u8]) {
        let file = self.object(key);
        std::fs::create_dir_all(file.parent().expect("a parent")).expect("a directory");
        std::fs::write(file, bytes).expect("an object");
    }

    /// The keys in the bucket, sorted.
    #[must_use]
    pub fn keys(&self) -> Vec<String> {
        let bucket = self.dir.path().join(&self.bucket);
        let mut keys = Vec::new();
        collect(&bucket, &bucket, &mut keys);
        keys.sort();
        keys
    }

    /// Removes all objects without asking the server.
    ///
    /// # Panics
    /// When the directory cannot be emptied.
    pub fn clear(&self) {
        let bucket = self.dir();
        std::fs::remove_dir_all(&bucket).expect("the bucket's directory");
        std::fs::create_dir(&bucket).expect("a bucket");
    }

    /// The bucket's directory.
    #[must_use]
    pub fn dir(&self) -> PathBuf {
        self.dir.path().join(&self.bucket)
    }

    /// How many multipart uploads were begun and neither finished nor aborted.
    ///
    /// # Panics
    /// When the server's directory cannot be read.
    #[must_use]
    pub fn unfinished_uploads(&self) -> usize {
        std::fs::read_dir(self.dir.path())
            .expect("the directory")
            .filter_map(Result::ok)
            .filter(|entry| {
                let name = entry.file_name();
                let name = name.to_string_lossy();
                name.starts_with(".upload-") && name.ends_with(".json")
            })
            .count()
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

async fn serve(listener: std::net::TcpListener, service: S3Service) {
    let listener = TcpListener::from_std(listener).expect("a socket");
    while let Ok((socket, _)) = listener.accept().await {
        let service = service.clone();
        // Answers are written in small pieces: waiting for each other they would take 40 ms apiece.
        let _ = socket.set_nodelay(true);
        tokio::spawn(async move {
            // A client that goes away in mid-request is what some tests are about.
            let _ = Builder::new(TokioExecutor::new())
                .serve_connection(TokioIo::new(socket), service)
                .await;
        });
    }
}

fn collect(bucket: &Path, dir: &Path, keys: &mut Vec<String>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(bucket, &path, keys);
        } else if let Ok(key) = path.strip_prefix(bucket) {
            keys.push(key.to_string_lossy().into_owned());
        }
    }
}
