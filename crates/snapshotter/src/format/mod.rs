//! The bytes shared with the Go library: what crosses the wire, nothing else.

pub mod artifact;
pub mod document;
pub mod spf;
