//! What went wrong, as it is printed: a message, its causes, what to do next, and the exit code.

use std::borrow::Cow;
use std::error::Error as _;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use snapshotter::{Error, ErrorKind, Reference};

use crate::exit;

/// The result of everything that can fail here.
pub type Result<T, E = Failure> = std::result::Result<T, E>;

/// A failed command.
#[derive(Debug)]
pub struct Failure {
    /// What a script acts on.
    pub kind: ErrorKind,
    /// What happened.
    pub message: String,
    /// Why, outermost first, without repetition.
    pub causes: Vec<String>,
    /// What to do next.
    pub hint: Option<Cow<'static, str>>,
    /// What it is about.
    pub about: Box<About>,
    /// What the process exits with.
    pub code: u8,
}

/// What a failure is about.
#[derive(Debug, Default)]
pub struct About {
    /// A file or directory.
    pub path: Option<PathBuf>,
    /// A snapshot.
    pub reference: Option<Reference>,
}

impl Failure {
    /// A failure of some kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            causes: Vec::new(),
            hint: None,
            about: Box::default(),
            code: exit::code(kind),
        }
    }

    /// A wrong argument or setting.
    pub fn invalid(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// What the operating system said; `doing` reads after "cannot".
    pub fn io(doing: &str, path: &Path, error: &io::Error) -> Self {
        let kind = match error.kind() {
            io::ErrorKind::NotFound => ErrorKind::NotFound,
            io::ErrorKind::PermissionDenied => ErrorKind::PermissionDenied,
            io::ErrorKind::IsADirectory | io::ErrorKind::NotADirectory => ErrorKind::InvalidInput,
            io::ErrorKind::InvalidData => ErrorKind::InvalidInput,
            io::ErrorKind::StorageFull => ErrorKind::NoSpace,
            _ => ErrorKind::Internal,
        };
        Self {
            causes: vec![error.to_string()],
            ..Self::new(kind, format!("cannot {doing} {}", path.display()))
        }
        .with_path(path)
    }

    /// The standard output did not take the answer.
    pub fn of_output(error: &io::Error) -> Self {
        Self {
            causes: vec![error.to_string()],
            ..Self::new(
                ErrorKind::Internal,
                "what was asked for is done, but its result cannot be written to the standard output",
            )
        }
    }

    /// A signal ended the command before it was done.
    pub fn interrupted(signal: &'static str, code: u8) -> Self {
        Self {
            code,
            ..Self::new(ErrorKind::Cancelled, format!("stopped by {signal}"))
        }
    }

    /// Adds what to do next, in place of what was said before.
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Adds the file it is about.
    pub fn with_path(mut self, path: impl Into<PathBuf>) -> Self {
        self.about.path = Some(path.into());
        self
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self {
            causes: causes(&error),
            hint: error.hint().map(|hint| in_our_words(hint).into()),
            about: Box::new(About {
                path: error.path().map(Path::to_owned),
                reference: error.reference().cloned(),
            }),
            ..Self::new(
                error.kind(),
                with_our_verb(&flag_for_field(error.to_string())),
            )
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// The chain below an error; what a line above already says is left out.
fn causes(error: &Error) -> Vec<String> {
    let mut causes: Vec<String> = Vec::new();
    let mut at = error.source();
    while let Some(cause) = at {
        let text = cause.to_string();
        let said = causes
            .last()
            .map_or_else(|| error.to_string(), Clone::clone);
        if !said.contains(&text) {
            causes.push(text);
        }
        at = cause.source();
    }
    causes
}

/// A message that begins with a field of a request names its flag.
pub fn flag_for_field(message: String) -> String {
    const FLAGS: [(&str, &str); 3] = [
        ("read_only: ", "--read-only "),
        ("exclude: ", "--exclude "),
        ("include: ", "--include "),
    ];
    FLAGS
        .iter()
        .find_map(|(field, flag)| Some((*flag).to_owned() + message.strip_prefix(field)?))
        .unwrap_or(message)
}

/// What is said elsewhere than in a hint may name files of any name, so no more than this is replaced.
pub fn with_our_verb(text: &str) -> String {
    text.replace("`rebuild`", "`snapshotter verify --rebuild`")
}

/// The library speaks of fields and methods; here they are arguments, flags and commands.
fn in_our_words(hint: &str) -> String {
    [
        ("no_clobber", "--no-clobber"),
        ("root_dir", "--root"),
        ("base_dir", "BASE_DIR"),
        ("output_dir", "OUTPUT_DIR"),
        ("`rebuild`", "`snapshotter verify --rebuild`"),
        ("`verify` with repair", "`snapshotter verify --repair`"),
        ("`verify`", "`snapshotter verify`"),
        ("`push`", "`snapshotter push`"),
        ("`remove`", "`snapshotter remove`"),
        ("`gc`", "`snapshotter gc`"),
        ("`usage`", "`snapshotter df`"),
        ("`umount`", "`snapshotter umount`"),
        ("with force", "with --force"),
        ("with `local`", "with --local"),
        (
            "configure content: ",
            "set content.provider and what belongs to it: ",
        ),
    ]
    .iter()
    .fold(hint.to_owned(), |text, (theirs, ours)| {
        text.replace(theirs, ours)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hints_name_flags() {
        assert_eq!(
            in_our_words("restore without no_clobber; `verify` lists it"),
            "restore without --no-clobber; `snapshotter verify` lists it"
        );
        assert_eq!(
            in_our_words("`verify` with repair, or `rebuild`"),
            "`snapshotter verify --repair`, or `snapshotter verify --rebuild`"
        );
        assert_eq!(
            in_our_words("`push` it, or replace this one with force"),
            "`snapshotter push` it, or replace this one with --force"
        );
    }

    #[test]
    fn an_operating_system_error_keeps_its_kind_and_says_why() {
        let failure = Failure::io("read", Path::new("/x"), &io::ErrorKind::NotFound.into());
        assert_eq!((failure.kind, failure.code), (ErrorKind::NotFound, 3));
        assert_eq!(failure.to_string(), "cannot read /x");
        assert_eq!(failure.causes.len(), 1);
    }
}
