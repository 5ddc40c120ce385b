//! Entries that stay removed.

use crate::in_vain::InVain;
use crate::lookup::Lookup;
use crate::model::{Certainty, Evidence, EvidenceKind, Shade, VmId};
use crate::noted::Noted;
use crate::store::Store;

/// Longer than any flush takes.
const LONG: u64 = 20_000_000;

/// Entries that stay removed while faults on them keep coming to nothing, in the order of the events that removed them.
///
/// Kernels up to 6.9 do not trace the release of a frozen entry, so that one stays is no sign of anything. Faults of two or more
/// threads that go on for longer than any flush takes, and nothing that shows the entry in another state, are.
pub(crate) fn find_stuck(s: &Store, lookup: &Lookup, in_vain: &InVain, noted: &Noted) -> Vec<Evidence> {
    let mut found = Vec::new();
    for ((vm, gfn), t) in &in_vain.tails {
        if t.count < 4 || t.tids.len() < 2 || t.last - t.first < LONG {
            continue;
        }
        for as_id in 0..=1u8 {
            for id in lookup.entries_at(s, VmId(*vm), as_id, *gfn) {
                // The last thing that an event stated, assumptions about its release apart.
                let mut stated = None;
                let mut x = s.first_span(id.into());
                while let Some(i) = x {
                    if s.meta(i).certainty == Certainty::Exact {
                        stated = Some(i);
                    }
                    x = s.next_span(i);
                }
                let Some(i) = stated else { continue };
                let p = s.place(id.into());
                // Of a table that lives: its link was seen, or a fault that worked on it. In one that is being torn down, entries are
                // removed for good, and where its link was cut before the trace began, no other event shows that.
                let r = &s.tables[p.table];
                let lives = r.attached() && (r.alive || r.born && !r.lossy);
                if lives && s.meta(i).shade == Shade::Removed && t.last.saturating_sub(s.start(i)) >= LONG {
                    found.push(Evidence {
                        kind: EvidenceKind::StuckRemoved,
                        ts: s.start(i),
                        event: s.s_ev[i],
                        vm: VmId(*vm),
                        entry: Some(id),
                        as_id,
                        level: p.level,
                        gfn: p.gfn,
                        expected: None,
                        found: Some(s.s_spte[i]),
                        after_loss: noted.after_loss(s.start(i)),
                    });
                }
            }
        }
    }
    found.sort_by_key(|e| e.event);
    found
}
