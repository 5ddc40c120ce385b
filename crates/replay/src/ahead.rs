//! Looking ahead in memory, not in time.
//!
//! A large guest's entries do not fit the caches, and each event touches another one: waiting for memory is most of what a replay does.
//! So the places that the next few events will need are read beforehand, all together: a processor waits for many reads as long as for one.
//! Nothing depends on what is read here.

use std::hint::black_box;

use mmuscope_trace::{Body, Event};

use crate::engine::{Engine, index_of, key_of};
use crate::store::{NONE, Store};

/// Events looked at together: more than a processor's outstanding reads is of no use.
pub(crate) const AHEAD: usize = 32;
/// Spans that fit the caches.
const SMALL: usize = 1 << 15;

impl Engine {
    /// Reads what the next events will need.
    pub(crate) fn look_ahead(&self, events: &[Event]) {
        if self.store.spans_len() < SMALL {
            return;
        }
        let mut slots = [NONE; AHEAD];
        for (slot, e) in slots.iter_mut().zip(events) {
            let (as_id, level, gfn) = match e.body {
                Body::TdpSpteChanged { as_id, gfn, level, .. } => (as_id, level.clamp(1, 6), gfn),
                Body::FastPageFault { cr2_or_gpa, .. } => (0, 1, cr2_or_gpa >> 12),
                _ => continue,
            };
            let tables = self.live.get(&key_of(as_id, level, gfn));
            if let Some(t) = tables.and_then(|t| t.last()) {
                *slot = self.store.slot(*t, index_of(level, gfn)).unwrap_or(NONE);
            }
        }
        black_box(self.store.touch(&slots));
    }
}

impl Store {
    /// Reads what slots hold now.
    fn touch(&self, slots: &[u32; AHEAD]) -> u64 {
        let mut spans = [NONE; AHEAD];
        for (span, slot) in spans.iter_mut().zip(slots) {
            *span = self.last.get(*slot as usize).copied().unwrap_or(NONE);
        }
        let mut sum = 0;
        for (span, slot) in spans.iter().zip(slots) {
            let (i, s) = (*span as usize, *slot as usize);
            let value = self.s_spte.get(i).copied().unwrap_or(0);
            let meta = self.s_meta.get(i).copied().unwrap_or(0);
            let next = self.s_next.get(i).copied().unwrap_or(0);
            let count = self.count.get(s).copied().unwrap_or(0);
            sum ^= value ^ u64::from(meta) ^ u64::from(next) ^ u64::from(count);
        }
        sum
    }
}
