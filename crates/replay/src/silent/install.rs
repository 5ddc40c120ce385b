//! Installs: what the silent MMUs do tell.

use mmuscope_spte::State as SpteState;
use mmuscope_trace::FastPfResult;

use crate::engine::{At, Engine, FastFault, Key, MarkMmio, SetSpte};
use crate::model::{Certainty, EvidenceKind, MmuKind, Reason, Shade, State, pages_of};
use crate::store::TableRec;

impl Engine {
    fn silent_table(&mut self, at: At, page: u64, level: u8, gfn: u64) -> u32 {
        let At { th, vm, ev, ts, .. } = at;
        let tid = self.threads[th].tid;
        let span = 9 * u32::from(level.clamp(1, 6));
        // A neighbour set before, by prefetch: in the table of that place.
        let neighbour = self.by_page.get(&page).is_some_and(|t| {
            let r = &self.store.tables[*t as usize];
            let shadows = self.silent.key_of_table.get(t).is_some_and(|k| !k.role.direct);
            r.silent && r.level == level && (shadows || r.gfn == gfn >> span << span)
        });
        // The page made last by this thread for that level is where it now writes.
        let made = self.silent.made.get_mut(&tid).and_then(|m| {
            let at = m.iter().rposition(|k| k.role.level == level && k.vm == vm);
            // The TDP MMU of 5.10 prints the level above.
            let above = || m.iter().rposition(|k| k.role.direct && k.role.level == level + 1 && k.vm == vm);
            let at = if neighbour { at } else { at.or_else(above) };
            at.map(|i| m.remove(i))
        });
        if let Some(t) = self.by_page.get(&page).copied() {
            let same = self.silent.tables.get(&vm).is_some_and(|s| s.contains(&t))
                && self.store.tables[t as usize].level == level;
            let named = self.silent.key_of_table.get(&t);
            if same && made.is_none_or(|k| named.is_none_or(|n| *n == k)) {
                if let Some(k) = made {
                    self.name_table(t, k);
                }
                return t;
            }
            // The page was freed and is another table now.
            if self.silent.tables.values().any(|s| s.contains(&t)) {
                self.drop_silent(t, ev, ts);
            } else {
                self.retire_page(page, ev, ts);
            }
        }
        let direct = made.is_some_and(|k| k.role.direct);
        let as_id = made.and_then(|k| k.role.smm).map_or(0, u8::from);
        let mut rec = TableRec::new(vm, as_id, level, gfn >> span << span, ev, ts);
        rec.page = page;
        rec.direct = direct;
        rec.silent = true;
        let t = self.store.add_table(rec);
        self.store.tables[t as usize].root = t;
        self.by_page.insert(page, t);
        self.silent.tables.entry(vm).or_default().insert(t);
        match made {
            Some(k) => self.name_table(t, k),
            None => {
                self.silent.unnamed.entry(vm).or_default().insert(t);
            }
        }
        let kind = if direct { MmuKind::Direct } else { MmuKind::Shadow };
        if made.is_some() {
            self.mmu_kind(vm, kind);
        }
        t
    }

    pub(crate) fn set_spte(&mut self, at: At, s: &SetSpte) {
        let At { th, vm, ev, .. } = at;
        let SetSpte { gfn, spte, sptep, level } = *s;
        if self.tdp_set_spte(at, s) {
            return;
        }
        self.silent.active = true;
        let page = sptep & !0xfff;
        self.learn_virt(th, gfn, sptep);
        let t = self.silent_table(at, page, level, gfn);
        let index = (sptep >> 3 & 511) as u16;
        let shade = self.shade(spte, level);
        // What is larger or smaller at the same place is replaced without a word.
        let direct = self.store.tables[t as usize].direct || !self.silent.key_of_table.contains_key(&t);
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
                self.silent.slots.insert(sptep & !7, e);
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
        self.forget(entry);
        let span = self.store.push(entry, ev, Some(spte), shade, Certainty::Observed, Reason::Reread);
        self.threads[th].fault.changed_silently(span, level, gfn, shade);
        self.freshen(at, entry);
        // Beside a TDP tree it is a nested guest's, if the making of its page was seen; else it may be of the tree.
        if self.vms.is_tdp(vm) && self.careful(vm) && !self.silent.key_of_table.contains_key(&t) {
            self.make_stale(entry, ev, Reason::Incomplete);
        }
    }

    /// Whether this thread made, or looked up, a shadow page of this level and has not filled it yet.
    pub(crate) fn makes_shadow_page(&self, at: At, level: u8) -> bool {
        let tid = self.threads[at.th].tid;
        let made = self.silent.made.get(&tid).into_iter().flatten();
        made.into_iter().any(|k| k.vm == at.vm && k.role.level == level && !k.role.direct)
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
                    &mut (0..pages_of(level) / size).take(512).map(move |i| gfn + i * size)
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
    fn freshen(&mut self, at: At, entry: u32) {
        let At { th, vm, ev, .. } = at;
        if self.zap_pending(at, entry) {
            self.make_stale(entry, ev, Reason::Notifier);
            return;
        }
        let known = self.known(entry);
        self.silent.fresh.entry(vm).or_default().insert(known);
        let tid = self.threads[th].tid;
        self.silent.set.entry(tid).or_default().push(entry);
    }

    /// Virtual and physical addresses of entries differ by one constant.
    fn learn_virt(&mut self, th: usize, gfn: u64, sptep: u64) {
        let tid = self.threads[th].tid;
        if self.virt_minus_phys.is_none()
            && let Some((t, g, virt)) = self.silent.virt
            && t == tid
            && g == gfn
        {
            let d = virt.wrapping_sub(sptep);
            // page_offset_base is aligned to a GiB.
            if d & 0x3fff_ffff == 0 {
                self.virt_minus_phys = Some(d);
            }
        }
        self.silent.virt = None;
    }

    pub(crate) fn mark_mmio(&mut self, at: At, m: &MarkMmio) {
        let At { th, vm, ev, ts, .. } = at;
        let MarkMmio { sptep, gfn, access, generation } = *m;
        if let Some(i) = self.threads[th].install
            && i.gfn == gfn
        {
            // The change event came first and said it all; this one joins virtual and physical addresses.
            let page = self.store.tables[i.table as usize].page;
            if let Some(v) = sptep
                && page != 0
                && self.virt_minus_phys.is_none()
            {
                let d = v.wrapping_sub(page + u64::from(crate::engine::index_of(i.level, gfn)) * 8);
                if d & 0x3fff_ffff == 0 {
                    self.virt_minus_phys = Some(d);
                }
            }
            return;
        }
        if let Some(v) = sptep {
            self.silent.virt = Some((self.threads[th].tid, gfn, v));
        }
        if self.vms.is_tdp(vm) {
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
                    self.silent.slots.insert(p & !7, e);
                    e
                }
            }
        } else if let Some(e) = self
            .silent
            .mmio
            .get(&(vm, gfn))
            .copied()
            .filter(|e| self.store.tables[self.store.place(*e).table as usize].attached())
        {
            e
        } else {
            // Known by its frame only: the table is not named.
            let t = self
                .silent
                .mmio_tables
                .get(&vm)
                .copied()
                .filter(|t| self.store.tables[*t as usize].attached())
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
        self.store.push(entry, ev, value, Shade::Mmio, Certainty::Implied, Reason::MarkMmio);
        let known = self.known(entry);
        self.silent.fresh.entry(vm).or_default().insert(known);
    }

    pub(crate) fn fast_page_fault(&mut self, at: At, f: &FastFault) {
        let At { th, vm, ev, .. } = at;
        let FastFault { gpa, sptep, old, new, result } = *f;
        if let Some(v) = sptep {
            self.silent.virt = Some((self.threads[th].tid, gpa >> 12, v));
        }
        if self.vms.is_tdp(vm) && self.tdp_fast_fault(at, f) {
            return;
        }
        if !self.silent.active {
            return;
        }
        // Re-read when recorded: what the entry held, if it is known which one it is.
        let phys = sptep.zip(self.virt_minus_phys).map(|(v, d)| v.wrapping_sub(d));
        let Some(phys) = phys else {
            self.fast_fault_somewhere(at, f);
            return;
        };
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

    /// A fast fault whose entry is not named: any that held the old value may have the new one now.
    fn fast_fault_somewhere(&mut self, at: At, f: &FastFault) {
        let ad = self.ad_bits();
        if f.result != FastPfResult::Fixed || (f.old ^ f.new) & !ad == 0 {
            return;
        }
        let holds =
            |x: &u32| self.store.now(*x).is_some_and(|(v, m)| m.has_value && (v ^ f.old) & !ad & !2 == 0);
        let host = self.pfn_bits(f.old) >> 12;
        let hit = self
            .meant(at.vm)
            .iter()
            .filter_map(|v| self.silent.fresh.get(v))
            .flat_map(|x| x.mapping(host, host))
            .filter(holds)
            .collect();
        self.stale_list(hit, at.ev, Reason::SilentKernel);
    }
}
