//! One fixture for each way the kernel shows, or does not show, that an entry changed. The expectations are the kernel's rules, not ours.

use crate::made::{at_end, entry, run};
use mmuscope_replay::{
    Certainty, EvidenceKind, Outcome, Reason, ReplayOptions, Shade, State, Timeline, VmId, replay,
};
use mmuscope_testing::fixture;
use mmuscope_trace::{Kind, TRACEPOINTS, VmHint};

/// Root, and tables 0x10 (level 3), 0x11 (level 2) and 0x12 (level 1) for frame 0.
const TREE: &str = "
    100 t1 root
    +1  t1 page 3 0
    +1  t1 tdp 4 0 empty T10
    +1  t1 page 2 0
    +1  t1 tdp 3 0 empty T11
    +1  t1 page 1 0
    +1  t1 tdp 2 0 empty T12
";

fn shade(t: &Timeline, level: u8, gfn: u64) -> Option<Shade> {
    entry(t, level, gfn).map(|(_, s)| s.shade)
}

#[test]
fn leaf_installed_by_a_fault() {
    let (_, t) = run(&format!(
        "{TREE}
        +1 t1 exit
        +1 t1 fault 2 w
        +1 t1 want 1 2 77
        +1 t1 tdp 1 2 empty W77
        +1 t1 set 1 2 W77 at 12010
        +5 t1 entry 0"
    ));
    let (e, s) = entry(&t, 1, 2).expect("mapped");
    assert_eq!((s.shade, s.certainty, e.sptep), (Shade::Writable, Certainty::Exact, Some(0x12010)));
    assert_eq!(t.decode(&e, &s).and_then(|d| d.pfn), Some(0x77));
    let f = t.faults().next().expect("a fault");
    assert_eq!(
        (f.outcome, f.gfn, f.access.write, f.level, f.pfn),
        (Outcome::Fixed, Some(2), true, Some(1), Some(0x77))
    );
    assert_eq!(f.duration(), Some(9_000));
    assert!(t.evidence().is_empty(), "{:?}", t.evidence());
}

#[test]
fn set_spte_without_a_change_is_spurious() {
    let (_, t) = run(&format!(
        "{TREE}
        +1 t1 tdp 1 2 empty W77
        +1 t1 set 1 2 W77 at 12010
        +1 t2 exit
        +1 t2 fault 2 w
        +1 t2 want 1 2 77
        +1 t2 set 1 2 W77 at 12010
        +1 t2 entry 1"
    ));
    assert_eq!(t.faults().map(|f| f.outcome).collect::<Vec<_>>(), [Outcome::Spurious]);
    assert_eq!(
        t.entries()
            .filter(|e| e.level == 1)
            .map(|e| t.spans(e.id).filter(|s| s.id.is_some()).count())
            .sum::<usize>(),
        1
    );
}

#[test]
fn nothing_between_fault_and_entry_is_a_retry() {
    let (_, t) = run(&format!(
        "{TREE}\n+1 t1 exit\n+1 t1 fault 2 r\n+1 t1 entry 0\n+1 t1 exit\n+1 t1 fault 2 r\n+1 t1 entry 0"
    ));
    assert_eq!(
        t.faults().map(|f| (f.outcome, f.retries)).collect::<Vec<_>>(),
        [(Outcome::Retry, 0), (Outcome::Retry, 1)]
    );
}

#[test]
fn return_with_an_error_and_a_fault_without_end() {
    let (_, t) = run(&format!(
        "{TREE}\n+1 t1 exit\n+1 t1 fault 2 r\n+1 t1 user 0 -14\n+1 t2 exit\n+1 t2 fault 3 r\n+1 t2 lost 9"
    ));
    let f: Vec<_> = t.faults().collect();
    assert_eq!((f[0].outcome, f[0].errno), (Outcome::Error, Some(-14)));
    assert_eq!((f[1].outcome, f[1].end_ts), (Outcome::Unfinished, None));
}

#[test]
fn mmio_installed() {
    let (_, t) = run(&format!(
        "{TREE}\n+1 t1 exit\n+1 t1 fault 5 w\n+1 t1 tdp 1 5 empty M4\n+1 t1 mmio 5 4\n+1 t1 entry 0"
    ));
    let (e, s) = entry(&t, 1, 5).expect("mmio");
    assert_eq!((s.state, t.decode(&e, &s).and_then(|d| d.mmio_generation)), (State::Mmio, Some(4)));
    assert_eq!(t.faults().next().map(|f| (f.outcome, f.mmio)), Some((Outcome::MmioInstalled, true)));
    assert_eq!(
        t.mmio_ranges().iter().map(|r| (r.gfn_start, r.gfn_end, r.installs)).collect::<Vec<_>>(),
        [(5, 6, 1)]
    );
}

#[test]
fn zapped_by_a_notifier_is_empty() {
    let (_, t) = run(&format!("{TREE}\n+1 t1 tdp 1 2 empty W77\n+1 t9 tdp 1 2 W77 empty"));
    assert_eq!(shade(&t, 1, 2), Some(Shade::Nonpresent));
    let zaps = t.top_zaps(5);
    assert_eq!(zaps.iter().map(|z| (z.gfn, z.count)).collect::<Vec<_>>(), [(2, 1)]);
}

#[test]
fn unfreezing_is_silent_up_to_6_9() {
    let text = format!("{TREE}\n+1 t1 tdp 1 2 empty W77\n+1 t9 tdp 1 2 W77 frozen");
    let (_, t) = run(&text);
    assert_eq!(shade(&t, 1, 2), Some(Shade::Removed), "nothing says yet that it was released");
    let (_, t) = run(&format!("{text}\n+1 t9 unmap 1000 2000"));
    let (_, s) = entry(&t, 1, 2).expect("entry");
    assert_eq!((s.shade, s.certainty, s.reason), (Shade::Nonpresent, Certainty::Assumed, Reason::Unfrozen));
    // Another CPU sees it empty before the thread goes on.
    let (_, t) = run(&format!("{text}\n+1 t1 tdp 1 2 empty W78"));
    assert_eq!(shade(&t, 1, 2), Some(Shade::Writable));
    assert!(t.evidence().is_empty(), "{:?}", t.evidence());
}

#[test]
fn the_release_is_traced_since_6_10() {
    let tree = format!("layout D/npt\n{TREE}");
    let (_, t) =
        run(&format!("{tree}\n+1 t1 tdp 1 2 empty W77\n+1 t9 tdp 1 2 W77 frozen\n+9 t9 unmap 1000 2000"));
    assert_eq!(shade(&t, 1, 2), Some(Shade::Removed), "no rule makes it empty without an event here");
}

#[test]
fn a_torn_down_table_takes_its_entries_with_it() {
    let (_, t) = run(&format!(
        "{TREE}
        +1 t1 tdp 1 2 empty W77
        +1 t1 tdp 1 3 empty W78
        +1 t9 tdp 2 0 T12 frozen
        +1 t9 zappage 1 0
        +1 t9 tdp 1 0 empty frozen
        +1 t9 tdp 1 2 W77 frozen
        +1 t9 tdp 1 3 W78 frozen
        +1 t9 unmap 1000 2000"
    ));
    assert_eq!(at_end(&t).iter().filter(|(e, _)| e.level == 1).count(), 0);
    assert_eq!(shade(&t, 2, 0), Some(Shade::Nonpresent));
    let e = t.entries().find(|e| e.level == 1 && e.gfn == 2).expect("was there");
    let spans: Vec<_> = t.spans(e.id).map(|s| (s.state, s.end.is_some())).collect();
    assert_eq!(spans, [(State::Nonpresent, true), (State::Present, true), (State::Removed, true)]);
    assert!(t.evidence().is_empty(), "{:?}", t.evidence());
}

#[test]
fn a_new_table_starts_empty_where_an_old_one_was() {
    let (_, t) = run(&format!(
        "{TREE}
        +1 t1 tdp 1 2 empty W77
        +1 t9 tdp 2 0 T12 frozen
        +1 t9 zappage 1 0
        +1 t9 tdp 1 2 W77 frozen
        +1 t1 page 1 0
        +1 t1 tdp 2 0 empty T20
        +1 t1 tdp 1 3 empty W79
        +1 t1 set 1 3 W79 at 20018"
    ));
    assert_eq!(shade(&t, 1, 3), Some(Shade::Writable));
    assert!(at_end(&t).iter().all(|(e, s)| e.gfn != 2 || s.state != State::Present));
    assert!(t.evidence().is_empty(), "{:?}", t.evidence());
}

#[test]
fn teardown_told_before_its_link_is_cut() {
    // 7.2 and later: the entries first, then the parent; another CPU maps a huge page in between.
    let (_, t) = run(&format!(
        "layout E/npt
        {TREE}
        +1 t1 tdp 1 2 empty W77
        +1 t9 zappage 1 0
        +1 t1 want 2 0 400
        +1 t1 tdp 2 0 empty W400
        +1 t1 set 2 0 W400 at 11000
        +1 t9 tdp 1 2 W77 frozen
        +1 t9 tdp 1 1ff empty frozen
        +1 t9 tdp 2 0 T12 empty
        +1 t9 unmap 1000 2000"
    ));
    assert_eq!(shade(&t, 2, 0), Some(Shade::Writable));
    assert_eq!(at_end(&t).iter().filter(|(e, _)| e.level == 1).count(), 0);
    assert!(t.evidence().iter().all(|e| e.kind == EvidenceKind::Reordered), "{:?}", t.evidence());
}

#[test]
fn a_split_implies_512_children() {
    let (_, t) = run(&format!(
        "{TREE}\n+1 t1 tdp 2 200 empty W400\n+1 t9 page 1 200\n+1 t9 tdp 2 200 W400 T30/1\n+1 t9 split 2 200 W400"
    ));
    let kids: Vec<_> = at_end(&t).into_iter().filter(|(e, _)| e.level == 1).collect();
    assert_eq!(kids.len(), 512);
    let (e, s) = &kids[511];
    assert_eq!((s.certainty, s.reason, e.gfn), (Certainty::Implied, Reason::Split, 0x3ff));
    assert_eq!(t.decode(e, s).map(|d| (d.pfn, d.large)), Some((Some(0x5ff), false)));
}

#[test]
fn children_of_an_nx_huge_page_are_executable() {
    let (_, t) = run(&format!("{TREE}\n+1 t1 tdp 2 200 empty N400\n+1 t9 tdp 2 200 N400 T30/1"));
    let (e, s) = entry(&t, 1, 0x200).expect("child");
    assert_eq!(t.decode(&e, &s).and_then(|d| d.x), Some(true));
}

#[test]
fn recovery_in_place_since_6_13() {
    let (_, t) = run(&format!(
        "layout D/npt
        {TREE}
        +1 t1 tdp 1 2 empty W77
        +1 t9 tdp 2 0 T12 W400
        +1 t9 zappage 1 0
        +1 t9 tdp 1 2 W77 frozen
        +1 t9 unmap 1000 2000"
    ));
    assert_eq!((shade(&t, 2, 0), shade(&t, 1, 2)), (Some(Shade::Writable), None));
}

#[test]
fn write_protection_and_the_fast_path() {
    let (_, t) = run(&format!(
        "{TREE}
        +1 t1 tdp 1 2 empty W77
        +1 t9 tdp 1 2 W77 R77
        +1 t1 exit
        +1 t1 fault 2 w
        +1 t1 fast 2 R77 W77 fixed
        +1 t1 entry 0"
    ));
    let (_, s) = entry(&t, 1, 2).expect("entry");
    assert_eq!((s.shade, s.reason), (Shade::Writable, Reason::FastFault));
    assert_eq!(t.faults().map(|f| f.outcome).collect::<Vec<_>>(), [Outcome::FixedFast]);
}

#[test]
fn two_cpus_told_in_the_wrong_order() {
    // Thread 1 fills the entry, thread 9 zaps it; thread 9's event is recorded first.
    let (_, t) = run(&format!("{TREE}\n+1 t1 want 1 2 77\n+1 t9 tdp 1 2 W77 empty\n+1 t1 tdp 1 2 empty W77"));
    assert_eq!(shade(&t, 1, 2), Some(Shade::Nonpresent));
    assert_eq!(t.evidence().iter().map(|e| e.kind).collect::<Vec<_>>(), [EvidenceKind::Reordered]);
}

#[test]
fn an_old_value_that_nothing_explains_is_evidence() {
    let (_, t) = run(&format!("{TREE}\n+1 t1 tdp 1 2 empty W77\n+1 t9 tdp 1 2 W99 empty"));
    let e = t.evidence();
    assert_eq!(e.iter().map(|e| e.kind).collect::<Vec<_>>(), [EvidenceKind::OldValue]);
    assert_eq!((e[0].gfn, e[0].after_loss), (2, false));
}

#[test]
fn two_trees_of_one_address_space() {
    // All roots become obsolete; a new tree fills with the same values while the old one is zapped leaf by leaf.
    let (_, t) = run(&format!(
        "{TREE}
        +1 t1 tdp 1 2 empty W77
        +1 t1 tdp 1 3 empty W78
        +1 t9 zapall
        +1 t2 root
        +1 t2 page 3 0
        +1 t2 tdp 4 0 empty T40
        +1 t2 page 2 0
        +1 t2 tdp 3 0 empty T41
        +1 t2 page 1 0
        +1 t2 tdp 2 0 empty T42
        +1 t2 tdp 1 2 empty W77
        +1 t2 set 1 2 W77 at 42010
        +1 t9 tdp 1 2 W77 empty
        +1 t9 tdp 1 3 W78 empty"
    ));
    let live: Vec<_> =
        at_end(&t).into_iter().filter(|(e, s)| e.level == 1 && s.state == State::Present).collect();
    assert_eq!(live.iter().map(|(e, _)| (e.gfn, e.sptep)).collect::<Vec<_>>(), [(2, Some(0x42010))]);
    assert!(t.evidence().is_empty(), "{:?}", t.evidence());
}

#[test]
fn smm_has_a_tree_of_its_own() {
    let (_, t) = run(&format!(
        "{TREE}
        +1 t1 root smm
        +1 t1 tdp 4 0 empty T50 as 1
        +1 t1 tdp 3 0 empty T51 as 1
        +1 t1 tdp 2 0 empty T52 as 1
        +1 t1 tdp 1 30 empty W99 as 1"
    ));
    let live: Vec<_> =
        at_end(&t).into_iter().filter(|(e, _)| e.level == 1).map(|(e, _)| (e.as_id, e.gfn)).collect();
    assert_eq!(live, [(1, 0x30)]);
}

#[test]
fn after_lost_events_everything_is_stale_until_shown() {
    let (_, t) = run(&format!(
        "{TREE}\n+1 t1 tdp 1 2 empty W77\n+1 t1 tdp 1 3 empty W78\n+1 t2 lost 40\n+1 t1 tdp 1 3 W78 R78"
    ));
    let (_, s) = entry(&t, 1, 2).expect("entry");
    assert_eq!((s.certainty, s.reason, s.state), (Certainty::Stale, Reason::Lost, State::Present));
    // The change may have been in another tree, made while nothing was seen.
    assert_eq!(
        entry(&t, 1, 3).map(|(_, s)| (s.certainty, s.reason)),
        Some((Certainty::Implied, Reason::Incomplete))
    );
    assert_eq!(t.lost().iter().map(|l| l.count).collect::<Vec<_>>(), [Some(40)]);
}

#[test]
fn after_lost_events_the_page_of_an_install_tells_its_table() {
    let lost = format!(
        "{TREE}\n+1 t1 tdp 1 2 empty W77\n+1 t2 lost 40\n+1 t1 exit\n+1 t1 fault 3 w\n+1 t1 want 1 3 78\n+1 t1 tdp 1 3 empty W78\n+1 t1 set 1 3 W78 at 12018\n+1 t1 entry 0"
    );
    let certainty = |t: &Timeline, gfn| entry(t, 1, gfn).map(|(_, s)| (s.shade, s.certainty));
    let (_, t) = run(&lost);
    assert_eq!(certainty(&t, 3), Some((Shade::Writable, Certainty::Exact)));
    // Faults fill the valid tree: its table is known now, and dirty logging visits no other.
    let (_, t) = run(&format!("{lost}\n+1 t9 tdp 1 3 W78 R78\n+1 t9 tdp 1 2 W77 R77"));
    assert_eq!(certainty(&t, 3), Some((Shade::ReadOnly, Certainty::Exact)));
    assert_eq!(certainty(&t, 2), Some((Shade::ReadOnly, Certainty::Exact)));
    // A zap may be of a tree that was obsolete before: the entry is not known to be mapped any more, nor to be empty.
    let (_, t) = run(&format!("{lost}\n+1 t9 tdp 1 3 W78 empty"));
    assert_eq!(certainty(&t, 3), Some((Shade::Nonpresent, Certainty::Implied)));
    // A page is one table at a time: the cut of its link ends the table, whichever tree it was in.
    let (_, t) = run(&format!("{lost}\n+1 t9 tdp 2 0 T12 empty"));
    assert_eq!(certainty(&t, 3), None);
}

#[test]
fn a_trace_that_begins_late_knows_less() {
    // The same changes, with and without the beginning of the VM.
    let changes = "+1 t9 tdp 1 2 W77 R77\n+1 t9 tdp 1 2 R77 empty";
    let (_, t) = run(&format!("{TREE}\n+1 t1 tdp 1 2 empty W77\n{changes}"));
    assert_eq!(entry(&t, 1, 2).map(|(_, s)| s.certainty), Some(Certainty::Exact));
    let (_, t) = run(&format!("100 t1 entry 0\n{changes}"));
    assert!(at_end(&t).iter().all(|(_, s)| s.certainty > Certainty::Observed));
}

#[test]
fn memslots_set_up_before_the_first_root_hide_nothing() {
    // A VMM moves its memslots about before a vCPU runs: all roots obsolete, and there is none.
    let (_, t) = run(&format!("100 t9 zapall\n{TREE}\n+1 t1 tdp 1 2 empty W77"));
    assert!(
        at_end(&t).iter().all(|(_, s)| s.certainty <= Certainty::Implied && s.reason != Reason::Incomplete)
    );
    assert_eq!(entry(&t, 1, 2).map(|(_, s)| s.certainty), Some(Certainty::Exact));
}

#[test]
fn before_its_first_event_an_entry_is_unknown_not_empty() {
    // The trace begins in the middle: nothing shows when the table was made.
    let (_, t) = run("100 t1 mark begin\n+9 t1 tdp 1 2 empty W77");
    let e = t.entries().find(|e| e.level == 1).expect("entry");
    let first = t.spans(e.id).next().expect("span");
    assert_eq!((first.state, first.reason), (State::Unknown, Reason::NeverSeen));
}

#[test]
fn a_stuck_entry_is_found_and_a_silent_release_is_not() {
    let faults = |n: u32, after: &str| {
        let mut s = format!("{TREE}\n+1 t1 tdp 1 2 empty W77\n+1 t9 tdp 1 2 W77 frozen\n");
        for _ in 0..n {
            for t in ["t1", "t2"] {
                s += &["+4000 T exit", "+1 T fault 2 w", "+1 T want 1 2 77", "+1 T entry 0", ""]
                    .join("\n")
                    .replace('T', t);
            }
        }
        s.push_str(after);
        s
    };
    let stuck =
        |text: &str| run(text).1.evidence().iter().filter(|e| e.kind == EvidenceKind::StuckRemoved).count();
    assert_eq!(stuck(&faults(6, "")), 1);
    assert_eq!(stuck(&faults(1, "")), 0, "two faults that lose a race prove nothing");
    assert_eq!(
        stuck(&faults(
            6,
            "+1 t1 exit\n+1 t1 fault 2 w\n+1 t1 want 1 2 77\n+1 t1 tdp 1 2 empty W78\n+1 t1 entry 0"
        )),
        0
    );
}

#[test]
fn vms_are_told_apart() {
    let tree =
        |t: &str, p: &str| TREE.replace("t1", t).replace("100 ", "+1 ").replace("T1", &format!("T{p}1"));
    let (_, t) = run(&format!(
        "vm 10 t1 t2\nvm 20 t5\n100 t1 mark go\n{}{}\n+1 t1 tdp 1 2 empty W77\n+1 t5 tdp 1 2 empty W88\n+1 t2 tdp 1 2 W77 empty",
        tree("t1", "0"),
        tree("t5", "9")
    ));
    let live: Vec<_> = at_end(&t)
        .into_iter()
        .filter(|(e, s)| e.level == 1 && s.state == State::Present)
        .map(|(e, _)| e.vm)
        .collect();
    assert_eq!(live, [VmId(1)]);
    assert_eq!(t.vms().iter().map(|v| v.pid).collect::<Vec<_>>(), [Some(10), Some(20)]);
}

/// Two VMs with frame 2 mapped as `a` and `b`, then what happens; who maps it, and whether that is a fact.
fn two_vms(a: &str, b: &str, then: &str) -> [(Shade, bool); 2] {
    let tree =
        |t: &str, p: &str| TREE.replace("t1", t).replace("100 ", "+1 ").replace("T1", &format!("T{p}1"));
    let (_, t) = run(&format!(
        "vm 10 t1\nvm 20 t5\n100 t1 mark go\n{}{}\n+1 t1 tdp 1 2 empty {a}\n+1 t5 tdp 1 2 empty {b}\n{then}",
        tree("t1", "0"),
        tree("t5", "9")
    ));
    [0, 1].map(|vm| {
        let all = at_end(&t);
        let (_, s) = all.iter().find(|(e, _)| e.vm == VmId(vm) && e.level == 1 && e.gfn == 2).expect("entry");
        (s.shade, s.certainty <= Certainty::Observed)
    })
}

#[test]
fn a_frame_proves_whose_table_it_is_only_where_one_vm_has_it() {
    use Shade::{Nonpresent, ReadOnly, Writable};
    // A thread of the kernel zaps what one VM alone maps.
    assert_eq!(two_vms("W77", "W88", "+1 t99 tdp 1 2 W88 empty"), [(Writable, true), (Nonpresent, true)]);
    assert_eq!(two_vms("W77", "W88", "+1 t99 tdp 1 2 W77 empty"), [(Nonpresent, true), (Writable, true)]);
    // The zero page is everybody's: one of the two is zapped, and neither is known for certain any more.
    let shared = two_vms("O5", "O5", "+1 t99 tdp 1 2 O5 empty");
    assert!(shared.iter().all(|(_, fact)| !fact), "{shared:?}");
    // Once the second is shown as well, both are.
    let both = two_vms("O5", "O5", "+1 t99 tdp 1 2 O5 empty\n+1 t99 tdp 1 2 O5 empty");
    assert!(both.iter().all(|(shade, _)| *shade == Nonpresent), "{both:?}");
    // A thread of the VM itself works on its own.
    assert_eq!(two_vms("O5", "O5", "+1 t1 tdp 1 2 O5 empty"), [(Nonpresent, true), (ReadOnly, true)]);
    // Even if what it says does not fit: that another VM has such a page is no proof.
    assert_eq!(two_vms("O6", "O5", "+1 t1 tdp 1 2 O5 empty")[1], (ReadOnly, true));
}

#[test]
fn silent_mmu_says_so() {
    // 5.10: installs only. What was installed is not known to be there any more once the thread went on.
    let (_, t) = run(
        "layout B/npt\n100 t1 page 1 0\n+1 t1 exit\n+1 t1 fault 2 w\n+1 t1 want 1 2 77\n+1 t1 set 1 2 W77 at 12010\n+1 t1 entry 0",
    );
    let (e, s) = entry(&t, 1, 2).expect("entry");
    assert_eq!((s.certainty, s.reason, e.sptep), (Certainty::Stale, Reason::SilentKernel, Some(0x12010)));
    let first = t.spans(e.id).find(|s| s.id.is_some()).expect("span");
    assert_eq!((first.certainty, first.shade), (Certainty::Observed, Shade::Writable));
}

#[test]
fn story_of_a_page_names_its_turns() {
    let (trace, t) = run(&format!(
        "{TREE}
        +1 t1 exit
        +1 t1 fault 2 w
        +1 t1 want 1 2 77
        +1 t1 tdp 1 2 empty W77
        +1 t1 set 1 2 W77 at 12010
        +5 t1 entry 0
        +1 t9 tdp 1 2 W77 R77
        +1 t1 exit
        +1 t1 fault 2 w
        +1 t1 fast 2 R77 W77 fixed
        +1 t1 entry 0
        +1 t9 tdp 1 2 W77 empty"
    ));
    let s = t.page_story(&trace, VmId(0), 0, 2);
    let text: Vec<&str> = s.lines.iter().map(|l| l.text.as_str()).collect();
    for want in [
        "write fault at rip 0x1000: fixed, 4K",
        "mapped writable by a 4K page, host frame 0x77",
        "write-protected",
        "writable again",
        "zapped",
    ] {
        assert!(text.iter().any(|t| t.contains(want)), "{want} in {text:#?}");
    }
    assert_eq!(s.faults.len(), 2);
}

/// A recording that names no process: threads with the vCPUs that they run, as a reader finds them.
fn unnamed(text: &str, vcpus: &[(u32, u32)]) -> Timeline {
    let mut trace = fixture::trace(text).expect("fixture");
    trace.info.vm_hints = vec![VmHint { vcpus: vcpus.to_vec(), ..VmHint::default() }];
    replay(&trace, &ReplayOptions::default())
}

#[test]
fn two_threads_that_run_a_vcpu_of_one_number_are_two_vms() {
    // One after the other, each with a tree of its own: no vCPU that moved to another thread would make its root again.
    let t = unnamed(
        &format!(
            "{TREE}
            +1 t1 tdp 1 2 empty W77
            +1 t1 entry 0
            +1 t2 root
            +1 t2 page 3 0
            +1 t2 tdp 4 0 empty T20
            +1 t2 page 2 0
            +1 t2 tdp 3 0 empty T21
            +1 t2 page 1 0
            +1 t2 tdp 2 0 empty T22
            +1 t2 tdp 1 2 empty W88
            +1 t2 entry 0"
        ),
        &[(1, 0), (2, 0)],
    );
    assert_eq!(t.vms().len(), 2);
    let leaves: Vec<_> = at_end(&t)
        .into_iter()
        .filter(|(e, _)| e.level == 1)
        .map(|(e, s)| (e.vm, s.shade, s.certainty))
        .collect();
    let exact = |vm| (VmId(vm), Shade::Writable, Certainty::Exact);
    assert_eq!(leaves, [exact(0), exact(1)]);
}

#[test]
fn what_is_installed_is_no_fact_where_the_vm_of_a_thread_is_a_guess() {
    // t3 runs vCPU 1 and shares no table with either VM: its number alone says whose it is, and so what either holds besides.
    let both = "
        +1 t1 tdp 1 2 empty W77
        +1 t1 entry 0
        +1 t2 root
        +1 t2 page 3 0
        +1 t2 tdp 4 0 empty T20
        +1 t2 page 2 0
        +1 t2 tdp 3 0 empty T21
        +1 t2 entry 0
        +1 t1 entry 0
        +1 t3 page 1 200
        +1 t3 tdp 2 200 empty T30
        +1 t3 entry 1";
    let t = unnamed(&format!("{TREE}{both}"), &[(1, 0), (2, 0), (3, 1)]);
    let link = entry(&t, 2, 0x200).expect("linked").1;
    assert_eq!((link.certainty, link.reason), (Certainty::Implied, Reason::Ambiguous));
    assert_eq!(entry(&t, 1, 2).map(|(_, s)| s.certainty), Some(Certainty::Implied));
    // Where its process is known, so is its VM.
    let (_, t) = run(&format!("vm 10 t1 t3\nvm 20 t2\n{TREE}{both}"));
    assert_eq!(entry(&t, 2, 0x200).map(|(e, s)| (e.vm, s.certainty)), Some((VmId(0), Certainty::Exact)));
}

#[test]
fn frozen_in_a_table_made_before_the_trace_is_no_lasting_fact() {
    // 6.10 and later tell of a frozen value only where a table is torn down; its memory is freed without an event.
    let (_, t) = run("
        layout E12/npt
        100 t1 root
        +1 t1 tdp 1 2 W77 frozen
        +1 t1 entry 0");
    let s = entry(&t, 1, 2).expect("frozen").1;
    assert_eq!((s.shade, s.certainty, s.reason), (Shade::Removed, Certainty::Implied, Reason::PageZapped));
}

/// Whatever tracepoint a test needs, it has a word for it: its name, with the kernel's text.
#[test]
fn every_tracepoint_can_be_in_a_fixture() {
    for t in TRACEPOINTS.iter().filter(|t| !matches!(t.kind, Kind::Exit | Kind::Marker)) {
        let line = format!("100 t1 {} {}", t.names[0], t.example);
        let trace = fixture::trace(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
        let kinds: Vec<Kind> = trace.events.iter().map(|e| e.body.kind()).collect();
        assert_eq!(kinds, [t.kind], "{line}");
    }
    assert!(fixture::trace("100 t1 kvm_no_such_event x").is_err());
    assert!(fixture::trace("100 t1 kvm_pml_full nonsense").is_err(), "not this event's text");
}
