//! Looking ahead in memory, not in time.
//!
//! A large guest's entries do not fit the caches, and each event touches another one: waiting for memory is most of what a replay does.
//! So the places that the next few events will need are read beforehand, all together: a processor waits for many reads as long as for one.
//! Nothing depends on what is read here.

use std::hint::black_box;

use mmuscope_trace::{Body, Event};

use crate::attached::Attached;
use crate::keys::{EntryIx, SpanIx, TableIx, index_of, key_of};
use crate::store::Store;

/// Events looked at together: more than a processor's outstanding reads is of no use.
pub(crate) const AHEAD: usize = 32;
/// Places they may need.
const PLACES: usize = 2 * AHEAD;
/// Spans that fit the caches.
const SMALL: usize = 1 << 15;

/// Reads what the next events will need.
pub(crate) fn look_ahead(store: &Store, attached: &Attached, events: &[Event]) {
    if store.spans_len() < SMALL {
        return;
    }
    let mut slots = [(TableIx::NONE, 0); PLACES];
    let mut n = 0;
    let mut look = |as_id: u8, level: u8, gfn: u64| {
        if let Some(t) = attached.at(&key_of(as_id, level, gfn)).last() {
            slots[n] = (*t, index_of(level, gfn));
            n += 1;
        }
    };
    for e in events.iter().take(AHEAD) {
        match e.body {
            Body::TdpSpteChanged { as_id, gfn, level, .. } => look(as_id, level.clamp(1, 6), gfn),
            Body::FastPageFault { cr2_or_gpa, .. } => {
                look(0, 1, cr2_or_gpa >> 12);
                look(0, 2, cr2_or_gpa >> 12);
            }
            _ => {}
        }
    }
    let slots =
        slots.map(
            |(t, i)| {
                if t == TableIx::NONE { EntryIx::NONE } else { store.slot(t, i).unwrap_or(EntryIx::NONE) }
            },
        );
    black_box(store.touch(&slots));
}

impl Store {
    /// Reads what slots hold now.
    fn touch(&self, slots: &[EntryIx; PLACES]) -> u64 {
        let mut spans = [SpanIx::NONE; PLACES];
        let mut sum = 0;
        for (span, slot) in spans.iter_mut().zip(slots) {
            let chunk = slot.chunk();
            *span = self.last.get(*slot).copied().unwrap_or(SpanIx::NONE);
            let count = self.count.get(*slot).copied().unwrap_or(0);
            let leafy = self.leafy.get(chunk).copied().unwrap_or(0);
            let table = self.chunks.get(chunk).map_or(0, |c| c.table.0);
            sum ^= u64::from(count) ^ u64::from(leafy) ^ u64::from(table);
        }
        for span in spans {
            let value = self.s_spte.get(span).copied().unwrap_or(0);
            let meta = self.s_meta.get(span).copied().unwrap_or(0);
            let next = self.s_next.get(span).copied().unwrap_or(SpanIx::FIRST);
            sum ^= value ^ u64::from(meta) ^ u64::from(next.0);
        }
        sum
    }
}
