//! The bytes of snapshots outside a store: what crosses the wire, nothing else. Format v1 (`spf`, `document`, `artifact`) is
//! shared with the Go library; format v2 (`pack`, `map`, `content`, and what is called paged in the others) keeps pages.

pub mod artifact;
pub mod document;

pub mod content;
#[cfg_attr(
    not(any(test, feature = "fuzzing")),
    expect(
        dead_code,
        reason = "tests and fuzzing look at more of it than captures and restores do"
    )
)]
pub mod map;
#[cfg_attr(
    not(any(test, feature = "fuzzing")),
    expect(
        dead_code,
        unused_imports,
        reason = "tests and fuzzing look at more of it than captures and restores do"
    )
)]
pub mod pack;
pub mod zstd;

#[cfg_attr(
    not(any(test, feature = "fuzzing")),
    expect(
        dead_code,
        reason = "tests and fuzzing look at more of it than captures and restores do"
    )
)]
pub mod spf;

#[cfg(test)]
mod tests;
