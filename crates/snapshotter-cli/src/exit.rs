//! Exit codes: one for each kind of error, so that a script need not read the text.

use snapshotter::ErrorKind;

/// What was asked for has been done, perhaps with warnings.
pub const OK: u8 = 0;
/// Done, but there were warnings and `--strict` was given.
pub const WARNINGS: u8 = 9;

/// The code of a kind of error. Interruptions have their own: 128 and the signal's number.
pub fn code(kind: ErrorKind) -> u8 {
    match kind {
        ErrorKind::InvalidInput => 2,
        ErrorKind::NotFound => 3,
        ErrorKind::AlreadyExists => 4,
        ErrorKind::Damaged => 5,
        ErrorKind::Unavailable => 6,
        ErrorKind::NoSpace => 7,
        ErrorKind::Busy => 8,
        ErrorKind::PermissionDenied => 10,
        ErrorKind::Unsupported => 11,
        _ => 1,
    }
}

/// The table of `--help` and the manual page.
pub const TABLE: &str = "   0  done, perhaps with warnings
   1  an error of no other kind
   2  wrong usage, or an invalid argument or setting
   3  a snapshot, path or directory is not there
   4  it exists already
   5  stored bytes are damaged or missing
   6  a server could not be reached, or --timeout passed; try again
   7  no space left
   8  somebody else holds what is needed; try again
   9  done with warnings, and --strict was given
  10  permission denied
  11  not supported here
 130  stopped by SIGINT (Ctrl-C)
 143  stopped by SIGTERM";
