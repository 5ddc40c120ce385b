//! Short traces with parts of snapshots between their events.

use mmuscope_replay::{Certainty, Reason, ReplayOptions, StateFilter, Timeline, replay};
use mmuscope_testing::fixture;
use mmuscope_testing::pieces::with_pieces;
use mmuscope_trace::snapshot::Piece;

/// A fixture with parts of snapshots between its events, by their times in microseconds.
pub(crate) fn with(text: &str, pieces: &[(u64, Piece)]) -> Timeline {
    let trace = fixture::trace(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    replay(&with_pieces(trace, pieces), &ReplayOptions::default())
}

/// A recording of the legacy MMU, of which `events` are said to be recorded beside the usual ones.
pub(crate) fn legacy(events: &str) -> String {
    format!(
        "layout C/npt\nvm 50 1 9\nfact record.scope the whole system\nfact record.events kvm:kvm_entry,kvm:kvm_exit,kvm:kvm_page_fault,\
         kvm:kvm_userspace_exit,kvmmmu:kvm_mmu_get_page,kvmmmu:kvm_mmu_prepare_zap_page,kvmmmu:kvm_mmu_zap_all_fast,kvmmmu:kvm_mmu_set_spte,\
         kvmmmu:fast_page_fault,kvmmmu:kvm_tdp_mmu_spte_changed,kvm:kvm_unmap_hva_range,kvm:kvm_set_spte_hva{events}\n"
    )
}

/// Frames 2 and 3 are mapped at 3 s, when no range that came before the trace can still be about to zap.
pub(crate) const INSTALLS: &str = "1 t9 unmap 10000 20000\n3000000 t1 exit\n+1 t1 fault 2 r\n+1 t1 page 1 0\n+1 t1 set 1 2 O72 at 40010\n\
    +1 t1 entry 0\n+1 t1 exit\n+1 t1 fault 3 r\n+1 t1 set 1 3 O73 at 40018\n+1 t1 entry 0\n";

/// How the 4 KiB entry of a frame is known at the end.
pub(crate) fn certainty(t: &Timeline, gfn: u64) -> (Certainty, Reason) {
    let all = t.state_at(t.range().1, &StateFilter::default());
    let found = all.iter().find(|(e, _)| e.level == 1 && e.gfn == gfn);
    found.map(|(_, s)| (s.certainty, s.reason)).expect("an entry")
}
