//! Where a fault ends that no event says the end of. Asked for each event by the engine's step; which event ends a fault is said in
//! [`crate::ends`].

use mmuscope_spte::Layout;
use mmuscope_trace::Body;

use crate::ends::{Ends, after};
use crate::faults::FaultTracker;
use crate::threads::Thread;

impl FaultTracker {
    /// Ends the fault that a thread is in, if an event is none that a fault can make. `tdp` says that its VM has the TDP MMU.
    pub(crate) fn end(&mut self, t: &mut Thread, tdp: bool, layout: &Layout, ev: u32, body: &Body) {
        if !t.fault.is_open() {
            return;
        }
        match after(layout, body, t.fault.gfn(), t.notifying, self.leaving_is_traced) {
            Ends::No => {}
            // The entry will show when.
            Ends::Over if t.fault.enters() => {}
            Ends::Left | Ends::Over => self.leave(t, tdp, ev),
        }
    }
}
