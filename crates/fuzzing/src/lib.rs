//! Bodies of the fuzz targets that go through the replay. `fuzz/` runs them, and those of the readers (`mmuscope_trace::fuzz`), under
//! cargo-fuzz; the tests of this crate run each of them over the whole corpus with a stable toolchain.
//!
//! Nothing that is shipped depends on this crate.

mod events;
mod look;
mod pieces;

pub use events::{Head, LAYOUTS, Scenario, Step};
pub use look::{compare, look};
pub use pieces::{input, pieces};

use mmuscope_replay::{ReplayOptions, Timeline, replay};
use mmuscope_trace::{ReadOptions, Trace};

/// The body of a target.
pub type Target = fn(&[u8]);

/// Names and bodies of the targets of this crate.
pub const TARGETS: &[(&str, Target)] = &[("whole", whole), ("events", events), ("pieces", pieces)];

/// Names and bodies of all targets, those of the readers first.
pub fn all() -> impl Iterator<Item = (&'static str, Target)> {
    mmuscope_trace::fuzz::TARGETS.iter().chain(TARGETS).copied()
}

/// The whole way: bytes of any format, the trace that they are, its replay, and what was known at several moments.
pub fn whole(data: &[u8]) {
    let opts = ReadOptions { threads: 1, ..ReadOptions::default() };
    if let Ok(trace) = Trace::from_bytes_with(data.to_vec(), "fuzz", &opts) {
        look(&trace, &replay(&trace, &ReplayOptions { threads: 1, ..ReplayOptions::default() }));
    }
}

/// Any sequence of events, however impossible on a real host, and its replay under one of the layouts.
pub fn events(data: &[u8]) {
    if let Ok(scenario) = arbitrary::Arbitrary::arbitrary_take_rest(arbitrary::Unstructured::new(data)) {
        replayed(&scenario);
    }
}

/// Replays a scenario and looks at what came out.
pub fn replayed(scenario: &Scenario) -> Timeline {
    let (trace, options) = scenario.trace();
    let t = replay(&trace, &options);
    look(&trace, &t);
    t
}
