//! Bad weather: an HTTP server that answers each request as a test says, however wrong that is, and remembers what it
//! was asked. One connection a request, one thread a connection.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

/// A request as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Asked {
    /// `GET`.
    pub method: String,
    /// `/v2/?n=1`; with a proxy's scheme and host before it.
    pub target: String,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body, dechunked.
    pub body: Vec<u8>,
    /// Whether the body came to its end.
    pub complete: bool,
}

impl Asked {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The target without its query.
    pub fn path(&self) -> &str {
        self.target.split('?').next().unwrap_or(&self.target)
    }
}

/// How a request is answered.
#[derive(Debug, Clone)]
pub enum Reply {
    /// As it should be: status, headers, body, with the right length.
    Full(u16, Vec<(String, String)>, Vec<u8>),
    /// A status and headers, without a length and a body.
    Unsized(u16, Vec<(String, String)>),
    /// The body, then the end of the connection, though so many bytes were promised.
    Cut(Vec<u8>, usize),
    /// So many bytes, then no more, but the connection stays.
    Stall(Vec<u8>, usize),
    /// As it should be, but a byte at a time, every few milliseconds.
    Trickle(Vec<u8>),
    /// Nothing at all, but the connection stays.
    Silence,
    /// A body without length and end.
    Endless,
    /// The status and no body, but the connection stays.
    Held(u16),
    /// The connection is closed without a word.
    HangUp,
}

impl Reply {
    /// A status without more.
    pub fn status(status: u16) -> Self {
        Self::Full(status, Vec::new(), Vec::new())
    }

    /// 200 with a body.
    pub fn ok(body: impl Into<Vec<u8>>) -> Self {
        Self::Full(200, Vec::new(), body.into())
    }

    /// The same with one more header.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<String>) -> Self {
        if let Self::Full(_, headers, _) = &mut self {
            headers.push((name.to_owned(), value.into()));
        }
        self
    }
}

type Handler = dyn Fn(&Asked, usize) -> Reply + Send + Sync;
type Appetite = dyn Fn(&Asked, usize) -> usize + Send + Sync;

/// The server; it stops when dropped.
#[derive(Debug)]
pub struct Weather {
    address: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    over: Arc<AtomicBool>,
    accepting: Option<JoinHandle<()>>,
}

impl Weather {
    /// Answers each request with what `handler` makes of it and its number, which counts from 0.
    ///
    /// # Panics
    /// If there is no port on 127.0.0.1.
    pub fn new(handler: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static) -> Self {
        Self::with_appetite(|_, _| usize::MAX, handler)
    }

    /// The same, and no more of a request's body is read than `appetite` says of its head: what is answered then, or that
    /// the connection closes, comes before the rest.
    ///
    /// # Panics
    /// If there is no port on 127.0.0.1.
    pub fn with_appetite(
        appetite: impl Fn(&Asked, usize) -> usize + Send + Sync + 'static,
        handler: impl Fn(&Asked, usize) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("there is a free port");
        let address = listener.local_addr().expect("it is bound").to_string();
        let (asked, over) = (Arc::default(), Arc::new(AtomicBool::new(false)));
        let shared = Shared {
            handler: Arc::new(handler),
            appetite: Arc::new(appetite),
            asked: Arc::clone(&asked),
            over: Arc::clone(&over),
        };
        let accepting = std::thread::spawn(move || accept(&listener, &shared));
        Self {
            address,
            asked,
            over,
            accepting: Some(accepting),
        }
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// What it was asked so far, in order.
    pub fn asked(&self) -> Vec<Asked> {
        lock(&self.asked).clone()
    }
}

impl Drop for Weather {
    fn drop(&mut self) {
        self.over.store(true, Ordering::SeqCst);
        // Wakes the accepting thread.
        let _ = TcpStream::connect(&self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
    }
}

#[derive(Clone)]
struct Shared {
    handler: Arc<Handler>,
    appetite: Arc<Appetite>,
    asked: Arc<Mutex<Vec<Asked>>>,
    over: Arc<AtomicBool>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn accept(listener: &TcpListener, shared: &Shared) {
    for stream in listener.incoming().map_while(Result::ok) {
        if shared.over.load(Ordering::SeqCst) {
            return;
        }
        let shared = shared.clone();
        // An error here is the client's doing, and the client's to tell.
        std::thread::spawn(move || serve(stream, &shared));
    }
}

fn serve(mut stream: TcpStream, shared: &Shared) -> io::Result<()> {
    let Some(asked) = read(&stream, shared)? else {
        return Ok(());
    };
    let number = {
        let mut all = lock(&shared.asked);
        all.push(asked.clone());
        all.len() - 1
    };
    let head_only = asked.method == "HEAD";
    match (shared.handler)(&asked, number) {
        Reply::Full(status, headers, body) => {
            let length = body.len();
            write_head(&mut stream, status, &headers, Some(length))?;
            if !head_only {
                stream.write_all(&body)?;
            }
        }
        Reply::Unsized(status, headers) => write_head(&mut stream, status, &headers, None)?,
        Reply::Cut(body, promised) => {
            write_head(&mut stream, 200, &[], Some(promised))?;
            stream.write_all(&body)?;
        }
        Reply::Stall(body, promised) => {
            write_head(&mut stream, 200, &[], Some(promised))?;
            stream.write_all(&body)?;
            until_over(shared);
        }
        Reply::Trickle(body) => {
            write_head(&mut stream, 200, &[], Some(body.len()))?;
            trickle(&body[..], &mut stream)?;
        }
        Reply::Silence => until_over(shared),
        Reply::Endless => {
            write_head(&mut stream, 200, &[], None)?;
            while !shared.over.load(Ordering::SeqCst) {
                stream.write_all(&[b' '; 65536])?;
            }
        }
        Reply::Held(status) => {
            let head = format!("HTTP/1.1 {status} Weather\r\nContent-Length: 0\r\n\r\n");
            stream.write_all(head.as_bytes())?;
            until_over(shared);
        }
        Reply::HangUp => {}
    }
    Ok(())
}

/// Hands on a byte at a time.
pub(crate) fn trickle(mut from: impl Read, mut to: impl Write) -> io::Result<()> {
    let mut byte = [0];
    while from.read(&mut byte)? == 1 {
        to.write_all(&byte)?;
        to.flush()?;
        std::thread::sleep(Duration::from_millis(5));
    }
    Ok(())
}

fn until_over(shared: &Shared) {
    while !shared.over.load(Ordering::SeqCst) {
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn write_head(
    stream: &mut TcpStream,
    status: u16,
    headers: &[(String, String)],
    length: Option<usize>,
) -> io::Result<()> {
    let mut head = format!("HTTP/1.1 {status} Weather\r\nConnection: close\r\n");
    let has_length = headers
        .iter()
        .any(|(name, _)| name.eq_ignore_ascii_case("content-length"));
    if let Some(length) = length.filter(|_| !has_length) {
        head += &format!("Content-Length: {length}\r\n");
    }
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())
}

/// Reads a request; `None` for a connection without one.
fn read(stream: &TcpStream, shared: &Shared) -> io::Result<Option<Asked>> {
    let mut reader = BufReader::new(stream);
    let first = line(&mut reader)?;
    let mut words = first.split(' ');
    let (Some(method), Some(target)) = (words.next(), words.next()) else {
        return Ok(None);
    };
    let mut headers = Vec::new();
    loop {
        let line = line(&mut reader)?;
        let Some((name, value)) = line.split_once(':') else {
            break;
        };
        headers.push((name.to_lowercase(), value.trim().to_owned()));
    }
    let mut asked = Asked {
        method: method.to_owned(),
        target: target.to_owned(),
        headers,
        body: Vec::new(),
        complete: false,
    };
    let most = (shared.appetite)(&asked, lock(&shared.asked).len());
    let read = read_body(&mut reader, &mut asked, most);
    asked.complete = read.is_ok();
    Ok(Some(asked))
}

fn read_body(reader: &mut impl BufRead, asked: &mut Asked, most: usize) -> io::Result<()> {
    if asked.header("transfer-encoding") != Some("chunked") {
        let length = asked.header("content-length").unwrap_or("0");
        let length: u64 = length.parse().map_err(io::Error::other)?;
        let read = reader
            .take(length.min(most as u64))
            .read_to_end(&mut asked.body)?;
        return whole(read as u64 == length);
    }
    loop {
        let length = u64::from_str_radix(&line(reader)?, 16).map_err(io::Error::other)?;
        let left = most.saturating_sub(asked.body.len()) as u64;
        let read = reader.take(length.min(left)).read_to_end(&mut asked.body)?;
        whole(read as u64 == length)?;
        line(reader)?;
        if length == 0 {
            return Ok(());
        }
    }
}

fn whole(is: bool) -> io::Result<()> {
    if is {
        Ok(())
    } else {
        Err(io::ErrorKind::UnexpectedEof.into())
    }
}

fn line(reader: &mut impl BufRead) -> io::Result<String> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    Ok(line.trim_end().to_owned())
}
