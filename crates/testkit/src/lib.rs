//! What Snapshotter's tests and benchmarks share: trees of files made from plain data, a comparer
//! that misses nothing, the golden inputs, filesystems to mount and child processes to watch.
//!
//! A test makes a [`Tree`], has something done with it and asks for every difference:
//!
//! ```
//! use testkit::{Content, Tree, compare::assert_same};
//!
//! let tree = Tree::new()
//!     .file("memory", Content::Sparse { size: 1 << 20, extents: vec![(4096, 7, 8192)] })
//!     .mtime("memory", -1, 999_999_999)
//!     .symlink("latest", "memory")
//!     .mtime("latest", 0, 0);
//! let (one, other) = (tempfile::tempdir()?, tempfile::tempdir()?);
//! tree.write_to(one.path())?;
//! tree.write_to(other.path())?;
//! assert_same(one.path(), other.path());
//! # Ok::<(), std::io::Error>(())
//! ```
//!
//! Linux only. It knows nothing of the library that it tests: what it says about a directory comes
//! from the kernel alone.

pub mod buckets;
pub mod child;
pub mod clock;
pub mod compare;
pub mod container_registry;
#[cfg(feature = "dragonfly")]
pub mod dragonfly;
pub mod extents;
pub mod far;
pub mod fsstat;
pub mod fuse;
pub mod golden;
pub mod http;
pub mod lease;
mod mapped;
pub mod moto;
pub mod mount;
pub mod prng;
pub mod proxy;
pub mod quirks;
mod random;
pub mod registry;
#[cfg(feature = "s3")]
pub mod s3;
pub mod tls_proxy;
pub mod tree;
pub mod weather;

pub use mapped::Mapped;
pub use random::Shape;
pub use tree::{Content, Tree};
