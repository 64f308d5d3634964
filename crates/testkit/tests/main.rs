//! The tests of what the tests stand on are one program, which is linked once.

mod compare;
mod dragonfly;
mod mount;
