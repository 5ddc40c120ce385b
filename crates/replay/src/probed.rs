//! [`ProbedChanges`]: a kprobe on the function that changes the TDP MMU's SPTEs stands in for the kernel's own event where that is not recorded.
//! Where both are recorded, each change counts once. [`Engine::step`](crate::engine::Engine::step) hands it each event, and whoever reads the events
//! again asks [`Timeline::counts_as`](crate::Timeline::counts_as). Nothing here looks at tables.
//!
//! A recording says which events it holds. A text does not, and the function is entered before it traces what it changed (5.10 to 7.3), so that
//! the first probes of a text are taken for the only source of changes until an event of the kernel's own comes.

use mmuscope_trace::{Body, Event};
use rustc_hash::FxHashMap;

use crate::model::EventIx;
use crate::recorded::{Recorded, kind};

/// Which probes stand in for the kernel's own events, and which of those count for nothing because their probe did.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProbedChanges {
    stand_in: bool,
    /// The number of the event from which no probe stands in any more.
    until: Option<EventIx>,
    /// The last change that each thread made and that counted when its probe was hit, by thread id.
    counted: FxHashMap<u32, Body>,
    /// Events of the kernel's own whose probe has counted: one of each thread at most, in order.
    doubled: Vec<EventIx>,
}

impl ProbedChanges {
    /// Whether changes are known by probes only.
    pub(crate) fn stand_in(&self) -> bool {
        self.stand_in
    }

    /// From this event on the probes are no longer set.
    pub(crate) fn stop(&mut self, ev: EventIx) {
        self.stand_in = false;
        self.until.get_or_insert(ev);
    }

    /// Takes in the next event. Returns whether it counts as another: [`Self::counts_as`] has that.
    pub(crate) fn note(&mut self, ev: EventIx, e: &Event, recorded: &mut Recorded) -> bool {
        match e.body {
            Body::ProbeSpteChanged { .. } => {
                let own = !self.stand_in && recorded.has(kind::CHANGED);
                if own || recorded.is_stopped(kind::PROBE_CHANGED) {
                    self.until.get_or_insert(ev);
                    if let Some(tid) = e.tid {
                        self.counted.remove(&tid);
                    }
                    return false;
                }
                self.stand_in = true;
                recorded.see(kind::CHANGED);
                if let Some(tid) = e.tid {
                    self.counted.insert(tid, e.body.as_traced());
                }
                true
            }
            Body::TdpSpteChanged { .. } => {
                if self.stand_in {
                    self.stop(ev);
                }
                let doubled = e.tid.and_then(|tid| self.counted.remove(&tid)) == Some(e.body);
                if doubled {
                    self.doubled.push(ev);
                }
                doubled
            }
            _ => false,
        }
    }

    /// What an event that was taken in counts as: a probe that stands in is the kernel's own event, and an event of the kernel's own whose probe
    /// has counted is no more than a probe. All others are what they are.
    pub(crate) fn counts_as(&self, ev: EventIx, body: Body) -> Body {
        match body {
            Body::ProbeSpteChanged { .. } if self.until.is_none_or(|end| ev < end) => body.as_traced(),
            Body::TdpSpteChanged { as_id, gfn, level, old_spte, new_spte }
                if self.doubled.binary_search(&ev).is_ok() =>
            {
                Body::ProbeSpteChanged { kvm: None, as_id, gfn, old_spte, new_spte, level }
            }
            other => other,
        }
    }
}
