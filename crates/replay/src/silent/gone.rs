//! Tables whose page no event names: which page one is, because only one can be it, and which are gone, because all pages they could be are
//! zapped, because all pages of the VM are obsolete, or because the VM ended.

use std::collections::BTreeSet;

use crate::engine::Engine;
use crate::keys::{EntryIx, TableIx};
use crate::model::Reason;
use crate::moment::At;

use super::fresh::Fresh;
use super::live::{Walked, ZapAll};
use super::shadow::SpKey;

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
            && t.is_some_and(|t| self.store.tables[*t].attached() && self.store.tables[*t].page != 0)
    }

    /// Tables of a level whose page no event names are gone once all pages of that level that they could be are.
    pub(super) fn drop_pageless(&mut self, at: At, level: u8) {
        let At { vm, ev, ts, .. } = at;
        if !self.pages_complete(vm) || self.silent.live.of(vm, level).iter().any(|k| !self.is_located(k)) {
            return;
        }
        let unnamed = self.silent.unnamed.get(&vm).into_iter().flatten().copied();
        // In the order of their making, not of a set.
        // Those that were read in memory are of pages whose making is not in the trace.
        let older = |t: &TableIx| self.silent.read.contains_key(t);
        let gone: BTreeSet<TableIx> =
            unnamed.filter(|t| self.store.tables[*t].level == level && !older(t)).collect();
        for t in gone {
            self.drop_silent(t, ev, ts);
        }
        let of_vm = |t: &TableIx| self.store.tables[*t].vm == vm && self.store.tables[*t].level == 1;
        if level == 1 && self.silent.live.of(vm, 1).is_empty() && !self.silent.read.keys().any(of_vm) {
            self.drop_framed(vm, ev, ts);
        }
    }

    /// MMIO entries that are known by their frame only are gone with all tables they could be in.
    fn drop_framed(&mut self, vm: u16, ev: u32, ts: u64) {
        let Some(t) = self.silent.mmio_tables.remove(&vm) else { return };
        self.silent.mmio.retain(|k, _| k.0 != vm);
        let entries: Vec<EntryIx> = self.store.table_entries(t).collect();
        for e in entries {
            self.forget(e);
        }
        self.store.free_table(t, ev, ts);
    }

    /// The shadow pages of a VM that were in use before an event are gone.
    fn drop_older(&mut self, vm: u16, than: u32, ev: u32, ts: u64) {
        let tables = self.silent.tables.get(&vm).into_iter().flatten().copied();
        let old: BTreeSet<TableIx> = tables.filter(|t| self.store.tables[*t].start_ev < than).collect();
        for t in old {
            self.drop_silent(t, ev, ts);
        }
    }

    /// All pages are obsolete, and the thread that made them so is about to zap them, whether their events name them or not.
    fn begin_zap_all(&mut self, at: At) {
        if !self.vms.sure() || at.nobodys() {
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
            self.store.free_table(t, ev, ts);
        }
    }

    /// A thread ended. With the last of all threads that ran the guest, and the process where it is known, a VM ends: nothing is mapped.
    pub(crate) fn thread_ended(&mut self, tid: u32, ev: u32, ts: u64) {
        for vm in self.vms.ended(tid) {
            self.drop_older(vm, u32::MAX, ev, ts);
            self.drop_framed(vm, ev, ts);
        }
    }

    pub(crate) fn silent_zap_all(&mut self, at: At) {
        let At { vm, ev, .. } = at;
        let vms = if self.vms.sure() && !at.nobodys() { vec![vm] } else { self.every_vm() };
        for v in vms {
            let hit: Vec<EntryIx> = self.silent.fresh.get(&v).into_iter().flat_map(Fresh::all).collect();
            // A memory slot goes, or moves.
            self.silent.places.entry(v).or_default().doubt();
            self.stale_list(hit, ev, Reason::ZapAll);
        }
        self.begin_zap_all(at);
    }
}
