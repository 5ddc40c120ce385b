//! [`with_probes`]: what a kprobe on the function that changes SPTEs of the TDP MMU would have recorded.

use mmuscope_trace::{Body, Event, EventStore, Trace};

/// A trace with a hit of a kprobe on `__handle_changed_spte` for each change that the kernel traced: before its own event (`beside`), as the
/// function is entered before it traces what it changed, or in its place.
pub fn with_probes(trace: &Trace, beside: bool) -> Trace {
    let mut events = EventStore::new();
    for e in &trace.events {
        let Body::TdpSpteChanged { as_id, gfn, level, old_spte, new_spte } = e.body else {
            events.push(&e);
            continue;
        };
        let body = Body::ProbeSpteChanged { kvm: None, as_id, gfn, old_spte, new_spte, level };
        events.push(&Event { body, ..e });
        if beside {
            events.push(&e);
        }
    }
    Trace { events, ..trace.clone() }
}
