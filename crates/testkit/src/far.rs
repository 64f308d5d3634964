//! A way to a server that is far: an answer's first byte comes late, and a connection carries so many bytes a second each way.
//!
//! It knows nothing of what goes by: an answer is what comes back after something was sent.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

/// A running way. Dropping it stops nothing: connections end with their clients.
#[derive(Debug)]
pub struct Far {
    address: SocketAddr,
    came: Arc<AtomicU64>,
}

/// How far it is.
#[derive(Debug, Clone, Copy)]
pub struct Distance {
    /// From the last byte sent to the first that comes back.
    pub first_byte: Duration,
    /// Bytes that a connection carries each way in a second.
    pub bytes_per_second: u64,
}

impl Far {
    /// Starts one to a server.
    ///
    /// # Panics
    /// When there is no free port.
    #[must_use]
    pub fn from(server: SocketAddr, distance: Distance) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let came = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&came);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let counter = Arc::clone(&counter);
                // Clients and servers that go away are no concern of the way between them.
                thread::spawn(move || carry(&client, server, distance, &counter));
            }
        });
        Self { address, came }
    }

    /// Its URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Bytes that came back so far.
    #[must_use]
    pub fn came(&self) -> u64 {
        self.came.load(Ordering::Relaxed)
    }
}

fn carry(
    client: &TcpStream,
    server: SocketAddr,
    distance: Distance,
    came: &AtomicU64,
) -> io::Result<()> {
    let server = &TcpStream::connect(server)?;
    server.set_nodelay(true)?;
    client.set_nodelay(true)?;
    let asked = &Mutex::new(None);
    thread::scope(|scope| {
        scope.spawn(move || {
            let _ = pass(server, client, distance, |bytes| {
                came.fetch_add(bytes, Ordering::Relaxed);
                let since: Option<Instant> = lock(asked).take();
                if let Some(since) = since {
                    thread::sleep(distance.first_byte.saturating_sub(since.elapsed()));
                }
            });
            let _ = client.shutdown(Shutdown::Both);
        });
        let _ = pass(client, server, distance, |_| {
            *lock(asked) = Some(Instant::now());
        });
        server.shutdown(Shutdown::Write)
    })
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Carries what comes, and no faster than it may.
fn pass(
    mut from: &TcpStream,
    mut to: &TcpStream,
    distance: Distance,
    mut before: impl FnMut(u64),
) -> io::Result<()> {
    let mut bytes = vec![0; 256 << 10];
    let mut free = Instant::now();
    loop {
        let count = from.read(&mut bytes)?;
        if count == 0 {
            return Ok(());
        }
        before(count as u64);
        thread::sleep(free.saturating_duration_since(Instant::now()));
        to.write_all(&bytes[..count])?;
        let takes = count as f64 / distance.bytes_per_second as f64;
        free = free.max(Instant::now()) + Duration::from_secs_f64(takes);
    }
}
