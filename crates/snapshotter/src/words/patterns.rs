//! Patterns over relative paths, by gitignore's rules.
//!
//! A pattern without a slash matches at any depth, one with a slash from the top; `*`, `?` and `[…]` stay within a component and
//! `**` crosses them; a slash at the end means directories alone; `!` takes back what an earlier pattern said. `{a,b}` is either.
//! What is below a directory that matches is meant too.

use std::path::Path;
use std::sync::Mutex;

use ignore::Match;
use ignore::gitignore::{Gitignore, GitignoreBuilder};

use super::error::{Error, Result};
use super::relpath::{RelPath, os_name};
use crate::lock::lock;

/// A list of patterns, of which the last one that matches decides.
#[derive(Debug)]
pub(crate) struct Patterns {
    field: &'static str,
    all: Gitignore,
    /// Those that no path has matched so far.
    idle: Mutex<Vec<(String, Gitignore)>>,
}

/// Whether a path without a slash is matched at any depth, or at the top alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reach {
    Anywhere,
    Top,
}

impl Patterns {
    /// Compiles a request's patterns; `field` is what they are called.
    pub(crate) fn new(field: &'static str, patterns: &[String], reach: Reach) -> Result<Self> {
        let lines: Vec<String> = patterns.iter().map(|text| line_of(text, reach)).collect();
        let compile = |lines: &[String]| compiled(lines).map_err(|error| refused(field, &error));
        let idle = patterns.iter().zip(&lines).map(|(text, line)| {
            let alone = compile(std::slice::from_ref(line))?;
            // As good as not given, which for some means everything.
            if alone.is_empty() {
                return Err(Error::invalid(format!("{field}: {text:?} is no pattern")));
            }
            Ok((text.clone(), alone))
        });
        Ok(Self {
            field,
            idle: Mutex::new(idle.collect::<Result<_>>()?),
            all: compile(&lines)?,
        })
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether a path itself matches.
    pub(crate) fn matches(&self, path: &RelPath, is_dir: bool) -> bool {
        self.said(path.as_path(), is_dir) == Some(true)
    }

    /// Whether a path matches or a directory it is in; what is in one cannot be taken back.
    pub(crate) fn excludes(&self, path: &RelPath, is_dir: bool) -> bool {
        let mut above = path.ancestors();
        above.any(|above| self.said(Path::new(os_name(above)), true) == Some(true))
            || self.matches(path, is_dir)
    }

    /// What is said of a path, or else of the nearest directory it is in of which anything is.
    pub(crate) fn covers(&self, path: &RelPath, is_dir: bool) -> bool {
        let said = self.said(path.as_path(), is_dir).or_else(|| {
            let mut above = path.ancestors();
            above.find_map(|above| self.said(Path::new(os_name(above)), true))
        });
        said == Some(true)
    }

    fn said(&self, path: &Path, is_dir: bool) -> Option<bool> {
        if self.is_empty() {
            return None;
        }
        lock(&self.idle).retain(|(_, alone)| alone.matched(path, is_dir).is_none());
        match self.all.matched(path, is_dir) {
            Match::None => None,
            Match::Ignore(_) => Some(true),
            Match::Whitelist(_) => Some(false),
        }
    }

    /// What there is to say of each pattern that no path matched.
    pub(crate) fn complaints(&self) -> Vec<String> {
        let idle = lock(&self.idle);
        let say = |(text, _): &(String, _)| format!("{}: {text:?} matches nothing", self.field);
        idle.iter().map(say).collect()
    }
}

/// The patterns in a file's lines: blank ones and comments are none.
pub(crate) fn of_lines(text: &str) -> impl Iterator<Item = String> {
    let lines = text.trim_start_matches('\u{feff}').lines();
    let lines = lines.filter(|line| !line.trim().is_empty() && !line.starts_with('#'));
    lines.map(str::to_owned)
}

/// A pattern as a line of gitignore's: what begins with `#` is no comment here, and `./` is where it begins.
fn line_of(text: &str, reach: Reach) -> String {
    let (not, pattern) = match text.strip_prefix('!') {
        Some(pattern) => ("!", pattern),
        None => ("", text),
    };
    let (top, pattern) = match pattern.strip_prefix("./") {
        Some(pattern) => ("/", pattern),
        None if reach == Reach::Top && !pattern.starts_with(['/', '\\']) => ("/", pattern),
        None if not.is_empty() && pattern.starts_with('#') => ("\\", pattern),
        None => ("", pattern),
    };
    format!("{not}{top}{pattern}")
}

fn compiled(lines: &[String]) -> Result<Gitignore, ignore::Error> {
    let mut builder = GitignoreBuilder::new("");
    builder.allow_unclosed_class(false);
    for line in lines {
        builder.add_line(None, line)?;
    }
    builder.build()
}

fn refused(field: &str, error: &ignore::Error) -> Error {
    let text = match error {
        ignore::Error::Glob { glob, err } => {
            let glob = glob.as_deref().unwrap_or_default();
            format!("{field}: {glob:?} is not a pattern: {err}")
        }
        error => format!("{field}: {error}"),
    };
    Error::invalid(text).with_hint(
        "patterns are gitignore's: `*.json` at any depth, `/images/**` from the top, `log/` for directories",
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn patterns(patterns: &[&str]) -> Patterns {
        let patterns: Vec<String> = patterns.iter().map(|&text| text.to_owned()).collect();
        Patterns::new("exclude", &patterns, Reach::Anywhere).unwrap()
    }

    fn excludes(pattern: &str, path: &str) -> bool {
        patterns(&[pattern]).excludes(&RelPath::from_bytes(path).unwrap(), false)
    }

    #[test]
    fn without_a_slash_it_matches_at_any_depth_and_with_one_from_the_top() {
        assert!(excludes("*.json", "a.json") && excludes("*.json", "d/a.json"));
        assert!(excludes("/*.json", "a.json") && !excludes("/*.json", "d/a.json"));
        assert!(excludes("d/*.json", "d/a.json") && !excludes("d/*.json", "c/d/a.json"));
        assert!(excludes("./d", "d/a") && !excludes("./d", "c/d"));
    }

    #[test]
    fn a_star_stays_within_a_component_and_two_cross_them() {
        assert!(excludes("d/*", "d/a") && !excludes("d/*.c", "d/e/a.c"));
        assert!(excludes("**/*.json", "d/e/a.json") && excludes("**/*.json", "a.json"));
        assert!(excludes("**", "any/thing") && excludes("*", ".hidden"));
        assert!(excludes("a/**/b", "a/b") && excludes("a/**/b", "a/c/d/b"));
    }

    #[test]
    fn a_directory_means_everything_below_it() {
        assert!(excludes("cache", "cache/a/b") && excludes("cache", "other/cache/a"));
        assert!(excludes("cache/", "cache/a") && !excludes("cache/", "cache"));
        assert!(!excludes("cach", "cache") && !excludes("cache/**", "cache"));
    }

    #[test]
    fn the_last_pattern_decides_and_what_is_in_a_directory_cannot_be_taken_back() {
        let path = |text: &str| RelPath::from_bytes(text).unwrap();
        let list = patterns(&["*.log", "!keep.log", "old"]);
        assert!(list.excludes(&path("a.log"), false) && !list.excludes(&path("d/keep.log"), false));
        assert!(list.excludes(&path("old/keep.log"), false));
        // As a promise, or of what to restore, the nearest word counts.
        assert!(!list.covers(&path("old/keep.log"), false) && list.covers(&path("old/a"), false));
    }

    #[test]
    fn what_begins_as_a_comment_is_a_pattern_unless_it_is_a_line_of_a_file() {
        assert!(excludes("#*#", "d/#a#"));
        let lines: Vec<String> = of_lines("\u{feff}# comment\n\n  \n*.log\r\n\\#a\n").collect();
        assert_eq!(lines, ["*.log", "\\#a"]);
    }

    #[test]
    fn at_the_top_alone_means_from_the_top() {
        let list = ["memory".to_owned(), "!./disk".to_owned()];
        let list = Patterns::new("read_only", &list, Reach::Top).unwrap();
        let covers = |text: &str| list.covers(&RelPath::from_bytes(text).unwrap(), false);
        assert!(covers("memory/a") && !covers("d/memory") && !covers("disk"));
    }

    #[test]
    fn a_pattern_that_nothing_matched_is_told_of_though_another_decided() {
        let list = patterns(&["a", "*", "b/", "!c"]);
        assert!(list.excludes(&RelPath::from_bytes("a").unwrap(), false));
        assert_eq!(
            list.complaints(),
            [
                r#"exclude: "b/" matches nothing"#,
                r#"exclude: "!c" matches nothing"#
            ]
        );
    }

    #[test]
    fn a_bad_pattern_is_named() {
        let error = Patterns::new("read_only", &["a[".to_owned()], Reach::Top).unwrap_err();
        assert!(error.to_string().contains("read_only") && error.to_string().contains("a["));
    }
}
