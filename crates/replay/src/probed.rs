//! [`ProbedChanges`]: a kprobe on the function that changes the TDP MMU's SPTEs stands in for the kernel's own event where that is not recorded.
//! Where both are recorded, each change counts once. [`Engine::step`](crate::engine::Engine::step) asks here what such an event counts as;
//! nothing here looks at tables.
//!
//! A recording says which events it holds. A text does not, and the function is entered before it traces what it changed (5.10 to 7.3), so that
//! the first probes of a text are taken for the only source of changes until an event of the kernel's own comes.

use mmuscope_trace::{Body, Event};
use rustc_hash::FxHashMap;

use crate::recorded::{Recorded, kind};

/// Whether probes stand in for the kernel's own events, and which of them the kernel may still trace itself.
#[derive(Clone, Debug, Default)]
pub(crate) struct ProbedChanges {
    stand_in: bool,
    /// The last change that each thread made and that counted when its probe was hit, by thread id.
    counted: FxHashMap<u32, Body>,
}

impl ProbedChanges {
    /// Whether changes are known by probes only.
    pub(crate) fn stand_in(&self) -> bool {
        self.stand_in
    }

    /// The probes are no longer set: nothing stands in from here on.
    pub(crate) fn stop(&mut self) {
        *self = Self::default();
    }

    /// What an event counts as, if that is not what it is: a probe that stands in is the kernel's own event, and an event of the kernel's own
    /// whose probe has counted is no more than a probe.
    pub(crate) fn counts_as(&mut self, e: &Event, recorded: &mut Recorded) -> Option<Body> {
        match e.body {
            Body::ProbeSpteChanged { .. } => {
                let other = !self.stand_in && recorded.has(kind::CHANGED);
                if other || recorded.is_stopped(kind::PROBE_CHANGED) {
                    if let Some(tid) = e.tid {
                        self.counted.remove(&tid);
                    }
                    return None;
                }
                self.stand_in = true;
                recorded.see(kind::CHANGED);
                let change = e.body.as_traced();
                if let Some(tid) = e.tid {
                    self.counted.insert(tid, change);
                }
                Some(change)
            }
            Body::TdpSpteChanged { as_id, gfn, level, old_spte, new_spte } => {
                self.stand_in = false;
                let counted = self.counted.remove(&e.tid?)?;
                (counted == e.body).then_some(Body::ProbeSpteChanged {
                    kvm: None,
                    as_id,
                    gfn,
                    old_spte,
                    new_spte,
                    level,
                })
            }
            _ => None,
        }
    }
}
