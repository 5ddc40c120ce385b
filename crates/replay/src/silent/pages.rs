//! Shadow pages and what happens to them: made, looked up, out of sync, synchronised, zapped, written by the guest. Each event of a page comes
//! here; it makes entries of the page stale or ends its table, and never makes one known.

use mmuscope_trace::Page;

use crate::engine::Engine;
use crate::keys::{EntryIx, TableIx};
use crate::model::{Certainty, Reason, Shade, pages_of};
use crate::moment::At;
use crate::recorded::kind;
use crate::silent::fresh::Fresh;
use crate::silent::live::Made;
use crate::silent::places::Places;
use crate::silent::shadow::SpKey;

impl Engine {
    pub(crate) fn silent_get_page(&mut self, at: At, page: &Page, created: bool) {
        let At { th, vm, ev, .. } = at;
        let tid = self.threads[th].tid;
        let key = SpKey::of(vm, page);
        self.vms.is_tallest(vm, page.role.level);
        self.note_legacy(vm, page, created);
        let made = self.silent.made.entry(tid).or_default();
        if made.len() >= 16 {
            made.remove(0);
        }
        made.push(Made { key, new: created, ev });
        if created {
            self.silent.live.made(key);
        }
        if page.unsync {
            self.silent.unsync.insert(key);
        } else {
            self.silent.unsync.remove(&key);
        }
        if let Some(gfn) = page.gfn.filter(|_| !page.role.direct)
            && self.silent.pages.insert(key)
        {
            *self.silent.guest_tables.entry((vm, gfn)).or_default() += 1;
        }
        if page.role.gpte_bytes == Some(4) {
            self.silent.narrow.insert(vm);
        }
        if !self.silent.active {
            return;
        }
        self.links_may_change(vm, page, ev);
        let Some(gfn) = page.gfn else {
            // Text that drops the frame.
            if created && !page.role.direct {
                self.stale_all(vm, ev, Reason::GuestTable);
            }
            return;
        };
        if created
            && page.role.direct
            && page.role.level >= 4
            && !self.ranges_traced()
            && !self.vms.is_tdp(vm)
        {
            // A new root: the TDP MMU of 5.10, which traces no ranges either, frees the one before it with everything below, and no event
            // says so.
            let vms = self.meant(vm);
            let hit = vms.iter().filter_map(|v| self.silent.fresh.get(v)).flat_map(Fresh::all);
            let gone = |x: &EntryIx| {
                self.store.tables[self.store.place(*x).table].direct
                    || self.store.now(*x).is_some_and(|(_, m)| m.shade == Shade::Mmio)
            };
            let hit = hit.filter(gone).collect();
            self.stale_list(hit, ev, Reason::SilentKernel);
        }
        if page.role.direct {
            // It takes the place of a larger mapping, if there is one, in whichever table the thread is at.
            if page.role.level < 4 && !self.vms.is_tdp(vm) {
                let last = gfn.saturating_add(pages_of(page.role.level + 1) - 1);
                self.stale_covering(vm, (gfn, last), page.role.level + 1, ev, Reason::Split);
            }
        } else if created {
            self.protected(vm, gfn, ev);
        } else if page.unsync {
            // A page that was let out of sync is brought up to date before it is used again, without another event.
            self.sync(vm, page.role.level, key, ev);
        }
    }

    /// The frame that a new shadow page shadows is write-protected, without an event, for as long as it is a table.
    fn protected(&mut self, vm: u16, gfn: u64, ev: u32) {
        let mut hit: Vec<EntryIx> = self
            .meant(vm)
            .iter()
            .filter_map(|v| self.silent.fresh.get(v))
            .flat_map(|f| f.covering(gfn, gfn, 1))
            .collect();
        hit.sort_unstable();
        for x in hit {
            match self.store.now(x) {
                // Already in doubt as to W; what it maps does not change.
                Some((_, m)) if m.reason == Reason::MaybeProtected => {}
                Some((_, m)) if m.shade == Shade::Writable && m.certainty <= Certainty::Observed => {
                    self.doubt_writable(x, ev);
                }
                // The mark of what KVM itself may make writable goes too.
                _ => self.make_stale(x, ev, Reason::GuestTable),
            }
        }
    }

    pub(crate) fn silent_prepare_zap(&mut self, at: At, page: &Page) {
        let At { vm, ev, ts, .. } = at;
        let key = SpKey::of(vm, page);
        if page.role.invalid && self.vms.sure() && self.silent.live.count(&key) > 0 {
            // A root that was zapped while it was in use is freed: its entries went then. One of the same role may have been made since.
            return;
        }
        let left = self.silent.live.zapped(key);
        if !self.recorded.has(kind::ZAP_ALL) {
            // It may be one of all pages, because a memory slot goes or moves.
            self.silent.places.values_mut().for_each(Places::doubt);
        }
        if !self.silent.active {
            return;
        }
        self.links_may_change(vm, page, ev);
        self.silent.made.values_mut().for_each(|m| m.retain(|m| m.key != key));
        self.silent.unsync.remove(&key);
        self.table_gone(key, ev);
        let found = self.silent.table_of.remove(&key);
        if let Some(t) = found {
            self.drop_silent(t, ev, ts);
        }
        self.drop_pageless(at, key.role.level);
        if left == 0 && self.pages_complete(vm) {
            self.silent.twins.remove(&key);
        }
        if found.is_some() && self.vms.sure() || page.role.direct && self.vms.is_tdp(vm) {
            return;
        }
        self.doubt_zapped(at, key, found.is_some());
    }

    /// A page was zapped, and which table lay in it is not known for certain.
    fn doubt_zapped(&mut self, at: At, key: SpKey, found: bool) {
        let At { vm, ev, .. } = at;
        // Which VM a thread works for may be a guess: then the page may be of any, and so is every table it could be no longer known.
        let vms: Vec<u16> = if self.vms.sure() && !at.nobodys() {
            vec![vm]
        } else {
            self.silent.tables.keys().copied().collect()
        };
        for v in vms {
            let other = SpKey { vm: v, ..key };
            let named = self.silent.table_of.get(&other).copied();
            if (found || named.is_some()) && v == vm {
                continue;
            }
            let doubtful: Vec<TableIx> = match named {
                Some(t) => vec![t],
                // Which of the tables it was is not known: any that no event has named, and of that level.
                None => self
                    .silent
                    .tables
                    .get(&v)
                    .into_iter()
                    .flatten()
                    .copied()
                    .filter(|t| {
                        self.store.tables[*t].level == key.role.level
                            && !self.silent.key_of_table.contains_key(t)
                            && self.may_be_read_as(*t, &key)
                    })
                    .collect(),
            };
            self.stale_in(&doubtful, ev, Reason::PageZapped);
        }
    }

    /// Whether a table can be this page: one that was read in memory has the frame that was read.
    fn may_be_read_as(&self, t: TableIx, key: &SpKey) -> bool {
        // The TDP MMU of 5.10 prints frame and level of another one.
        let above = self.silent.above.contains(&key.vm);
        let same =
            |(gfn, direct): &(u64, bool)| *direct == key.role.direct && key.gfn.is_none_or(|g| g == *gfn);
        above || self.silent.read.get(&t).is_none_or(same)
    }

    /// A guest table is shadowed no more. Where it was the only one, a huge page may be mapped around it again: what ending dirty logging
    /// zaps.
    fn table_gone(&mut self, key: SpKey, ev: u32) {
        let Some(gfn) = key.gfn.filter(|_| self.silent.pages.remove(&key)) else { return };
        let at = (key.vm, gfn);
        match self.silent.guest_tables.get_mut(&at) {
            Some(n) if *n > 1 => {
                *n -= 1;
                return;
            }
            _ => self.silent.guest_tables.remove(&at),
        };
        for level in 1..3u8 {
            let pages = pages_of(level + 1);
            let first = gfn / pages * pages;
            let last = first + (pages - 1);
            if self.silent.guest_tables.range((key.vm, first)..=(key.vm, last)).next().is_none() {
                let fresh = self.silent.fresh.get(&key.vm);
                let hit: Vec<EntryIx> =
                    fresh.into_iter().flat_map(|f| f.covering(first, last, level)).collect();
                for e in hit {
                    if self.store.place(e).level == level {
                        self.unguard(e, ev);
                    }
                }
            }
        }
    }

    /// No page that shadows a guest's table is left of a VM.
    pub(crate) fn no_shadow_pages(&self, vm: u16) -> bool {
        !self.silent.pages.iter().any(|k| k.vm == vm)
    }

    /// A huge page was split: its entry points to a table now, of which nothing is traced.
    pub(crate) fn silent_split(&mut self, at: At, gfn: u64, level: u8) {
        if self.silent.active {
            let hit = self
                .meant(at.vm)
                .iter()
                .filter_map(|v| self.silent.fresh.get(v))
                .flat_map(|f| f.covering(gfn, gfn, level))
                .filter(|x| {
                    let p = self.store.place(*x);
                    p.level == level && p.gfn == gfn
                })
                .collect();
            self.stale_list(hit, at.ev, Reason::Split);
        }
    }
}
