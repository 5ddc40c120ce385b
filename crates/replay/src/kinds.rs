//! A small number for each kind of event, by which the store keeps what every event was ([`kind_of`]). The engine asks for it as it counts events,
//! and sums and the rules about what was recorded use it; nothing here says what an event means.

use mmuscope_trace::Body;

/// Kinds of the events that show what faults install.
pub(crate) const INSTALLS: [u8; 3] = [15, 16, 17];

/// Kinds of the events that show MMIO accesses.
pub(crate) const MMIO_ACCESSES: [u8; 2] = [23, 25];
/// Kinds of what is no event of the trace: see [`Body::is_event`].
pub(crate) const NOTES: [u8; 4] = [45, 46, 47, 48];

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
    48 Body::Snapshot { .. } => "snapshot",
}

/// Number of a kind by its name.
pub(crate) fn kind_by_name(name: &str) -> Option<u8> {
    KINDS.iter().find(|k| k.1 == name).map(|k| k.0)
}
