//! A check that the faces of mmuscope agree: every number that two of them show of one trace is compared, and what the events state
//! outright is counted a second time.
//!
//! The main type is [`Numbers`]; [`ask`] fills it, and `cargo xtask agree` and a test of the command line call that. The second counter
//! ([`naive`], [`tables`]) is written from the descriptions of the tracepoints and never uses the replay, so that an error in either
//! shows. This crate is not shipped.

pub mod faces;
pub mod naive;
pub mod numbers;
pub mod tables;

pub use numbers::{Difference, Numbers};

use std::path::Path;

/// Collects every number that the program at `mmuscope` and the second counter show of a trace.
///
/// # Errors
/// If the program fails or the trace cannot be read.
pub fn ask(mmuscope: &Path, file: &Path) -> anyhow::Result<Numbers> {
    let mut said = Numbers::default();
    let seen = faces::ask(mmuscope, file, &mut said)?;
    naive::count(file, &seen, &mut said)?;
    Ok(said)
}
