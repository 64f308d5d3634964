//! What to do next, where the library cannot know: it has no flags, does not know what was typed, and does not look
//! for what was meant.

use std::path::{Component, Path, PathBuf};

use snapshotter::{ErrorKind, Reference, ReferenceError, Snapshotter};

use crate::failure::{Failure, Result};

/// Reads a reference; `command` is how the line should begin, for the hint.
pub fn reference(text: &str, command: &str) -> Result<Reference> {
    text.parse().map_err(|error: ReferenceError| {
        let failure = Failure::invalid(error.to_string());
        failure.with_hint(meant(text, command, &error))
    })
}

/// Reads what something new is to be called, which has a version and no digest.
pub fn new_reference(text: &str, command: &str) -> Result<Reference> {
    let reference = reference(text, command)?;
    if reference.version().is_some() && reference.manifest_digest().is_none() {
        return Ok(reference);
    }
    let what =
        format!("{reference} has a manifest digest, which a new snapshot only gets by being taken");
    Err(Failure::invalid(what).with_hint("write NAME:VERSION"))
}

fn meant(text: &str, command: &str, error: &ReferenceError) -> String {
    let lower = text.to_lowercase();
    match error {
        _ if Path::new(text).is_absolute() || text.starts_with('.') => {
            format!("{text:?} looks like a directory; the reference comes first: `snapshotter {command}`")
        }
        ReferenceError::MissingVersion { .. } if command.starts_with("snapshot") => {
            format!("choose a version: {text}:v1, for one")
        }
        ReferenceError::MissingVersion { .. } if command.ends_with(" DIR") => {
            format!("there is no such directory; of a snapshot, `snapshotter list {text}` shows the versions")
        }
        ReferenceError::MissingVersion { .. } => {
            format!("`snapshotter list {text}` shows its versions; none is taken by default")
        }
        ReferenceError::Name { .. } if lower != text && lower.parse::<Reference>().is_ok() => {
            format!("write it in lower case: {lower}")
        }
        ReferenceError::Version { .. } if text.matches(':').count() > 1 => {
            "a reference names no registry and no port: NAME:VERSION".to_owned()
        }
        _ => "a reference is NAME:VERSION, vm/disk-1:v1 for one; a manifest digest may follow: NAME:VERSION@sha256:…".to_owned(),
    }
}

/// What went wrong between here and a registry or bucket: where to look next, unless that was said.
pub fn on_the_way(failure: Failure) -> Failure {
    match (failure.kind, absent_snapshot(&failure)) {
        _ if failure.hint.is_some() => failure,
        (_, Some(wanted)) => {
            let hint = format!("`snapshotter list --remote {}` shows its versions there", wanted.name());
            failure.with_hint(hint)
        }
        (ErrorKind::Unavailable, _) => failure.with_hint(
            "the same command may succeed later, and goes on where this one stopped; `snapshotter doctor` tries the registry \
             and the place of contents",
        ),
        _ => failure,
    }
}

/// A snapshot that was taken before something went wrong on its way elsewhere: it is here, which nothing else says.
pub async fn taken(store: &Snapshotter, reference: &str, failure: Failure) -> Failure {
    let is_here = match reference.parse() {
        Ok(reference) => store.find(&reference).await.is_ok(),
        Err(_) => false,
    };
    if !is_here || failure.kind == ErrorKind::AlreadyExists {
        return failure;
    }
    let message = format!(
        "{reference} is taken, and not published: {}",
        failure.message
    );
    let push = format!("`snapshotter push {reference}` publishes it");
    let hint = match &failure.hint {
        Some(hint) => format!("{hint}; then {push}"),
        None => push,
    };
    Failure { message, ..failure }.with_hint(hint)
}

/// The same where only the registry was asked.
pub fn there(failure: Failure) -> Failure {
    let message = failure.message.replace(", neither here nor in ", " in ");
    on_the_way(Failure { message, ..failure })
}

/// The snapshot that is not there, if that is what went wrong: a blob or a bucket can be missing too.
fn absent_snapshot(failure: &Failure) -> Option<&Reference> {
    let is_about_snapshot = failure.kind == ErrorKind::NotFound
        && failure.about.path.is_none()
        && failure.message.starts_with("there is no snapshot");
    failure
        .about
        .reference
        .as_ref()
        .filter(|_| is_about_snapshot)
}

/// Adds what is there, where a snapshot is not.
pub async fn what_is_there(store: &Snapshotter, failure: Failure) -> Failure {
    let Some(wanted) = absent_snapshot(&failure) else {
        return failure;
    };
    let Ok(snapshots) = store.list().await else {
        return failure;
    };
    let same_name = snapshots
        .iter()
        .map(|snapshot| &snapshot.reference)
        .filter(|reference| reference.name() == wanted.name())
        .filter_map(|reference| reference.version());
    let versions: Vec<_> = same_name.take(8).collect();
    let hint = if !versions.is_empty() && wanted.manifest_digest().is_some() {
        format!(
            "{} has other contents or versions: `snapshotter list -v {}`",
            wanted.name(),
            wanted.name()
        )
    } else if !versions.is_empty() {
        format!("versions of {}: {}", wanted.name(), versions.join(", "))
    } else if snapshots.is_empty() {
        "there are no snapshots yet; is --root right?".to_owned()
    } else {
        "`snapshotter list` shows what is there".to_owned()
    };
    failure.with_hint(hint)
}

/// Takes a PATH as it is typed: relative to `base`, which is what `whose` stands for.
pub fn relative(path: &Path, base: &Path, whose: &str) -> Result<PathBuf> {
    if path.as_os_str() == "**" {
        return Ok(".".into());
    }
    let refuse =
        |why: &str| Failure::invalid(format!("the path {} {why}", path.display())).with_path(path);
    if path.as_os_str().is_empty() {
        return Err(
            refuse("is empty").with_hint(format!("leave it out to mean everything below {whose}"))
        );
    }
    if path.is_absolute() {
        let failure = refuse(&format!("is absolute; it should be relative to {whose}"));
        let inside = std::path::absolute(base)
            .ok()
            .and_then(|base| path.strip_prefix(base).ok());
        return Err(match inside {
            Some(inside) => failure.with_hint(format!("write {}", inside.display())),
            None => failure.with_hint(format!("only what is inside {whose} can be named")),
        });
    }
    if path
        .components()
        .any(|component| component == Component::ParentDir)
    {
        return Err(refuse(&format!(
            "has a `..`; it should stay inside {whose}"
        )));
    }
    Ok(path.to_owned())
}

/// A PATH that is not there: perhaps it was meant relative to the working directory, or as a pattern.
pub fn missing_path(failure: Failure, base: &Path, paths: &[PathBuf]) -> Failure {
    let is_missing = |path: &&PathBuf| base.join(path).symlink_metadata().is_err();
    let Some(path) = paths.iter().find(is_missing) else {
        return failure;
    };
    if failure.kind != ErrorKind::NotFound || !base.is_dir() {
        return failure;
    }
    let hint = match meant_from_here(path, base) {
        Some(meant) => format!("PATHs are relative to BASE_DIR: write {}", meant.display()),
        None if path.to_string_lossy().contains(['*', '?', '[']) => {
            "a PATH is no pattern; leave PATHs out to take everything, and use --exclude PATTERN"
                .to_owned()
        }
        None => "PATHs are relative to BASE_DIR".to_owned(),
    };
    let message = format!("there is no {} in {}", path.display(), base.display());
    Failure {
        message,
        causes: Vec::new(),
        ..failure
    }
    .with_hint(hint)
}

fn meant_from_here(path: &Path, base: &Path) -> Option<PathBuf> {
    let here = path.canonicalize().ok()?;
    let inside = here.strip_prefix(base.canonicalize().ok()?).ok()?;
    (!inside.as_os_str().is_empty()).then(|| inside.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hint(text: &str) -> String {
        let failure = reference(text, "restore NAME:VERSION OUTPUT_DIR").unwrap_err();
        failure.hint.unwrap_or_default().into_owned()
    }

    #[test]
    fn wrong_references_are_told_what_was_meant() {
        assert!(hint("vm").contains("snapshotter list vm"));
        assert!(hint("VM:v1").contains("vm:v1"));
        assert!(hint("/run/vm").contains("the reference comes first"));
        assert!(hint("host:5000/vm:v1").contains("names no registry"));
        assert!(hint("a b:v1").contains("NAME:VERSION"));
    }

    #[test]
    fn paths_are_relative_to_the_base() {
        let base = Path::new("/run/vm");
        let relative = |path: &str| relative(Path::new(path), base, "BASE_DIR");
        assert_eq!(relative("memory").unwrap(), Path::new("memory"));
        assert_eq!(relative("**").unwrap(), Path::new("."));
        let failure = relative("/run/vm/memory").unwrap_err();
        assert_eq!(failure.hint.as_deref(), Some("write memory"));
        assert!(relative("../x").is_err() && relative("").is_err() && relative("/etc").is_err());
    }
}
