//! Which table a change was made in: by what points to it, by the old value, by the thread.

use mmuscope_spte::State as SpteState;

use crate::engine::Engine;
use crate::keys::{Key, index_of, key_of};
use crate::model::{Certainty, EvidenceKind, Reason, Shade};
use crate::moment::At;
use crate::store::{NONE, TableRec};
use crate::tdp::change::Fit;
use crate::tdp::change::{Change, Found};
use crate::threads::NewPage;

impl Engine {
    /// Same value but for what hardware sets.
    pub(super) fn same(&self, a: u64, b: u64, level: u8) -> bool {
        if a == b {
            return true;
        }
        let l = &self.layout;
        if l.is_shadow_present(a) && l.is_shadow_present(b) {
            return (a ^ b) & !self.ad_bits() == 0;
        }
        let empty = |x: u64| matches!(l.state(x, level), SpteState::Nonpresent | SpteState::Removed);
        // Never filled, zapped and released after freezing are one state.
        empty(a) && empty(b)
    }

    pub(super) fn fit(&self, table: u32, idx: u16, old: u64, level: u8) -> Fit {
        let t = &self.store.tables[table as usize];
        let l = &self.layout;
        let now = self.store.slot(table, idx).and_then(|e| self.store.now(e));
        let Some((cur, m)) = now else {
            return if t.born && !t.lossy {
                if self.same(l.zapped, old, level) { Fit::Exact } else { Fit::No }
            } else {
                Fit::Unknown
            };
        };
        if m.shade == Shade::Unknown {
            return Fit::Unknown;
        }
        if m.has_value && self.same(cur, old, level) {
            return Fit::Exact;
        }
        if l.is_shadow_present(cur)
            && l.is_shadow_present(old)
            && self.pfn_bits(cur) == self.pfn_bits(old)
            && l.state(cur, level) == l.state(old, level)
        {
            return Fit::Volatile;
        }
        // A zap that may have been of another table's entry is no evidence against this one.
        let zapped = m.reason == Reason::Incomplete && !l.is_shadow_present(cur) && !l.is_mmio(cur);
        if m.certainty == Certainty::Stale || zapped { Fit::Unknown } else { Fit::No }
    }

    /// The table a change was made in; `careful` where the trace does not hold all that came before.
    pub(super) fn find_table(&mut self, c: &Change, careful: bool) -> Option<Found> {
        let Change { at: At { th, vm, vm_known, ev, ts }, key, idx, old, new, .. } = *c;
        let level = key.level;
        let l = self.layout;
        let installs =
            !l.is_shadow_present(old) && !l.is_removed(new) && (l.is_shadow_present(new) || l.is_mmio(new));
        // What this thread is tearing down comes first: only it touches that.
        let tearing = &self.threads[th].tearing;
        if !tearing.is_empty()
            && !installs
            && let Some(i) = tearing.iter().rposition(|t| self.key_is(*t, key))
        {
            let t = tearing[i];
            // Depth first: what was pushed after this table is done with.
            for done in self.threads[th].tearing.split_off(i + 1) {
                self.store.bury(done, ev, ts);
            }
            let fit = self.fit(t, idx, old, level);
            return Some(Found { table: t, fit, sure: true });
        }
        if self.threads[th].doomed.is_some()
            && let Some(found) = self.find_doomed(c)
        {
            return Some(found);
        }
        if careful && let Some(found) = self.find_beyond_doubt(c) {
            return Some(found);
        }
        let thread = &self.threads[th];
        let prev = thread.prev_ts;
        let mut best: Option<(i32, u32, Fit)> = None;
        let mut second = i32::MIN;
        let mut consider = |t: u32, fit: Fit, bonus: i32, best: &mut Option<(i32, u32, Fit)>| {
            let score = match fit {
                Fit::Exact => 40,
                Fit::Volatile => 30,
                Fit::Unknown => 20,
                Fit::No => 0,
            } + bonus;
            match *best {
                Some((b, ..)) if b >= score => second = second.max(score),
                _ => {
                    second = second.max(best.map_or(i32::MIN, |b| b.0));
                    *best = Some((score, t, fit));
                }
            }
        };
        // A link to a page that was made for a mirror tree is of a mirror tree, and any other of another.
        let mirror = if installs && level > 1 && self.vms.several_roots(vm) {
            let made = |p: &&NewPage| p.level + 1 == level && p.gfn.is_none_or(|g| g == c.gfn);
            thread.pages.iter().rev().find(made).map(|p| p.mirror)
        } else {
            None
        };
        // VMs whose entry holds the old value. Host frames are one VM's only as far as nothing shares them: the zero page, merged pages and
        // files are everybody's.
        let maps = l.state(old, level) == SpteState::Present;
        let mut holder = None;
        let mut several = false;
        if let Some(c) = self.live.get(&key) {
            for &t in c.iter().rev() {
                let r = &self.store.tables[t as usize];
                if mirror.is_some_and(|m| m != r.mirror) {
                    continue;
                }
                // Frozen for good in a table that is being torn down, which one whose link was not cut is not, unless that is told last.
                let announced = thread.announced.contains(&(key.level, key.gfn));
                if r.alive && l.is_removed(new) && !self.traces.freeze && !announced {
                    continue;
                }
                let fit = self.fit(t, idx, old, level);
                let mut bonus = 0;
                if maps && fit == Fit::Exact {
                    several |= holder.is_some_and(|h| h != r.vm);
                    holder = Some(r.vm);
                }
                if thread.vm.is_some_and(|v| v != r.vm) {
                    // The very value is proof that the thread was taken for another VM's, if no other has it.
                    if fit != Fit::Exact || !l.is_shadow_present(old) || maps && vm_known && old & 2 == 0 {
                        continue;
                    }
                    bonus -= 18;
                }
                if thread.path.contains(&t) {
                    bonus += if installs || fit == Fit::Exact { 15 } else { 5 };
                }
                if installs && thread.root == r.root {
                    bonus += 5;
                }
                let obsolete = self.obsolete.contains(&r.root);
                if installs && obsolete {
                    bonus -= 30;
                }
                if !installs && !self.obsolete.is_empty() {
                    // Whoever made the roots obsolete zaps those and no other; write-protection and splits leave them alone, ageing and
                    // the mmu_notifier do not.
                    let zap = !l.is_shadow_present(new);
                    let aged = self.same(old, new, level) || self.shade(new, level) == Shade::AccessTracked;
                    if zap && thread.zapping {
                        bonus += if obsolete { 25 } else { -25 };
                    } else if !zap && !aged && obsolete {
                        bonus -= 30;
                    }
                }
                consider(t, fit, bonus, &mut best);
            }
        }
        // The change may lie as far back as the thread's event before: tables unlinked since are candidates too.
        if best.is_none_or(|b| {
            b.2 < Fit::Volatile || thread.path.iter().any(|t| !self.store.tables[*t as usize].attached())
        }) {
            for &t in self.recent.iter().rev() {
                let r = &self.store.tables[t as usize];
                if r.detach_ts < prev {
                    break;
                }
                if self.key_is(t, key) && thread.vm.is_none_or(|v| v == r.vm) && best.is_none_or(|b| b.1 != t)
                {
                    let fit = self.fit(t, idx, old, level);
                    if fit >= Fit::Unknown {
                        consider(t, fit, if thread.path.contains(&t) { 15 } else { -5 }, &mut best);
                    }
                }
            }
        }
        // A root was made and not filled yet: that is the valid one, and one of before the trace, which may be gone, is not.
        let before = |t: u32| {
            let r = &self.store.tables[t as usize];
            r.lossy && !r.alive
        };
        if careful
            && installs
            && level >= 4
            && !self.vms.several_roots(vm)
            && best.is_some_and(|b| before(b.1))
            && let Some(np) = self.vms.take_root(vm, level, key.as_id, mirror)
        {
            let table = self.make_table(vm, key, Some(np), NONE, c.at);
            return Some(Found { table, fit: Fit::Exact, sure: false });
        }
        if let Some((score, table, fit)) = best
            && fit != Fit::No
        {
            // A notifier zaps all trees, the newest first: that is the order they are tried in.
            let notifier_zap = !installs && !l.is_shadow_present(new);
            let ambiguous = second >= score && second >= 30 && !notifier_zap;
            let others = several && (!vm_known || self.store.tables[table as usize].vm != vm);
            if others {
                self.doubt_other_vms(c, table);
            }
            let ambiguous = ambiguous || others;
            return Some(Found { table, fit, sure: !ambiguous && !careful });
        }
        // In doubt, what contradicts the facts of every table known is of one that is not.
        let best = best.filter(|_| !careful);
        // Nothing fits. A root nobody has named yet?
        let lossy = best.is_some_and(|b| self.store.tables[b.1 as usize].lossy);
        if level >= 4
            && let Some(np) = self.vms.take_root(vm, level, key.as_id, mirror)
        {
            self.unseen_zap_all(c.at, key.as_id, &np);
            let t = self.make_table(vm, key, Some(np), NONE, c.at);
            return Some(Found { table: t, fit: Fit::Exact, sure: !careful });
        }
        if let Some((_, table, fit)) = best {
            // A link into an entry that is linked already, at the top: another tree, whose root was made before the trace began.
            let top = self.vms.top_level(vm) <= level;
            if !(top && installs && !lossy) {
                return Some(Found { table, fit, sure: !careful });
            }
        } else if self.known_elsewhere(vm, key) {
            // What lies above is known, and it is not a link to such a table: the table was torn down before this thread told its change.
            self.note(EvidenceKind::DeadTable, c, None, (None, Some(new)));
            return None;
        }
        if careful && self.of_no_known_vm(th) {
            return None;
        }
        if careful && ![old, new].iter().any(|v| l.is_shadow_present(*v) || l.is_mmio(*v)) {
            // One kind of emptiness for another, in a table of which nothing is known.
            return None;
        }
        let root = if self.vms.top_level(vm) <= level { NONE } else { self.root_above(vm, key) };
        let t = self.make_table(vm, key, None, NONE, c.at);
        self.store.tables[t as usize].lossy = careful;
        if root != NONE {
            self.store.tables[t as usize].root = root;
        }
        if root == NONE && self.vms.top_level(vm) > level && self.vms.complete(vm) {
            self.note(EvidenceKind::Orphan, c, None, (None, Some(new)));
        }
        Some(Found { table: t, fit: Fit::Unknown, sure: !careful })
    }

    /// The same value is in the tables of several VMs, and which of them was changed is not known.
    fn doubt_other_vms(&mut self, c: &Change, table: u32) {
        let vm = self.store.tables[table as usize].vm;
        let hit: Vec<u32> = self
            .live
            .get(&c.key)
            .into_iter()
            .flatten()
            .copied()
            .filter(|t| self.store.tables[*t as usize].vm != vm)
            .filter(|t| self.fit(*t, c.idx, c.old, c.key.level) == Fit::Exact)
            .filter_map(|t| self.store.slot(t, c.idx))
            .collect();
        for e in hit {
            self.make_stale(e, c.at.ev, Reason::Ambiguous);
        }
    }

    /// Whether an entry above is known to hold something else than a link to a table with this key.
    fn known_elsewhere(&self, vm: u16, key: Key) -> bool {
        for level in key.level + 1..=5 {
            let k = key_of(key.as_id, level, key.gfn);
            let idx = index_of(level, key.gfn);
            let Some(c) = self.live.get(&k) else { continue };
            let mut any = false;
            for &t in c {
                let r = &self.store.tables[t as usize];
                if r.vm != vm {
                    continue;
                }
                any = true;
                if r.lossy {
                    return false;
                }
                match self.store.slot(t, idx).and_then(|e| self.store.now(e)) {
                    None if !r.born => return false,
                    Some((_, m)) if m.shade == Shade::Unknown || m.certainty == Certainty::Stale => {
                        return false;
                    }
                    // Linked, but to a table no event has shown: it is this one.
                    Some((_, m))
                        if m.shade == Shade::Table && level == key.level + 1 && !self.child_known(t, idx) =>
                    {
                        return false;
                    }
                    _ => {}
                }
            }
            if any {
                return true;
            }
        }
        false
    }

    fn child_known(&self, table: u32, idx: u16) -> bool {
        self.store.slot(table, idx).is_some_and(|e| self.child_of.contains_key(&e))
    }

    fn root_above(&self, vm: u16, key: Key) -> u32 {
        for level in key.level + 1..=5 {
            let k = key_of(key.as_id, level, key.gfn);
            if let Some(t) = self
                .live
                .get(&k)
                .and_then(|c| c.iter().rev().find(|t| self.store.tables[**t as usize].vm == vm))
            {
                return self.store.tables[*t as usize].root;
            }
        }
        NONE
    }

    /// A new table; `np` is its `kvm_mmu_get_page`, `parent` the entry that links it.
    pub(crate) fn make_table(&mut self, vm: u16, key: Key, np: Option<NewPage>, parent: u32, at: At) -> u32 {
        let mut t = TableRec::new(
            vm,
            key.as_id,
            key.level,
            key.gfn,
            np.map_or(at.ev, |n| n.ev),
            np.map_or(at.ts, |n| n.ts),
        );
        t.parent = parent;
        t.born = np.is_some() || parent != NONE;
        t.mirror = np.is_some_and(|n| n.mirror);
        t.empty = self.layout.zapped;
        t.again = !self.places.insert((vm, key));
        let id = self.store.add_table(t);
        self.store.tables[id as usize].root = id;
        self.live.entry(key).or_default().push(id);
        id
    }
}
