//! [`RelPath`]: a path that stays below the directory it is joined to. File names are bytes. Only the checks here make
//! a `RelPath`, and no component of one is empty, `.` or `..`, so joining can't climb out lexically; symlinks on disk
//! are the business of whoever opens it.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

use thiserror::Error;

use super::digest::{excerpt, visible};

/// The longest path, in bytes.
pub const MAX_PATH_BYTES: usize = 4096;
/// The longest component, in bytes: what Linux filesystems allow.
pub const MAX_COMPONENT_BYTES: usize = 255;

/// A path that may not be part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RelPathError {
    /// Nothing at all, or only `.` components.
    #[error("the path is empty")]
    Empty,
    /// More bytes than [`MAX_PATH_BYTES`].
    #[error("the path \"{path}\" has {bytes} bytes; 4096 is the limit")]
    TooLong {
        /// The path, shortened.
        path: String,
        /// Its length in bytes.
        bytes: usize,
    },
    /// A component of more bytes than [`MAX_COMPONENT_BYTES`].
    #[error("a component of the path \"{path}\" has {bytes} bytes; 255 is the limit")]
    ComponentTooLong {
        /// The path, shortened.
        path: String,
        /// The component's length in bytes.
        bytes: usize,
    },
    /// A NUL byte, which no file name can hold.
    #[error("the path \"{path}\" holds a NUL byte")]
    Nul {
        /// The path, shortened.
        path: String,
    },
    /// A leading slash.
    #[error("the path \"{path}\" is absolute; it should be relative")]
    Absolute {
        /// The path, shortened.
        path: String,
    },
    /// A component that is empty, `.` or `..`.
    #[error("the path \"{path}\" has an empty, \".\" or \"..\" component")]
    NotNormal {
        /// The path, shortened.
        path: String,
    },
    /// A slash in what should be one name.
    #[error("the name \"{path}\" holds a slash")]
    Slash {
        /// The name, shortened.
        path: String,
    },
}

/// A relative path in normal form, ordered by its raw bytes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RelPath(Box<[u8]>);

impl RelPath {
    /// Takes a path that is already in normal form.
    ///
    /// # Errors
    /// When it is empty, absolute, too long, holds a NUL or a component that is empty, `.` or `..`.
    pub fn from_bytes(bytes: impl Into<Vec<u8>>) -> Result<Self, RelPathError> {
        let bytes = bytes.into();
        check(&bytes)?;
        Ok(Self(bytes.into_boxed_slice()))
    }

    /// Takes a path as people type it: `.` components, repeated and trailing slashes are dropped.
    ///
    /// # Errors
    /// As [`RelPath::from_bytes`] for what is left; `..` and absolute paths are refused, not resolved.
    pub fn normalize(path: &Path) -> Result<Self, RelPathError> {
        let typed = path.as_os_str().as_bytes();
        if typed.first() == Some(&b'/') {
            return Err(RelPathError::Absolute { path: shown(typed) });
        }
        let kept = typed
            .split(is_slash)
            .filter(|part| !matches!(*part, b"" | b"."));
        Self::from_bytes(kept.collect::<Vec<_>>().join(&b'/'))
    }

    /// Takes a path as the Go library joins it to a directory: a leading slash means nothing, and `..` takes the component
    /// before it away. Symlinks have no part in that.
    ///
    /// # Errors
    /// As [`RelPath::from_bytes`] for what is left, and where `..` leads out of the directory.
    pub fn cleaned(bytes: impl Into<Vec<u8>>) -> Result<Self, RelPathError> {
        let bytes = bytes.into();
        if check(&bytes).is_ok() {
            return Ok(Self(bytes.into_boxed_slice()));
        }
        // Also in a component that `..` would take away: no directory can have had it.
        if bytes.contains(&0) {
            return Err(RelPathError::Nul {
                path: shown(&bytes),
            });
        }
        let mut kept: Vec<&[u8]> = Vec::new();
        for part in bytes.split(is_slash) {
            match part {
                b"" | b"." => {}
                b".." if kept.pop().is_some() => {}
                b".." => {
                    return Err(RelPathError::NotNormal {
                        path: shown(&bytes),
                    });
                }
                part => kept.push(part),
            }
        }
        Self::from_bytes(kept.join(&b'/'))
    }

    /// The path's bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path for the standard library.
    pub fn as_path(&self) -> &Path {
        Path::new(OsStr::from_bytes(&self.0))
    }

    /// The directory it is in; none at the top level.
    pub fn parent(&self) -> Option<Self> {
        self.ancestors().next().map(|bytes| Self(bytes.into()))
    }

    /// The bytes of the directory it is in, and of its name there.
    pub fn split(&self) -> (Option<&[u8]>, &[u8]) {
        (self.ancestors().next(), self.file_name())
    }

    /// The last component.
    pub fn file_name(&self) -> &[u8] {
        match self.0.iter().rposition(is_slash) {
            Some(slash) => &self.0[slash + 1..],
            None => &self.0,
        }
    }

    /// The names on the way, outermost first.
    pub fn components(&self) -> impl DoubleEndedIterator<Item = &[u8]> {
        self.0.split(is_slash)
    }

    /// The directories it is in, nearest first, each as the bytes of a relative path. A hostile path has 2,047 of
    /// them: don't collect these for every entry of a document.
    pub fn ancestors(&self) -> impl Iterator<Item = &[u8]> {
        let slashes = self
            .0
            .iter()
            .enumerate()
            .rev()
            .filter(|(_, byte)| is_slash(byte));
        slashes.map(|(at, _)| &self.0[..at])
    }

    /// The path of `name` in this directory.
    ///
    /// # Errors
    /// When `name` isn't one valid component or the result is too long.
    pub fn join(&self, name: &[u8]) -> Result<Self, RelPathError> {
        if name.contains(&b'/') {
            return Err(RelPathError::Slash { path: shown(name) });
        }
        Self::from_bytes([&self.0, b"/".as_slice(), name].concat())
    }

    /// Whether it is `other` or lies below it, component by component.
    pub fn starts_with(&self, other: &Self) -> bool {
        self.0
            .strip_prefix(&*other.0)
            .is_some_and(|rest| rest.is_empty() || rest[0] == b'/')
    }
}

impl From<RelPath> for PathBuf {
    fn from(path: RelPath) -> Self {
        OsString::from_vec(path.0.into_vec()).into()
    }
}

impl AsRef<Path> for RelPath {
    fn as_ref(&self) -> &Path {
        self.as_path()
    }
}

impl fmt::Display for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        use fmt::Write as _;
        String::from_utf8_lossy(&self.0)
            .chars()
            .flat_map(visible)
            .try_for_each(|c| f.write_char(c))
    }
}

impl fmt::Debug for RelPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

const fn is_slash(byte: &u8) -> bool {
    *byte == b'/'
}

fn check(bytes: &[u8]) -> Result<(), RelPathError> {
    if bytes.is_empty() {
        return Err(RelPathError::Empty);
    }
    if bytes.len() > MAX_PATH_BYTES {
        return Err(RelPathError::TooLong {
            path: shown(bytes),
            bytes: bytes.len(),
        });
    }
    if bytes.contains(&0) {
        return Err(RelPathError::Nul { path: shown(bytes) });
    }
    if bytes[0] == b'/' {
        return Err(RelPathError::Absolute { path: shown(bytes) });
    }
    bytes
        .split(is_slash)
        .try_for_each(|component| check_component(component, bytes))
}

fn check_component(component: &[u8], path: &[u8]) -> Result<(), RelPathError> {
    match component {
        b"" | b"." | b".." => Err(RelPathError::NotNormal { path: shown(path) }),
        _ if component.len() > MAX_COMPONENT_BYTES => Err(RelPathError::ComponentTooLong {
            path: shown(path),
            bytes: component.len(),
        }),
        _ => Ok(()),
    }
}

fn shown(bytes: &[u8]) -> String {
    // Enough for an excerpt; decoding all of a hostile megabyte would be for nothing.
    excerpt(&String::from_utf8_lossy(&bytes[..bytes.len().min(400)]))
}

/// Whether a path people typed is the base directory itself: `.`, `./` and the like.
pub(crate) fn is_base(given: &Path) -> bool {
    let mut components = given.components();
    !given.as_os_str().is_empty() && components.all(|component| component == Component::CurDir)
}

/// A name as the operating system takes it.
pub(crate) fn os_name(name: &[u8]) -> &OsStr {
    OsStr::from_bytes(name)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn path(text: &str) -> RelPath {
        RelPath::from_bytes(text).unwrap()
    }

    #[test]
    fn refuses_what_is_not_normal() {
        let long_component = "x".repeat(256);
        let long_path = ["x".repeat(255).as_str(); 17].join("/");
        let refused = [
            "",
            "/",
            "/a",
            "a/",
            "a//b",
            ".",
            "..",
            "./a",
            "a/.",
            "a/./b",
            "../a",
            "a/..",
            "a/../b",
            "a\0b",
            "\0",
            &long_component,
            &long_path,
        ];
        for text in refused {
            assert!(RelPath::from_bytes(text).is_err(), "{text:?} was accepted");
        }
    }

    #[test]
    fn accepts_any_other_bytes() {
        for bytes in [
            &b"a"[..],
            b"...",
            b"..a",
            b"a..",
            b".a",
            b" ",
            b"a b/c",
            b"\xff\xfe/\x80",
            b"-",
            b"\\",
            b"a:b",
            b"\n",
        ] {
            assert_eq!(RelPath::from_bytes(bytes).unwrap().as_bytes(), bytes);
        }
        assert!(RelPath::from_bytes("x".repeat(255)).is_ok());
        let longest = format!("{}/a", ["x".repeat(255).as_str(); 16].join("/"));
        assert_eq!(longest.len(), 4097);
        assert!(RelPath::from_bytes(longest).is_err());
        assert!(RelPath::from_bytes(["x".repeat(255).as_str(); 16].join("/")).is_ok());
    }

    #[test]
    fn normalize_takes_what_people_type() {
        for (typed, normal) in [
            ("./a", "a"),
            ("a//b", "a/b"),
            ("a/b/", "a/b"),
            ("././a/./b/.", "a/b"),
            ("a", "a"),
        ] {
            assert_eq!(
                RelPath::normalize(Path::new(typed)).unwrap(),
                path(normal),
                "{typed}"
            );
        }
        for typed in [
            "", ".", "./", "/a", "//a", "..", "a/..", "../a", "a/../b", "a\0",
        ] {
            assert!(
                RelPath::normalize(Path::new(typed)).is_err(),
                "{typed:?} was accepted"
            );
        }
    }

    #[test]
    fn cleaned_is_what_the_go_library_restores() {
        for (listed, normal) in [
            ("a", "a"),
            ("./a", "a"),
            ("/a", "a"),
            ("//a//b", "a/b"),
            ("a/../b", "b"),
            ("a/b/", "a/b"),
            ("a/b/../../c/.", "c"),
            ("..a/b..", "..a/b.."),
        ] {
            assert_eq!(RelPath::cleaned(listed).unwrap(), path(normal), "{listed}");
        }
        for listed in [
            "",
            ".",
            "/",
            "..",
            "/..",
            "a/..",
            "../a",
            "a/../../b",
            "a\0",
            "a/\0/../b",
        ] {
            assert!(RelPath::cleaned(listed).is_err(), "{listed:?} was accepted");
        }
    }

    #[test]
    fn parts() {
        let deep = path("a/b/c");
        assert_eq!(deep.parent(), Some(path("a/b")));
        assert_eq!(path("a").parent(), None);
        assert_eq!(deep.file_name(), b"c");
        assert_eq!(path("a").file_name(), b"a");
        assert_eq!(deep.components().collect::<Vec<_>>(), [b"a", b"b", b"c"]);
        assert_eq!(deep.ancestors().collect::<Vec<_>>(), [&b"a/b"[..], b"a"]);
        assert_eq!(deep.as_path(), Path::new("a/b/c"));
    }

    #[test]
    fn starts_with_counts_components() {
        assert!(path("a/b").starts_with(&path("a")));
        assert!(path("a").starts_with(&path("a")));
        assert!(!path("ab").starts_with(&path("a")));
        assert!(!path("a").starts_with(&path("a/b")));
    }

    #[test]
    fn join_takes_one_name() {
        assert_eq!(path("a").join(b"b").unwrap(), path("a/b"));
        for name in [&b""[..], b".", b"..", b"b/c", b"/", b"b\0"] {
            assert!(path("a").join(name).is_err(), "{name:?}");
        }
    }

    #[test]
    fn display_is_safe_for_a_terminal() {
        let shown = RelPath::from_bytes(&b"a\x1b[31m\xff\xe2\x80\xaeb\xc3\xa9"[..])
            .unwrap()
            .to_string();
        assert_eq!(shown, "a\\u{1b}[31m\u{fffd}\\u{202e}bé");
    }

    #[test]
    fn errors_are_short() {
        let error = RelPath::from_bytes(vec![b'x'; 1 << 20])
            .unwrap_err()
            .to_string();
        assert!(error.len() < 300, "{error}");
    }

    proptest! {
        #[test]
        fn accepted_paths_stay_below(bytes in proptest::collection::vec(prop_oneof![Just(b'/'), Just(b'.'), any::<u8>()], 0..24)) {
            if let Ok(path) = RelPath::from_bytes(bytes.clone()) {
                prop_assert_eq!(path.as_bytes(), &bytes[..]);
                prop_assert!(path.as_path().components().all(|part| matches!(part, std::path::Component::Normal(_))));
                prop_assert_eq!(path.components().count(), path.as_path().components().count());
                prop_assert_eq!(path.parent().map(|dir| dir.join(path.file_name()).unwrap()), path.parent().map(|_| path.clone()));
                prop_assert!(path.ancestors().all(|dir| path.starts_with(&RelPath::from_bytes(dir).unwrap())));
            }
        }

        #[test]
        fn normalize_agrees_with_the_strict_check(text in "[a./]{0,8}") {
            if let Ok(path) = RelPath::from_bytes(text.as_str()) {
                prop_assert_eq!(RelPath::normalize(Path::new(&text)), Ok(path));
            }
        }
    }
}
