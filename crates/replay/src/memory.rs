//! Guest memory as ranges.

use std::collections::BTreeMap;

use mmuscope_units::ranges::{self, Taken};

use crate::frames::{TOP, class_of};
use crate::model::{
    Entry, EntryId, MemoryKind, MemoryRange, Shade, Span, State, StateFilter, VmId, pages_of,
};
use crate::timeline::Timeline;

impl Timeline {
    /// Guest memory as ranges: RAM by size and permission, MMIO, what was mapped and is not now.
    pub fn memory(&self, vm: VmId) -> Vec<MemoryRange> {
        self.memory_at(vm, self.range().1)
    }

    /// [`memory`](Self::memory) as it was at a moment: what is mapped only later is not in it.
    pub fn memory_at(&self, vm: VmId, at: u64) -> Vec<MemoryRange> {
        let mut v: Vec<(Entry, Span, MemoryKind)> = self
            .at(at, &StateFilter { vm: Some(vm), ..StateFilter::default() })
            .iter()
            .filter(|(e, _)| e.level <= TOP)
            .filter_map(|(e, s)| match s.state {
                State::Present => Some((e, s, MemoryKind::Ram)),
                State::Mmio => Some((e, s, MemoryKind::Mmio)),
                _ => None,
            })
            .collect();
        let now: rustc_hash::FxHashSet<EntryId> = v.iter().map(|x| x.0.id).collect();
        // What mapped something once and does not now.
        for e in self.entries().filter(|e| e.vm == vm && !now.contains(&e.id)) {
            let mapped = |s: &Span| s.start <= at && matches!(s.state, State::Present | State::Mmio);
            let last = self.spans(e.id).filter(mapped).last();
            if let Some(s) = last {
                v.push((e, s, MemoryKind::Gone));
            }
        }
        // Of entries for the same frame: of what is mapped, what the sums of `Counts` take too, the best known and the newest; then of what
        // was, the small pages.
        v.sort_by_key(|(e, s, k)| {
            let gone = *k == MemoryKind::Gone;
            let class = if gone { None } else { class_of(s.shade, s.certainty) };
            let size = if gone { e.level } else { u8::MAX - e.level };
            (e.as_id, gone, class, size, s.certainty, std::cmp::Reverse(s.start), e.gfn)
        });
        let mut taken: BTreeMap<u8, Taken> = BTreeMap::new();
        let mut v: Vec<(u64, u64, Entry, Span, MemoryKind)> = v
            .into_iter()
            .flat_map(|(e, s, k)| {
                let from = e.gfn / pages_of(e.level) * pages_of(e.level);
                let own = taken.entry(e.as_id).or_default();
                let free = own.take((from, from.saturating_add(pages_of(e.level))));
                free.into_iter().map(move |(from, to)| (from, to, e, s, k))
            })
            .collect();
        v.sort_by_key(|x| (x.2.as_id, x.0));
        let devices: rustc_hash::FxHashSet<u64> =
            self.mmio_ranges().iter().filter(|r| r.vm == vm).map(|r| r.gfn_start).collect();
        let pieces = v.into_iter().map(|(gfn_start, gfn_end, e, s, kind)| MemoryRange {
            vm,
            as_id: e.as_id,
            gfn_start,
            gfn_end,
            kind,
            level: e.level,
            shade: s.shade,
            certainty: s.certainty,
            entries: 1,
            slot: None,
        });
        let mut out = ranges::fold(pieces, |l, r| {
            let device = r.shade == Shade::Mmio && devices.contains(&r.gfn_start);
            // Devices side by side are distinguished by how they are used.
            !device && l.kind == r.kind && l.take_in(r)
        });
        number_slots(&mut out);
        out
    }

    /// [`memory`](Self::memory), and between its ranges those that no event names.
    pub fn memory_and_unseen(&self, vm: VmId) -> Vec<MemoryRange> {
        self.memory_and_unseen_at(vm, self.range().1)
    }

    /// The same as it was at a moment.
    pub fn memory_and_unseen_at(&self, vm: VmId, moment: u64) -> Vec<MemoryRange> {
        let mut out: Vec<MemoryRange> = Vec::new();
        let mut at = None;
        for m in self.memory_at(vm, moment) {
            let (as_id, from) = at.filter(|(as_id, _)| *as_id == m.as_id).unwrap_or((m.as_id, 0));
            if from < m.gfn_start {
                out.push(MemoryRange {
                    gfn_start: from,
                    gfn_end: m.gfn_start,
                    kind: MemoryKind::Unseen,
                    level: 0,
                    shade: Shade::Unknown,
                    entries: 0,
                    slot: None,
                    ..m
                });
            }
            at = Some((as_id, m.gfn_end.max(from)));
            out.push(m);
        }
        out
    }
}

/// Frames never seen that may well be of the slot around them: 64 MiB.
const NEAR: u64 = 0x4000;

/// Divides RAM into memslots. No event names them; but no slot has MMIO within, and one that is touched is rarely left alone for a stretch longer
/// than all that was touched before.
fn number_slots(ranges: &mut [MemoryRange]) {
    let mut slot = 0;
    let mut last: Option<(u8, u64, u64)> = None;
    for m in ranges {
        if m.shade == Shade::Mmio {
            last = None;
            continue;
        }
        let same = last.filter(|(as_id, start, end)| {
            let gap = m.gfn_start.saturating_sub(*end);
            *as_id == m.as_id && gap <= NEAR.max(end - start)
        });
        if same.is_none() {
            slot += 1;
        }
        let start = same.map_or(m.gfn_start, |s| s.1);
        last = Some((m.as_id, start, m.gfn_end.max(same.map_or(0, |s| s.2))));
        m.slot = Some(slot);
    }
}
