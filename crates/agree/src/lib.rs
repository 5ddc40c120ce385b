//! Whether the faces of mmuscope agree: every number that two of them show of one trace is compared, and what the events say outright is
//! counted a second time.
//!
//! The second counter ([`naive`], [`tables`]) is written from the descriptions of the tracepoints and knows nothing of the replay, so that
//! an error in one of them shows. It is no part of what is shipped.

pub mod faces;
pub mod naive;
pub mod numbers;
pub mod tables;

pub use numbers::{Difference, Numbers};

use std::path::Path;

/// Everything that is said of a trace, by the program at `mmuscope` and by the second counter.
///
/// # Errors
/// If the program fails or the trace cannot be read.
pub fn ask(mmuscope: &Path, file: &Path) -> anyhow::Result<Numbers> {
    let mut said = Numbers::default();
    let seen = faces::ask(mmuscope, file, &mut said)?;
    naive::count(file, &seen, &mut said)?;
    Ok(said)
}
