//! The smallest HTTP client: one request a connection, everything in memory. What a server really keeps is looked at
//! with this, and not with the client that is tested.

use std::io::{self, Read, Write};
use std::net::TcpStream;

/// What a server said.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// `200`.
    pub status: u16,
    /// Names in lower case.
    pub headers: Vec<(String, String)>,
    /// As it came.
    pub body: Vec<u8>,
}

impl Answer {
    /// A header's value.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }
}

/// Sends a request to `address` (`127.0.0.1:5000`) and reads the answer to its end.
///
/// # Errors
/// Those of the connection, and for an answer that is none.
pub fn send(
    address: &str,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> io::Result<Answer> {
    let mut stream = TcpStream::connect(address)?;
    // HTTP/1.0: whoever answers ends the body by closing, and sends no chunks.
    let mut head = format!(
        "{method} {target} HTTP/1.0\r\nHost: {address}\r\nContent-Length: {}\r\n",
        body.len()
    );
    for (name, value) in headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    stream.write_all(body)?;
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes)?;
    parse(&bytes).ok_or_else(|| io::Error::other("that is no answer"))
}

/// The same without headers and body.
///
/// # Errors
/// As [`send`].
pub fn get(address: &str, target: &str) -> io::Result<Answer> {
    send(address, "GET", target, &[], b"")
}

fn parse(bytes: &[u8]) -> Option<Answer> {
    let end = bytes.windows(4).position(|four| four == b"\r\n\r\n")?;
    let head = std::str::from_utf8(&bytes[..end]).ok()?;
    let mut lines = head.split("\r\n");
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let headers = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    Some(Answer {
        status,
        headers,
        body: bytes[end + 4..].to_vec(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::weather::{Reply, Weather};

    #[test]
    fn what_is_sent_arrives_and_what_is_answered_comes_back() {
        let server = Weather::new(|asked, _| Reply::ok(asked.body.clone()).with("X-Said", "yes"));
        let answer = send(server.address(), "PUT", "/a?b", &[("X-Mine", "1")], b"body").unwrap();
        assert_eq!((answer.status, &*answer.body), (200, &b"body"[..]));
        assert_eq!(answer.header("x-said"), Some("yes"));
        let asked = &server.asked()[0];
        assert_eq!((&*asked.method, &*asked.target), ("PUT", "/a?b"));
        assert_eq!(asked.header("x-mine"), Some("1"));
        assert_eq!(get(server.address(), "/").unwrap().body, b"");
    }
}
