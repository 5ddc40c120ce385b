//! Traces for tests and benchmarks, made of lines ([`fixture`]) or of the records of a real one ([`mod@write`]).
//!
//! Other crates use this one in their tests, examples and benchmarks only; it is never shipped. It depends on the trace crate and on the layouts,
//! so that the unit tests of the replay can use it; those of the trace crate cannot, but the tests in its folder `tests/` do.

pub mod fixture;
pub mod pieces;
pub mod probed;
pub mod write;
