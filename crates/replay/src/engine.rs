//! [`Engine`], the state of a replay between two events, and small questions about it. [`crate::step`] is the order in which an event changes it;
//! the rules are beside it, each with access to what the engine holds. Nothing in this file concludes anything from an event.

use mmuscope_spte::{Layout, State as SpteState, Traces};
use mmuscope_trace::Trace;
use rustc_hash::FxHashMap;

use crate::ends::MarkerNote;
use crate::faults::FaultTracker;
use crate::gaps::{Gap, Gaps, Reread, gap_evidence, reread_evidence};
use crate::keys::{EntryIx, Key, TableIx, ThreadIx};
use crate::model::{Evidence, EvidenceKind, MmuKind, Shade, VmId};
use crate::moment::{At, NO_VM};
use crate::recorded::Recorded;
use crate::silent::state::Silent;
use crate::slots::Slots;
use crate::snapshot::state::Snapshots;
use crate::store::Store;
use crate::tdp::unattributed::Unattributed;
use crate::threads::{Thread, Threads};
use crate::vms::VmMap;

/// The state of a replay between two events.
#[derive(Clone, Debug)]
pub(crate) struct Engine {
    pub(crate) store: Store,
    pub(crate) layout: Layout,
    /// What the kernel traces.
    pub(crate) traces: Traces,
    pub(crate) vms: VmMap,
    pub(crate) threads: Threads,
    /// Attached tables.
    pub(crate) live: FxHashMap<Key, Vec<TableIx>>,
    /// Where tables were known at any time.
    pub(crate) places: rustc_hash::FxHashSet<(u16, Key)>,
    /// Changes of entries that were not found: such an entry did not hold its next old value all the time.
    pub(crate) unattributed: Unattributed,
    /// Attached table of a host page.
    pub(crate) by_page: FxHashMap<u64, TableIx>,
    /// Table that was last torn down in a host page.
    pub(crate) dying: FxHashMap<u64, TableIx>,
    /// Child table of an entry.
    pub(crate) child_of: FxHashMap<EntryIx, TableIx>,
    /// Roots that `kvm_mmu_zap_all_fast` made obsolete.
    pub(crate) obsolete: rustc_hash::FxHashSet<TableIx>,
    /// Tables detached lately, newest last.
    pub(crate) recent: Vec<TableIx>,
    pub(crate) gaps: Gaps,
    /// Pages whose link was cut before any event made it: with thread and time.
    pub(crate) cuts: Vec<(u64, u32, u64)>,
    /// Re-read values that do not fit yet.
    pub(crate) rereads: Vec<Reread>,
    /// Entries of torn-down tables that a late event said were filled.
    pub(crate) late: rustc_hash::FxHashSet<EntryIx>,
    pub(crate) evidence: Vec<Evidence>,
    /// Evidence of events up to this time proves nothing: the recorder was switching its events on when the trace began.
    pub(crate) unsure_until: u64,
    pub(crate) lost: Vec<crate::model::LostSpan>,
    pub(crate) markers: Vec<MarkerNote>,
    pub(crate) faults: FaultTracker,
    pub(crate) silent: Silent,
    pub(crate) snapshots: Snapshots,
    pub(crate) slots: Slots,
    /// Which events the trace can hold.
    pub(crate) recorded: Recorded,
    pub(crate) loss_seen: bool,
    /// The last event that records a loss; 0 where none does.
    pub(crate) loss_ev: u32,
    pub(crate) virt_minus_phys: Option<u64>,
    /// Events consumed.
    pub(crate) next_ev: u32,
    pub(crate) first_ts: Option<u64>,
    /// Changes of the TDP MMU are known by a probe, because the kernel does not trace them.
    pub(crate) changes_probed: bool,
    pub(crate) last_ts: u64,
    /// Time of the last event of each CPU.
    pub(crate) cpu_last: Vec<u64>,
    /// Implied children made so far (bounded against made-up files).
    pub(crate) implied: u64,
    /// Threads whose teardown was traced to its last entry.
    pub(crate) torn: Vec<ThreadIx>,
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
            threads: Threads::default(),
            live: FxHashMap::default(),
            places: rustc_hash::FxHashSet::default(),
            unattributed: Unattributed::default(),
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
            unsure_until: 0,
            lost: Vec::new(),
            markers: Vec::new(),
            faults: FaultTracker::default(),
            silent,
            snapshots: Snapshots::default(),
            slots: Slots::default(),
            recorded,
            loss_seen: false,
            loss_ev: 0,
            virt_minus_phys: None,
            next_ev: 0,
            first_ts: None,
            changes_probed: false,
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

    /// Number of a thread, with its state made if need be.
    pub(crate) fn thread(&mut self, tid: u32) -> ThreadIx {
        let mut vm = || self.vms.of_tid(tid, None);
        self.threads.of_tid(tid, || Thread { tid, vm: vm(), root: TableIx::NONE, ..Thread::default() })
    }

    /// The VM that a thread works for, or [`NO_VM`].
    pub(crate) fn vm_of(&self, th: ThreadIx) -> u16 {
        self.threads[th].vm.unwrap_or(NO_VM)
    }

    pub(crate) fn evidence(
        &mut self,
        kind: EvidenceKind,
        at: At,
        entry: Option<EntryIx>,
        key: Key,
        gfn: u64,
        values: (Option<u64>, Option<u64>),
    ) {
        // Made-up files could hold one for every event: the count goes on, the list does not. Of no known VM it is evidence of nothing.
        if self.evidence.len() < MAX_EVIDENCE && !at.nobodys() {
            self.evidence.push(Evidence {
                kind,
                ts: at.ts,
                event: at.ev,
                vm: VmId(at.vm),
                entry: entry.map(EntryIx::id),
                as_id: key.as_id,
                level: key.level,
                gfn,
                expected: values.0,
                found: values.1,
                after_loss: self.loss_seen || at.ts <= self.unsure_until,
            });
        }
    }

    pub(crate) fn key_is(&self, table: TableIx, key: Key) -> bool {
        let r = &self.store.tables[table];
        r.level == key.level && r.gfn == key.gfn && r.as_id == key.as_id
    }

    pub(crate) fn report_gap(&mut self, g: &Gap) {
        if self.evidence.len() < MAX_EVIDENCE {
            self.evidence.push(gap_evidence(g, self.loss_seen || g.ts <= self.unsure_until));
        }
    }

    pub(crate) fn report_reread(&mut self, r: &Reread) {
        if self.evidence.len() < MAX_EVIDENCE {
            self.evidence.push(reread_evidence(r, self.loss_seen || r.ts <= self.unsure_until));
        }
    }

    pub(crate) fn mmu_kind(&mut self, vm: u16, kind: MmuKind) {
        self.vms.kind(vm, kind);
    }
}

/// Pieces of evidence kept.
const MAX_EVIDENCE: usize = 100_000;
