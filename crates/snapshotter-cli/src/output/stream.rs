//! What is written to stdout or stderr, on its way: in long pieces, and without colour where that is not wanted.

use std::io::{self, BufWriter, Write};

use anstream::AutoStream;
use anstream::stream::RawStream;

/// Bytes between two writes.
const PIECE: usize = 64 << 10;

/// One of them.
pub struct Stream<S: Write>(BufWriter<Coloured<S>>);

impl<S: RawStream> Stream<S> {
    pub fn new(stream: S) -> Self {
        let colours = AutoStream::choice(&stream) != anstream::ColorChoice::Never;
        Self::with(stream, colours)
    }
}

impl<S: Write> Stream<S> {
    fn with(stream: S, colours: bool) -> Self {
        let coloured = Coloured {
            stream,
            colours,
            inside: false,
        };
        Self(BufWriter::with_capacity(PIECE, coloured))
    }
}

impl<S: Write> Write for Stream<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

/// Takes colours out. What comes from elsewhere holds no escape characters ([`visible`](super::human::visible)), so each of
/// them begins one of ours, which ends with an `m`.
struct Coloured<S> {
    stream: S,
    colours: bool,
    /// Whether what was written last ended inside of one.
    inside: bool,
}

impl<S: Write> Write for Coloured<S> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.colours {
            self.stream.write_all(bytes)?;
            return Ok(bytes.len());
        }
        let mut rest = bytes;
        while !rest.is_empty() {
            let end = if self.inside { b'm' } else { b'\x1b' };
            let found = rest.iter().position(|byte| *byte == end);
            let part = found.unwrap_or(rest.len());
            if !self.inside {
                self.stream.write_all(&rest[..part])?;
            }
            self.inside ^= found.is_some();
            rest = rest.get(part + 1..).unwrap_or_default();
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.stream.flush()
    }
}

#[cfg(test)]
mod tests {
    use anstyle::{AnsiColor, Style};

    use super::*;

    const STRONG: Style = Style::new().bold();
    const RED: Style = AnsiColor::Red.on_default().bold();

    fn plain(pieces: &[&[u8]]) -> Vec<u8> {
        let mut out = Coloured {
            stream: Vec::new(),
            colours: false,
            inside: false,
        };
        for piece in pieces {
            out.write_all(piece).unwrap();
        }
        out.stream
    }

    #[test]
    fn colours_are_taken_out_and_nothing_else() {
        let text = format!("{STRONG}a{STRONG:#} m [b] {RED}c{RED:#}\n");
        assert_eq!(plain(&[text.as_bytes()]), b"a m [b] c\n");
        assert_eq!(plain(&[]), b"");
        for at in 0..text.len() {
            let (one, other) = text.as_bytes().split_at(at);
            assert_eq!(plain(&[one, other]), b"a m [b] c\n", "{at}");
        }
    }

    #[test]
    fn colours_stay_where_they_are_wanted() {
        let text = format!("{RED}c{RED:#}");
        let mut out = Stream::with(Vec::new(), true);
        out.write_all(text.as_bytes()).unwrap();
        out.flush().unwrap();
        assert_eq!(out.0.get_ref().stream, text.as_bytes());
    }
}
