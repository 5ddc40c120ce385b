//! Guest memory as ranges.

use crate::model::{
    Entry, EntryId, MemoryKind, MemoryRange, Shade, Span, State, StateFilter, VmId, pages_of,
};
use crate::timeline::Timeline;

impl Timeline {
    /// Guest memory as ranges: RAM by size and permission, MMIO, what was mapped and is not now.
    pub fn memory(&self, vm: VmId) -> Vec<MemoryRange> {
        let end = self.range().1;
        let mut v: Vec<(Entry, Span, MemoryKind)> = self
            .at(end, &StateFilter { vm: Some(vm), ..StateFilter::default() })
            .iter()
            .filter_map(|(e, s)| match s.state {
                State::Present => Some((e, s, MemoryKind::Ram)),
                State::Mmio => Some((e, s, MemoryKind::Mmio)),
                _ => None,
            })
            .collect();
        let now: rustc_hash::FxHashSet<EntryId> = v.iter().map(|x| x.0.id).collect();
        // What mapped something once and does not now.
        for e in self.entries().filter(|e| e.vm == vm && !now.contains(&e.id)) {
            let last = self.spans(e.id).filter(|s| matches!(s.state, State::Present | State::Mmio)).last();
            if let Some(s) = last {
                v.push((e, s, MemoryKind::Gone));
            }
        }
        v.sort_by_key(|(e, _, k)| (e.as_id, e.gfn, *k == MemoryKind::Gone, e.level));
        let devices: rustc_hash::FxHashSet<u64> =
            self.mmio_ranges().iter().filter(|r| r.vm == vm).map(|r| r.gfn_start).collect();
        let mut out: Vec<MemoryRange> = Vec::new();
        let mut slot = 0;
        for (e, s, kind) in v {
            let e_end = e.gfn.saturating_add(pages_of(e.level));
            if let Some(l) = out.last_mut()
                && l.as_id == e.as_id
                && l.gfn_end > e.gfn
                && kind == MemoryKind::Gone
            {
                continue;
            }
            match out.last_mut() {
                Some(l)
                    if l.as_id == e.as_id
                        && l.gfn_end == e.gfn
                        && l.kind == kind
                        && l.level == e.level
                        && l.shade == s.shade
                        // Devices side by side are told apart by how they are used.
                        && !(s.shade == Shade::Mmio && devices.contains(&e.gfn)) =>
                {
                    l.gfn_end = e_end;
                    l.entries += 1;
                    l.certainty = l.certainty.max(s.certainty);
                }
                last => {
                    // A new memslot is likely where frames jump: ranges that touch belong to one.
                    let touches = last.as_ref().is_some_and(|l| {
                        l.as_id == e.as_id
                            && e.gfn.saturating_sub(l.gfn_end) < 0x100
                            && (l.kind == MemoryKind::Mmio) == (kind == MemoryKind::Mmio)
                    });
                    if !touches {
                        slot += 1;
                    }
                    out.push(MemoryRange {
                        vm,
                        as_id: e.as_id,
                        gfn_start: e.gfn,
                        gfn_end: e_end,
                        kind,
                        level: e.level,
                        shade: s.shade,
                        certainty: s.certainty,
                        entries: 1,
                        slot,
                    });
                }
            }
        }
        out
    }
}
