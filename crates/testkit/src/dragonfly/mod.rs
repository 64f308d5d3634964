//! Dragonfly without Dragonfly: a daemon that behaves as badly as the real one, and a scheduler that is good enough for
//! real ones.
//!
//! [`FakeDaemon`] speaks the protocol of dfdaemon on a unix socket or on TCP. It really links, copies, moves pieces and
//! keeps a cache, and does so in the order in which the real one does: a download's output has its full size and is all
//! zeros before the first byte comes, and stays there whatever happens. What a test wants to go wrong it says with
//! [`Upload`], [`Download`] and the switches of [`FakeDaemon`] and [`Cluster`]. Several daemons of one [`Cluster`] share
//! a bucket and a scheduler and give each other pieces.
//!
//! [`Scheduler`] is what two real daemons need in order to find each other; `examples/serve.rs` runs it for scripts.
//!
//! ```
//! use testkit::dragonfly::{Cluster, Download, FakeDaemon, Gate, Options};
//!
//! let cluster = Cluster::new("checkpoints");
//! let (one, other) = (
//!     FakeDaemon::start(&cluster, Options::default()),
//!     FakeDaemon::start(&cluster, Options::default()),
//! );
//! assert!(one.endpoint().starts_with("unix:///"));
//! // All downloads of the second stop when one piece is there, until the test opens the gate.
//! let gate = Gate::default();
//! let held = gate.clone();
//! other.answer_downloads(move |_, _| Download::Hold { after: 1, gate: held.clone() });
//! # gate.open();
//! ```
//!
//! Texts and codes of errors are those that dfdaemon 1.5.10 gave when it was asked the same.
//!
//! The messages are written by hand and apart from the library's own, so that a wrong field number there is seen here.

mod cluster;
mod daemon;
mod download;
mod gate;
mod grpc;
pub mod messages;
mod scheduler;
mod text;
mod upload;

pub use cluster::Cluster;
pub use daemon::{Asked, Call, End, FakeDaemon, Listen, Options};
pub use download::Download;
pub use gate::Gate;
pub use scheduler::Scheduler;
pub use tonic::Code;
pub use upload::Upload;
