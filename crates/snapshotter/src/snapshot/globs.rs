//! Patterns over relative paths.
//!
//! `*`, `?` and `[…]` stay within a component, `**` stands for any number of them. A pattern that matches a directory
//! means everything below it too. Names that are not UTF-8 are matched in their lossy form.

use glob::{MatchOptions, Pattern};

use crate::words::error::{Error, Result};
use crate::words::relpath::RelPath;

/// A list of patterns, any of which may match.
#[derive(Debug)]
pub(super) struct Globs(Vec<Pattern>);

const OPTIONS: MatchOptions = MatchOptions {
    case_sensitive: true,
    require_literal_separator: true,
    require_literal_leading_dot: false,
};

impl Globs {
    /// Compiles a request's patterns; `field` is what they are called in an error.
    pub(super) fn new(field: &str, patterns: &[String]) -> Result<Self> {
        let compiled = patterns.iter().map(|text| {
            let trimmed = text.trim_start_matches("./").trim_end_matches('/');
            Pattern::new(trimmed).map_err(|error| {
                Error::invalid(format!("{field}: {text:?} is not a pattern: {}", error.msg))
                    .with_hint("patterns are relative to base_dir: `*.json`, `images/**`, `**`")
            })
        });
        Ok(Self(compiled.collect::<Result<_>>()?))
    }

    /// Whether a path itself matches.
    pub(super) fn matches(&self, path: &RelPath) -> bool {
        self.matches_bytes(path.as_bytes())
    }

    /// Whether a path or a directory it is in matches.
    pub(super) fn covers(&self, path: &RelPath) -> bool {
        !self.0.is_empty()
            && (self.matches(path) || path.ancestors().any(|above| self.matches_bytes(above)))
    }

    fn matches_bytes(&self, path: &[u8]) -> bool {
        let text = String::from_utf8_lossy(path);
        self.0
            .iter()
            .any(|pattern| pattern.matches_with(&text, OPTIONS))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn covers(pattern: &str, path: &str) -> bool {
        let globs = Globs::new("exclude", &[pattern.to_owned()]).unwrap();
        globs.covers(&RelPath::from_bytes(path).unwrap())
    }

    #[test]
    fn a_star_stays_within_a_component_and_two_cross_them() {
        assert!(covers("*.json", "a.json") && !covers("*.json", "d/a.json"));
        assert!(covers("**/*.json", "d/e/a.json") && covers("**/*.json", "a.json"));
        assert!(covers("**", "any/thing") && covers("*", ".hidden"));
    }

    #[test]
    fn a_directory_means_everything_below_it() {
        assert!(covers("cache", "cache/a/b") && covers("./cache/", "cache/a"));
        assert!(!covers("cache", "other/cache/a") && !covers("cach", "cache"));
    }

    #[test]
    fn a_bad_pattern_is_named() {
        let error = Globs::new("read_only", &["a[".to_owned()]).unwrap_err();
        assert!(error.to_string().contains("read_only") && error.to_string().contains("a["));
    }
}
