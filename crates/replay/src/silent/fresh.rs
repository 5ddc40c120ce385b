//! The entries of one VM whose value is known, found by table, by guest frame and by host frame: what may change silently changes few of
//! them at a time, and a VM has millions.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use crate::model::pages_of;

/// Levels that map host memory.
const LEVELS: u8 = 3;

/// What an entry maps, as it is found here.
#[derive(Clone, Copy, Debug)]
pub(super) struct Known {
    pub(super) entry: u32,
    pub(super) table: u32,
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
    tables: FxHashMap<u32, BTreeSet<u32>>,
    by_gfn: [BTreeSet<(u64, u32)>; LEVELS as usize],
    /// By the 2 MiB of host memory they map, or map a part of.
    by_host: FxHashMap<u64, Vec<u32>>,
    /// Those that map more than that.
    giants: BTreeSet<u32>,
    aside: BTreeSet<u32>,
}

impl Fresh {
    pub(super) fn contains(&self, table: u32, entry: u32) -> bool {
        self.tables.get(&table).is_some_and(|t| t.contains(&entry))
    }

    pub(super) fn insert(&mut self, k: Known) {
        self.tables.entry(k.table).or_default().insert(k.entry);
        let Some(pfn) = k.pfn else { return };
        if let Some(set) = self.by_gfn.get_mut(usize::from(k.level.clamp(1, LEVELS)) - 1) {
            set.insert((k.gfn, k.entry));
        }
        if k.aside {
            self.aside.insert(k.entry);
        }
        if k.level > 2 {
            self.giants.insert(k.entry);
        } else {
            let at = self.by_host.entry(pfn >> 9).or_default();
            if !at.contains(&k.entry) {
                at.push(k.entry);
            }
        }
    }

    pub(super) fn remove(&mut self, k: Known) {
        if let Some(t) = self.tables.get_mut(&k.table) {
            t.remove(&k.entry);
            if t.is_empty() {
                self.tables.remove(&k.table);
            }
        }
        if let Some(set) = self.by_gfn.get_mut(usize::from(k.level.clamp(1, LEVELS)) - 1) {
            set.remove(&(k.gfn, k.entry));
        }
        self.giants.remove(&k.entry);
        self.aside.remove(&k.entry);
        if let Some(host) = k.pfn.map(|p| p >> 9)
            && let Some(at) = self.by_host.get_mut(&host)
        {
            at.retain(|x| *x != k.entry);
            if at.is_empty() {
                self.by_host.remove(&host);
            }
        }
    }

    pub(super) fn all(&self) -> impl Iterator<Item = u32> + '_ {
        self.tables.values().flatten().copied()
    }

    /// Tables that hold some, in no order.
    pub(super) fn tables(&self) -> impl ExactSizeIterator<Item = u32> + '_ {
        self.tables.keys().copied()
    }

    pub(super) fn of_table(&self, table: u32) -> impl Iterator<Item = u32> + '_ {
        self.tables.get(&table).into_iter().flatten().copied()
    }

    /// What maps any of the guest frames `first` to `last`, of the levels from `level` up.
    pub(super) fn covering(&self, first: u64, last: u64, level: u8) -> impl Iterator<Item = u32> + '_ {
        (level.max(1)..=LEVELS).flat_map(move |l| {
            let from = first.saturating_sub(pages_of(l) - 1);
            self.by_gfn[usize::from(l) - 1].range((from, 0)..=(last, u32::MAX)).map(|(_, e)| *e)
        })
    }

    /// What maps memory in another address space than the usual one.
    pub(super) fn aside(&self) -> impl Iterator<Item = u32> + '_ {
        self.aside.iter().copied()
    }

    /// What may map a host frame: all that map it, and others of its neighbourhood.
    pub(super) fn near_host(&self, pfn: u64) -> impl Iterator<Item = u32> + '_ {
        self.by_host.get(&(pfn >> 9)).into_iter().flatten().chain(&self.giants).copied()
    }
}
