//! MMUs that do not trace their zaps: shadow paging, the legacy direct MMU, the TDP MMU of 5.10.
//!
//! What such a kernel tells is installs. Everything else must be ruled out before a value may still be called known: mmu_notifier
//! ranges (traced since 5.13), pages zapped or synchronised (traced), guests writing their own tables, dirty logging.

use mmuscope_spte::State as SpteState;
use mmuscope_trace::{Body, Event, FastPfResult, Isa, Page, Role};
use rustc_hash::{FxHashMap, FxHashSet};

use crate::engine::{At, Engine, FastFault, Key, MarkMmio, SetSpte};
use crate::model::{Certainty, EvidenceKind, MmuKind, Reason, Shade};
use crate::store::TableRec;

/// What makes a shadow page: its frame and role, without what changes while it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct SpKey {
    vm: u16,
    gfn: Option<u64>,
    role: Role,
    generation: Option<u64>,
}

impl SpKey {
    fn of(vm: u16, p: &Page) -> Self {
        Self {
            vm,
            gfn: p.gfn,
            role: Role { raw: None, invalid: false, ..p.role },
            generation: p.mmu_valid_gen,
        }
    }
}

/// A notifier range whose thread has not gone on: the zap may still be to come.
#[derive(Clone, Copy, Debug)]
struct OpenRange {
    tid: u32,
    start: u64,
    end: u64,
}

/// Constant between host virtual and guest physical addresses of one memslot, and the frames that voted for it.
#[derive(Clone, Copy, Debug)]
struct Slot {
    delta: u64,
    lo: u64,
    hi: u64,
    votes: u32,
}

/// State of the silent MMUs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Silent {
    /// Entry of a slot, by the slot's physical address.
    slots: FxHashMap<u64, u32>,
    /// Entries whose value is known, per VM.
    pub(crate) fresh: FxHashMap<u16, FxHashSet<u32>>,
    /// Pages made by a thread and not yet located: the next install of that level tells where.
    made: FxHashMap<u32, Vec<SpKey>>,
    table_of: FxHashMap<SpKey, u32>,
    key_of_table: FxHashMap<u32, SpKey>,
    /// Roles that two tables at once were of, as far as they are printed.
    twins: FxHashSet<SpKey>,
    /// Tables of each VM in use.
    tables: FxHashMap<u16, FxHashSet<u32>>,
    ranges: Vec<OpenRange>,
    memslots: FxHashMap<u16, Vec<Slot>>,
    /// Notifier ranges are recorded in this trace.
    notifiers: bool,
    /// Silent write-protection was seen in this VM.
    protects: FxHashSet<u16>,
    /// MMIO entries known only by frame.
    mmio: FxHashMap<(u16, u64), u32>,
    mmio_tables: FxHashMap<u16, u32>,
    /// Set entries of the thread's current fault on a kernel that traces no zaps: known until the thread goes on.
    brief: FxHashMap<u32, Vec<u32>>,
    /// Writable entries of the thread's current fault: once it goes on, dirty logging may protect them without a word.
    writable: FxHashMap<u32, Vec<u32>>,
    /// A (virtual, frame) pair waiting for the physical address of the same entry.
    virt: Option<(u32, u64, u64)>,
    /// Entries of tables that are, or may be, direct, by level and frame.
    direct_at: FxHashMap<(u16, u8, u64), Vec<u32>>,
    /// VMs with any silent table.
    active: bool,
}

impl Engine {
    /// Every event, for what it says about silent tables.
    pub(crate) fn silent_step(&mut self, at: At, e: &Event) {
        let tid = self.threads[at.th].tid;
        if !self.silent.active {
            // What is zapped may be installed only now.
            if !matches!(e.body, Body::UnmapHvaRange { .. } | Body::SetSpteHva { .. }) {
                self.close_ranges(tid);
            }
            return;
        }
        match e.body {
            Body::UnmapHvaRange { .. }
            | Body::SetSpteHva { .. }
            | Body::SetSpte { .. }
            | Body::MarkMmioSpte { .. } => {}
            Body::Entry { .. } | Body::Exit { .. } | Body::UserspaceExit { .. } => {
                self.close_ranges(tid);
                self.silent_boundary(at, e);
            }
            _ => self.close_ranges(tid),
        }
    }

    fn close_ranges(&mut self, tid: u32) {
        if !self.silent.ranges.is_empty() {
            self.silent.ranges.retain(|r| r.tid != tid);
        }
    }

    fn silent_boundary(&mut self, at: At, e: &Event) {
        let At { th, vm, ev, .. } = at;
        let tid = self.threads[th].tid;
        self.silent.made.remove(&tid);
        if let Some(brief) = self.silent.brief.remove(&tid) {
            for entry in brief {
                self.make_stale(entry, ev, Reason::SilentKernel);
            }
        }
        for entry in self.silent.writable.remove(&tid).unwrap_or_default() {
            if let Some((spte, m)) = self.store.now(entry)
                && m.shade == Shade::Writable
                && m.certainty <= Certainty::Observed
                && self.store.tables[self.store.place(entry).table as usize].attached()
            {
                let (certainty, reason) = (Certainty::Assumed, Reason::MaybeProtected);
                self.store.push(entry, ev, Some(spte), m.shade, certainty, reason);
            }
        }
        match e.body {
            // A write that nothing was installed for: emulated, perhaps a write to a guest table that is shadowed.
            Body::Entry { .. } | Body::UserspaceExit { .. } => {
                let to_mmio = matches!(e.body, Body::UserspaceExit { reason: 6, .. });
                if !to_mmio && let Some(gfn) = self.threads[th].fault.unanswered_write() {
                    self.guest_table_written(vm, gfn, ev);
                }
                if matches!(e.body, Body::UserspaceExit { .. }) && self.silent.protects.contains(&vm) {
                    self.stale_where(vm, ev, Reason::SilentKernel, |s, x| {
                        s.store.now(x).is_some_and(|(_, m)| m.shade == Shade::Writable)
                    });
                }
            }
            Body::Exit { reason, isa, .. } => {
                // INVLPG of an unsynchronised page drops an entry.
                let invlpg =
                    matches!((isa, reason), (Some(Isa::Vmx), Some(14)) | (Some(Isa::Svm), Some(0x79 | 0x7a)));
                if invlpg {
                    self.stale_where(vm, ev, Reason::GuestTable, |s, x| {
                        !s.store.tables[s.store.place(x).table as usize].direct
                    });
                }
            }
            _ => {}
        }
    }

    pub(crate) fn make_stale(&mut self, entry: u32, ev: u32, reason: Reason) {
        let table = self.store.place(entry).table;
        if let Some((spte, m)) = self.store.now(entry)
            && m.certainty != Certainty::Stale
            && self.store.tables[table as usize].attached()
        {
            self.store.push(entry, ev, m.has_value.then_some(spte), m.shade, Certainty::Stale, reason);
        }
        let vm = self.store.tables[table as usize].vm;
        if let Some(f) = self.silent.fresh.get_mut(&vm) {
            f.remove(&entry);
        }
    }

    fn stale_where(&mut self, vm: u16, ev: u32, reason: Reason, which: impl Fn(&Self, u32) -> bool) {
        // Where threads were sorted into VMs by what they share, a loss may have torn a VM in two.
        let one = self.vms.sure() || !self.careful(vm);
        let fresh = self.silent.fresh.iter().filter(|(v, _)| !one || **v == vm).flat_map(|(_, f)| f);
        let mut hit: Vec<u32> = fresh.copied().filter(|x| which(self, *x)).collect();
        // The order of a set is not the order of anything.
        hit.sort_unstable();
        for x in hit {
            self.make_stale(x, ev, reason);
        }
    }

    pub(crate) fn silent_get_page(&mut self, at: At, page: &Page, created: bool) {
        let At { th, vm, ev, .. } = at;
        let tid = self.threads[th].tid;
        let key = SpKey::of(vm, page);
        let made = self.silent.made.entry(tid).or_default();
        if made.len() >= 16 {
            made.remove(0);
        }
        made.push(key);
        // A new root: the TDP MMU of 5.10 frees the one before it, with everything below, without a word.
        if created && page.role.direct && page.role.level >= 4 && self.silent.active && !self.vms.is_tdp(vm) {
            self.stale_where(vm, ev, Reason::SilentKernel, |s, x| {
                s.store.tables[s.store.place(x).table as usize].direct
                    || s.store.now(x).is_some_and(|(_, m)| m.shade == Shade::Mmio)
            });
        }
        // The frame that a new shadow page shadows is write-protected, silently.
        if created
            && !page.role.direct
            && self.silent.active
            && let Some(gfn) = page.gfn
        {
            self.stale_where(vm, ev, Reason::GuestTable, |s, x| {
                let p = s.store.place(x);
                let n = crate::model::pages_of(p.level);
                p.gfn <= gfn && gfn - p.gfn < n
            });
        }
    }

    pub(crate) fn prepare_zap(&mut self, at: At, page: &Page) {
        let At { vm, ev, ts, .. } = at;
        if page.role.direct && self.vms.is_tdp(vm) {
            self.tdp_prepare_zap(at, page);
        }
        if !self.silent.active {
            return;
        }
        let key = SpKey::of(vm, page);
        self.silent.made.values_mut().for_each(|m| m.retain(|k| *k != key));
        let found = self.silent.table_of.remove(&key);
        if let Some(t) = found {
            self.drop_silent(t, ev, ts);
            if self.vms.sure() {
                return;
            }
        }
        if page.role.direct && self.vms.is_tdp(vm) {
            return;
        }
        // Which VM a thread works for may be a guess: then the page may be of any, and so is every table it could be no longer known.
        let vms: Vec<u16> =
            if self.vms.sure() { vec![vm] } else { self.silent.tables.keys().copied().collect() };
        for v in vms {
            let other = SpKey { vm: v, ..key };
            let named = self.silent.table_of.get(&other).copied();
            if (found.is_some() || named.is_some()) && v == vm {
                continue;
            }
            let doubtful: FxHashSet<u32> = match named {
                Some(t) => std::iter::once(t).collect(),
                // Which of the tables it was is not known: any that no event has named, and of that level.
                None => self
                    .silent
                    .tables
                    .get(&v)
                    .into_iter()
                    .flatten()
                    .copied()
                    .filter(|t| {
                        self.store.tables[*t as usize].level == page.role.level
                            && !self.silent.key_of_table.contains_key(t)
                    })
                    .collect(),
            };
            if !doubtful.is_empty() {
                self.stale_where(v, ev, Reason::PageZapped, |s, x| {
                    doubtful.contains(&s.store.place(x).table)
                });
            }
        }
    }

    pub(crate) fn drop_silent(&mut self, t: u32, ev: u32, ts: u64) {
        let vm = self.store.tables[t as usize].vm;
        let page = self.store.tables[t as usize].page;
        let entries: Vec<u32> = self.store.table_entries(t).collect();
        if let Some(f) = self.silent.fresh.get_mut(&vm) {
            for e in &entries {
                f.remove(e);
            }
        }
        for i in 0..512u64 {
            self.silent.slots.remove(&(page + i * 8));
        }
        for e in &entries {
            let p = self.store.place(*e);
            if let Some(v) = self.silent.direct_at.get_mut(&(vm, p.level, p.gfn)) {
                v.retain(|x| x != e);
            }
        }
        if let Some(k) = self.silent.key_of_table.remove(&t) {
            self.silent.table_of.remove(&k);
        }
        if let Some(s) = self.silent.tables.get_mut(&vm) {
            s.remove(&t);
        }
        if self.by_page.get(&page) == Some(&t) {
            self.by_page.remove(&page);
        }
        self.store.bury(t, ev, ts);
    }

    pub(crate) fn sync_page(&mut self, at: At, page: &Page) {
        let At { vm, ev, .. } = at;
        if !self.silent.active {
            return;
        }
        let key = SpKey::of(vm, page);
        let known = self.silent.table_of.get(&key).copied();
        let level = page.role.level;
        self.stale_where(vm, ev, Reason::Synced, |s, x| {
            let t = s.store.place(x).table;
            match known {
                Some(k) => t == k,
                None => s.store.tables[t as usize].level == level && !s.silent.key_of_table.contains_key(&t),
            }
        });
    }

    /// The guest may have written a table of its own.
    fn guest_table_written(&mut self, vm: u16, gfn: Option<u64>, ev: u32) {
        self.stale_where(vm, ev, Reason::GuestTable, |s, x| {
            let t = s.store.place(x).table;
            if s.store.tables[t as usize].direct {
                return false;
            }
            match (gfn, s.silent.key_of_table.get(&t)) {
                (Some(g), Some(k)) => k.gfn.is_none_or(|x| x == g),
                _ => true,
            }
        });
    }

    pub(crate) fn silent_zap_all(&mut self, at: At) {
        let At { vm, ev, .. } = at;
        if !self.vms.sure() {
            let all: Vec<u16> = self.silent.fresh.keys().copied().collect();
            for v in all {
                self.stale_where(v, ev, Reason::ZapAll, |_, _| true);
            }
        }
        self.stale_where(vm, ev, Reason::ZapAll, |_, _| true);
        // Everything is installed anew from here on; if dirty logging is still on, it will show again.
        self.silent.protects.remove(&vm);
    }

    /// A huge page was split: its entry points to a table now, of which nothing is told.
    pub(crate) fn silent_split(&mut self, at: At, gfn: u64, level: u8) {
        if self.silent.active {
            self.stale_where(at.vm, at.ev, Reason::Split, |s, x| {
                let p = s.store.place(x);
                p.level == level && p.gfn == gfn
            });
        }
    }

    /// A VM turns out to have the TDP MMU: what was taken for an MMU that does not trace its zaps may be a table of that.
    pub(crate) fn silent_no_more(&mut self, at: At) {
        if self.silent.active && !self.vms.is_tdp(at.vm) {
            self.stale_where(at.vm, at.ev, Reason::Incomplete, |_, _| true);
        }
    }

    pub(crate) fn silent_lost(&mut self, ev: u32, _ts: u64) {
        let vms: Vec<u16> = self.silent.fresh.keys().copied().collect();
        for vm in vms {
            self.stale_where(vm, ev, Reason::Lost, |_, _| true);
        }
        self.silent.made.clear();
        // A page may have been freed and made anew: which table a zap is of is not known until an event tells it again.
        self.silent.table_of.clear();
        self.silent.key_of_table.clear();
        self.silent.brief.clear();
        self.silent.writable.clear();
        self.silent.ranges.clear();
    }

    /// mmu_notifier events: which entries they may have hit.
    pub(crate) fn notifier(&mut self, at: At, body: &Body) {
        let At { th, ev, .. } = at;
        let tid = self.threads[th].tid;
        let (start, end, zaps) = match *body {
            Body::UnmapHvaRange { start, end } => (start, end, true),
            Body::SetSpteHva { hva } => (hva & !0xfff, (hva & !0xfff).saturating_add(0x1000), true),
            Body::AgeHva { start, end } => (start, end, false),
            _ => return,
        };
        if zaps {
            self.silent.notifiers = true;
        }
        // The thread that faults breaks copy-on-write itself: that gives the host address of the frame it faults on.
        if zaps && end.saturating_sub(start) <= 0x1000 && self.threads[th].fault.is_open() {
            match self.threads[th].fault.gfn() {
                Some(gfn) => self.vote(th, start & !0xfff, gfn),
                None => self.threads[th].fault.cow = Some(start & !0xfff),
            }
        }
        self.close_ranges(tid);
        if zaps && (self.silent.active || !self.vms.is_tdp(at.vm)) {
            if self.silent.ranges.len() >= 256 {
                self.silent.ranges.remove(0);
            }
            self.silent.ranges.push(OpenRange { tid, start, end });
        }
        if !self.silent.active {
            return;
        }
        let vms: Vec<u16> = match self.threads[th].vm {
            Some(v) => vec![v],
            None => self.silent.fresh.keys().copied().collect(),
        };
        for vm in vms {
            if zaps {
                self.stale_where(vm, ev, Reason::Notifier, |s, x| s.hva_hit(x, start, end));
            } else if self.layout.masks.acc_track_mask != 0 && self.layout.masks.accessed_mask == 0 {
                // Ageing without A/D bits takes permissions away.
                self.stale_where(vm, ev, Reason::Notifier, |s, x| s.hva_hit(x, start, end));
            }
        }
    }

    /// A frame and its host page tell where the memslot lies in the monitor's memory.
    pub(crate) fn vote(&mut self, th: usize, hva: u64, gfn: u64) {
        self.threads[th].fault.cow = None;
        let Some(vm) = self.threads[th].vm else { return };
        let delta = hva.wrapping_sub(gfn << 12);
        let slots = self.silent.memslots.entry(vm).or_default();
        if let Some(s) = slots.iter_mut().find(|s| s.delta == delta) {
            s.lo = s.lo.min(gfn);
            s.hi = s.hi.max(gfn);
            s.votes += 1;
        } else if slots.len() < 64 {
            slots.push(Slot { delta, lo: gfn, hi: gfn, votes: 1 });
        }
    }

    /// Whether a host range may cover the page of an entry; `false` only where the memslot's place is known.
    fn hva_hit(&self, entry: u32, start: u64, end: u64) -> bool {
        let p = self.store.place(entry);
        // MMIO entries map nothing of the host.
        if self.store.now(entry).is_some_and(|(_, m)| m.shade == Shade::Mmio) {
            return false;
        }
        let n = crate::model::pages_of(p.level);
        let last = p.gfn.saturating_add(n - 1);
        let Some(slots) = self.silent.memslots.get(&self.store.tables[p.table as usize].vm) else {
            return true;
        };
        let mut around = slots.iter().filter(|s| s.votes >= 2 && s.lo <= p.gfn && last <= s.hi);
        match (around.next(), around.next()) {
            (Some(s), None) => {
                let a = s.delta.wrapping_add(p.gfn << 12);
                let b = a.wrapping_add(n << 12);
                a < end && start < b
            }
            _ => true,
        }
    }

    /// A table is the shadow page of this role. Text does not print all of a role (SMM's pages look like others): of two alike neither is
    /// known by it.
    fn name_silent(&mut self, t: u32, key: SpKey) {
        if self.silent.twins.contains(&key) {
            return;
        }
        let before = self.silent.table_of.get(&key).copied().filter(|b| *b != t);
        if let Some(b) = before.filter(|b| self.store.tables[*b as usize].attached()) {
            self.silent.twins.insert(key);
            self.silent.table_of.remove(&key);
            self.silent.key_of_table.remove(&b);
            self.silent.key_of_table.remove(&t);
        } else {
            self.silent.table_of.insert(key, t);
            self.silent.key_of_table.insert(t, key);
        }
    }

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
                    self.name_silent(t, k);
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
        if let Some(k) = made {
            self.name_silent(t, k);
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
                    if let Some(f) = self.silent.fresh.get_mut(&vm) {
                        f.remove(&e);
                    }
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
        // A page we held writable needed a write fault: something took the permission away silently.
        if let Some((old, m)) = self.store.now(entry)
            && m.shade == Shade::Writable
            && m.certainty != Certainty::Stale
            && shade == Shade::Writable
            && self.pfn_bits(old) == self.pfn_bits(spte)
            && self.threads[th].fault.unanswered_write().is_some()
            && self.silent.protects.insert(vm)
        {
            self.stale_where(vm, ev, Reason::SilentKernel, |s, x| {
                s.store.now(x).is_some_and(|(_, m)| m.shade == Shade::Writable)
            });
        }
        if let Some(e) = self.silent.mmio.remove(&(vm, gfn))
            && shade != Shade::Mmio
        {
            self.make_stale(e, ev, Reason::SilentKernel);
        }
        let span = self.store.push(entry, ev, Some(spte), shade, Certainty::Observed, Reason::Reread);
        self.threads[th].fault.changed_silently(span, level, gfn, shade);
        self.freshen(th, vm, entry, shade, ev);
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
            let size = crate::model::pages_of(other);
            let bases: &mut dyn Iterator<Item = u64> = match other.cmp(&level) {
                std::cmp::Ordering::Equal => continue,
                std::cmp::Ordering::Greater => &mut std::iter::once(gfn / size * size),
                // A gigabyte's worth of small pages is not looked at one by one: they are children of tables that go with it.
                std::cmp::Ordering::Less => {
                    &mut (0..crate::model::pages_of(level) / size).take(512).map(move |i| gfn + i * size)
                }
            };
            for base in bases {
                hit.extend(self.silent.direct_at.get(&(vm, other, base)).into_iter().flatten().copied());
            }
        }
        for e in hit {
            if self.silent.fresh.get(&vm).is_some_and(|f| f.contains(&e)) {
                self.make_stale(e, ev, Reason::SilentKernel);
            }
        }
    }

    /// A value is known from here on, as far as this kernel lets it be known.
    fn freshen(&mut self, th: usize, vm: u16, entry: u32, shade: Shade, ev: u32) {
        let tid = self.threads[th].tid;
        let pending = self.silent.ranges.iter().any(|r| r.tid != tid && self.hva_hit(entry, r.start, r.end));
        if pending {
            self.make_stale(entry, ev, Reason::Notifier);
            return;
        }
        self.silent.fresh.entry(vm).or_default().insert(entry);
        if shade == Shade::Writable {
            self.silent.writable.entry(tid).or_default().push(entry);
        }
        if !self.silent.notifiers && shade != Shade::Mmio {
            self.silent.brief.entry(tid).or_default().push(entry);
        }
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
        self.store.push(entry, ev, value, Shade::Mmio, Certainty::Implied, Reason::MarkMmio);
        self.silent.fresh.entry(vm).or_default().insert(entry);
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
            if (cur ^ old) & !ad == 2 && cur & 2 != 0 && self.silent.protects.insert(vm) {
                self.stale_where(vm, ev, Reason::SilentKernel, |s, x| {
                    s.store.now(x).is_some_and(|(_, m)| m.shade == Shade::Writable)
                });
            } else if (cur ^ old) & !ad != 0 {
                let p = self.store.place(entry);
                let key = Key { as_id: 0, level, gfn: p.gfn };
                let values = (Some(cur), Some(old));
                self.evidence(EvidenceKind::FastFault, at, Some(entry), key, p.gfn, values);
            }
        }
        let shade = self.shade(new, level);
        let reason = if result == FastPfResult::Fixed { Reason::FastFault } else { Reason::Reread };
        let span = self.store.push(entry, ev, Some(new), shade, Certainty::Observed, reason);
        if result == FastPfResult::Fixed {
            self.threads[th].fault.changed(span, level, shade);
        }
        self.freshen(th, vm, entry, shade, ev);
    }

    /// A fast fault whose entry is not named: any that held the old value may have the new one now.
    fn fast_fault_somewhere(&mut self, at: At, f: &FastFault) {
        let ad = self.ad_bits();
        if f.result != FastPfResult::Fixed || (f.old ^ f.new) & !ad == 0 {
            return;
        }
        self.stale_where(at.vm, at.ev, Reason::SilentKernel, |s, x| {
            s.store.now(x).is_some_and(|(v, m)| m.has_value && (v ^ f.old) & !ad == 0)
        });
    }
}
