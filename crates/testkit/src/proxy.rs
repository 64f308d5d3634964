//! Bad weather: a proxy in front of an HTTP server that misbehaves as it is told.
//!
//! Every request is shown to a function of the test's, which says what becomes of it. Nothing here waits for time to
//! pass: what is to be late never comes.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::weather::trickle;

/// What a request asks for.
#[derive(Clone, Debug)]
pub struct Asked {
    /// How many requests came before it.
    pub nth: usize,
    /// `GET`, `PUT` and so on.
    pub method: String,
    /// The request's target, query included.
    pub target: String,
    /// The whole head, as it came.
    pub head: String,
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Act {
    /// It reaches the server, and its answer the client.
    Pass,
    /// The client gets this answer instead: status line without the version, further header lines, body.
    Answer(&'static str, &'static str, Vec<u8>),
    /// The same with a head that is made up: the status and further lines, but for the length.
    Say(String, Vec<u8>),
    /// It reaches the server; of the answer's body so many bytes reach the client, then the connection closes.
    Cut(usize),
    /// It reaches the server; the answer's body reaches the client a byte at a time, every few milliseconds.
    Trickle,
    /// The request is read a byte at a time, every few milliseconds, and goes nowhere.
    Sip,
    /// It reaches the server; the connection closes without the answer.
    Lose,
    /// The connection closes at once.
    Close,
    /// Nothing happens until the client goes away.
    Stall,
}

/// A running proxy. Dropping it stops it accepting; connections end with their clients.
#[derive(Debug)]
pub struct Weather {
    address: SocketAddr,
    log: Arc<Mutex<Vec<Asked>>>,
    left: Arc<Left>,
}

/// A way to a server that hands everything on, whatever it is, but the first connection that has carried so many bytes
/// there, which is cut. Connections end with their clients.
#[derive(Debug)]
pub struct Cutting {
    address: SocketAddr,
    cut: Arc<AtomicBool>,
}

impl Cutting {
    /// Starts one before `server` that cuts after so many bytes.
    ///
    /// # Panics
    /// When there is no free port.
    #[must_use]
    pub fn before(server: SocketAddr, bytes: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let cut = Arc::new(AtomicBool::new(false));
        let shared = Arc::clone(&cut);
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let cut = Arc::clone(&shared);
                thread::spawn(move || hand_on(&client, server, bytes, &cut));
            }
        });
        Self { address, cut }
    }

    /// Its URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whether there was such a connection.
    #[must_use]
    pub fn has_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst)
    }
}

fn hand_on(client: &TcpStream, server: SocketAddr, most: u64, cut: &AtomicBool) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    thread::scope(|scope| {
        scope.spawn(|| {
            let _ = io::copy(&mut &server, &mut &*client);
            let _ = client.shutdown(Shutdown::Both);
        });
        let handed = io::copy(&mut client.take(most), &mut &server)?;
        if handed == most && !cut.swap(true, Ordering::SeqCst) {
            return server.shutdown(Shutdown::Both);
        }
        let _ = io::copy(&mut &*client, &mut &server);
        server.shutdown(Shutdown::Write)
    })
}

/// How many clients have left while they were stalled.
#[derive(Debug, Default)]
struct Left {
    count: Mutex<usize>,
    changed: Condvar,
}

const PATIENCE: Duration = Duration::from_secs(60);

type Decide = dyn Fn(&Asked) -> Act + Send + Sync;

impl Weather {
    /// Starts one before `server`. Nothing has to listen there, as long as no request may pass.
    ///
    /// # Panics
    /// When there is no free port.
    pub fn before(
        server: SocketAddr,
        decide: impl Fn(&Asked) -> Act + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("an address");
        let log = Arc::new(Mutex::new(Vec::new()));
        let decide: Arc<Decide> = Arc::new(decide);
        let left = Arc::new(Left::default());
        let (shared, counted) = (Arc::clone(&log), Arc::clone(&left));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (log, decide) = (Arc::clone(&shared), Arc::clone(&decide));
                let left = Arc::clone(&counted);
                // Clients and servers that go away are what this is for.
                thread::spawn(move || serve(&client, server, &log, &left, &*decide));
            }
        });
        Self { address, log, left }
    }

    /// Starts one that answers everything itself.
    pub fn alone(decide: impl Fn(&Asked) -> Act + Send + Sync + 'static) -> Self {
        Self::before(SocketAddr::from(([127, 0, 0, 1], 1)), decide)
    }

    /// Its URL.
    #[must_use]
    pub fn endpoint(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits until so many clients have left while they were stalled, and says whether they did within a minute.
    #[must_use]
    pub fn wait_for_leaving(&self, clients: usize) -> bool {
        let count = self.left.count.lock();
        let count = count.unwrap_or_else(PoisonError::into_inner);
        let waited = self
            .left
            .changed
            .wait_timeout_while(count, PATIENCE, |count| *count < clients);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// The requests so far.
    #[must_use]
    pub fn asked(&self) -> Vec<Asked> {
        let log = self.log.lock();
        log.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One request a connection: the client is told so by the server's own `connection: close`.
fn serve(
    client: &TcpStream,
    server: SocketAddr,
    log: &Mutex<Vec<Asked>>,
    left: &Left,
    decide: &Decide,
) -> io::Result<()> {
    let mut from_client = BufReader::new(client);
    let head = read_head(&mut from_client)?;
    let act = {
        let mut log = log.lock().unwrap_or_else(PoisonError::into_inner);
        let asked = asked(log.len(), &head);
        log.push(asked.clone());
        decide(&asked)
    };
    let mut body = from_client.take(content_length(&head));
    match act {
        Act::Close => Ok(()),
        Act::Stall => {
            let stalled = io::copy(&mut body, &mut io::sink())
                .and_then(|_| io::copy(&mut &*client, &mut io::sink()));
            *left.count.lock().unwrap_or_else(PoisonError::into_inner) += 1;
            left.changed.notify_all();
            stalled.map(drop)
        }
        Act::Answer(status, headers, answer) => {
            let head = format!("{status}\r\n{headers}");
            say(client, &mut body, head.trim_end(), &answer)
        }
        Act::Say(head, answer) => say(client, &mut body, &head, &answer),
        Act::Pass => relay(&head, &mut body, server, client, whole),
        Act::Cut(bytes) => relay(&head, &mut body, server, client, |answer, client| {
            whole(&mut answer.take(bytes as u64), client)
        }),
        Act::Trickle => relay(&head, &mut body, server, client, |answer, client| {
            trickle(answer, client)
        }),
        Act::Sip => {
            take_little(client)?;
            trickle(client, io::sink())
        }
        Act::Lose => relay(&head, &mut body, server, &mut io::sink(), whole),
    }
}

fn say(mut client: &TcpStream, body: &mut impl Read, head: &str, answer: &[u8]) -> io::Result<()> {
    io::copy(body, &mut io::sink())?;
    let len = answer.len();
    write!(
        client,
        "HTTP/1.1 {head}\r\ncontent-length: {len}\r\nconnection: close\r\n\r\n"
    )?;
    client.write_all(answer)
}

/// Keeps the kernel from taking megabytes that nobody has read.
#[expect(unsafe_code, reason = "the standard library sets no sizes of buffers")]
fn take_little(stream: &TcpStream) -> io::Result<()> {
    let bytes: libc::c_int = 64 << 10;
    // SAFETY: the descriptor is open for as long as the borrow, and the option's value is an int of that size.
    let result = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_RCVBUF,
            (&raw const bytes).cast(),
            size_of_val(&bytes) as libc::socklen_t,
        )
    };
    match result {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Sends the request on, and the answer back: its head, and its body as `hand_on` does it.
fn relay<W: Write>(
    head: &str,
    body: &mut impl Read,
    server: SocketAddr,
    mut client: W,
    hand_on: impl FnOnce(&mut dyn Read, &mut W) -> io::Result<()>,
) -> io::Result<()> {
    let server = TcpStream::connect(server)?;
    let mut to_server = &server;
    let head = head.trim_end_matches("\r\n");
    write!(to_server, "{head}\r\nconnection: close\r\n\r\n")?;
    if io::copy(body, &mut to_server).is_err() {
        return server.shutdown(Shutdown::Both);
    }
    let mut answer = BufReader::new(&server);
    client.write_all(read_head(&mut answer)?.as_bytes())?;
    hand_on(&mut answer, &mut client)?;
    client.flush()
}

fn whole(answer: &mut dyn Read, client: &mut impl Write) -> io::Result<()> {
    io::copy(answer, client).map(drop)
}

fn read_head(from: &mut impl BufRead) -> io::Result<String> {
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        if from.read_line(&mut head)? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
    Ok(head)
}

fn asked(nth: usize, head: &str) -> Asked {
    let mut words = head.split(' ').map(str::to_owned);
    Asked {
        nth,
        method: words.next().unwrap_or_default(),
        target: words.next().unwrap_or_default(),
        head: head.to_owned(),
    }
}

fn content_length(head: &str) -> u64 {
    head.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(name, _)| name.eq_ignore_ascii_case("content-length"))
        .and_then(|(_, value)| value.trim().parse().ok())
        .unwrap_or(0)
}
