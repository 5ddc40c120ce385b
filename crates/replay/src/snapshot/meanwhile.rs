//! What events showed while the recorder was reading a table that the replay did not know yet. A part of a snapshot stands in the trace where reading
//! of its table ended, so that an event of that while comes before it and finds no entry. [`Engine::apply_meanwhile`] is called after each table
//! that was read and makes up for it: a later event decides against what was read.
//!
//! Changes of the TDP MMU need nothing here, because a change event makes the table that it names.

use std::collections::VecDeque;

use mmuscope_trace::snapshot::Table;
use mmuscope_trace::{Body, FastPfResult};

use crate::engine::Engine;
use crate::keys::{EntryIx, TableIx, index_of};
use crate::model::{Certainty, Reason};
use crate::moment::At;

/// How long a table may take to be read, in nanoseconds: some microseconds on hardware, milliseconds in an emulator.
const READING: u64 = 1_000_000_000;
/// How many events are kept for that long.
const MOST: usize = 4096;

/// Events that a table may be behind of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meanwhile {
    seen: VecDeque<(u64, Seen)>,
}

/// What one event showed.
#[derive(Clone, Copy, Debug)]
enum Seen {
    /// `fast_page_fault` stored a value into the entry at a virtual address.
    Fixed { sptep: u64, gfn: u64, old: u64, new: u64 },
    /// A probe showed that the entry at a virtual address is set to a value, or emptied.
    Set { sptep: u64, new: Option<u64> },
    /// `kvm_mmu_prepare_zap_page` of a page of this level for this frame.
    Zapped { level: u8, gfn: u64, direct: bool },
}

impl Meanwhile {
    /// Keeps what an event shows of entries or pages that may be in a table that is being read.
    #[inline]
    pub(crate) fn note(&mut self, ts: u64, body: &Body) {
        let seen = match *body {
            Body::FastPageFault {
                cr2_or_gpa,
                sptep: Some(sptep),
                old_spte: old,
                new_spte: new,
                result: FastPfResult::Fixed,
                ..
            } => Seen::Fixed { sptep, gfn: cr2_or_gpa >> 12, old, new },
            Body::ProbeSpteUpdate { sptep, new_spte, .. } => Seen::Set { sptep, new: Some(new_spte) },
            Body::ProbeSpteClear { sptep, .. } => Seen::Set { sptep, new: None },
            Body::PrepareZapPage { ref page } => {
                let Some(gfn) = page.gfn else { return };
                Seen::Zapped { level: page.role.level, gfn, direct: page.role.direct }
            }
            _ => return,
        };
        if self.seen.len() == MOST {
            self.seen.pop_front();
        }
        self.seen.push_back((ts, seen));
    }

    /// What was seen from a moment on.
    fn since(&mut self, from: u64) -> Vec<Seen> {
        let old = from.saturating_sub(READING);
        while self.seen.front().is_some_and(|(ts, _)| *ts < old) {
            self.seen.pop_front();
        }
        self.seen.iter().filter(|(ts, _)| *ts >= from).map(|(_, seen)| *seen).collect()
    }
}

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
