//! The replay itself: events in, spans out. One pass, in order, without looking ahead, so that a prefix of a trace gives a prefix of the
//! result.

use mmuscope_spte::{Layout, State as SpteState, Traces};
use mmuscope_trace::{Body, Event, FastPfResult, Page, TaskKind, Trace};
use rustc_hash::FxHashMap;

use crate::ends::MarkerNote;
use crate::faults::{FaultState, FaultTracker};
use crate::gaps::{Gap, Gaps};
use crate::model::{Certainty, Evidence, EvidenceKind, MmuKind, Reason, Shade, VmId};
use crate::recorded::Recorded;
use crate::silent::Silent;
use crate::store::{NONE, Store};
use crate::vms::VmMap;

/// Where tables of a moment are found: address space, level, first frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Key {
    pub(crate) as_id: u8,
    pub(crate) level: u8,
    pub(crate) gfn: u64,
}

/// When and by whom an event was made.
#[derive(Clone, Copy, Debug)]
pub(crate) struct At {
    /// Number of the thread.
    pub(crate) th: usize,
    /// The VM it is taken to work for.
    pub(crate) vm: u16,
    /// That is beyond doubt.
    pub(crate) vm_known: bool,
    pub(crate) ev: u32,
    pub(crate) ts: u64,
}

/// `kvm_mmu_set_spte`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SetSpte {
    pub(crate) gfn: u64,
    pub(crate) spte: u64,
    pub(crate) sptep: u64,
    pub(crate) level: u8,
}

/// `mark_mmio_spte`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MarkMmio {
    /// Virtual.
    pub(crate) sptep: Option<u64>,
    pub(crate) gfn: u64,
    pub(crate) access: u32,
    pub(crate) generation: u32,
}

/// `fast_page_fault`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct FastFault {
    pub(crate) gpa: u64,
    /// Virtual.
    pub(crate) sptep: Option<u64>,
    pub(crate) old: u64,
    pub(crate) new: u64,
    pub(crate) result: FastPfResult,
}

/// A `kvm_mmu_get_page` whose table no event has linked yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewPage {
    pub(crate) level: u8,
    pub(crate) gfn: Option<u64>,
    pub(crate) mirror: bool,
    pub(crate) as_id: Option<u8>,
    pub(crate) ev: u32,
    pub(crate) ts: u64,
}

/// The last leaf a thread installed: `kvm_mmu_set_spte` or `mark_mmio_spte` tells where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Install {
    pub(crate) table: u32,
    pub(crate) entry: u32,
    pub(crate) span: u32,
    pub(crate) gfn: u64,
    pub(crate) level: u8,
    pub(crate) as_id: u8,
    pub(crate) spte: u64,
    pub(crate) ambiguous: bool,
}

/// What a thread is doing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Thread {
    pub(crate) tid: u32,
    pub(crate) vm: Option<u16>,
    pub(crate) vcpu: Option<u32>,
    pub(crate) named: bool,
    /// Time of its event before this one.
    pub(crate) prev_ts: u64,
    /// Tables it is tearing down.
    pub(crate) tearing: Vec<u32>,
    /// The first of them was in reach until this thread cut its link: the link was not found in a table that was being torn down itself.
    pub(crate) tears_reached: bool,
    /// Entries it froze and has not released.
    pub(crate) frozen: Vec<u32>,
    /// Of the tables it is tearing down: those whose unlinking is told after their entries (7.2 and later), with the time of the event
    /// before which the link cannot have been cut.
    pub(crate) unlinking: Vec<(u32, u64)>,
    /// Level and first frame of a table it said it would tear down, while it is not known which of several, and the time of the event before.
    pub(crate) doomed: Option<(u8, u64, u64)>,
    /// Level and first frame of the tables it said it would tear down, and whose links it has not cut yet, where those are told last.
    pub(crate) announced: Vec<(u8, u64)>,
    /// Level and first frame of the table that its last change unlinked.
    pub(crate) cut: Option<(u8, u64)>,
    /// It invalidates a range of the host's memory: what that maps is zapped in every tree before the thread goes on.
    pub(crate) notifying: bool,
    /// It obsoleted all roots and now zaps them.
    pub(crate) zapping: bool,
    /// Tables it went through in this fault.
    pub(crate) path: Vec<u32>,
    pub(crate) pages: Vec<NewPage>,
    pub(crate) install: Option<Install>,
    /// Root its last installs went to.
    pub(crate) root: u32,
    pub(crate) fault: FaultState,
}

impl Thread {
    /// Remembers a table that this thread just worked on: a fault goes through five at most.
    pub(crate) fn went_through(&mut self, table: u32) {
        if !self.path.contains(&table) {
            if self.path.len() >= 8 {
                self.path.remove(0);
            }
            self.path.push(table);
        }
    }
}

/// A value that `kvm_mmu_set_spte` re-read and no event explains yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reread {
    pub(crate) vm: u16,
    pub(crate) key: Key,
    pub(crate) entry: u32,
    pub(crate) gfn: u64,
    pub(crate) known: u64,
    pub(crate) seen: u64,
    pub(crate) ev: u32,
    pub(crate) ts: u64,
}

/// How an old value fits what is known of an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fit {
    No,
    Unknown,
    /// Writable or access-tracking differs, which the lockless path changes on its own.
    Volatile,
    Exact,
}

/// The state of a replay between two events.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    pub(crate) store: Store,
    pub(crate) layout: Layout,
    /// What the kernel traces.
    pub(crate) traces: Traces,
    pub(crate) vms: VmMap,
    pub(crate) threads: Vec<Thread>,
    thread_ix: FxHashMap<u32, u32>,
    last_thread: (u32, u32),
    /// Attached tables.
    pub(crate) live: FxHashMap<Key, Vec<u32>>,
    /// Where tables were known at any time.
    pub(crate) places: rustc_hash::FxHashSet<(u16, Key)>,
    /// Frames that a fast fault changed in an entry that was not found: it did not hold its next old value all the time.
    pub(crate) unbooked: rustc_hash::FxHashSet<u64>,
    /// Attached table of a host page.
    pub(crate) by_page: FxHashMap<u64, u32>,
    /// Table that was last torn down in a host page.
    pub(crate) dying: FxHashMap<u64, u32>,
    /// Child table of an entry.
    pub(crate) child_of: FxHashMap<u32, u32>,
    /// Roots that `kvm_mmu_zap_all_fast` made obsolete.
    pub(crate) obsolete: rustc_hash::FxHashSet<u32>,
    /// Tables detached lately, newest last.
    pub(crate) recent: Vec<u32>,
    pub(crate) gaps: Gaps,
    /// Pages whose link was cut before any event made it: with thread and time.
    pub(crate) cuts: Vec<(u64, u32, u64)>,
    /// Re-read values that do not fit yet.
    pub(crate) rereads: Vec<Reread>,
    /// Entries of torn-down tables that a late event said were filled.
    pub(crate) late: rustc_hash::FxHashSet<u32>,
    pub(crate) evidence: Vec<Evidence>,
    pub(crate) lost: Vec<crate::model::LostSpan>,
    pub(crate) markers: Vec<MarkerNote>,
    pub(crate) faults: FaultTracker,
    pub(crate) silent: Silent,
    /// Which events the trace can hold.
    pub(crate) recorded: Recorded,
    pub(crate) loss_seen: bool,
    /// The last event that told of a loss; 0 where none did.
    pub(crate) loss_ev: u32,
    pub(crate) virt_minus_phys: Option<u64>,
    /// Events consumed.
    pub(crate) next_ev: u32,
    pub(crate) first_ts: Option<u64>,
    pub(crate) last_ts: u64,
    cpu_last: Vec<u64>,
    /// Implied children made so far (bounded against made-up files).
    pub(crate) implied: u64,
    /// Threads whose teardown was told to its last entry.
    pub(crate) torn: Vec<usize>,
    /// How MMIO entries are made here is confirmed, so that their values may be computed.
    pub(crate) mmio_sure: bool,
}

impl Engine {
    pub(crate) fn new(layout: Layout, traces: Traces, trace: &Trace) -> Self {
        let recorded = Recorded::of(trace);
        let mut silent = Silent::new(trace);
        silent.ranges_recorded(recorded.has(crate::recorded::kind::UNMAP_HVA));
        Self {
            store: Store::default(),
            layout,
            traces,
            vms: VmMap::new(trace),
            threads: Vec::new(),
            thread_ix: FxHashMap::default(),
            last_thread: (NONE, 0),
            live: FxHashMap::default(),
            places: rustc_hash::FxHashSet::default(),
            unbooked: rustc_hash::FxHashSet::default(),
            by_page: FxHashMap::default(),
            dying: FxHashMap::default(),
            child_of: FxHashMap::default(),
            obsolete: rustc_hash::FxHashSet::default(),
            recent: Vec::new(),
            gaps: Gaps::default(),
            cuts: Vec::new(),
            rereads: Vec::new(),
            late: rustc_hash::FxHashSet::default(),
            evidence: Vec::new(),
            lost: Vec::new(),
            markers: Vec::new(),
            faults: FaultTracker::default(),
            silent,
            recorded,
            loss_seen: false,
            loss_ev: 0,
            virt_minus_phys: None,
            next_ev: 0,
            first_ts: None,
            last_ts: 0,
            cpu_last: Vec::new(),
            implied: 0,
            torn: Vec::new(),
            mmio_sure: false,
        }
    }

    /// What a value is, as a picture shows it.
    #[inline]
    pub(crate) fn shade(&self, raw: u64, level: u8) -> Shade {
        let l = &self.layout;
        match l.state(raw, level) {
            SpteState::Nonpresent => Shade::Nonpresent,
            SpteState::Table => Shade::Table,
            SpteState::Mmio => Shade::Mmio,
            SpteState::Removed => Shade::Removed,
            SpteState::Present => {
                if raw & 2 != 0 {
                    Shade::Writable
                } else if l.masks.acc_track_mask != 0
                    && raw & l.masks.acc_track_mask == 0
                    && l.ad_type(raw) == mmuscope_spte::AdType::Disabled
                {
                    Shade::AccessTracked
                } else {
                    Shade::ReadOnly
                }
            }
        }
    }

    #[inline]
    pub(crate) fn pfn_bits(&self, raw: u64) -> u64 {
        raw & self.layout.masks.base_addr_mask
    }

    /// Bits that hardware may set without an event.
    #[inline]
    pub(crate) fn ad_bits(&self) -> u64 {
        self.layout.masks.accessed_mask | self.layout.masks.dirty_mask
    }

    fn thread(&mut self, tid: u32) -> usize {
        if self.last_thread.0 == tid {
            return self.last_thread.1 as usize;
        }
        let n = self.threads.len() as u32;
        let i = *self.thread_ix.entry(tid).or_insert(n);
        if i == n {
            let vm = self.vms.of_tid(tid);
            self.threads.push(Thread { tid, vm, prev_ts: 0, root: NONE, ..Thread::default() });
        }
        self.last_thread = (tid, i);
        i as usize
    }

    /// Consumes one event.
    pub(crate) fn step(&mut self, e: &Event) {
        let of_a_level;
        let e = if let Some(body) = leveled(&e.body) {
            of_a_level = Event { body, ..*e };
            &of_a_level
        } else {
            e
        };
        let ev = self.next_ev;
        self.next_ev += 1;
        let before = self.last_ts;
        let ts = e.ts.max(before);
        self.last_ts = ts;
        self.store.ev_ts.push(ts);
        let kind = crate::series::kind_of(&e.body);
        self.recorded.see(kind);
        self.store.ev_kind.push(kind);
        if self.first_ts.is_none() {
            self.first_ts = Some(ts);
        }
        let cpu = usize::from(e.cpu);
        if cpu >= self.cpu_last.len() {
            self.cpu_last.resize(cpu + 1, ts);
        }
        match e.body {
            Body::Lost { count, .. } => {
                let start = self.cpu_last[cpu];
                self.lost.push(crate::model::LostSpan { cpu: Some(e.cpu), start, end: ts, count, event: ev });
                self.on_lost(ev, ts);
                self.cpu_last[cpu] = ts;
                return;
            }
            Body::Damage { .. } => {
                self.lost.push(crate::model::LostSpan {
                    cpu: None,
                    start: before,
                    end: ts,
                    count: None,
                    event: ev,
                });
                self.on_lost(ev, ts);
                return;
            }
            Body::Marker { text } => {
                // Whoever writes one is not in the kernel's KVM.
                let writer = e.tid.map(|tid| {
                    let th = self.thread(tid);
                    self.leave(th, ev);
                    self.threads[th].vm
                });
                self.markers.push(MarkerNote { ev, ts, text, vm: writer.flatten() });
                self.silent_heard(e.tid, ev, ts);
                self.cpu_last[cpu] = ts;
                return;
            }
            Body::Task { kind: TaskKind::Exit, tid, .. } => {
                self.thread_ended(tid, ev, ts);
                return;
            }
            Body::Task { .. } | Body::Other { .. } => return,
            _ => {}
        }
        self.cpu_last[cpu] = ts;
        let Some(tid) = e.tid else { return };
        let th = self.thread(tid);
        self.vms.touch(&mut self.threads[th], e, ts);
        if !self.torn.is_empty() {
            for t in std::mem::take(&mut self.torn) {
                self.settle(t, ev, ts);
            }
        }
        if self.threads[th].zapping
            && !matches!(e.body, Body::TdpSpteChanged { .. } | Body::PrepareZapPage { .. })
        {
            self.threads[th].zapping = false;
            self.zapped_all(tid, ev, ts);
        }
        if !matches!(e.body, Body::TdpSpteChanged { .. } | Body::PrepareZapPage { .. }) {
            self.threads[th].announced.clear();
            self.threads[th].notifying =
                matches!(e.body, Body::UnmapHvaRange { .. } | Body::SetSpteHva { .. });
        }
        // Whatever a thread was tearing down or had frozen is done once it goes on to something else.
        if (!self.threads[th].tearing.is_empty() || !self.threads[th].frozen.is_empty())
            && !self.belongs_to_teardown(th, e)
        {
            self.settle(th, ev, ts);
        }
        let vm_known = self.vms.sure() && self.threads[th].vm.is_some() || self.vms.one();
        let at = At { th, vm: self.vm_of(th), vm_known, ev, ts };
        if self.threads[th].vm.is_some() || self.vms.one() {
            self.vms.note_activity(at.vm, &e.body);
            self.note_life(at, &e.body);
        }
        self.end_fault(at, &e.body);
        match e.body {
            Body::TdpSpteChanged { as_id, gfn, level, old_spte, new_spte } => {
                self.tdp_changed(at, as_id, level.clamp(1, 6), gfn, old_spte, new_spte);
            }
            Body::GetPage { page, created } => self.get_page(at, &page, created),
            Body::PrepareZapPage { page } => self.prepare_zap(at, &page),
            Body::SyncPage { page } => self.sync_page(at, &page),
            Body::SetSpte { gfn, spte, sptep, level, .. } => {
                self.set_spte(at, &SetSpte { gfn, spte, sptep, level: level.clamp(1, 6) });
            }
            Body::MarkMmioSpte { sptep, gfn, access, generation } => {
                self.mark_mmio(at, &MarkMmio { sptep, gfn, access, generation });
            }
            Body::FastPageFault { cr2_or_gpa, sptep, old_spte, new_spte, result, .. } => {
                let (gpa, old, new) = (cr2_or_gpa, old_spte, new_spte);
                self.fast_page_fault(at, &FastFault { gpa, sptep, old, new, result });
            }
            Body::ZapAllFast { .. } => self.zap_all_fast(at),
            Body::SplitHugePage { gfn, level, errno: 0, .. } => self.silent_split(at, gfn, level),
            Body::UnmapHvaRange { .. }
            | Body::SetSpteHva { .. }
            | Body::AgeHva { .. }
            | Body::TestAgeHva { .. }
            | Body::AgePage { .. } => {
                self.notifier(at, &e.body);
            }
            Body::SpteRequested { .. } | Body::PageFault { .. } | Body::Exit { .. } | Body::Entry { .. } => {
                let t = &mut self.threads[th];
                t.path.clear();
                t.install = None;
            }
            _ => {}
        }
        self.silent_step(at, e);
        self.unseen_fast_fault(at, e);
        let vm = self.threads[th].vm.unwrap_or(0);
        let tdp = self.vms.is_tdp(vm);
        self.faults.step(&mut self.threads[th], vm, tdp, ev, ts, e);
        self.threads[th].prev_ts = ts;
    }

    pub(crate) fn vm_of(&mut self, th: usize) -> u16 {
        match self.threads[th].vm {
            Some(v) => v,
            None => self.vms.default_vm(),
        }
    }

    pub(crate) fn evidence(
        &mut self,
        kind: EvidenceKind,
        at: At,
        entry: Option<u32>,
        key: Key,
        gfn: u64,
        values: (Option<u64>, Option<u64>),
    ) {
        // Made-up files could hold one for every event: the count goes on, the list does not.
        if self.evidence.len() < MAX_EVIDENCE {
            self.evidence.push(Evidence {
                kind,
                ts: at.ts,
                event: at.ev,
                vm: VmId(at.vm),
                entry: entry.map(crate::model::EntryId),
                as_id: key.as_id,
                level: key.level,
                gfn,
                expected: values.0,
                found: values.1,
                after_loss: self.loss_seen,
            });
        }
    }

    fn get_page(&mut self, at: At, page: &Page, created: bool) {
        let At { th, vm, ev, ts, .. } = at;
        self.silent_get_page(at, page, created);
        if !created || !page.role.direct || page.role.level < 1 {
            return;
        }
        let t = &mut self.threads[th];
        if t.pages.len() >= 16 {
            t.pages.remove(0);
        }
        let np = NewPage {
            level: page.role.level,
            gfn: page.gfn,
            mirror: page.role.mirror.unwrap_or(false),
            as_id: page.role.smm.map(u8::from),
            ev,
            ts,
        };
        t.pages.push(np);
        if np.mirror {
            self.vms.has_mirror(vm);
        }
        if page.role.level >= 4 && page.gfn.is_none_or(|g| g == 0) {
            self.vms.new_root(vm, np, &page.role);
        }
    }

    /// Whether an event is part of what its thread is tearing down.
    fn belongs_to_teardown(&self, th: usize, e: &Event) -> bool {
        let t = &self.threads[th];
        match e.body {
            Body::TdpSpteChanged { as_id, gfn, level, old_spte, .. } => {
                let key = key_of(as_id, level, gfn);
                let page = self.pfn_bits(old_spte);
                t.tearing.iter().rev().any(|x| self.key_is(*x, key))
                    || t.unlinking.iter().any(|(x, _)| {
                        let r = &self.store.tables[*x as usize];
                        r.page == page && r.level + 1 == level
                    })
            }
            Body::PrepareZapPage { page } => {
                let level = page.role.level;
                page.role.direct
                    && t.tearing.iter().any(|x| {
                        let r = &self.store.tables[*x as usize];
                        // Where links are told cut after the entries, the tables below come before theirs.
                        let below = || {
                            t.unlinking.iter().any(|u| u.0 == *x)
                                && r.level == level + 1
                                && page.gfn.is_none_or(|g| key_of(r.as_id, r.level, g).gfn == r.gfn)
                        };
                        r.level == level && page.gfn.is_none_or(|g| g == r.gfn) || below()
                    })
            }
            _ => false,
        }
    }

    pub(crate) fn key_is(&self, table: u32, key: Key) -> bool {
        let r = &self.store.tables[table as usize];
        r.level == key.level && r.gfn == key.gfn && r.as_id == key.as_id
    }

    /// The thread went on: torn-down tables are gone, frozen entries released.
    fn settle(&mut self, th: usize, ev: u32, ts: u64) {
        let tearing = std::mem::take(&mut self.threads[th].tearing);
        self.threads[th].unlinking.clear();
        for t in tearing {
            self.store.bury(t, ev, ts);
        }
        let frozen = std::mem::take(&mut self.threads[th].frozen);
        if !self.traces.releases_silently() {
            return;
        }
        for e in frozen {
            let attached = self.store.tables[self.store.place(e).table as usize].attached();
            if attached && self.store.now(e).is_some_and(|(_, m)| m.shade == Shade::Removed) {
                self.store.push(
                    e,
                    ev,
                    Some(self.layout.zapped),
                    Shade::Nonpresent,
                    Certainty::Assumed,
                    Reason::Unfrozen,
                );
            }
        }
    }

    fn zap_all_fast(&mut self, at: At) {
        let At { th, vm, .. } = at;
        let roots: Vec<u32> = self
            .live
            .values()
            .flatten()
            .copied()
            .filter(|t| {
                let r = &self.store.tables[*t as usize];
                // What a mirror tree stands for cannot be built anew so fast: it stays.
                r.vm == vm && r.root == *t && !r.mirror
            })
            .collect();
        self.obsolete.extend(roots);
        self.threads[th].zapping = true;
        self.obsolete_in_doubt(at);
        self.silent_zap_all(at);
    }

    /// Events after the last one are left out: what is known is known up to here.
    pub(crate) fn leave_out(&mut self, count: u64, until: u64) {
        let (ev, ts) = (self.next_ev.saturating_sub(1), self.last_ts);
        let end = until.max(ts);
        self.lost.push(crate::model::LostSpan { cpu: None, start: ts, end, count: Some(count), event: ev });
        self.on_lost(ev, ts);
    }

    /// Something was lost: every value known so far may have changed since.
    fn on_lost(&mut self, ev: u32, ts: u64) {
        self.loss_seen = true;
        self.loss_ev = ev;
        self.vms.lost();
        for g in std::mem::take(&mut self.gaps).iter() {
            self.report_gap(g);
        }
        self.rereads.clear();
        for t in 0..self.threads.len() {
            self.settle(t, ev, ts);
        }
        for t in &mut self.threads {
            t.prev_ts = ts;
            t.zapping = false;
            t.notifying = false;
            t.root = NONE;
            t.cut = None;
            t.doomed = None;
            t.path.clear();
            t.install = None;
            t.pages.clear();
        }
        let live: Vec<u32> = self.live.values().flatten().copied().collect();
        for t in live {
            let entries: Vec<u32> = self.store.table_entries(t).collect();
            for e in entries {
                if let Some((spte, m)) = self.store.now(e)
                    && m.certainty != Certainty::Stale
                    && m.shade != Shade::Unknown
                {
                    self.store.push(
                        e,
                        ev,
                        m.has_value.then_some(spte),
                        m.shade,
                        Certainty::Stale,
                        Reason::Lost,
                    );
                }
            }
            let r = &mut self.store.tables[t as usize];
            (r.lossy, r.alive) = (true, false);
        }
        self.silent_lost(ev, ts);
        self.faults.lost(&mut self.threads, ev);
    }

    pub(crate) fn report_gap(&mut self, g: &Gap) {
        if self.evidence.len() < MAX_EVIDENCE {
            self.evidence.push(gap_evidence(g, self.loss_seen));
        }
    }

    pub(crate) fn report_reread(&mut self, r: &Reread) {
        if self.evidence.len() < MAX_EVIDENCE {
            self.evidence.push(reread_evidence(r, self.loss_seen));
        }
    }

    pub(crate) fn mmu_kind(&mut self, vm: u16, kind: MmuKind) {
        self.vms.kind(vm, kind);
    }
}

/// The same of a page whose role has a level that no page table has, as damaged or made-up text may print, with the nearest that may be.
fn leveled(body: &Body) -> Option<Body> {
    let mut body = *body;
    let (Body::GetPage { page, .. }
    | Body::SyncPage { page }
    | Body::UnsyncPage { page }
    | Body::PrepareZapPage { page }) = &mut body
    else {
        return None;
    };
    if page.role.level <= 6 {
        return None;
    }
    page.role.level = 6;
    Some(body)
}

/// Pieces of evidence kept.
const MAX_EVIDENCE: usize = 100_000;

pub(crate) fn gap_evidence(g: &Gap, after_loss: bool) -> Evidence {
    Evidence {
        kind: g.kind,
        ts: g.ts,
        event: g.ev,
        vm: VmId(g.vm),
        entry: Some(crate::model::EntryId(g.entry)),
        as_id: g.key.as_id,
        level: g.key.level,
        gfn: g.gfn,
        expected: Some(g.from),
        found: Some(g.to),
        after_loss,
    }
}

pub(crate) fn reread_evidence(r: &Reread, after_loss: bool) -> Evidence {
    Evidence {
        kind: EvidenceKind::SetSpte,
        ts: r.ts,
        event: r.ev,
        vm: VmId(r.vm),
        entry: Some(crate::model::EntryId(r.entry)),
        as_id: r.key.as_id,
        level: r.key.level,
        gfn: r.gfn,
        expected: Some(r.known),
        found: Some(r.seen),
        after_loss,
    }
}

/// The table an entry at `gfn` lies in.
pub(crate) fn key_of(as_id: u8, level: u8, gfn: u64) -> Key {
    let span = 9 * u32::from(level.clamp(1, 6));
    Key { as_id, level, gfn: if span >= 64 { 0 } else { gfn >> span << span } }
}

/// Index of an entry in its table.
pub(crate) fn index_of(level: u8, gfn: u64) -> u16 {
    (gfn >> (9 * (u32::from(level.clamp(1, 6)) - 1)) & 511) as u16
}
