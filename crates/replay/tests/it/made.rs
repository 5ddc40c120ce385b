//! Replays of made-up traces, and questions about how they end.

use mmuscope_replay::{Entry, ReplayOptions, Span, StateFilter, Timeline, replay};
use mmuscope_testing::fixture;
use mmuscope_trace::Trace;

/// A trace in the language of [`mmuscope_testing::fixture`], and its replay.
pub(crate) fn run(text: &str) -> (Trace, Timeline) {
    let trace = fixture::trace(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let t = replay(&trace, &ReplayOptions::default());
    (trace, t)
}

/// Every entry at the end of the trace.
pub(crate) fn at_end(t: &Timeline) -> Vec<(Entry, Span)> {
    t.state_at(t.range().1, &StateFilter::default())
}

/// The one entry of a level and frame at the end, with its state, value and certainty.
pub(crate) fn entry(t: &Timeline, level: u8, gfn: u64) -> Option<(Entry, Span)> {
    let all: Vec<_> = at_end(t).into_iter().filter(|(e, _)| e.level == level && e.gfn == gfn).collect();
    assert!(all.len() < 2, "{all:x?}");
    all.into_iter().next()
}
