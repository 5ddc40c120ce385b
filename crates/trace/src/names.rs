//! The tracepoints that have a typed body, and the names of all bodies.

use crate::event::{Body, TaskKind};
use crate::strings::Strings;

macro_rules! tracepoints {
    ($($id:ident $($name:literal)|+;)*) => {
        /// A tracepoint with a typed body.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub(crate) enum Tp { $($id),* }

        /// The tracepoint of this name (without its system).
        pub(crate) fn tracepoint(name: &[u8]) -> Option<Tp> {
            // The compiler makes this a comparison of lengths first, then of bytes.
            $( $( if name == $name.as_bytes() { return Some(Tp::$id); } )+ )*
            None
        }
    };
}

tracepoints! {
    TdpSpteChanged "kvm_tdp_mmu_spte_changed";
    SetSpte "kvm_mmu_set_spte";
    Exit "kvm_exit";
    Entry "kvm_entry";
    PageFault "kvm_page_fault";
    SpteRequested "kvm_mmu_spte_requested";
    FastPageFault "fast_page_fault";
    PagingElement "kvm_mmu_paging_element";
    PagetableWalk "kvm_mmu_pagetable_walk";
    GetPage "kvm_mmu_get_page";
    PrepareZapPage "kvm_mmu_prepare_zap_page";
    SyncPage "kvm_mmu_sync_page";
    UnsyncPage "kvm_mmu_unsync_page";
    SetAccessedBit "kvm_mmu_set_accessed_bit";
    SetDirtyBit "kvm_mmu_set_dirty_bit";
    WalkerError "kvm_mmu_walker_error";
    MarkMmioSpte "mark_mmio_spte";
    HandleMmioPageFault "handle_mmio_page_fault";
    CheckMmioSpte "check_mmio_spte";
    ZapAllFast "kvm_mmu_zap_all_fast" | "kvm_mmu_invalidate_zap_all_pages";
    SplitHugePage "kvm_mmu_split_huge_page";
    UserspaceExit "kvm_userspace_exit";
    Mmio "kvm_mmio";
    VcpuMatchMmio "vcpu_match_mmio";
    FastMmio "kvm_fast_mmio";
    UnmapHvaRange "kvm_unmap_hva_range";
    AgeHva "kvm_age_hva";
    TestAgeHva "kvm_test_age_hva";
    SetSpteHva "kvm_set_spte_hva";
    AgePage "kvm_age_page";
    TryAsyncGetPage "kvm_try_async_get_page";
    AsyncPfRepeated "kvm_async_pf_repeated_fault" | "kvm_async_pf_doublefault";
    AsyncPfNotPresent "kvm_async_pf_not_present";
    AsyncPfReady "kvm_async_pf_ready";
    AsyncPfCompleted "kvm_async_pf_completed";
    PmlFull "kvm_pml_full";
    DirtyRingPush "kvm_dirty_ring_push";
    DirtyRingReset "kvm_dirty_ring_reset";
    DirtyRingExit "kvm_dirty_ring_exit";
    NestedVmexit "kvm_nested_vmexit";
    NestedVmenter "kvm_nested_vmenter" | "kvm_nested_vmrun";
    RmpFault "kvm_rmp_fault";
    SetMemAttributes "kvm_vm_set_mem_attributes";
    SmmTransition "kvm_smm_transition" | "kvm_enter_smm";
    EmulateInsn "kvm_emulate_insn";
    Marker "print" | "tracing_mark_write";
}

/// The kernel's name of an event. For what is not a tracepoint, it is one of the words `lost`, `damage`, `snapshot`, `fork`, `comm` and `exit`.
pub fn event_name<'a>(body: &Body, strings: &'a Strings) -> &'a str {
    match body {
        Body::PagetableWalk { .. } => "kvm_mmu_pagetable_walk",
        Body::PagingElement { .. } => "kvm_mmu_paging_element",
        Body::SetAccessedBit { .. } => "kvm_mmu_set_accessed_bit",
        Body::SetDirtyBit { .. } => "kvm_mmu_set_dirty_bit",
        Body::WalkerError { .. } => "kvm_mmu_walker_error",
        Body::GetPage { .. } => "kvm_mmu_get_page",
        Body::SyncPage { .. } => "kvm_mmu_sync_page",
        Body::UnsyncPage { .. } => "kvm_mmu_unsync_page",
        Body::PrepareZapPage { .. } => "kvm_mmu_prepare_zap_page",
        Body::MarkMmioSpte { .. } => "mark_mmio_spte",
        Body::HandleMmioPageFault { .. } => "handle_mmio_page_fault",
        Body::CheckMmioSpte { .. } => "check_mmio_spte",
        Body::FastPageFault { .. } => "fast_page_fault",
        Body::ZapAllFast { .. } => "kvm_mmu_zap_all_fast",
        Body::SetSpte { .. } => "kvm_mmu_set_spte",
        Body::SpteRequested { .. } => "kvm_mmu_spte_requested",
        Body::TdpSpteChanged { .. } => "kvm_tdp_mmu_spte_changed",
        Body::SplitHugePage { .. } => "kvm_mmu_split_huge_page",
        Body::PageFault { .. } => "kvm_page_fault",
        Body::Exit { .. } => "kvm_exit",
        Body::Entry { .. } => "kvm_entry",
        Body::UserspaceExit { .. } => "kvm_userspace_exit",
        Body::Mmio { .. } => "kvm_mmio",
        Body::VcpuMatchMmio { .. } => "vcpu_match_mmio",
        Body::FastMmio { .. } => "kvm_fast_mmio",
        Body::UnmapHvaRange { .. } => "kvm_unmap_hva_range",
        Body::AgeHva { .. } => "kvm_age_hva",
        Body::TestAgeHva { .. } => "kvm_test_age_hva",
        Body::SetSpteHva { .. } => "kvm_set_spte_hva",
        Body::AgePage { .. } => "kvm_age_page",
        Body::TryAsyncGetPage { repeated: false, .. } => "kvm_try_async_get_page",
        Body::TryAsyncGetPage { repeated: true, .. } => "kvm_async_pf_repeated_fault",
        Body::AsyncPf { ready: false, .. } => "kvm_async_pf_not_present",
        Body::AsyncPf { ready: true, .. } => "kvm_async_pf_ready",
        Body::AsyncPfCompleted { .. } => "kvm_async_pf_completed",
        Body::PmlFull { .. } => "kvm_pml_full",
        Body::DirtyRingPush { .. } => "kvm_dirty_ring_push",
        Body::DirtyRingReset { .. } => "kvm_dirty_ring_reset",
        Body::DirtyRingExit { .. } => "kvm_dirty_ring_exit",
        Body::NestedVmexit { .. } => "kvm_nested_vmexit",
        Body::NestedVmenter { .. } => "kvm_nested_vmenter",
        Body::RmpFault { .. } => "kvm_rmp_fault",
        Body::SetMemAttributes { .. } => "kvm_vm_set_mem_attributes",
        Body::SmmTransition { .. } => "kvm_smm_transition",
        Body::EmulateInsn { .. } => "kvm_emulate_insn",
        Body::Marker { .. } => "tracing_mark_write",
        Body::Lost { .. } => "lost",
        Body::Damage { .. } => "damage",
        Body::Snapshot { .. } => "snapshot",
        Body::Task { kind: TaskKind::Fork, .. } => "fork",
        Body::Task { kind: TaskKind::Comm { .. }, .. } => "comm",
        Body::Task { kind: TaskKind::Exit, .. } => "exit",
        Body::Other { name, .. } => {
            let full = strings.get(*name);
            full.split_once(':').map_or(full, |(_, n)| n)
        }
    }
}
