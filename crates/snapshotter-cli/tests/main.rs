//! All tests of the command are one program, which is linked once. cargo-nextest gives each test a process of its own.

#[macro_use]
mod support;

mod completions;
mod config;
mod copy;
mod df;
mod diff;
mod doctor;
mod dragonfly;
mod exposed;
mod gc;
mod general;
mod inspect;
mod limits;
mod list;
mod mistakes;
mod month;
mod mount;
mod nodes;
mod paged;
mod pin;
mod progress;
mod prune;
mod pull;
mod push;
mod readme;
mod remove;
mod restore;
mod signals;
mod snapshot;
mod tag;
mod threads;
mod verbose;
mod verify;
mod went_back;
