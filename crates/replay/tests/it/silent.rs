//! What is known in MMUs that do not trace their zaps: when a value stands, and when it must not. The kernel's rules are in
//! `docs/guide/certainty.md`.

use std::fmt::Write as _;

use mmuscope_replay::{Certainty, Reason, ReplayOptions, StateFilter, replay};
use mmuscope_testing::fixture;

/// A kernel that traces notifier ranges, with one far from guest memory, and a trace that began longer ago than any range stays open.
const START: &str = "layout C/npt\n1 t9 unmap 10000 20000\n+3000000 t9 mark done\n";

/// Certainty and reason of the entries of a level and frame at the end, in the order of their places.
fn known(text: &str, level: u8, gfn: u64) -> Vec<(Certainty, Reason)> {
    let trace = fixture::trace(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let t = replay(&trace, &ReplayOptions::default());
    let mut all: Vec<_> = t
        .state_at(t.range().1, &StateFilter::default())
        .into_iter()
        .filter(|(e, _)| e.level == level && e.gfn == gfn)
        .map(|(e, s)| (e.sptep, s.certainty, s.reason))
        .collect();
    all.sort_by_key(|a| a.0);
    all.into_iter().map(|(_, c, r)| (c, r)).collect()
}

/// The one entry of a frame.
fn of(text: &str, gfn: u64) -> (Certainty, Reason) {
    let all = known(text, 1, gfn);
    assert_eq!(all.len(), 1, "{all:?}\n{text}");
    all[0]
}

/// It is known what the entry maps; read-only entries are known to the last bit.
const FACT: (Certainty, Reason) = (Certainty::Observed, Reason::Reread);
/// It is known what the entry maps, but not whether it still is writable.
const MAPPED: (Certainty, Reason) = (Certainty::Assumed, Reason::MaybeProtected);
const NOTIFIED: (Certainty, Reason) = (Certainty::Stale, Reason::Notifier);
const SILENT: (Certainty, Reason) = (Certainty::Stale, Reason::SilentKernel);
const SYNCED: (Certainty, Reason) = (Certainty::Stale, Reason::Synced);
const WRITTEN: (Certainty, Reason) = (Certainty::Stale, Reason::GuestTable);

/// A direct table is made at 0x40000, for frames 0 to 0x1ff, and an entry in it.
const TABLE: &str =
    "+1 t1 exit\n+1 t1 fault 1ff r\n+1 t1 page 1 0\n+1 t1 set 1 1ff R3 at 40ff8\n+1 t1 entry 0\n";

/// A fault by thread 1 that maps a page of the direct table at 0x40000.
fn install(gfn: u64, value: &str) -> String {
    let at = 0x40000 + (gfn & 511) * 8;
    format!(
        "+1 t1 exit\n+1 t1 fault {gfn:x} w\n+1 t1 want 1 {gfn:x} 7\n+1 t1 set 1 {gfn:x} {value} at {at:x}\n+1 t1 entry 0\n"
    )
}

/// The same of a page that the host has to copy first: the fault is retried then.
fn copied(gfn: u64, hva: u64, value: &str) -> String {
    format!(
        "+1 t1 exit\n+1 t1 fault {gfn:x} w\n+1 t1 unmap {hva:x} {:x}\n+1 t1 entry 0\n{}",
        hva + 0x1000,
        install(gfn, value)
    )
}

/// Frames 0x21, 0x22 and so on are copied: what lies at guest address x lies at 0x7f00_0000_0000 + x in the VMM.
fn placed(copies: u64) -> String {
    let mut text = format!("{START}{TABLE}");
    let value = |i: u64| format!("W{:x}", 0x901 + i);
    for i in 1..=copies {
        text += &copied(0x20 + i, 0x7f00_0002_0000 + i * 0x1000, &value(i));
    }
    // Until it is known where frames lie, every range may have hit any.
    (1..=copies).for_each(|i| text += &install(0x20 + i, &value(i)));
    text
}

#[test]
fn kernels_that_trace_no_notifiers_tell_nothing_that_lasts() {
    let page = format!("layout B/npt\n1 t1 mark on\n{TABLE}");
    assert_eq!(of(&format!("{page}{}", install(2, "W77")), 2), SILENT);
    // In the fault that installs it, it is what it was read to be.
    let brief = install(2, "W77");
    let brief = brief.trim_end().rsplit_once('\n').map_or("", |(before, _)| before);
    assert_eq!(of(&format!("{page}{brief}"), 2), FACT);
    assert_eq!(of(&format!("{START}{TABLE}{}", install(2, "W77")), 2), MAPPED);
    assert_eq!(of(&format!("{START}{TABLE}{}", install(2, "R77")), 2), FACT);
}

#[test]
fn captures_say_whether_all_ranges_are_in_them() {
    let text = |facts: &str, range: &str| {
        format!("layout C/npt\nrecorded unsaid\n{facts}\n{range}{TABLE}{}", install(2, "R77"))
    };
    let range = "1 t9 unmap 10000 20000\n+3000000 t9 mark done\n";
    let all = "fact record.scope the whole system\nfact record.events kvm:kvm_entry,kvm:kvm_exit,kvm:kvm_page_fault,kvmmmu:kvm_mmu_get_page,\
               kvmmmu:kvm_mmu_prepare_zap_page,kvmmmu:kvm_mmu_zap_all_fast,kvmmmu:kvm_mmu_set_spte,kvmmmu:fast_page_fault,\
               kvmmmu:kvm_tdp_mmu_spte_changed,kvm:kvm_unmap_hva_range";
    assert_eq!(of(&text("", "1 t9 mark on\n"), 2), SILENT, "none seen: whether any would be is not known");
    assert_eq!(of(&text(all, "1 t9 mark on\n+3000000 t9 mark on\n"), 2), FACT);
    // Any thread of the host may take pages from a guest.
    for scope in ["process 7", "cgroup /machine.slice"] {
        let some = all.replace("the whole system", scope);
        assert_eq!(of(&text(&some, range), 2), SILENT, "{scope}");
    }
    let sieved = format!("{all}\nfact record.filter kvm:kvm_unmap_hva_range start > 5");
    assert_eq!(of(&text(&sieved, range), 2), SILENT);
}

#[test]
fn a_range_is_over_when_its_thread_goes_on_or_after_two_seconds() {
    let text = format!("{START}{TABLE}+1 t9 unmap 50000 51000\n");
    assert_eq!(of(&format!("{text}{}", install(2, "R77")), 2), NOTIFIED, "the zap may be to come");
    assert_eq!(of(&format!("{text}+1 t9 mark on\n{}", install(2, "R77")), 2), FACT);
    assert_eq!(of(&format!("{text}+1999000 t1 exit\n{}", install(2, "R77")), 2), NOTIFIED);
    assert_eq!(of(&format!("{text}+2000000 t1 exit\n{}", install(2, "R77")), 2), FACT);
    // A thread that handles its own range's fault has zapped it.
    assert_eq!(of(&format!("{START}{TABLE}+1 t1 unmap 50000 51000\n{}", install(2, "R77")), 2), FACT);
}

#[test]
fn copies_on_write_tell_where_frames_lie() {
    let far = "+1 t9 unmap 50000 51000\n";
    // Two may be a coincidence.
    assert_eq!(of(&format!("{}{far}", placed(2)), 0x21), NOTIFIED);
    let text = format!("{}{}", placed(3), install(0x22, "R990"));
    assert_eq!(of(&format!("{text}{far}"), 0x22), FACT);
    assert_eq!(of(&format!("{text}{far}"), 0x21), MAPPED);
    // A range that covers one of them zaps that one.
    let own = format!("{text}+1 t9 unmap 7f0000022000 7f0000023000\n");
    assert_eq!((of(&own, 0x21), of(&own, 0x22), of(&own, 0x23)), (MAPPED, NOTIFIED, MAPPED));
    // What lies beyond the proven frames may be of another memory slot.
    let text = format!("{}{}", placed(3), install(0x30, "R991"));
    assert_eq!(of(&format!("{text}{far}"), 0x30), NOTIFIED);
}

#[test]
fn pages_evicted_in_a_fault_on_another_prove_nothing() {
    let mut text = format!("{START}{TABLE}");
    for i in 1..=4u64 {
        let (gfn, hva) = (0x20 + i, 0x7f00_0000_0000 + i * 0x1000);
        let _ = write!(
            text,
            "+1 t1 exit\n+1 t1 fault {gfn:x} w\n+1 t1 unmap {hva:x} {:x}\n+1 t1 unmap {:x} {:x}\n+1 t1 entry 0\n",
            hva + 0x1000,
            hva + 0x9000,
            hva + 0xa000
        );
        text += &install(gfn, &format!("W{:x}", 0x901 + i));
    }
    assert_eq!(of(&format!("{text}+1 t9 unmap 50000 51000\n"), 0x24), NOTIFIED);
}

#[test]
fn a_range_of_known_frames_leaves_others_alone() {
    let range = "+1 t9 unmap 7f0000022000 7f0000023000\n";
    let other = install(0x130, "R770");
    assert_eq!(of(&format!("{}{other}{range}", placed(3)), 0x130), FACT);
    // The same host page here and there: the VMM may map that memory twice.
    let shared = install(0x130, "R903");
    assert_eq!(of(&format!("{}{shared}{range}", placed(3)), 0x130), NOTIFIED);
    // And it may where it is not known what host page a frame of the range has.
    assert_eq!(of(&format!("{}{other}{range}{range}", placed(3)), 0x130), NOTIFIED);
    let wider = "+1 t9 unmap 7f0000021000 7f0000024000\n";
    assert_eq!(of(&format!("{}{other}{wider}", placed(3)), 0x130), FACT);
    assert_eq!(of(&format!("{}{other}{wider}", placed(3)), 0x22), NOTIFIED);
}

#[test]
fn an_exchanged_page_proves_that_a_range_is_over() {
    let range = "+1 t9 unmap 7f0000020000 7f0000040000\n";
    let text = format!("{}{}{range}", placed(3), install(0x30, "W950"));
    assert_eq!(of(&format!("{text}{}", install(0x35, "R961")), 0x35), NOTIFIED, "it may be zapped yet");
    // Frame 0x22 gets another host page: only the range can have taken the first, and nothing is installed before it is over.
    let over = format!("{text}{}", install(0x22, "W970"));
    assert_eq!(of(&format!("{over}{}", install(0x35, "R961")), 0x35), FACT);
    // The same host page again proves nothing.
    let same = format!("{text}{}", install(0x22, "W903"));
    assert_eq!(of(&format!("{same}{}", install(0x35, "R961")), 0x35), NOTIFIED);
    // Neither does it where another range may have been the one.
    let two = format!("{text}+1 t8 unmap 7f0000022000 7f0000023000\n{}", install(0x22, "W970"));
    assert_eq!(of(&format!("{two}{}", install(0x35, "R961")), 0x35), NOTIFIED);
    // A frame that lies in it, beyond those known so far, is known to lie there from then on.
    let more = format!("{over}{}", install(0x30, "W980"));
    let more = format!("{more}{}+1 t9 unmap 50000 51000\n", install(0x2a, "R981"));
    assert_eq!(of(&more, 0x2a), FACT);
}

#[test]
fn places_are_proven_again_after_memory_slots_changed() {
    let far = "+1 t9 unmap 50000 51000\n";
    let zapped = format!("{}+1 t9 zapall\n+1 t9 zappage 1 0\n{TABLE}", placed(3));
    // The same host pages at the same frames.
    let again = |n: u64| (1..=n).map(|i| install(0x20 + i, &format!("R{:x}", 0x901 + i))).collect::<String>();
    assert_eq!(of(&format!("{zapped}{}{far}", again(2)), 0x21), NOTIFIED);
    assert_eq!(of(&format!("{zapped}{}{far}", again(3)), 0x21), FACT);
    // Others: a slot that lies elsewhere.
    let moved: String = (1..=3).map(|i| install(0x20 + i, &format!("R{:x}", 0xa01 + i))).collect();
    assert_eq!(of(&format!("{zapped}{moved}{far}"), 0x21), NOTIFIED);
}

#[test]
fn what_ending_dirty_logging_zaps() {
    let direct = format!("{START}{TABLE}");
    // At the same place in its huge page as the guest's: the host's may be a huge page.
    assert_eq!(of(&format!("{direct}{}", install(0x105, "R305")), 0x105), SILENT);
    assert_eq!(of(&format!("{direct}{}", install(0x105, "R306")), 0x105), FACT);
    // The tables that shadow a guest's are left alone.
    let shadow = format!("{START}+1 t1 shadow 1 777\n+1 t1 set 1 105 R305 at 50028\n+1 t1 entry 0\n");
    assert_eq!(of(&shadow, 0x105), FACT);
    // With a guest table in the huge page, none may be mapped there. Until it is gone.
    let tables = format!("{START}+1 t1 shadow 1 150\n{TABLE}{}", install(0x105, "R305"));
    assert_eq!(of(&tables, 0x105), FACT);
    assert_eq!(of(&format!("{tables}+1 t1 zapshadow 1 150\n"), 0x105), SILENT);
}

#[test]
fn a_frame_that_becomes_a_guest_table_is_protected() {
    let text = format!("{START}{TABLE}{}{}", install(5, "W77"), install(6, "R78"));
    let text = format!("{text}+1 t1 shadow 1 5\n+1 t1 shadow 1 6\n");
    assert_eq!(of(&text, 5), MAPPED, "what it maps does not change");
    assert_eq!(of(&text, 6), WRITTEN, "KVM takes back that it may make it writable");
    // A table in place of a huge page: shown by the page that is made.
    let huge = format!("{START}+1 t1 page 2 0\n+1 t1 set 2 200 R800 at 41008\n+1 t1 entry 0\n");
    assert_eq!(known(&huge, 2, 0x200), [FACT]);
    assert_eq!(known(&format!("{huge}+1 t1 page 1 200\n"), 2, 0x200), [(Certainty::Stale, Reason::Split)]);
}

/// Two tables of the guest's, at frames 0x777 and 0x778, and an entry in each: of frames 5 and 6.
const SHADOWS: &str = "+1 t1 shadow 1 777\n+1 t1 set 1 5 R77 at 50028\n+1 t1 entry 0
    +1 t1 shadow 1 778\n+1 t1 set 1 6 R78 at 51030\n+1 t1 entry 0\n";

#[test]
fn an_emulated_write_is_to_the_frames_that_were_walked_to() {
    let both = |text: &str| {
        let text = format!("{START}{SHADOWS}{text}");
        (of(&text, 5), of(&text, 6))
    };
    assert_eq!(both(""), (FACT, FACT));
    let fault = "+1 t1 exit\n+1 t1 gfault 9123 w\n";
    assert_eq!(both(&format!("{fault}+1 t1 entry 0\n")), (WRITTEN, WRITTEN), "no walk is recorded");
    let walk = "+1 t1 walk 9123\n+1 t1 element 2 3027\n+1 t1 element 1 777027\n";
    assert_eq!(both(&format!("{fault}{walk}+1 t1 entry 0\n")), (WRITTEN, FACT));
    let elsewhere = "+1 t1 walk 9123\n+1 t1 element 2 3027\n+1 t1 element 1 999027\n";
    assert_eq!(both(&format!("{fault}{elsewhere}+1 t1 entry 0\n")), (FACT, FACT));
    // A huge page of the guest's: 0x600000 and what is left of the address.
    let huge = "+1 t1 walk 178123\n+1 t1 element 2 6000e7\n";
    assert_eq!(both(&format!("{fault}{huge}+1 t1 entry 0\n")), (FACT, WRITTEN));
    // One that ends in nothing known, beside one that does.
    let dark = "+1 t1 walk 9123\n+1 t1 element 2 3027\n";
    assert_eq!(both(&format!("{fault}{dark}{walk}+1 t1 entry 0\n")), (WRITTEN, WRITTEN));
    // A fault of the guest's own: nothing was written.
    assert_eq!(both(&format!("{fault}{dark}+1 t1 walkererror 2\n+1 t1 entry 0\n")), (FACT, FACT));
    // Mapped, but not writable: the write was emulated all the same.
    let protected = "+1 t1 want 1 777 79\n+1 t1 set 1 777 R79 at 51080\n";
    assert_eq!(both(&format!("{fault}{walk}{protected}+1 t1 entry 0\n")), (WRITTEN, FACT));
}

#[test]
fn invalidating_an_address_touches_pages_that_are_out_of_sync() {
    let both = |text: &str| {
        let text = format!("{START}{SHADOWS}+1 t1 unsync 1 778\n{text}");
        (of(&text, 5), of(&text, 6))
    };
    assert_eq!(both(""), (FACT, FACT));
    for invalidating in ["79", "a2"] {
        assert_eq!(both(&format!("+1 t1 exit {invalidating}\n+1 t1 entry 0\n")), (FACT, WRITTEN));
    }
    assert_eq!(both("+1 t1 exit 78\n+1 t1 entry 0\n"), (FACT, FACT), "HLT");
    // A fault on what the guest's table forbids invalidates its address; one on what is not there does not.
    let fault = |page: &str, code: &str| {
        format!(
            "+1 t1 exit\n+1 t1 gfault {page}123 r\n+1 t1 walk {page}123\n+1 t1 walkererror {code}\n+1 t1 entry 0\n"
        )
    };
    assert_eq!(both(&fault("6", "5")), (FACT, WRITTEN));
    assert_eq!(both(&fault("7", "5")), (FACT, FACT), "another entry of that page");
    assert_eq!(both(&fault("6", "4")), (FACT, FACT));
    // Back in sync, then out again and looked up.
    assert_eq!(both("+1 t1 sync 1 778\n"), (FACT, SYNCED));
    assert_eq!(both("+1 t1 shadow 1 778 existing unsync\n"), (FACT, SYNCED), "that brings it up to date too");
    assert_eq!(both("+1 t1 shadow 1 777 existing\n"), (FACT, FACT));
}

#[test]
fn a_range_from_before_the_trace_may_still_be_about_to_zap() {
    const UNSEEN: (Certainty, Reason) = (Certainty::Stale, Reason::UnseenNotifier);
    // The first fault uses tables that were made before the trace: this VM has been running.
    let late = "layout C/npt\n1 t9 unmap 10000 20000\n+1 t9 mark done\n+1 t1 zappage 1 600\n+1 t1 exit\n+1 t1 set 1 2 R3 at 40010\n+1 t1 entry 0\n";
    assert_eq!(of(late, 2), UNSEEN);
    // Two seconds later every such range has zapped.
    let later =
        format!("{late}+2000000 t1 exit\n+1 t1 page 1 200\n+1 t1 set 1 203 R4 at 50018\n+1 t1 entry 0\n");
    assert_eq!(of(&later, 0x203), FACT);
    // Events that were lost may have announced one as well.
    let lost = format!(
        "{later}+9 t1 lost 1\n+1 t1 exit\n+1 t1 page 1 400\n+1 t1 set 1 403 R5 at 60018\n+1 t1 entry 0\n"
    );
    assert_eq!(of(&lost, 0x403), UNSEEN);
}
