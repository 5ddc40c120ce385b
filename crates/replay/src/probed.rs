//! [`ProbedChanges`]: a kprobe on the function that changes the TDP MMU's SPTEs stands in for the kernel's own event where the trace has none.
//! Where it has both, only the kernel's own event counts. [`Engine::step`](crate::engine::Engine::step) hands it each event, and whoever reads the
//! events again asks [`Timeline::counts_as`](crate::Timeline::counts_as). Nothing here looks at tables.
//!
//! A recording says which events it holds. A text does not, and the function is entered before it traces what it changed (5.11 to 7.3), so that a
//! probe comes first. Where one stood in and an event of the kernel's own comes after all, the timeline replays the trace anew.

use mmuscope_trace::{Body, Event};

use crate::model::EventIx;
use crate::recorded::{Recorded, kind};

/// Whether probes stand in for the kernel's own events, and which of them.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProbedChanges {
    /// The trace has changes that the kernel traced itself.
    traced: bool,
    /// A probe has stood in for one.
    used: bool,
    /// The number of the event from which the probes are no longer set.
    until: Option<EventIx>,
}

impl ProbedChanges {
    /// `traced`: whether the trace has changes that the kernel traced itself.
    pub(crate) fn new(traced: bool) -> Self {
        Self { traced, ..Self::default() }
    }

    /// Whether a probe stood in for the kernel's own event, and the trace has that, too: then changes have counted twice.
    pub(crate) fn both(&self) -> bool {
        self.used && self.traced
    }

    /// Whether changes are known by probes only.
    pub(crate) fn stand_in(&self) -> bool {
        self.used && self.until.is_none()
    }

    /// From this event on the probes are no longer set.
    pub(crate) fn stop(&mut self, ev: EventIx) {
        self.until.get_or_insert(ev);
    }

    /// Takes in the next event.
    pub(crate) fn note(&mut self, e: &Event, recorded: &mut Recorded) {
        match e.body {
            Body::TdpSpteChanged { .. } => self.traced = true,
            Body::ProbeSpteChanged { .. }
                if !self.used
                    && !self.traced
                    && !recorded.has(kind::CHANGED)
                    && !recorded.is_stopped(kind::PROBE_CHANGED) =>
            {
                self.used = true;
                recorded.see(kind::CHANGED);
            }
            _ => {}
        }
    }

    /// What an event that was taken in counts as: a probe that stands in is the kernel's own event, all others are what they are.
    pub(crate) fn counts_as(&self, ev: EventIx, e: Event) -> Event {
        let stands_in = self.used && self.until.is_none_or(|end| ev < end);
        if stands_in { Event { body: e.body.as_traced(), ..e } } else { e }
    }
}
