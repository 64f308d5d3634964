//! The bytes shared with the Go library: what crosses the wire, nothing else.

pub mod artifact;
pub mod document;
#[cfg_attr(
    not(any(test, feature = "fuzzing")),
    expect(
        dead_code,
        reason = "nothing fetches or unpacks a stream yet: the decoder is held by its vectors and fuzzing"
    )
)]
pub mod spf;
