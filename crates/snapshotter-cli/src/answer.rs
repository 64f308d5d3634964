//! What a verb hands back: a document that can be shown as text or as JSON, warnings, and perhaps a failure (a
//! verification that finds damage has both).

use std::io::{self, Write};

use serde::Serialize;
use snapshotter::Reader;

use crate::exit;
use crate::failure::Failure;
use crate::output::Page;
use crate::output::json::{self, Warning};

/// Something to print.
pub trait Document: Serialize {
    /// For people.
    fn text(&self, page: &mut Page<'_>) -> io::Result<()>;
}

/// The same without its type.
trait Shown {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()>;
    fn json(&self, out: &mut dyn Write, pretty: bool, warnings: &[Warning]) -> io::Result<()>;
}

impl<D: Document> Shown for D {
    fn text(&self, page: &mut Page<'_>) -> io::Result<()> {
        Document::text(self, page)
    }

    fn json(&self, out: &mut dyn Write, pretty: bool, warnings: &[Warning]) -> io::Result<()> {
        json::write_document(out, pretty, self, warnings)
    }
}

/// What a verb hands back.
pub struct Answer {
    document: Option<Box<dyn Shown>>,
    script: Vec<u8>,
    /// Bytes for whoever reads stdout.
    pub file: Option<Reader>,
    /// What did not stop the command.
    pub warnings: Vec<Warning>,
    /// What the document says went wrong.
    pub failure: Option<Failure>,
}

impl Answer {
    /// A document.
    pub fn new(document: impl Document + 'static) -> Self {
        Self {
            document: Some(Box::new(document)),
            script: Vec::new(),
            file: None,
            warnings: Vec::new(),
            failure: None,
        }
    }

    /// Text for another program (a shell, a configuration file), printed as it is, with `--json` too.
    pub fn script(bytes: Vec<u8>) -> Self {
        Self {
            document: None,
            script: bytes,
            file: None,
            warnings: Vec::new(),
            failure: None,
        }
    }

    /// A file of a snapshot, printed byte for byte, with `--json` too.
    pub fn file(file: Reader) -> Self {
        Self {
            file: Some(file),
            ..Self::script(Vec::new())
        }
    }

    /// Adds warnings.
    pub fn with_warnings(mut self, warnings: impl IntoIterator<Item = Warning>) -> Self {
        self.warnings.extend(warnings);
        self
    }

    /// Adds what went wrong.
    pub fn with_failure(mut self, failure: Option<Failure>) -> Self {
        self.failure = failure;
        self
    }

    /// What the process exits with.
    pub fn code(&self, strict: bool) -> u8 {
        match &self.failure {
            Some(failure) => failure.code,
            None if strict && !self.warnings.is_empty() => exit::WARNINGS,
            None => exit::OK,
        }
    }

    /// Writes it for people.
    pub fn write_text(&self, page: &mut Page<'_>) -> io::Result<()> {
        match &self.document {
            Some(document) => document.text(page),
            None => page.out.write_all(&self.script),
        }
    }

    /// Writes it for programs.
    pub fn write_json(&self, out: &mut dyn Write, pretty: bool) -> io::Result<()> {
        match &self.document {
            Some(document) => document.json(out, pretty, &self.warnings),
            None => out.write_all(&self.script),
        }
    }
}
