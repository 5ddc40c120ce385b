//! Traces that begin in the middle of things, as people paste them: what their events support, and nothing else.

use crate::made::{at_end, entry, run};
use mmuscope_replay::{Certainty, EvidenceKind, Reason, Shade, SpanFilter, State, StateFilter, VmId};

#[test]
fn an_old_value_that_nobody_saw_is_what_was_there_until_then() {
    let (trace, t) = run("100 t1 mark begin\n+9 t1 tdp 1 2 W77 R77\n+5 t1 tdp 1 3 W78 empty");
    let (origin, end) = t.range();
    for (gfn, story) in [(2, "write-protected once"), (3, "zapped once")] {
        let e = t.entries().find(|e| e.gfn == gfn).expect("entry");
        let spans: Vec<_> = t.spans(e.id).collect();
        let [first, then] = spans[..] else { panic!("{spans:x?}") };
        assert_eq!(
            (first.shade, first.certainty, first.reason, first.start, first.end, first.opened_by),
            (Shade::Writable, Certainty::Implied, Reason::OldValue, origin, Some(then.start), None)
        );
        assert_eq!(first.closed_by, then.opened_by);
        // Every face has it: the entry's life, the table of spans, the state of before, and how many there were.
        assert_eq!(t.span_at(e.id, origin), Some(first));
        assert!(t.all_spans(&SpanFilter::default()).any(|s| s == first));
        let early = SpanFilter { time: Some((origin, origin)), ..SpanFilter::default() };
        assert!(t.all_spans(&early).any(|s| s == first));
        assert!(t.state_at(origin, &StateFilter::default()).contains(&(e, first)));
        let said = t.page_story(&trace, VmId(0), 0, gfn);
        assert!(said.headline.contains(story) && !said.headline.contains("mapped once"), "{said:?}");
        assert!(said.lines.iter().all(|l| !l.text.contains(" after ")), "since when is not known: {said:?}");
    }
    // Sums and pictures have what was shown by then, as those of a trace that still grows must.
    assert_eq!(t.counts_at(origin).at(Shade::Writable, 1), 0);
    assert_eq!(t.counts_at(end).at(Shade::ReadOnly, 1), 1);
    assert_eq!(t.top_zaps(9).iter().map(|z| (z.gfn, z.count)).collect::<Vec<_>>(), [(3, 1)]);
    // What is left of an entry that was released is unknown: it was removed for an instant or for good.
    let (_, t) = run("100 t1 mark begin\n+9 t1 tdp 1 2 W77 frozen");
    let e = t.entries().find(|e| e.gfn == 2).expect("entry");
    let first = t.spans(e.id).next().expect("span");
    assert_eq!(
        (first.state, first.end),
        (State::Present, Some(first.start)),
        "perhaps out of reach since long"
    );
}

/// Up to 5.11 the entries of a table that is torn down are emptied like any other, after its link: a trace that begins in between shows entries that
/// nothing could reach any more.
#[test]
fn what_a_teardown_from_before_the_trace_empties_was_perhaps_out_of_reach() {
    let since = |kernel: &str, before: &str| {
        let lines = format!(
            "layout {kernel}/npt\n100 t1 entry 0\n{before}\n+9 t9 tdp 1 3 empty empty\n+1 t9 tdp 1 2 W77 empty"
        );
        let trace = mmuscope_testing::fixture::trace(&lines).expect("lines of the language");
        let spec = mmuscope_spte::LayoutSpec::named(&format!("{kernel}/npt")).expect("ours");
        let layout = mmuscope_replay::LayoutOverride { spec };
        let options = mmuscope_replay::ReplayOptions { layout, ..Default::default() };
        let t = mmuscope_replay::replay(&trace, &options);
        let e = t.entries().find(|e| e.gfn == 2).expect("entry");
        let first = t.spans(e.id).next().expect("span");
        assert_eq!((first.shade, first.reason), (Shade::Writable, Reason::OldValue));
        t.range().1 - first.start
    };
    assert_eq!(since("5.11", ""), 0, "its thread has done nothing but emptying");
    assert_eq!(since("5.11", "+1 t9 lost 3"), 0);
    assert_eq!(since("5.11", "+1 t9 user 0 0\n+1 t9 lost 3"), 0, "nor since the loss");
    // A thread that was back in user space, or that filled an entry, is in no teardown of before.
    assert!(since("5.11", "+1 t9 user 0 0") > 0);
    assert!(since("5.11", "+1 t9 tdp 1 5 empty W79") > 0);
    // Since 5.12 what is torn down is frozen for good.
    assert!(since("5.12", "") > 0);
}

#[test]
fn a_huge_page_in_place_of_a_table_is_one_entry() {
    // The trace begins with the fault; the page of the table comes with kvm_mmu_set_spte.
    let (trace, t) = run("
        100 t1 fault 84d r
        +1 t1 want 2 84d 4a4d
        +1 t1 tdp 2 800 T10 W4a00
        +1 t1 zappage 1 800
        +1 t1 tdp 1 800 W77 frozen
        +1 t1 tdp 1 801 empty frozen
        +1 t1 tdp 1 9ff W79 frozen
        +1 t1 set 2 800 W4a00 at 12020");
    let all: Vec<_> = at_end(&t).into_iter().filter(|(_, s)| s.state == State::Present).collect();
    let [(e, s)] = all[..] else { panic!("{all:x?}") };
    assert_eq!((e.level, e.gfn, e.sptep, s.certainty), (2, 0x800, Some(0x12020), Certainty::Exact));
    assert_eq!(t.counts_at(t.range().1).at(Shade::Writable, 2), 1);
    // What the table mapped went with it.
    let zaps: Vec<_> = t.top_zaps(9).iter().map(|z| (z.level, z.gfn, z.count)).collect();
    assert_eq!(zaps, [(1, 0x800, 1), (1, 0x9ff, 1)]);
    let story = t.page_story(&trace, VmId(0), 0, 0x84d);
    assert!(story.headline.ends_with("present, writable as part of a 2M page (exact)"), "{story:?}");
    let story = t.page_story(&trace, VmId(0), 0, 0x9ff).headline;
    assert!(story.contains("zapped once"), "{story}");
}

#[test]
fn tables_that_end_before_anything_was_told_of_them_are_gone() {
    // kvm_mmu_zap_all_fast before the trace began: root, tables and leaves go from the top.
    let (_, t) = run("
        100 t1 exit
        +1 t1 tdp 4 0 T10 empty
        +1 t1 zappage 3 0
        +1 t1 tdp 3 0 T11 frozen
        +1 t1 zappage 2 0
        +1 t1 tdp 2 0 T12 frozen
        +1 t1 zappage 1 0
        +1 t1 tdp 1 99 W77 frozen
        +1 t1 tdp 1 9a W78 frozen
        +1 t1 tdp 2 200 W200 frozen
        +9 t1 entry 0
        +9 t1 exit");
    let left: Vec<_> = at_end(&t).into_iter().filter(|(_, s)| s.state != State::Nonpresent).collect();
    assert!(left.is_empty(), "what is removed with its table is no frozen entry: {left:x?}");
    let zaps: Vec<_> = t.top_zaps(9).iter().map(|z| (z.level, z.gfn, z.count)).collect();
    assert_eq!(zaps, [(1, 0x99, 1), (1, 0x9a, 1), (2, 0x200, 1)]);
    // They were in reach until the top link was cut: the state of before has them.
    let before = t.state_at(t.range().0, &StateFilter::default());
    let at = |level, state| before.iter().filter(|(e, s)| e.level == level && s.state == state).count();
    assert_eq!((at(1, State::Present), at(2, State::Present)), (2, 1));
    assert_eq!([1, 2, 3, 4].map(|l| at(l, State::Table)), [0, 1, 1, 1]);
}

#[test]
fn what_a_fault_found_done_is_a_value() {
    // Nothing but faults on an entry that allows the access: it is mapped, and no event says otherwise.
    let (trace, t) = run("
        100 t1 exit
        +1 t1 fault 20fe x
        +1 t1 fast 20fe W34d W34d spurious
        +1 t1 entry 0");
    let (_, s) = entry(&t, 1, 0x20fe).expect("entry");
    assert_eq!((s.state, s.certainty), (State::Present, Certainty::Stale));
    let story = t.page_story(&trace, VmId(0), 0, 0x20fe).headline;
    assert!(story.ends_with("at the end present, writable (stale)"), "{story}");
    // "Not mapped" takes an event that says so.
    let (trace, t) = run("100 t1 exit\n+1 t1 fault 20fe x\n+1 t1 entry 0");
    let story = t.page_story(&trace, VmId(0), 0, 0x20fe).headline;
    assert!(story.ends_with("at the end not known: no event shows it"), "{story}");
    let (trace, t) = run("100 t1 exit\n+1 t1 tdp 1 20fe W77 empty\n+1 t1 entry 0");
    let story = t.page_story(&trace, VmId(0), 0, 0x20fe).headline;
    assert!(story.ends_with("at the end not mapped"), "{story}");
}

#[test]
fn installs_before_the_first_change_are_in_the_same_tables() {
    // The trace begins between the change and kvm_mmu_set_spte: only the next change shows which MMU it is.
    let (_, t) = run("
        100 t1 set 1 4e7 R32 at 12738
        +1 t1 entry 0
        +1 t1 exit
        +1 t1 tdp 1 4e7 R32 empty
        +1 t1 tdp 1 4e7 empty W77
        +1 t1 set 1 4e7 W77 at 12738");
    let zaps: Vec<_> = t.top_zaps(9).iter().map(|z| (z.gfn, z.count)).collect();
    assert_eq!(zaps, [(0x4e7, 1)], "no table ended");
    assert_eq!(entry(&t, 1, 0x4e7).map(|(_, s)| s.shade), Some(Shade::Writable));
}

#[test]
fn a_frozen_entry_is_stuck_only_in_a_table_that_lives() {
    // What was removed before the trace could tell of which table: faults of two threads that come to nothing are no proof.
    let mut text = "100 t1 exit\n+1 t9 tdp 1 2 W77 frozen\n".to_owned();
    for _ in 0..6 {
        for t in ["t1", "t2"] {
            text += &"+4000 T exit\n+1 T fault 2 w\n+1 T want 1 2 77\n+1 T entry 0\n".replace('T', t);
        }
    }
    let (_, t) = run(&text);
    assert!(t.evidence().iter().all(|e| e.kind != EvidenceKind::StuckRemoved), "{:?}", t.evidence());
}

#[test]
fn what_a_fast_fault_stored_just_before_reaches_back_no_further() {
    // The fault stores 77 as writable, another thread takes that away again, and only then the fault is traced.
    let text = "100 t2 mark begin\n+9 t1 exit\n+1 t1 fault 2 w\n+1 t2 tdp 1 2 W77 R77\n+1 t1 fast 2 R77 R77 fixed\n+1 t1 entry 0";
    let (_, t) = run(text);
    let e = t.entries().find(|e| e.gfn == 2).expect("entry");
    let first = t.spans(e.id).next().expect("span");
    assert_eq!(
        (first.shade, first.reason, first.end),
        (Shade::Writable, Reason::OldValue, Some(first.start))
    );
    assert!(t.span_at(e.id, t.range().0).is_none_or(|s| s.state == State::Unknown));
    // A fault that began after the change stored nothing before it.
    let text = "100 t2 mark begin\n+9 t1 exit\n+1 t2 tdp 1 2 W77 R77\n+1 t1 fault 2 w\n+1 t1 fast 2 R77 W77 fixed\n+1 t1 entry 0";
    let (_, t) = run(text);
    let e = t.entries().find(|e| e.gfn == 2).expect("entry");
    let first = t.spans(e.id).next().expect("span");
    assert_eq!((first.shade, first.start), (Shade::Writable, t.range().0));
}

/// A loss puts in doubt what was learned since the one before, and says nothing more of what was in doubt already.
#[test]
fn each_loss_takes_what_was_learned_since_the_last() {
    let (_, t) = run("layout C/npt
        1 t1 root
        +1 t1 page 1 0
        +1 t1 fault 2 w
        +1 t1 set 1 2 W77 at 12010
        +1 t1 fault 3 w
        +1 t1 set 1 3 W78 at 12018
        +5 t1 lost 3
        +5 t1 lost 3
        +5 t1 fault 2 r
        +1 t1 set 1 2 R77 at 12010
        +5 t1 lost 3
        +5 t1 lost 3");
    let all = |gfn| -> Vec<_> {
        let e = t.entries().find(|e| e.level == 1 && e.gfn == gfn).expect("entry");
        let known = t.spans(e.id).filter(|s| s.shade != Shade::Nonpresent && s.shade != Shade::Unknown);
        known.map(|s| (s.shade, s.certainty == Certainty::Stale, s.start)).collect()
    };
    let (twice, once) = (all(2), all(3));
    let marks: Vec<_> = twice.iter().map(|s| (s.0, s.1)).collect();
    assert_eq!(
        marks,
        [
            (Shade::Writable, false),
            (Shade::Writable, true),
            (Shade::ReadOnly, false),
            (Shade::ReadOnly, true)
        ]
    );
    let marks: Vec<_> = once.iter().map(|s| (s.0, s.1)).collect();
    assert_eq!(marks, [(Shade::Writable, false), (Shade::Writable, true)]);
    assert_eq!(twice[1].2, once[1].2, "both by the first loss");
    assert_eq!(t.lost().len(), 4);
}

#[test]
fn a_fast_fault_on_a_huge_page_is_not_in_the_table_that_the_page_replaced() {
    // Another thread puts a huge page in the place of a table. A vCPU makes it writable before the thread's change is traced.
    let text = "100 t2 mark begin\n+9 t1 exit\n+1 t1 fault 2 w\n+1 t1 tdp 1 2 empty R77\n+1 t1 set 1 2 R77 at 40010\n+1 t1 entry 0\n\
                +1 t1 tdp 1 2 R77 empty\n+1 t1 exit\n+1 t1 fault 2 w\n+1 t1 fast 2 R200/2 W200/2 fixed\n+1 t1 entry 0\n+1 t2 tdp 2 0 T40 R200";
    let (_, t) = run(text);
    let small: Vec<_> = t.entries().filter(|e| e.level == 1).collect();
    assert!(!small.is_empty());
    for e in small {
        let held: Vec<_> =
            t.spans(e.id).filter(|s| s.spte.is_some_and(|v| v >> 12 & 0xfff_ffff == 0x200)).collect();
        assert!(held.is_empty(), "{held:x?}");
    }
}

/// Since 7.2 the entries of a table are traced before its link is cut. Where the trace began after the root became obsolete, neither the first
/// empty entries nor the page of the cut link say whether that is the table which faults fill now.
#[test]
fn the_end_of_a_table_from_before_the_trace_is_not_that_of_the_one_in_use() {
    let text = "layout E/npt
        kernel 7.3.0
        100 t2 mark begin
        +9 t2 tdp 2 1200 T50 empty
        +1 t1 exit
        +1 t1 fault 1202 w
        +1 t1 page 1 1200
        +1 t1 tdp 2 1200 empty T41
        +1 t1 tdp 1 1202 empty W77
        +1 t1 set 1 1202 W77 at 41010
        +1 t1 entry 0
        +1 t2 zappage 2 0
        +1 t2 tdp 2 0 empty frozen
        +1 t2 tdp 2 200 empty frozen
        +1 t2 tdp 3 0 T60 empty";
    for lines in 12..=15 {
        let (trace, t) = run(&text.lines().take(lines).collect::<Vec<_>>().join("\n"));
        let (e, span) = entry(&t, 1, 0x1202).expect("entry");
        assert_eq!(
            (span.shade, span.spte.map(|v| v >> 12)),
            (Shade::Writable, Some(0x77)),
            "{lines}: {span:x?}"
        );
        assert!(t.top_zaps(9).is_empty(), "{lines}: {:?}", t.top_zaps(9));
        let said = t.page_story(&trace, VmId(0), 0, e.gfn);
        assert!(!said.headline.contains("not mapped"), "{lines}: {said:?}");
    }
    // What the cut of a link with an unknown page may have ended is not called known any more.
    let (_, t) = run(text);
    assert_eq!(entry(&t, 1, 0x1202).map(|(_, s)| s.certainty), Some(Certainty::Stale));
    // An entry that held something is proof of which table it is.
    let (_, t) = run(&text.replace("tdp 2 200 empty frozen", "tdp 2 1200 T41 frozen"));
    assert!(entry(&t, 1, 0x1202).is_none_or(|(_, s)| s.state != State::Present));
}

/// Since 7.2 the change that puts a huge page in the place of a table is traced after the table's entries, and faults find the page before.
#[test]
fn a_huge_page_that_a_fault_found_is_not_said_to_have_been_there_before() {
    let text = "100 t2 mark begin\n+9 t2 tdp 1 3 R78 frozen\n+1 t1 exit\n+1 t1 fault 2 w\n+1 t1 fast 2 R200/2 W200/2 fixed\n+1 t1 entry 0";
    for (kernel, since_then) in [("layout E/npt\nkernel 7.3.0\n", true), ("", false)] {
        let (_, t) = run(&format!("{kernel}{text}"));
        let e = t.entries().find(|e| e.level == 2).expect("entry");
        let first = t.spans(e.id).next().expect("span");
        assert_eq!((first.shade, first.opened_by), (Shade::ReadOnly, None), "{kernel}: {first:x?}");
        let origin = t.span_at(e.id, t.range().0);
        assert_eq!(origin.is_none_or(|s| s.state == State::Unknown), since_then, "{kernel}: {first:x?}");
    }
}

/// Lines were left out between a change and the kernel's own reading of it, which names the table.
#[test]
fn a_value_read_after_a_loss_is_in_the_table_that_held_it() {
    let text = "100 t1 mark begin\n+9 t1 tdp 2 800 T50 W800/2\n+1 t1 lost 5\n+1 t1 set 2 800 W800/2 at 41020";
    let (_, t) = run(text);
    assert_eq!(
        entry(&t, 2, 0x800).map(|(e, s)| (e.sptep, s.shade, s.certainty)),
        Some((Some(0x41020), Shade::Writable, Certainty::Implied))
    );
    // Another value is another table's, or this one's since: nothing decides.
    let (_, t) = run(&text.replace("set 2 800 W800/2", "set 2 800 W600/2"));
    assert_eq!(at_end(&t).iter().filter(|(e, _)| e.level == 2 && e.gfn == 0x800).count(), 2);
}
