//! [`Engine`], the state of a replay between two events, and small questions about it. [`crate::step`] is the order in which an event changes it;
//! the rules are beside it, each with access to what the engine holds. Nothing in this file concludes anything from an event.

use mmuscope_spte::{Layout, State as SpteState, Traces};
use mmuscope_trace::Trace;

use crate::attached::Attached;
use crate::clock::Clock;
use crate::faults::FaultTracker;
use crate::gaps::{Gap, Reread, Unexplained, gap_evidence, reread_evidence};
use crate::keys::{EntryIx, Key, TableIx, ThreadIx};
use crate::model::{Evidence, EvidenceKind, MmuKind, Shade, VmId};
use crate::moment::{At, NO_VM};
use crate::noted::Noted;
use crate::probed::ProbedChanges;
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
    pub(crate) attached: Attached,
    /// Places of changes attributed to no entry: one that lies there may have held something else before its first event.
    pub(crate) unattributed: Unattributed,
    pub(crate) unexplained: Unexplained,
    pub(crate) noted: Noted,
    pub(crate) faults: FaultTracker,
    pub(crate) silent: Silent,
    pub(crate) snapshots: Snapshots,
    pub(crate) slots: Slots,
    /// Which events the trace can hold.
    pub(crate) recorded: Recorded,
    /// The distance between the kernel's virtual and the physical address of a page, once an event has shown both.
    pub(crate) virt_minus_phys: Option<u64>,
    pub(crate) clock: Clock,
    pub(crate) probed: ProbedChanges,
    /// Implied children made so far (bounded against made-up files).
    pub(crate) implied: u64,
    /// Threads whose teardown was traced to its last entry.
    pub(crate) torn: Vec<ThreadIx>,
    /// How MMIO entries are made here is confirmed, so that their values may be computed.
    pub(crate) mmio_sure: bool,
}

impl Engine {
    pub(crate) fn new(layout: Layout, traces: Traces, changes_traced: bool, trace: &Trace) -> Self {
        let recorded = Recorded::of(trace);
        let mut silent = Silent::new(trace);
        silent.ranges_recorded(recorded.has(crate::recorded::kind::UNMAP_HVA));
        Self {
            store: Store::default(),
            layout,
            traces,
            vms: VmMap::new(trace),
            threads: Threads::default(),
            attached: Attached::default(),
            unattributed: Unattributed::default(),
            unexplained: Unexplained::default(),
            noted: Noted::default(),
            faults: FaultTracker::default(),
            silent,
            snapshots: Snapshots::default(),
            slots: Slots::default(),
            recorded,
            virt_minus_phys: None,
            clock: Clock::default(),
            probed: ProbedChanges::new(changes_traced),
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
        // Of no known VM it is evidence of nothing.
        if at.nobodys() {
            return;
        }
        self.noted.add(Evidence {
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
            after_loss: self.noted.after_loss(at.ts),
        });
    }

    pub(crate) fn key_is(&self, table: TableIx, key: Key) -> bool {
        let r = &self.store.tables[table];
        r.level == key.level && r.gfn == key.gfn && r.as_id == key.as_id
    }

    pub(crate) fn report_gap(&mut self, g: &Gap) {
        self.noted.add(gap_evidence(g, self.noted.after_loss(g.ts)));
    }

    pub(crate) fn report_reread(&mut self, r: &Reread) {
        self.noted.add(reread_evidence(r, self.noted.after_loss(r.ts)));
    }

    pub(crate) fn mmu_kind(&mut self, vm: u16, kind: MmuKind) {
        self.vms.kind(vm, kind);
    }
}
