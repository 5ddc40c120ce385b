//! Counts of events over time: one byte of kind for each event, and sums of stretches.

use mmuscope_trace::Body;

use crate::model::Bin;
use crate::store::Store;

/// Events per stretch with a sum.
const BLOCK: usize = 4096;

macro_rules! kinds {
    ($($n:literal $pat:pat => $name:literal),+ $(,)?) => {
        /// A small number for each kind of event.
        pub(crate) fn kind_of(b: &Body) -> u8 {
            match b { $($pat => $n,)+ _ => 0 }
        }
        /// Names of the kinds.
        pub(crate) const KINDS: &[(u8, &str)] = &[$(($n, $name)),+];
    };
}
kinds! {
    1 Body::PagetableWalk { .. } => "kvm_mmu_pagetable_walk",
    2 Body::PagingElement { .. } => "kvm_mmu_paging_element",
    3 Body::SetAccessedBit { .. } => "kvm_mmu_set_accessed_bit",
    4 Body::SetDirtyBit { .. } => "kvm_mmu_set_dirty_bit",
    5 Body::WalkerError { .. } => "kvm_mmu_walker_error",
    6 Body::GetPage { .. } => "kvm_mmu_get_page",
    7 Body::SyncPage { .. } => "kvm_mmu_sync_page",
    8 Body::UnsyncPage { .. } => "kvm_mmu_unsync_page",
    9 Body::PrepareZapPage { .. } => "kvm_mmu_prepare_zap_page",
    10 Body::MarkMmioSpte { .. } => "mark_mmio_spte",
    11 Body::HandleMmioPageFault { .. } => "handle_mmio_page_fault",
    12 Body::CheckMmioSpte { .. } => "check_mmio_spte",
    13 Body::FastPageFault { .. } => "fast_page_fault",
    14 Body::ZapAllFast { .. } => "kvm_mmu_zap_all_fast",
    15 Body::SetSpte { .. } => "kvm_mmu_set_spte",
    16 Body::SpteRequested { .. } => "kvm_mmu_spte_requested",
    17 Body::TdpSpteChanged { .. } => "kvm_tdp_mmu_spte_changed",
    18 Body::SplitHugePage { .. } => "kvm_mmu_split_huge_page",
    19 Body::PageFault { .. } => "kvm_page_fault",
    20 Body::Exit { .. } => "kvm_exit",
    21 Body::Entry { .. } => "kvm_entry",
    22 Body::UserspaceExit { .. } => "kvm_userspace_exit",
    23 Body::Mmio { .. } => "kvm_mmio",
    24 Body::VcpuMatchMmio { .. } => "vcpu_match_mmio",
    25 Body::FastMmio { .. } => "kvm_fast_mmio",
    26 Body::UnmapHvaRange { .. } => "kvm_unmap_hva_range",
    27 Body::AgeHva { .. } => "kvm_age_hva",
    28 Body::TestAgeHva { .. } => "kvm_test_age_hva",
    29 Body::SetSpteHva { .. } => "kvm_set_spte_hva",
    30 Body::AgePage { .. } => "kvm_age_page",
    31 Body::TryAsyncGetPage { .. } => "kvm_try_async_get_page",
    32 Body::AsyncPf { .. } => "kvm_async_pf",
    33 Body::AsyncPfCompleted { .. } => "kvm_async_pf_completed",
    34 Body::PmlFull { .. } => "kvm_pml_full",
    35 Body::DirtyRingPush { .. } => "kvm_dirty_ring_push",
    36 Body::DirtyRingReset { .. } => "kvm_dirty_ring_reset",
    37 Body::DirtyRingExit { .. } => "kvm_dirty_ring_exit",
    38 Body::NestedVmexit { .. } => "kvm_nested_vmexit",
    39 Body::NestedVmenter { .. } => "kvm_nested_vmenter",
    40 Body::RmpFault { .. } => "kvm_rmp_fault",
    41 Body::SetMemAttributes { .. } => "kvm_vm_set_mem_attributes",
    42 Body::SmmTransition { .. } => "kvm_smm_transition",
    43 Body::EmulateInsn { .. } => "kvm_emulate_insn",
    44 Body::Marker { .. } => "marker",
    45 Body::Lost { .. } => "lost",
    46 Body::Damage { .. } => "damage",
    47 Body::Task { .. } => "task",
}

/// Number of a kind by its name.
pub(crate) fn kind_by_name(name: &str) -> Option<u8> {
    KINDS.iter().find(|k| k.1 == name).map(|k| k.0)
}

/// Sums per stretch of events.
#[derive(Clone, Debug, Default)]
pub(crate) struct KindSums {
    /// Events of each kind before block b.
    before: Vec<[u32; 48]>,
}

impl KindSums {
    pub(crate) fn seal(&mut self, store: &Store) {
        let mut acc = self.before.last().copied().unwrap_or([0; 48]);
        if self.before.is_empty() {
            self.before.push(acc);
        }
        while self.before.len() * BLOCK <= store.ev_kind.len() {
            let b = self.before.len() - 1;
            for k in &store.ev_kind[b * BLOCK..(b + 1) * BLOCK] {
                acc[usize::from(*k).min(47)] += 1;
            }
            self.before.push(acc);
        }
    }

    /// Events of a kind before event `ev`.
    fn rank(&self, store: &Store, kind: u8, ev: usize) -> u64 {
        let b = (ev / BLOCK).min(self.before.len().saturating_sub(1));
        let Some(base) = self.before.get(b) else { return 0 };
        let rest =
            store.ev_kind[b * BLOCK..ev.min(store.ev_kind.len())].iter().filter(|k| **k == kind).count();
        u64::from(base[usize::from(kind).min(47)]) + rest as u64
    }

    fn first(&self, store: &Store, kind: u8, from: usize, to: usize) -> Option<u32> {
        store.ev_kind.get(from..to)?.iter().position(|k| *k == kind).map(|i| (from + i) as u32)
    }

    pub(crate) fn total(&self, store: &Store, kind: u8) -> u64 {
        self.rank(store, kind, store.ev_kind.len())
    }

    /// Buckets of equal width; `kind` `None` counts every event.
    pub(crate) fn bins(&self, store: &Store, kind: Option<u8>, t0: u64, t1: u64, n: usize) -> Vec<Bin> {
        let n = n.max(1);
        // Each bucket is looked at in four parts, so that its highest does not drown.
        let sub = 4;
        let edge = |i: usize| t0 + ((t1.saturating_sub(t0)) as u128 * i as u128 / (n * sub) as u128) as u64;
        let pos = |t: u64| if t == 0 { 0 } else { store.ev_ts.upto(t - 1) };
        let mut out = Vec::with_capacity(n);
        let mut at = pos(t0);
        let mut r_at = kind.map_or(at as u64, |k| self.rank(store, k, at));
        for i in 0..n {
            let mut bin = Bin::default();
            let start = at;
            for j in 1..=sub {
                let e = if i + 1 == n && j == sub { store.ev_ts.upto(t1) } else { pos(edge(i * sub + j)) }
                    .max(at);
                let r = kind.map_or(e as u64, |k| self.rank(store, k, e));
                let c = r - r_at;
                bin.count += c;
                bin.max = bin.max.max(c);
                at = e;
                r_at = r;
            }
            if bin.count > 0 {
                bin.first_event = match kind {
                    None => Some(start as u32),
                    Some(k) => self.first(store, k, start, at),
                };
            }
            out.push(bin);
        }
        out
    }

    pub(crate) fn heap(&self) -> usize {
        self.before.capacity() * 192
    }
}

/// Buckets over times that are sorted.
pub(crate) fn bins_of(times: &mut dyn Iterator<Item = (u64, u32)>, t0: u64, t1: u64, n: usize) -> Vec<Bin> {
    let n = n.max(1);
    let mut subs = vec![0u64; n * 4];
    let mut out = vec![Bin::default(); n];
    let width = t1.saturating_sub(t0).max(1) as u128;
    for (t, ev) in times {
        if t < t0 || t > t1 {
            continue;
        }
        let s = ((u128::from(t - t0) * (n as u128 * 4)) / width).min(n as u128 * 4 - 1) as usize;
        subs[s] += 1;
        let b = &mut out[s / 4];
        b.count += 1;
        b.max = b.max.max(subs[s]);
        b.first_event.get_or_insert(ev);
    }
    out
}
