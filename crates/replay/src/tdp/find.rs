//! Which table a change was made in. No event of the TDP MMU names its table, so it is found in three steps: the tables that the entry may lie in
//! are gathered, each gets a score, and the best is taken or, if nothing fits, a table is made. [`crate::tdp`] asks for each change; this file
//! makes tables, ends those that a teardown is done with, and of entries only makes stale what another table's change puts in doubt.
//!
//! The rule in five sentences:
//!
//! 1. A table that the thread is tearing down, or said it would, is the one, except for an install; where the trace does not hold all that came
//!    before, so is one whose place the event proves ([`crate::tdp::doubt`]).
//! 2. Otherwise the attached tables of the change's place (level, frame, address space) are candidates, save those of the wrong kind of tree and of
//!    a VM that the value rules out; where none fits well, so are those that were detached since the thread's last event.
//! 3. The old value counts first: an entry that held it exactly, one that held it but for its permissions, one of which nothing is known, and one
//!    that held something else.
//! 4. What the thread did before is added to that: the tables its fault went through, the root it installs to, its VM. It outweighs the value for
//!    obsolete roots only, which faults never fill, and which the thread that made them obsolete zaps.
//! 5. If even the best does not fit, the change is in a root that was made and not filled yet; else the best is taken all the same, and a gap waits
//!    for the change in between. Only without a candidate, or where the trace is incomplete, is a table made; where all above is known to lead
//!    elsewhere, the table was detached before.

use mmuscope_spte::State as SpteState;

use crate::engine::Engine;
use crate::keys::{EntryIx, TableIx};
use crate::model::{EvidenceKind, Reason, Shade};
use crate::moment::At;
use crate::tdp::change::{Change, Fit, Found};
use crate::threads::NewPage;

/// The entry held the old value. The other weights are measured against this one and [`UNKNOWN`]: an entry of which nothing is known must lie
/// between one that fits and one that does not.
const EXACT: i32 = 40;
/// The entry held the old value but for what the lockless path changes.
const VOLATILE: i32 = 30;
/// Nothing is known of the entry.
const UNKNOWN: i32 = 20;
/// The entry is known to have held something else.
const UNFIT: i32 = 0;
/// The table is of another VM than the thread was taken to work for. An exact value there (40 - 18) still beats a table of the thread's VM of
/// which nothing is known (20), and is beaten by one that fits but for volatile bits (30).
const OTHER_VM: i32 = -18;
/// The thread's fault went through this table, and installs something or finds what was there. Lifts a table of which nothing is known (35) over
/// a volatile fit (30), and below an exact one (40) unless the thread's last install was below the same root, too.
const ON_PATH: i32 = 15;
/// The thread's fault went through this table and now changes what does not fit: no more than a hint between equals.
const NEAR_PATH: i32 = 5;
/// The thread's last install was below the same root: decides between equals.
const SAME_ROOT: i32 = 5;
/// Faults, write-protection and splits leave obsolete roots alone: even an exact fit there (10) is less than nothing known elsewhere (20).
const OBSOLETE: i32 = -30;
/// The thread made roots obsolete and is zapping them: a table below one of them of which nothing is known (45) is before an exact fit elsewhere
/// (40), and that loses as much (15).
const ZAPPED: i32 = 25;
/// The table was unlinked since the thread's last event: only where nothing attached is as good (15 to 20).
const UNLINKED: i32 = -5;
/// A second candidate with as good a score makes the answer doubtful only if its value fits: it has at least this.
const RIVAL: i32 = VOLATILE;

/// A change, with what the rules ask about it again and again.
#[derive(Clone, Copy)]
struct Question<'a> {
    c: &'a Change,
    /// It fills an entry that was empty.
    installs: bool,
    /// The old value mapped a page.
    maps: bool,
    /// It is in a mirror tree, or not in one, where that is known.
    mirror: Option<bool>,
}

/// The best candidate so far.
struct Race {
    /// Score, table and fit.
    best: Option<(i32, TableIx, Fit)>,
    second: i32,
    /// Tables of several VMs hold the very old value.
    several: bool,
}

impl Race {
    fn consider(&mut self, table: TableIx, fit: Fit, bonus: i32) {
        let score = bonus
            + match fit {
                Fit::Exact => EXACT,
                Fit::Volatile => VOLATILE,
                Fit::Unknown => UNKNOWN,
                Fit::No => UNFIT,
            };
        match self.best {
            Some((b, ..)) if b >= score => self.second = self.second.max(score),
            _ => {
                self.second = self.second.max(self.best.map_or(i32::MIN, |b| b.0));
                self.best = Some((score, table, fit));
            }
        }
    }
}

impl Engine {
    /// The table a change was made in; `careful` where the trace does not hold all that came before.
    pub(super) fn find_table(&mut self, c: &Change, careful: bool) -> Option<Found> {
        let l = &self.layout;
        let installs = !l.is_shadow_present(c.old)
            && !l.is_removed(c.new)
            && (l.is_shadow_present(c.new) || l.is_mmio(c.new));
        if let Some(found) = self.find_torn(c, installs) {
            return Some(found);
        }
        if careful && let Some(found) = self.find_beyond_doubt(c) {
            return Some(found);
        }
        let maps = self.layout.state(c.old, c.key.level) == SpteState::Present;
        let q = Question { c, installs, maps, mirror: self.mirrors(c, installs) };
        let mut race = self.gather(&q);
        self.gather_unlinked(&q, &mut race);
        self.decide(&q, &race, careful)
    }

    /// What this thread is tearing down comes first: only it touches that.
    fn find_torn(&mut self, c: &Change, installs: bool) -> Option<Found> {
        let Change { at: At { th, ev, ts, .. }, key, idx, old, .. } = *c;
        let tearing = &self.threads[th].tearing;
        if !tearing.is_empty()
            && !installs
            && let Some(i) = tearing.iter().rposition(|t| self.key_is(*t, key))
        {
            let table = tearing[i];
            // Depth first: what was pushed after this table is done with.
            for done in self.threads[th].tearing.split_off(i + 1) {
                self.store.free_table(done, ev, ts);
            }
            let fit = self.fit(table, idx, old, key.level);
            return Some(Found { table, fit, sure: true });
        }
        if self.threads[th].unclear.is_some() { self.find_announced(c) } else { None }
    }

    /// A link to a page that was made for a mirror tree is of a mirror tree, and any other of another.
    fn mirrors(&self, c: &Change, installs: bool) -> Option<bool> {
        let level = c.key.level;
        if !installs || level == 1 || !self.vms.several_roots(c.at.vm) {
            return None;
        }
        let made = |p: &&NewPage| p.level + 1 == level && p.gfn.is_none_or(|g| g == c.gfn);
        self.threads[c.at.th].pages.iter().rev().find(made).map(|p| p.mirror)
    }

    /// The attached tables of the place, newest first, with their scores.
    fn gather(&self, q: &Question<'_>) -> Race {
        let mut race = Race { best: None, second: i32::MIN, several: false };
        // VMs whose entry holds the old value. Host frames are one VM's only as far as nothing shares them: the zero page, merged pages and
        // files are everybody's.
        let mut holder = None;
        for &t in self.attached.at(&q.c.key).iter().rev() {
            if !self.may_be(q, t) {
                continue;
            }
            let fit = self.fit(t, q.c.idx, q.c.old, q.c.key.level);
            if q.maps && fit == Fit::Exact {
                let vm = self.store.tables[t].vm;
                race.several |= holder.is_some_and(|h| h != vm);
                holder = Some(vm);
            }
            if let Some(bonus) = self.score(q, t, fit) {
                race.consider(t, fit, bonus);
            }
        }
        race
    }

    /// Whether a change may be in a table at all.
    fn may_be(&self, q: &Question<'_>, table: TableIx) -> bool {
        let r = &self.store.tables[table];
        if q.mirror.is_some_and(|m| m != r.mirror) {
            return false;
        }
        // Frozen for good in a table that is being torn down, which one whose link was not cut is not, unless that is traced last.
        let announced = || {
            // The frame does not say which of the tables there is torn down. Where the trace may not show some of them, only a link or a
            // mapping that was there says so: an empty entry fits them all.
            self.threads[q.c.at.th].announced.contains(&(q.c.key.level, q.c.key.gfn))
                && (!self.vms.careful_at(q.c.at)
                    || self.layout.is_shadow_present(q.c.old)
                        && self.fit(table, q.c.idx, q.c.old, q.c.key.level) >= Fit::Volatile)
        };
        !r.alive || !self.layout.is_removed(q.c.new) || self.traces.freeze || announced()
    }

    /// What speaks for an attached table beside its value, and what against it; `None` where the value says that it is another VM's.
    fn score(&self, q: &Question<'_>, table: TableIx, fit: Fit) -> Option<i32> {
        let Change { at: At { th, vm_known, .. }, key, old, new, .. } = *q.c;
        let l = &self.layout;
        let r = &self.store.tables[table];
        let thread = &self.threads[th];
        let mut score = 0;
        // Where nothing is known of the entry, nothing shows that it is of the VM that the thread works for.
        if q.c.at.nobodys() && fit == Fit::Unknown {
            return None;
        }
        if thread.vm.is_some_and(|v| v != r.vm) {
            // The very value is proof that the thread was taken for another VM's, if no other has it.
            if fit != Fit::Exact || !l.is_shadow_present(old) || q.maps && vm_known && old & 2 == 0 {
                return None;
            }
            score += OTHER_VM;
        }
        if thread.path.contains(&table) {
            score += if q.installs || fit == Fit::Exact { ON_PATH } else { NEAR_PATH };
        }
        if q.installs && thread.root == r.root {
            score += SAME_ROOT;
        }
        let obsolete = self.attached.is_obsolete(r.root);
        if q.installs && obsolete {
            score += OBSOLETE;
        }
        if !q.installs && self.attached.any_obsolete() {
            // Whoever made the roots obsolete zaps those and no other; write-protection and splits leave them alone, aging and the
            // mmu_notifier do not.
            let zap = !l.is_shadow_present(new);
            let aged = self.same(old, new, key.level) || self.shade(new, key.level) == Shade::AccessTracked;
            if zap && thread.zapping {
                score += if obsolete { ZAPPED } else { -ZAPPED };
            } else if !zap && !aged && obsolete {
                score += OBSOLETE;
            }
        }
        Some(score)
    }

    /// The change may lie as far back as the thread's event before: where nothing attached fits well, tables unlinked since are candidates too.
    fn gather_unlinked(&self, q: &Question<'_>, race: &mut Race) {
        let Change { at, key, idx, old, .. } = *q.c;
        let thread = &self.threads[at.th];
        let left = || thread.path.iter().any(|t| !self.store.tables[*t].attached());
        if race.best.is_some_and(|b| b.2 >= Fit::Volatile && !left()) {
            return;
        }
        for t in self.attached.lately() {
            let r = &self.store.tables[t];
            if r.detach_ts < thread.prev_ts {
                break;
            }
            if self.key_is(t, key)
                && thread.vm.is_none_or(|v| v == r.vm)
                && race.best.is_none_or(|b| b.1 != t)
            {
                let fit = self.fit(t, idx, old, key.level);
                if fit >= Fit::Unknown {
                    race.consider(t, fit, if thread.path.contains(&t) { ON_PATH } else { UNLINKED });
                }
            }
        }
    }

    /// Takes the best candidate, if it fits.
    fn decide(&mut self, q: &Question<'_>, race: &Race, careful: bool) -> Option<Found> {
        let Change { at: At { vm, vm_known, .. }, key, new, .. } = *q.c;
        // A root was made and not filled yet: that is the valid one, and one of before the trace, which may be gone, is not.
        let before = |t: TableIx| {
            let r = &self.store.tables[t];
            r.lossy && !r.alive
        };
        if careful
            && q.installs
            && key.level >= 4
            && !self.vms.several_roots(vm)
            && race.best.is_some_and(|b| before(b.1))
            && let Some(np) = self.vms.take_root(vm, key.level, key.as_id, q.mirror)
        {
            let table = self.make_table(vm, key, Some(np), EntryIx::NONE, q.c.at);
            return Some(Found { table, fit: Fit::Exact, sure: false });
        }
        let Some((score, table, fit)) = race.best.filter(|b| b.2 != Fit::No) else {
            return self.decide_unfit(q, race, careful);
        };
        // A notifier zaps all trees, the newest first: that is the order they are tried in.
        let notifier_zap = !q.installs && !self.layout.is_shadow_present(new);
        let rival = race.second >= score && race.second >= RIVAL && !notifier_zap;
        let others = race.several && (!vm_known || self.store.tables[table].vm != vm);
        if others {
            self.doubt_other_vms(q.c, table);
        }
        Some(Found { table, fit, sure: !rival && !others && !careful })
    }

    /// No table holds what the change replaced: it is in one that no event has shown yet, or in a dead one.
    fn decide_unfit(&mut self, q: &Question<'_>, race: &Race, careful: bool) -> Option<Found> {
        let Change { at: At { vm, .. }, key, old, new, .. } = *q.c;
        let level = key.level;
        // In doubt, what contradicts the facts of every table known is of one that is not.
        let best = race.best.filter(|_| !careful);
        let lossy = best.is_some_and(|b| self.store.tables[b.1].lossy);
        // A root nobody has named yet?
        if level >= 4
            && let Some(np) = self.vms.take_root(vm, level, key.as_id, q.mirror)
        {
            self.unseen_zap_all(q.c.at, key.as_id, &np);
            let table = self.make_table(vm, key, Some(np), EntryIx::NONE, q.c.at);
            return Some(Found { table, fit: Fit::Exact, sure: !careful });
        }
        let top = self.vms.top_level(vm) <= level;
        if let Some((_, table, fit)) = best {
            // A link into an entry that is linked already, at the top: another tree, whose root was made before the trace began.
            if !(top && q.installs && !lossy) {
                return Some(Found { table, fit, sure: !careful });
            }
        } else if self.known_elsewhere(vm, key) {
            // What lies above is known, and it is not a link to such a table: the table was torn down before this thread's change was traced.
            if !self.snapshots.is_unlinked(vm, key, q.c.at.ts) {
                self.note(EvidenceKind::DeadTable, q.c, None, (None, Some(new)));
            }
            return None;
        }
        if q.c.at.nobodys() {
            return None;
        }
        let l = &self.layout;
        if careful && ![old, new].iter().any(|v| l.is_shadow_present(*v) || l.is_mmio(*v)) {
            // One kind of emptiness for another, in a table of which nothing is known.
            return None;
        }
        let root = if top { TableIx::NONE } else { self.root_above(vm, key) };
        let table = self.make_table(vm, key, None, EntryIx::NONE, q.c.at);
        self.store.tables[table].lossy = careful;
        if root != TableIx::NONE {
            self.store.tables[table].root = root;
        }
        if root == TableIx::NONE && !top && self.vms.complete(vm) {
            self.note(EvidenceKind::Orphan, q.c, None, (None, Some(new)));
        }
        Some(Found { table, fit: Fit::Unknown, sure: !careful })
    }

    /// The same value is in the tables of several VMs, and which of them was changed is not known.
    fn doubt_other_vms(&mut self, c: &Change, table: TableIx) {
        let vm = self.store.tables[table].vm;
        let hit: Vec<EntryIx> = self
            .attached
            .at(&c.key)
            .iter()
            .copied()
            .filter(|t| self.store.tables[*t].vm != vm)
            .filter(|t| self.fit(*t, c.idx, c.old, c.key.level) == Fit::Exact)
            .filter_map(|t| self.store.slot(t, c.idx))
            .collect();
        for e in hit {
            self.make_stale(e, c.at.ev, Reason::Ambiguous);
        }
    }
}
