//! Installs: what the silent MMUs do trace. [`Engine::silent_set_spte`], [`Engine::silent_mark_mmio`] and [`Engine::silent_fast_fault`] are called for
//! each such event that is not one of the TDP MMU's. What is installed is known from then on only as far as the rules beside this file let it
//! be.

use mmuscope_spte::State as SpteState;
use mmuscope_trace::FastPfResult;

use crate::engine::Engine;
use crate::keys::{EntryIx, Key, TableIx};
use crate::model::{Certainty, EvidenceKind, MmuKind, Reason, Shade, State, pages_of};
use crate::moment::At;
use crate::reported::{FastFault, MarkMmio, SetSpte};
use crate::silent::live::{Made, Walked};
use crate::store::TableRec;

impl Engine {
    /// The table that lies in a host page.
    fn silent_table(&mut self, at: At, page: u64, level: u8, gfn: u64) -> TableIx {
        let At { th, vm, ev, ts, .. } = at;
        let tid = self.threads[th].tid;
        let span = 9 * u32::from(level.clamp(1, 6));
        let base = gfn >> span << span;
        let made = self.made_for(at, level, base);
        if let Some(t) = self.attached.in_page(page) {
            if self.still_lies(t, vm, level, base, made) {
                if let Some(m) = made {
                    self.silent.made.remove(&tid);
                    self.name_table(t, m.key);
                }
                return t;
            }
            // The page was freed and is another table now.
            if self.store.tables[t].silent {
                self.drop_silent(t, ev, ts);
            } else {
                self.retire_page(page, ev, ts);
            }
        }
        // A thread fills the page that it made last; those above it get no entry in this fault.
        if made.is_some() {
            self.silent.made.remove(&tid);
        }
        let key = made.map(|m| m.key).or_else(|| self.only_page(vm, level, base, self.walked_to(at, level)));
        let direct = key.is_some_and(|k| k.role.direct);
        let as_id = key.and_then(|k| k.role.smm).map_or(0, u8::from);
        let mut rec = TableRec::new(vm, as_id, level, base, ev, ts);
        rec.page = page;
        rec.direct = direct;
        rec.silent = true;
        let t = self.store.add_table(rec);
        self.store.tables[t].root = t;
        self.attached.lies_in(t, page);
        self.silent.tables.entry(vm).or_default().insert(t);
        match key {
            Some(k) => self.name_table(t, k),
            None => {
                self.silent.unnamed.entry(vm).or_default().insert(t);
            }
        }
        let kind = if direct { MmuKind::Direct } else { MmuKind::Shadow };
        if key.is_some() {
            self.mmu_kind(vm, kind);
        }
        t
    }

    /// The page that the thread made or looked up for an install at this place: the last one, if that is of this level and place.
    fn made_for(&mut self, at: At, level: u8, base: u64) -> Option<Made> {
        let tid = self.threads[at.th].tid;
        let made = *self.silent.made.get(&tid)?.last()?;
        let k = made.key;
        // The TDP MMU of 5.10 prints the level of the entry that points to the table.
        let above = k.role.direct && k.role.level == level + 1;
        let here = k.vm == at.vm && (!k.role.direct || k.gfn.is_none_or(|g| g == base));
        if !here || k.role.level != level && !above {
            return None;
        }
        if above {
            self.silent.above.insert(at.vm);
        }
        Some(made)
    }

    /// Whether the table that lay in a page still does, in view of what the thread that installs something there made before.
    fn still_lies(&self, t: TableIx, vm: u16, level: u8, base: u64, made: Option<Made>) -> bool {
        let r = &self.store.tables[t];
        if !r.silent || r.vm != vm || r.level != level || r.direct && r.gfn != base {
            return false;
        }
        match (made, self.silent.key_of_table.get(&t)) {
            // A page that was just made is empty, whichever table lay there before.
            (Some(m), Some(n)) if m.new => {
                *n == m.key && !self.silent.above.contains(&vm) && self.pages_complete(vm)
            }
            (Some(m), None) if m.new => m.ev < r.start_ev,
            (Some(m), Some(n)) => *n == m.key,
            _ => true,
        }
    }

    /// The walk of the guest's tables that the fault of a thread began with, as far as it leads to a level.
    fn walked_to(&self, at: At, level: u8) -> Option<Walked> {
        let thread = &self.threads[at.th];
        let w = self.silent.walks.get(&thread.tid).filter(|w| !w.open)?;
        let (page, _) = thread.fault.page()?;
        let table = w.tables.get(usize::from(level)).copied().flatten();
        (w.addr >> 12 == page).then_some(Walked { addr: w.addr, table })
    }

    pub(crate) fn silent_set_spte(&mut self, at: At, s: &SetSpte) {
        let At { th, vm, ev, .. } = at;
        let SetSpte { gfn, spte, sptep, level } = *s;
        let page = sptep & !0xfff;
        if at.nobodys() {
            self.set_by_nobody(at, s);
            return;
        }
        self.silent.active = true;
        self.learn_virt(at, gfn, sptep);
        self.learn_virt_from_probe(at, sptep, spte);
        let t = self.silent_table(at, page, level, gfn);
        let index = (sptep >> 3 & 511) as u16;
        let shade = self.shade(spte, level);
        // What is larger or smaller at the same place is replaced without an event.
        let direct = self.store.tables[t].direct || !self.silent.key_of_table.contains_key(&t);
        if direct {
            self.displace(vm, level, gfn, ev);
        }
        let entry = match self.silent.slots.get(&sptep).copied() {
            Some(e) if self.store.place(e).gfn == gfn => e,
            other => {
                if let Some(e) = other {
                    // The slot maps another frame now: the old entry is gone.
                    self.forget(e);
                    self.store.push(e, ev, None, Shade::Nonpresent, Certainty::Implied, Reason::GuestTable);
                }
                let e = self.store.free_slot(t, index, gfn);
                self.silent.lies_at(sptep & !7, e);
                if direct {
                    self.silent.direct_at.entry((vm, level, gfn)).or_default().push(e);
                }
                e
            }
        };
        self.prove_place(at, gfn);
        self.prove_range(entry, spte);
        if level == 1
            && shade.state() == State::Present
            && let host = self.pfn_bits(spte)
        {
            self.silent.places.entry(vm).or_default().seen(gfn, host, shade == Shade::Writable);
        }
        if let Some(e) = self.silent.mmio.remove(&(vm, gfn))
            && shade != Shade::Mmio
        {
            self.make_stale(e, ev, Reason::SilentKernel);
        }
        let span = self.set_to(entry, ev, spte, shade, (Certainty::Observed, Reason::Reread));
        self.threads[th].fault.changed_silently(span, level, gfn, shade);
        self.freshen(at, entry);
        if level == 1 && shade == Shade::Writable {
            self.unseen_unsync(vm, gfn, ev);
        }
        // Beside a TDP tree it is a nested guest's, if the making of its page was seen; else it may be of the tree.
        if self.vms.is_tdp(vm) && self.vms.careful(vm) && !self.silent.key_of_table.contains_key(&t) {
            self.make_stale(entry, ev, Reason::Incomplete);
        }
    }

    /// An install for a VM that is not known makes no table. The entry that was known at its address may be another VM's by now.
    fn set_by_nobody(&mut self, at: At, s: &SetSpte) {
        let entry = self.silent.slots.get(&(s.sptep & !7)).copied();
        if let Some(e) = entry {
            self.make_stale(e, at.ev, Reason::SilentKernel);
        }
    }

    /// An install in a direct table (or one that may be) replaces what other levels mapped there.
    fn displace(&mut self, vm: u16, level: u8, gfn: u64, ev: u32) {
        let mut hit = Vec::new();
        for other in 1..=3u8 {
            let size = pages_of(other);
            let bases: &mut dyn Iterator<Item = u64> = match other.cmp(&level) {
                std::cmp::Ordering::Equal => continue,
                std::cmp::Ordering::Greater => &mut std::iter::once(gfn / size * size),
                // A gigabyte's worth of small pages is not looked at one by one: they are children of tables that go with it.
                std::cmp::Ordering::Less => {
                    &mut (0..pages_of(level) / size).take(512).map(move |i| gfn.saturating_add(i * size))
                }
            };
            for base in bases {
                hit.extend(self.silent.direct_at.get(&(vm, other, base)).into_iter().flatten().copied());
            }
        }
        let fresh = self.silent.fresh.get(&vm);
        hit.retain(|e| fresh.is_some_and(|f| f.contains(self.store.place(*e).table, *e)));
        self.stale_list(hit, ev, Reason::SilentKernel);
    }

    /// A value is known from here on, as far as this kernel lets it be known.
    fn freshen(&mut self, at: At, entry: EntryIx) {
        let At { th, vm, ev, .. } = at;
        if let Some(reason) = self.zap_pending(at, entry) {
            self.make_stale(entry, ev, reason);
            return;
        }
        let known = self.known(entry);
        self.silent.fresh.entry(vm).or_default().insert(known);
        if !self.boundaries_recorded() || !self.silent.ranges.recorded && self.ranges_traced() {
            // When the thread goes on, or what another takes away meanwhile, will not show.
            self.unguard(entry, ev);
            return;
        }
        let tid = self.threads[th].tid;
        self.silent.set.entry(tid).or_default().push(entry);
    }

    /// `mark_mmio_spte` named by its virtual address the entry that `kvm_mmu_set_spte` of the same thread and frame names by its physical one.
    fn learn_virt(&mut self, at: At, gfn: u64, sptep: u64) {
        let tid = self.threads[at.th].tid;
        if self.virt_minus_phys.is_none()
            && let Some((t, g, virt)) = self.silent.virt
            && t == tid
            && g == gfn
        {
            // mark_mmio_spte was attributed by its frame alone, in a table that nothing names: now its place is known.
            if self.learn_distance(virt, sptep) {
                self.place_is_known(at, gfn);
            }
        }
        self.silent.virt = None;
    }

    pub(crate) fn silent_mark_mmio(&mut self, at: At, m: &MarkMmio) {
        let At { th, vm, ev, ts, .. } = at;
        let MarkMmio { sptep, gfn, access, generation } = *m;
        if let Some(v) = sptep {
            self.silent.virt = Some((self.threads[th].tid, gfn, v));
        }
        if at.nobodys() || self.vms.is_tdp(vm) {
            return;
        }
        self.silent.active = true;
        let value = self.layout.mmio(gfn, (access & 6) as u8, generation);
        let value = (self.mmio_sure && self.layout.state(value, 1) == SpteState::Mmio).then_some(value);
        let phys = sptep.zip(self.virt_minus_phys).map(|(v, d)| v.wrapping_sub(d));
        let entry = if let Some(p) = phys {
            let t = self.silent_table(at, p & !0xfff, 1, gfn);
            match self.silent.slots.get(&p).copied() {
                Some(e) if self.store.place(e).gfn == gfn => e,
                _ => {
                    let e = self.store.free_slot(t, (p >> 3 & 511) as u16, gfn);
                    self.silent.lies_at(p & !7, e);
                    e
                }
            }
        } else if let Some(e) = self
            .silent
            .mmio
            .get(&(vm, gfn))
            .copied()
            .filter(|e| self.store.tables[self.store.place(*e).table].attached())
        {
            e
        } else {
            // Known by its frame only: the table is not named.
            let t = self
                .silent
                .mmio_tables
                .get(&vm)
                .copied()
                .filter(|t| self.store.tables[*t].attached())
                .unwrap_or_else(|| {
                    let mut rec = TableRec::new(vm, 0, 1, 0, ev, ts);
                    rec.direct = false;
                    self.store.add_table(rec)
                });
            self.silent.mmio_tables.insert(vm, t);
            let e = self.store.free_slot(t, (gfn & 511) as u16, gfn);
            self.silent.mmio.insert((vm, gfn), e);
            e
        };
        self.forget(entry);
        let remaps = self.remaps(entry, Shade::Mmio, value);
        let span = self.store.push(entry, ev, value, Shade::Mmio, Certainty::Implied, Reason::MarkMmio);
        if remaps {
            self.store.mark_remapped(span);
        }
        let known = self.known(entry);
        self.silent.fresh.entry(vm).or_default().insert(known);
        if self.boundaries_recorded() {
            let tid = self.threads[th].tid;
            self.silent.set.entry(tid).or_default().push(entry);
        } else {
            self.unguard(entry, ev);
        }
    }

    /// A fault that the lockless path handled, of no entry that the TDP MMU is known to have.
    pub(crate) fn silent_fast_fault(&mut self, at: At, f: &FastFault) {
        let At { th, ev, .. } = at;
        let FastFault { sptep, old, new, result, .. } = *f;
        // Re-read when recorded: what the entry held, if it is known which one it is.
        let known = sptep.zip(self.virt_minus_phys).map(|(v, d)| v.wrapping_sub(d));
        let Some(phys) = known.or_else(|| self.fast_fault_somewhere(at, f)) else { return };
        let Some(entry) = self.silent.slots.get(&phys).copied() else { return };
        let level = self.store.place(entry).level;
        if let Some((cur, m)) = self.store.now(entry)
            && m.certainty != Certainty::Stale
            && m.has_value
        {
            let ad = self.ad_bits();
            if (cur ^ old) & !ad == 0 && (cur ^ new) & !ad == 0 {
                return;
            }
            // Writable is not known to last.
            if (cur ^ old) & !ad & !2 != 0 {
                let p = self.store.place(entry);
                let key = Key { as_id: 0, level, gfn: p.gfn };
                let values = (Some(cur), Some(old));
                self.evidence(EvidenceKind::FastFault, at, Some(entry), key, p.gfn, values);
            }
        }
        let shade = self.shade(new, level);
        let reason = if result == FastPfResult::Fixed { Reason::FastFault } else { Reason::Reread };
        self.forget(entry);
        let span = self.store.push(entry, ev, Some(new), shade, Certainty::Observed, reason);
        if result == FastPfResult::Fixed {
            self.threads[th].fault.changed(span, level, shade);
        }
        self.freshen(at, entry);
    }

    /// A fast fault of which no event has shown yet where the physical address of its entry lies. If one entry alone may lie there and held the old
    /// value, the result is its address, and the distance of the two addresses is known from here on. Otherwise any entry that held the old value
    /// may have the new one now.
    fn fast_fault_somewhere(&mut self, at: At, f: &FastFault) -> Option<u64> {
        let ad = self.ad_bits();
        if f.result != FastPfResult::Fixed || (f.old ^ f.new) & !ad == 0 {
            return None;
        }
        let holds =
            |x: EntryIx| self.store.now(x).is_some_and(|(v, m)| m.has_value && (v ^ f.old) & !ad & !2 == 0);
        if let Some(virt) = f.sptep {
            let mut may = self.silent.may_lie_at(virt).into_iter().filter(|(_, e)| holds(*e));
            if let (Some((phys, _)), None) = (may.next(), may.next()) {
                self.learn_distance(virt & !7, phys);
                return Some(phys);
            }
        }
        let host = self.pfn_bits(f.old) >> 12;
        let mut hit: Vec<EntryIx> = self
            .meant(at.vm)
            .iter()
            .filter_map(|v| self.silent.fresh.get(v))
            .flat_map(|x| x.mapping(host, host))
            .filter(|e| holds(*e))
            .collect();
        hit.sort_unstable();
        for e in hit {
            // No probe is on the lockless path.
            self.stale_now(e, at.ev, Reason::Ambiguous);
        }
        None
    }
}
