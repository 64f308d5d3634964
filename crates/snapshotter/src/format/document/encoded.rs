//! A document on its way out: its name and length are known before its first byte goes, and a long one is written anew for
//! each who takes it instead of being kept.

use std::io::{self, BufWriter};

use sha2::Digest as _;

use super::{Document, DocumentError, PIECE, SHORT, check_length, write};
use crate::words::digest::Sha256;

/// A checked document, and what its bytes come to.
#[derive(Debug)]
pub struct Encoded {
    document: Document,
    sha256: Sha256,
    length: u64,
    /// All bytes of a short one.
    short: Option<Vec<u8>>,
}

impl Encoded {
    pub(super) fn new(document: Document) -> Result<Self, DocumentError> {
        document.validate()?;
        let measure = Measure {
            hasher: sha2::Sha256::new(),
            length: 0,
            short: Some(Vec::new()),
        };
        let mut out = BufWriter::with_capacity(PIECE, measure);
        write::write(&document, &mut out)?;
        let measure = out.into_inner().map_err(io::IntoInnerError::into_error)?;
        check_length(measure.length)?;
        Ok(Self {
            document,
            sha256: Sha256::from_bytes(measure.hasher.finalize().into()),
            length: measure.length,
            short: measure.short,
        })
    }

    /// What is in it.
    pub fn document(&self) -> &Document {
        &self.document
    }

    /// Of its bytes: its name in a registry.
    pub fn sha256(&self) -> Sha256 {
        self.sha256
    }

    /// In bytes.
    pub fn length(&self) -> u64 {
        self.length
    }

    /// Writes its bytes.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn io::Write) -> io::Result<()> {
        match &self.short {
            Some(bytes) => out.write_all(bytes),
            None => write::write(&self.document, out).map_err(|error| match error {
                DocumentError::Io(error) => error,
                error => io::Error::other(error),
            }),
        }
    }
}

/// What is written to it is hashed, counted, and kept while it is short.
struct Measure {
    hasher: sha2::Sha256,
    length: u64,
    short: Option<Vec<u8>>,
}

impl io::Write for Measure {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.length += bytes.len() as u64;
        if self.length > SHORT {
            self.short = None;
        }
        if let Some(short) = &mut self.short {
            short.extend_from_slice(bytes);
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
