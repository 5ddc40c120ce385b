//! What events showed while the recorder was reading a table that the replay did not know yet. A part of a snapshot stands in the trace where reading
//! of its table ended, so that an event of that while comes before it and finds no entry. [`Engine::apply_meanwhile`] is called after each table
//! that was read and makes up for it: a later event decides against what was read.
//!
//! Changes of the TDP MMU need nothing here, because a change event makes the table that it names.

use mmuscope_trace::snapshot::Table;

use crate::engine::Engine;
use crate::keys::{EntryIx, TableIx, index_of};
use crate::model::{Certainty, Reason};
use crate::moment::At;
use crate::snapshot::seen::Seen;

impl Engine {
    /// Takes in what events showed of a table while it was being read, in their order.
    pub(super) fn apply_meanwhile(&mut self, at: At, t: &Table, table: TableIx) {
        for seen in self.snapshots.meanwhile.since(t.from) {
            match seen {
                Seen::Fixed { sptep, gfn, old, new } => {
                    // The frame of a fault under shadow paging is the guest's virtual one.
                    if t.direct && index_of(t.level, gfn) != (sptep >> 3 & 511) as u16 {
                        continue;
                    }
                    let Some((entry, value, _)) = self.just_read(at, t, table, sptep) else { continue };
                    if self.same(value, old, t.level) && !self.same(value, new, t.level) {
                        self.becomes(at, entry, new, t.level, (Certainty::Observed, Reason::FastFault));
                    }
                }
                Seen::Set { sptep, new } => {
                    let Some((entry, value, sure)) = self.just_read(at, t, table, sptep) else { continue };
                    let new = new.unwrap_or(self.layout.zapped);
                    if self.same(value, new, t.level) {
                        continue;
                    }
                    if sure {
                        self.becomes(at, entry, new, t.level, (Certainty::Exact, Reason::Stated));
                    } else {
                        self.stale_now(entry, at.ev, Reason::Ambiguous);
                    }
                }
                Seen::Zapped { level, gfn, direct } => {
                    if (level, gfn, direct) == (t.level, t.gfn, t.direct) {
                        let entries: Vec<EntryIx> = self.store.table_entries(table).collect();
                        for e in entries {
                            self.stale_now(e, at.ev, Reason::Ambiguous);
                        }
                    }
                }
            }
        }
    }

    /// The entry at a virtual address, if it is in this table and no event has shown it since it was read: with its value, and whether no other
    /// page can be meant.
    fn just_read(&self, at: At, t: &Table, table: TableIx, sptep: u64) -> Option<(EntryIx, u64, bool)> {
        let index = (sptep >> 3 & 511) as u16;
        let distance = sptep.wrapping_sub(t.page + 8 * u64::from(index)) & !7;
        let sure = match self.virt_minus_phys {
            Some(d) if d == distance => true,
            // Virtual and physical addresses differ by whole GiB.
            None if distance & 0x3fff_ffff == 0 => false,
            _ => return None,
        };
        let entry = self.entry_read_at(table, t.page, index)?;
        let (value, m) = self.store.now(entry)?;
        let last = self.store.last_span(entry)?;
        let read = m.has_value && m.reason == Reason::Snapshot && self.store.s_ev[last] == at.ev;
        read.then_some((entry, value, sure))
    }
}
