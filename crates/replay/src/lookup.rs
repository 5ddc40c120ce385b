//! [`Lookup`] finds tables and entries by frame, of all that there ever was. The timeline keeps it and its answers ask it; while events are replayed,
//! [`Attached`](crate::attached::Attached) finds what is attached then.

use mmuscope_units::ranges;
use rustc_hash::FxHashMap;

use crate::keys::{CHUNK, EntryIx, Key, TableIx, index_of, key_of};
use crate::model::{EntryId, VmId, pages_of};
use crate::store::Store;

/// Which entries a question is about; `None` is any.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Which {
    pub(crate) vm: Option<VmId>,
    pub(crate) as_id: Option<u8>,
    pub(crate) level: Option<u8>,
    /// First frame and the one after the last.
    pub(crate) gfns: Option<(u64, u64)>,
}

impl Which {
    /// Whether the question is about every entry.
    pub(crate) fn all(&self) -> bool {
        self.vm.is_none() && self.as_id.is_none() && self.level.is_none() && self.gfns.is_none()
    }

    /// Whether the question is about an entry.
    pub(crate) fn matches(&self, s: &Store, e: EntryIx) -> bool {
        let p = s.place(e);
        let t = &s.tables[p.table];
        self.vm.is_none_or(|v| v.0 == t.vm)
            && self.as_id.is_none_or(|a| a == t.as_id)
            && self.level.is_none_or(|l| l == p.level)
            && self.gfns.is_none_or(|g| ranges::overlap((p.gfn, p.gfn.saturating_add(pages_of(p.level))), g))
    }
}

/// Tables and entries by frame, those that are gone included.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lookup {
    tables: FxHashMap<(u16, Key), Vec<TableIx>>,
    indexed_tables: usize,
    /// VMs and address spaces that have tables.
    spaces: Vec<(u16, u8)>,
    /// Entries of shadow pages by frame.
    free: FxHashMap<u64, Vec<EntryIx>>,
    indexed_slots: usize,
}

impl Lookup {
    /// Takes in the tables and entries that were added to the store.
    pub(crate) fn take_in(&mut self, store: &Store) {
        for (i, t) in store.tables.numbered().skip(self.indexed_tables) {
            let key = key_of(t.as_id, t.level, t.gfn);
            self.tables.entry((t.vm, key)).or_default().push(i);
            if !self.spaces.contains(&(t.vm, t.as_id)) {
                self.spaces.push((t.vm, t.as_id));
            }
        }
        self.indexed_tables = store.tables.len();
        for e in store.entries_from(self.indexed_slots) {
            if !store.chunk_is_regular(e.chunk()) {
                let p = store.place(e);
                let v = self.free.entry(p.gfn / pages_of(p.level) * pages_of(p.level)).or_default();
                if !v.contains(&e) {
                    v.push(e);
                }
            }
        }
        // The last chunk of a shadow page may still fill up.
        self.indexed_slots = store.slots().saturating_sub(CHUNK * 64);
    }

    /// The tables of a VM at a place.
    pub(crate) fn tables(&self, vm: u16, key: Key) -> &[TableIx] {
        self.tables.get(&(vm, key)).map_or(&[], Vec::as_slice)
    }

    /// Entries of shadow pages that map a frame, by the first frame of what they map.
    pub(crate) fn free(&self, gfn: u64) -> &[EntryIx] {
        self.free.get(&gfn).map_or(&[], Vec::as_slice)
    }

    /// Whether there is any entry of a shadow page.
    pub(crate) fn any_free(&self) -> bool {
        !self.free.is_empty()
    }

    /// Address spaces of a VM that have tables, in order.
    pub(crate) fn address_spaces(&self, vm: VmId) -> Vec<u8> {
        let mut out: Vec<u8> = self.spaces.iter().filter(|s| s.0 == vm.0).map(|s| s.1).collect();
        out.sort_unstable();
        out
    }

    /// Every entry that covers a frame: all levels, all tables, highest level first.
    pub(crate) fn entries_at(&self, s: &Store, vm: VmId, as_id: u8, gfn: u64) -> Vec<EntryId> {
        let mut out = Vec::new();
        for level in (1..=6u8).rev() {
            for t in self.tables(vm.0, key_of(as_id, level, gfn)) {
                if let Some(e) = s.slot(*t, index_of(level, gfn)).filter(|e| s.used(*e)) {
                    out.push(e.id());
                }
            }
            if level <= 3 {
                for e in self.free(gfn / pages_of(level) * pages_of(level)) {
                    let p = s.place(*e);
                    let t = &s.tables[p.table];
                    if p.level == level && t.vm == vm.0 && t.as_id == as_id {
                        out.push(e.id());
                    }
                }
            }
        }
        out
    }

    /// All entries of a few frames, where the question names few and these are found faster than by looking at everything. Not all of them need
    /// match.
    pub(crate) fn entries_of(&self, s: &Store, which: &Which) -> Option<Vec<EntryIx>> {
        const FEW: u64 = 1 << 14;
        let (from, to) = which.gfns?;
        if to.saturating_sub(from) > FEW {
            return None;
        }
        let mut out = Vec::new();
        for (v, a) in &self.spaces {
            if which.vm.is_some_and(|x| x.0 != *v) || which.as_id.is_some_and(|x| x != *a) {
                continue;
            }
            for l in (1..=6u8).filter(|l| which.level.is_none_or(|x| x == *l)) {
                let pages = pages_of(l);
                let (first, end) = (from / pages, to.div_ceil(pages));
                let mut at = first;
                while at < end {
                    let next = (at | 511).saturating_add(1).min(end);
                    for t in self.tables(*v, key_of(*a, l, at.saturating_mul(pages))) {
                        let slots = (at..next).filter_map(|e| s.slot(*t, (e & 511) as u16));
                        out.extend(slots.filter(|e| s.used(*e)));
                    }
                    at = next;
                }
            }
        }
        if self.any_free() {
            for l in 1..=6u8 {
                let pages = pages_of(l);
                let mut last = None;
                for g in (from..to).map(|g| g / pages * pages) {
                    if last.replace(g) != Some(g) {
                        let here = self.free(g).iter().copied();
                        out.extend(here.filter(|e| s.place(*e).level == l));
                    }
                }
            }
        }
        Some(out)
    }

    /// Memory that it takes, in bytes, about.
    pub(crate) fn bytes(&self) -> usize {
        self.tables.capacity() * 48 + self.free.capacity() * 40
    }

    /// Puts in what no replay would, so that a test sees whether it is still there.
    #[cfg(test)]
    pub(crate) fn mark(&mut self) {
        self.free.insert(u64::MAX, Vec::new());
    }

    /// Whether that is still there.
    #[cfg(test)]
    pub(crate) fn is_marked(&self) -> bool {
        self.free.contains_key(&u64::MAX)
    }
}
