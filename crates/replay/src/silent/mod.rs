//! MMUs that do not trace their zaps: shadow paging, the legacy direct MMU, the TDP MMU of 5.10.
//!
//! Such a kernel traces installs. Everything else must be ruled out before a value may still be called known: mmu_notifier
//! ranges (traced since 5.13), pages zapped or synchronised (traced), guests writing their own tables, dirty logging. The rules, and what
//! follows for the user, are in `docs/guide/certainty.md`.

mod fresh;
mod gone;
mod install;
mod linking;
mod links;
mod live;
mod notifiers;
mod pages;
mod places;
mod probes;
mod ranges;
mod read;
pub(crate) mod shadow;
pub(crate) mod state;
mod unseen;

use mmuscope_trace::{Body, Event, Isa};

use crate::engine::Engine;
use crate::keys::{EntryIx, TableIx};
use crate::model::{Certainty, Reason, Shade};
use crate::moment::{At, NO_VM};
use crate::recorded::kind;
use fresh::{Fresh, Known};

impl Engine {
    /// Every event, for what it says about silent tables.
    pub(crate) fn silent_step(&mut self, at: At, e: &Event) {
        let tid = self.threads[at.th].tid;
        // Also before the first install: what is zapped may be installed only now.
        self.went_on(tid, e);
        if !self.silent.active {
            return;
        }
        match e.body {
            Body::Entry { .. } | Body::Exit { .. } | Body::UserspaceExit { .. } => {
                self.silent_boundary(at, e)
            }
            Body::PagetableWalk { addr, .. } => {
                let w = self.silent.walks.entry(tid).or_default();
                w.dark |= w.open || w.frames.len() >= 64;
                (w.addr, w.open, w.tables) = (addr, true, [None; 6]);
            }
            Body::PagingElement { pte, level } => self.walked(tid, pte, level),
            Body::WalkerError { pferr } => {
                // It led to no frame, so nothing was written there.
                let w = self.silent.walks.entry(tid).or_default();
                (w.open, w.fault) = (false, Some(pferr & 1 != 0));
            }
            Body::PageFault { .. } => {
                self.silent.walks.remove(&tid);
            }
            Body::UnsyncPage { page } => self.unsync_page(at, &page),
            _ => {}
        }
    }

    /// An entry of the guest's tables, read on the way down; the last one names the frame.
    fn walked(&mut self, tid: u32, pte: u64, level: u32) {
        let Some(w) = self.silent.walks.get_mut(&tid).filter(|w| w.open) else { return };
        if level > 1 && pte & 0x80 == 0 || level > 3 {
            if let Some(t) = w.tables.get_mut((level - 1) as usize) {
                *t = Some((pte & 0x000f_ffff_ffff_f000) >> 12);
            }
            return;
        }
        let pages = crate::model::pages_of(level as u8);
        let frame = (pte & 0x000f_ffff_ffff_f000) >> 12;
        let frame = frame / pages * pages + (w.addr >> 12) % pages;
        w.open = false;
        if w.frames.len() < 64 && !w.frames.contains(&frame) {
            w.frames.push(frame);
        }
    }

    fn silent_boundary(&mut self, at: At, e: &Event) {
        let At { th, vm, ev, .. } = at;
        let tid = self.threads[th].tid;
        self.silent.made.remove(&tid);
        for entry in self.silent.set.remove(&tid).unwrap_or_default() {
            self.unguard(entry, ev);
        }
        match e.body {
            // A write that nothing was installed for: emulated, perhaps a write to a guest table that is shadowed.
            Body::Entry { .. } | Body::UserspaceExit { .. } => {
                let to_mmio = matches!(e.body, Body::UserspaceExit { reason: 6, .. });
                if !to_mmio && let Some(gfn) = self.threads[th].fault.unanswered_write() {
                    match self.written_frames(vm, tid, gfn) {
                        Some(frames) => {
                            for g in frames {
                                self.guest_table_written(vm, Some(g), ev);
                            }
                        }
                        None => self.guest_table_written(vm, None, ev),
                    }
                }
                // A fault handed on to the guest because of what its table allows drops the entry of the address, if its page is out of
                // sync (since 5.8).
                let handed_on = self.silent.walks.get(&tid).and_then(|w| w.fault);
                if handed_on != Some(false)
                    && let Some(page) = self.threads[th].fault.unanswered()
                {
                    self.address_invalidated(vm, Some(page), ev);
                }
                self.silent.walks.remove(&tid);
            }
            Body::Exit { reason, isa, info1, .. } => {
                self.silent.walks.remove(&tid);
                // INVLPG, INVLPGA and INVPCID drop an entry of a page that is out of sync.
                let invlpg = matches!(
                    (isa, reason),
                    (Some(Isa::Vmx), Some(14 | 58)) | (Some(Isa::Svm), Some(0x79 | 0x7a | 0xa2))
                );
                if invlpg {
                    let named = isa == Some(Isa::Vmx) && reason == Some(14);
                    self.address_invalidated(vm, info1.filter(|_| named).map(|a| a >> 12), ev);
                }
            }
            _ => {}
        }
    }

    /// The frames that an emulated write may have gone to; `None` where it may have been any. The emulator looks up every page it writes
    /// to in the guest's tables, and that is traced.
    fn written_frames(&self, vm: u16, tid: u32, fault: Option<u64>) -> Option<Vec<u64>> {
        if !self.recorded.has(kind::WALK) || !self.recorded.has(kind::ELEMENT) {
            return None;
        }
        let walks = self.silent.walks.get(&tid).filter(|w| !w.dark && !w.open);
        if let Some(w) = walks
            && !self.silent.narrow.contains(&vm)
        {
            return Some(w.frames.iter().copied().chain(fault).collect());
        }
        fault.map(|g| vec![g])
    }

    /// The thread that set an entry has gone on: what can happen without an event may have happened.
    pub(crate) fn unguard(&mut self, entry: EntryIx, ev: u32) {
        let p = self.store.place(entry);
        let table = &self.store.tables[p.table];
        let Some((spte, m)) = self.store.now(entry) else { return };
        if !table.attached() {
            return;
        }
        let unseen = self.goes_unseen(p.table, spte, m.shade);
        if m.shade == Shade::Mmio {
            if unseen {
                self.make_stale(entry, ev, Reason::Unrecorded);
            }
            return;
        }
        let kept = m.certainty <= Certainty::Observed || m.reason == Reason::MaybeProtected;
        if !kept {
            return;
        }
        if unseen && self.silent.ranges.recorded {
            self.make_stale(entry, ev, Reason::Unrecorded);
            return;
        }
        // Up to 5.12 notifiers zap without any event. When dirty logging ends, small pages are zapped where the host's is a huge one, so
        // that a huge one is mapped: in direct tables, where frames of guest and host lie alike in their huge pages.
        let pages = crate::model::pages_of(p.level + 1);
        let shadow = self.silent.key_of_table.get(&p.table).is_some_and(|k| !k.role.direct);
        let alike = p.level < 3 && (self.pfn_bits(spte) >> 12) % pages == p.gfn % pages;
        // The local APIC's page is zapped when its acceleration goes on or off.
        if !self.silent.ranges.recorded
            || alike && !shadow && !self.split_by_tables(p.table, p.level, p.gfn)
            || p.gfn == 0xfee00
        {
            self.make_stale(entry, ev, Reason::SilentKernel);
        } else if m.shade == Shade::Writable {
            self.doubt_writable(entry, ev);
        }
    }

    /// Whether no larger mapping is allowed here: there are guest tables under it.
    fn split_by_tables(&self, table: TableIx, level: u8, gfn: u64) -> bool {
        let pages = crate::model::pages_of(level + 1);
        let first = gfn / pages * pages;
        let vm = self.store.tables[table].vm;
        self.vms.sure()
            && self.silent.guest_tables.range((vm, first)..=(vm, first + (pages - 1))).next().is_some()
    }

    /// That it is mapped is known, that it still is writable no longer.
    fn doubt_writable(&mut self, entry: EntryIx, ev: u32) {
        if let Some((spte, m)) = self.store.now(entry)
            && m.shade == Shade::Writable
            && m.certainty <= Certainty::Observed
            && !self.probed()
        {
            let (certainty, reason) = (Certainty::Assumed, Reason::MaybeProtected);
            self.store.push(entry, ev, Some(spte), m.shade, certainty, reason);
        }
    }

    /// What is kept about an entry while it is known, by the value it has now.
    fn known(&self, entry: EntryIx) -> Known {
        let p = self.store.place(entry);
        let aside = self.store.tables[p.table].as_id != 0;
        Known { entry, table: p.table, level: p.level, gfn: p.gfn, pfn: self.host_frame(entry), aside }
    }

    /// Takes an entry from those that are known. To be called before its value changes.
    pub(crate) fn forget(&mut self, entry: EntryIx) {
        if !self.silent.active {
            return;
        }
        let table = self.store.place(entry).table;
        let vm = self.store.tables[table].vm;
        if self.silent.fresh.get(&vm).is_some_and(|f| f.contains(table, entry)) {
            let known = self.known(entry);
            if let Some(f) = self.silent.fresh.get_mut(&vm) {
                f.remove(known);
            }
        }
    }

    pub(crate) fn make_stale(&mut self, entry: EntryIx, ev: u32, reason: Reason) {
        if !self.shows_in_probes(entry, reason) {
            self.stale_now(entry, ev, reason);
        }
    }

    /// The same where no probe shows it.
    pub(crate) fn stale_now(&mut self, entry: EntryIx, ev: u32, reason: Reason) {
        self.forget(entry);
        let table = self.store.place(entry).table;
        if let Some((spte, m)) = self.store.now(entry)
            && m.certainty != Certainty::Stale
            && self.store.tables[table].attached()
        {
            self.store.push(entry, ev, m.has_value.then_some(spte), m.shade, Certainty::Stale, reason);
        }
    }

    fn stale_list(&mut self, mut hit: Vec<EntryIx>, ev: u32, reason: Reason) {
        // The order of a set is not the order of anything.
        hit.sort_unstable();
        hit.dedup();
        for x in hit {
            self.make_stale(x, ev, reason);
        }
    }

    /// The VMs that an event may mean.
    fn meant(&self, vm: u16) -> Vec<u16> {
        // Where threads were sorted into VMs by what they share, a loss may have torn a VM in two.
        let known = vm != NO_VM && (self.vms.sure() || !self.careful(vm));
        if known { vec![vm] } else { self.every_vm() }
    }

    fn every_vm(&self) -> Vec<u16> {
        self.silent.fresh.keys().copied().collect()
    }

    fn stale_all(&mut self, vm: u16, ev: u32, reason: Reason) {
        let hit =
            self.meant(vm).iter().filter_map(|v| self.silent.fresh.get(v)).flat_map(Fresh::all).collect();
        self.stale_list(hit, ev, reason);
    }

    /// What is known in some tables.
    fn known_in(&self, tables: &[TableIx]) -> Vec<EntryIx> {
        let known = |t: &TableIx| self.silent.fresh.get(&self.store.tables[*t].vm).map(|f| (f, *t));
        tables.iter().filter_map(known).flat_map(|(f, t)| f.of_table(t)).collect()
    }

    fn stale_in(&mut self, tables: &[TableIx], ev: u32, reason: Reason) {
        let hit = self.known_in(tables);
        self.stale_list(hit, ev, reason);
    }

    /// What is known of entries that map any of some frames.
    fn stale_covering(&mut self, vm: u16, frames: (u64, u64), level: u8, ev: u32, reason: Reason) {
        let (first, last) = frames;
        let hit = self
            .meant(vm)
            .iter()
            .filter_map(|v| self.silent.fresh.get(v))
            .flat_map(|f| f.covering(first, last, level))
            .collect();
        self.stale_list(hit, ev, reason);
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

    /// A VM turns out to have the TDP MMU: what was taken for an MMU that does not trace its zaps may be a table of that.
    pub(crate) fn silent_no_more(&mut self, at: At) {
        if self.silent.active && !self.vms.is_tdp(at.vm) {
            self.stale_all(at.vm, at.ev, Reason::Incomplete);
        }
    }

    /// Takes the tables of a VM whose making is not in the trace, and which may be of any MMU, those of MMIO entries known by frame only among them.
    pub(crate) fn take_nameless(&mut self, vm: u16) -> Vec<TableIx> {
        if !self.silent.active {
            return Vec::new();
        }
        let named = |t: &TableIx| self.silent.key_of_table.contains_key(t);
        let mut out: Vec<TableIx> = self.silent.tables.get(&vm).into_iter().flatten().copied().collect();
        out.extend(self.silent.mmio_tables.remove(&vm));
        out.retain(|t| !named(t) && self.store.tables[*t].attached());
        out.sort_unstable();
        self.silent.mmio.retain(|k, _| k.0 != vm);
        out
    }

    pub(crate) fn silent_lost(&mut self, ev: u32, reason: Reason) {
        let hit = self.silent.fresh.values().flat_map(Fresh::all).collect();
        self.stale_list(hit, ev, reason);
        let hit = self.silent.links.take_all();
        self.doubt_links(hit, ev);
        self.silent.made.clear();
        self.silent.live.clear();
        self.silent.zaps.clear();
        // A page may have been freed and made anew: which table a zap is of is not known until an event shows it again.
        self.silent.table_of.clear();
        self.silent.key_of_table.clear();
        self.silent.shadows.clear();
        self.silent.unnamed = self.silent.tables.clone();
        self.silent.unsync.clear();
        self.silent.pages.clear();
        self.silent.guest_tables.clear();
        self.silent.set.clear();
        self.silent.walks.clear();
        self.silent.ranges.lost();
        self.silent.cows.clear();
        // A memory slot may have moved.
        self.silent.places.clear();
    }
}
