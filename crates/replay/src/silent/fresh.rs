//! The entries of one VM whose value is known, found by table, by guest frame and by host frame: what may change without an event changes few of
//! them at a time, and a VM has millions.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use crate::keys::{EntryIx, TableIx};
use crate::model::pages_of;

/// Levels that map host memory.
const LEVELS: u8 = 3;

/// What an entry maps, as it is found here.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Known {
    pub(super) entry: EntryIx,
    pub(super) table: TableIx,
    pub(super) level: u8,
    pub(super) gfn: u64,
    /// First host frame; `None` for what maps nothing of the host (MMIO).
    pub(super) pfn: Option<u64>,
    /// In an address space of its own (SMM).
    pub(super) aside: bool,
}

/// Known entries.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fresh {
    tables: FxHashMap<TableIx, BTreeSet<EntryIx>>,
    by_gfn: [BTreeSet<(u64, EntryIx)>; LEVELS as usize],
    /// By the first host frame they map.
    by_host: [BTreeSet<(u64, EntryIx)>; LEVELS as usize],
    aside: BTreeSet<EntryIx>,
}

impl Fresh {
    pub(super) fn contains(&self, table: TableIx, entry: EntryIx) -> bool {
        self.tables.get(&table).is_some_and(|t| t.contains(&entry))
    }

    pub(super) fn insert(&mut self, k: Known) {
        self.tables.entry(k.table).or_default().insert(k.entry);
        let Some(pfn) = k.pfn else { return };
        let level = usize::from(k.level.clamp(1, LEVELS)) - 1;
        self.by_gfn[level].insert((k.gfn, k.entry));
        self.by_host[level].insert((pfn, k.entry));
        if k.aside {
            self.aside.insert(k.entry);
        }
    }

    pub(super) fn remove(&mut self, k: Known) {
        if let Some(t) = self.tables.get_mut(&k.table) {
            t.remove(&k.entry);
            if t.is_empty() {
                self.tables.remove(&k.table);
            }
        }
        let level = usize::from(k.level.clamp(1, LEVELS)) - 1;
        self.by_gfn[level].remove(&(k.gfn, k.entry));
        if let Some(pfn) = k.pfn {
            self.by_host[level].remove(&(pfn, k.entry));
        }
        self.aside.remove(&k.entry);
    }

    pub(super) fn all(&self) -> impl Iterator<Item = EntryIx> + '_ {
        self.tables.values().flatten().copied()
    }

    /// Tables that hold some, in no order.
    pub(super) fn tables(&self) -> impl ExactSizeIterator<Item = TableIx> + '_ {
        self.tables.keys().copied()
    }

    pub(super) fn of_table(&self, table: TableIx) -> impl Iterator<Item = EntryIx> + '_ {
        self.tables.get(&table).into_iter().flatten().copied()
    }

    /// What maps any of the guest frames `first` to `last`, of the levels from `level` up.
    pub(super) fn covering(&self, first: u64, last: u64, level: u8) -> impl Iterator<Item = EntryIx> + '_ {
        overlapping(&self.by_gfn, first, last, level)
    }

    /// What maps any of the host frames `first` to `last`.
    pub(super) fn mapping(&self, first: u64, last: u64) -> impl Iterator<Item = EntryIx> + '_ {
        overlapping(&self.by_host, first, last, 1)
    }

    /// What maps memory in another address space than the usual one.
    pub(super) fn aside(&self) -> impl Iterator<Item = EntryIx> + '_ {
        self.aside.iter().copied()
    }
}

fn overlapping(
    sets: &[BTreeSet<(u64, EntryIx)>; LEVELS as usize],
    first: u64,
    last: u64,
    level: u8,
) -> impl Iterator<Item = EntryIx> + '_ {
    (level.max(1)..=LEVELS).flat_map(move |l| {
        let from = first.saturating_sub(pages_of(l) - 1);
        sets[usize::from(l) - 1].range((from, EntryIx(0))..=(last, EntryIx::NONE)).map(|(_, e)| *e)
    })
}
