//! Which shadow pages exist, by their making and their zap. It tells which page a table is whose making was not followed by an install, and
//! which tables are gone although no event names the page they lie in.

use std::collections::BTreeSet;

use rustc_hash::FxHashMap;

use crate::engine::{At, Engine};
use crate::silent::SpKey;

/// The walk of the guest's tables that a fault began with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walked {
    /// The address it was for.
    pub(super) addr: u64,
    /// The guest's table of the level asked for; the root's frame is not told.
    pub(super) table: Option<u64>,
}

impl Walked {
    /// Whether a page that shadows a guest's table may be on the way.
    fn may_be_in(&self, key: &SpKey) -> bool {
        // A table of 1024 entries of 4 bytes has two shadow pages, or as the root four.
        let part = match (key.role.gpte_bytes, key.role.level) {
            (Some(4), 1) => self.addr >> 21 & 1,
            (Some(4), 2) => self.addr >> 30 & 3,
            _ => u64::from(key.role.quadrant),
        };
        part == u64::from(key.role.quadrant) && (self.table.is_none() || self.table == key.gfn)
    }
}

/// The pages of each VM, by level.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    /// How many of a key: text does not print all of a role, so that SMM's pages look like others.
    pages: FxHashMap<SpKey, u32>,
    levels: FxHashMap<(u16, u8), Vec<SpKey>>,
}

/// `kvm_mmu_zap_all_fast`, and the zaps that follow it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ZapAll {
    vm: u16,
    tid: u32,
    ev: u32,
    /// The table of MMIO entries that were known by their frame only.
    framed: Option<u32>,
}

impl Live {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn made(&mut self, key: SpKey) {
        let n = self.pages.entry(key).or_default();
        *n += 1;
        if *n == 1 {
            self.levels.entry((key.vm, key.role.level)).or_default().push(key);
        }
    }

    /// One page of this key is zapped; gives how many are left.
    pub(super) fn zapped(&mut self, key: SpKey) -> u32 {
        match self.pages.get_mut(&key) {
            Some(n) if *n > 1 => {
                *n -= 1;
                *n
            }
            _ => {
                if self.pages.remove(&key).is_some()
                    && let Some(l) = self.levels.get_mut(&(key.vm, key.role.level))
                {
                    l.retain(|k| *k != key);
                }
                0
            }
        }
    }

    pub(super) fn count(&self, key: &SpKey) -> u32 {
        self.pages.get(key).copied().unwrap_or(0)
    }

    fn of(&self, vm: u16, level: u8) -> &[SpKey] {
        self.levels.get(&(vm, level)).map_or(&[], Vec::as_slice)
    }
}

impl Engine {
    /// Whether the making of every shadow page of this VM is in the trace.
    pub(super) fn pages_complete(&self, vm: u16) -> bool {
        self.vms.sure() && self.vms.complete(vm)
    }

    /// The page that a table of this level is, which no event located: where all pages are known and only one can be it.
    pub(super) fn only_page(&self, vm: u16, level: u8, base: u64, walked: Option<Walked>) -> Option<SpKey> {
        if !self.pages_complete(vm) || self.silent.above.contains(&vm) {
            return None;
        }
        let mut fitting = self.silent.live.of(vm, level).iter().filter(|k| {
            let place = match k.gfn {
                _ if !k.role.direct => walked.is_none_or(|w| w.may_be_in(k)),
                Some(g) => g == base,
                None => true,
            };
            place && !self.is_located(k)
        });
        match (fitting.next(), fitting.next()) {
            (Some(k), None) if self.silent.live.count(k) == 1 && !self.silent.twins.contains(k) => Some(*k),
            _ => None,
        }
    }

    fn is_located(&self, key: &SpKey) -> bool {
        let t = self.silent.table_of.get(key);
        self.silent.live.count(key) == 1
            && t.is_some_and(|t| {
                self.store.tables[*t as usize].attached() && self.store.tables[*t as usize].page != 0
            })
    }

    /// Tables of a level whose page no event tells are gone once all pages of that level that they could be are.
    pub(super) fn drop_pageless(&mut self, at: At, level: u8) {
        let At { vm, ev, ts, .. } = at;
        if !self.pages_complete(vm) || self.silent.live.of(vm, level).iter().any(|k| !self.is_located(k)) {
            return;
        }
        let unnamed = self.silent.unnamed.get(&vm).into_iter().flatten().copied();
        // In the order of their making, not of a set.
        let gone: BTreeSet<u32> = unnamed.filter(|t| self.store.tables[*t as usize].level == level).collect();
        for t in gone {
            self.drop_silent(t, ev, ts);
        }
        if level == 1 && self.silent.live.of(vm, 1).is_empty() {
            self.drop_framed(vm, ev, ts);
        }
    }

    /// MMIO entries that are known by their frame only are gone with all tables they could be in.
    pub(super) fn drop_framed(&mut self, vm: u16, ev: u32, ts: u64) {
        let Some(t) = self.silent.mmio_tables.remove(&vm) else { return };
        self.silent.mmio.retain(|k, _| k.0 != vm);
        let entries: Vec<u32> = self.store.table_entries(t).collect();
        for e in entries {
            self.forget(e);
        }
        self.store.bury(t, ev, ts);
    }

    /// The shadow pages of a VM that were in use before an event are gone.
    fn drop_older(&mut self, vm: u16, than: u32, ev: u32, ts: u64) {
        let tables = self.silent.tables.get(&vm).into_iter().flatten().copied();
        let old: BTreeSet<u32> = tables.filter(|t| self.store.tables[*t as usize].start_ev < than).collect();
        for t in old {
            self.drop_silent(t, ev, ts);
        }
    }

    /// All pages are obsolete, and the thread that made them so is about to zap them, whether their events name them or not.
    pub(super) fn begin_zap_all(&mut self, at: At) {
        if !self.vms.sure() {
            return;
        }
        let At { th, vm, ev, ts, .. } = at;
        // It takes a lock that one thread has at a time: the last one that did is done.
        while let Some(i) = self.silent.zaps.iter().position(|z| z.vm == vm) {
            let z = self.silent.zaps.swap_remove(i);
            self.end_zap_all(z, ev, ts);
        }
        let framed = self.silent.mmio_tables.remove(&vm);
        self.silent.mmio.retain(|k, _| k.0 != vm);
        if self.silent.zaps.len() < 256 {
            self.silent.zaps.push(ZapAll { vm, tid: self.threads[th].tid, ev, framed });
        }
    }

    /// A thread does something else than zapping: what it made obsolete is gone.
    pub(crate) fn zapped_all(&mut self, tid: u32, ev: u32, ts: u64) {
        while let Some(i) = self.silent.zaps.iter().position(|z| z.tid == tid) {
            let z = self.silent.zaps.swap_remove(i);
            self.end_zap_all(z, ev, ts);
        }
    }

    fn end_zap_all(&mut self, z: ZapAll, ev: u32, ts: u64) {
        self.drop_older(z.vm, z.ev, ev, ts);
        if let Some(t) = z.framed {
            self.store.bury(t, ev, ts);
        }
    }

    /// A thread ended. With its process, or with all threads that ran the guest where no process is known, a VM ends: nothing is mapped.
    pub(crate) fn thread_ended(&mut self, tid: u32, ev: u32, ts: u64) {
        for vm in self.vms.ended(tid) {
            self.drop_older(vm, u32::MAX, ev, ts);
            self.drop_framed(vm, ev, ts);
        }
    }
}
