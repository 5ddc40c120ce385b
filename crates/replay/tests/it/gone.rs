//! What is gone: tables that end in MMUs that do not trace their zaps, and the zaps that follow from later events.

use std::collections::BTreeMap;

use mmuscope_replay::{ReplayOptions, State, StateFilter, Timeline, VmId, ZapCause, replay};
use mmuscope_testing::fixture;
use mmuscope_trace::{Event, Trace};

fn trace(text: &str) -> Trace {
    fixture::trace(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn replayed(text: &str) -> Timeline {
    replay(&trace(text), &ReplayOptions::default())
}

/// Levels and frames of what maps something at the end.
fn mapped(t: &Timeline) -> Vec<(u8, u64)> {
    let state = t.state_at(t.range().1, &StateFilter::default());
    let mut all: Vec<(u8, u64)> = state
        .iter()
        .filter(|(_, s)| matches!(s.state, State::Present | State::Mmio))
        .map(|(e, _)| (e.level, e.gfn))
        .collect();
    all.sort_unstable();
    all
}

fn causes(t: &Timeline) -> Vec<(ZapCause, u64)> {
    t.zap_causes().into_iter().collect()
}

/// A VM with shadow paging: its root and three pages that shadow guest tables, of levels 3 to 1, before its first fault.
const SHADOW: &str = "layout C/npt\n1 t1 shadow 4 2\n+1 t1 entry 0\n";

/// A fault of the guest at an address, with the walk through its tables at frames 3, 10 and (for small pages) 20.
fn walked(gva: u64, then: &str) -> String {
    format!(
        "+1 t1 exit\n+1 t1 gfault {gva:x} w\n+1 t1 walk {gva:x}\n+1 t1 element 4 3067\n+1 t1 element 3 10067\n{then}+1 t1 entry 0\n"
    )
}

#[test]
fn a_page_made_in_one_fault_and_filled_in_the_next_goes_with_its_zap() {
    // The fault that makes the page of level 2 installs a small page below; a huge one comes into it later.
    let text = format!(
        "{SHADOW}{}{}",
        walked(
            0x1000,
            "+1 t1 shadow 3 3\n+1 t1 shadow 2 10\n+1 t1 shadow 1 20\n+1 t1 element 2 20067\n+1 t1 element 1 5067\n+1 t1 set 1 5 R77 at 40008\n"
        ),
        walked(0x20_0000, "+1 t1 element 2 4000e7\n+1 t1 set 2 400 R800/2 at 41008\n"),
    );
    assert_eq!(mapped(&replayed(&text)), [(1, 5), (2, 0x400)]);
    let zapped = format!("{text}+1 t9 zapshadow 2 10\n");
    let t = replayed(&zapped);
    assert_eq!(mapped(&t), [(1, 5)], "the small page's table was not zapped");
    assert_eq!(causes(&t), [(ZapCause::PageZapped, 1)]);
}

#[test]
fn everything_is_gone_once_the_thread_that_obsoleted_it_goes_on() {
    // The page at 0x40000 was made before the trace began: no event names it.
    let text = "layout C/npt\n1 t1 exit\n+1 t1 fault 2 r\n+1 t1 set 1 2 R77 at 40010\n+1 t1 mmio d0000 5\n+1 t1 entry 0\n+1 t9 zapall\n";
    assert_eq!(mapped(&replayed(text)), [(1, 2), (1, 0xd0000)], "the zaps may be to come");
    let t = replayed(&format!("{text}+1 t9 mark done\n"));
    assert_eq!(mapped(&t), []);
    assert_eq!(causes(&t), [(ZapCause::Obsolete, 2)]);
    // What is installed meanwhile, in pages made since, is not.
    let again = "+1 t1 exit\n+1 t1 fault 2 r\n+1 t1 page 1 0\n+1 t1 set 1 2 R77 at 50010\n+1 t1 entry 0\n+1 t9 mark done\n";
    assert_eq!(mapped(&replayed(&format!("{text}{again}"))), [(1, 2)]);
}

#[test]
fn a_root_that_is_freed_late_does_not_take_the_one_made_since_along() {
    let install = "+1 t1 exit\n+1 t1 fault 2 r\n+1 t1 page 3 0\n+1 t1 page 2 0\n+1 t1 page 1 0\n+1 t1 set 1 2 R77 at 40010\n+1 t1 entry 0\n";
    let text = format!(
        "layout C/npt\n1 t1 page 4 0\n+1 t1 entry 0\n{install}+1 t9 zappage 1 0\n+1 t1 exit\n+1 t1 fault 2 r\n+1 t1 page 1 0\n+1 t1 set 1 2 R78 at 41010\n+1 t1 entry 0\n"
    );
    assert_eq!(mapped(&replayed(&format!("{text}+1 t9 zappage 1 0 invalid\n"))), [(1, 2)]);
    assert_eq!(mapped(&replayed(&format!("{text}+1 t9 zappage 1 0\n"))), []);
}

/// The TDP MMU of 5.10 names a new page by the level of the entry that points to it.
const TDP_5_10: &str = "layout B/npt\n1 t1 exit\n+1 t1 fault 200 w\n+1 t1 page 4 0\n+1 t1 page 3 0\n+1 t1 set 2 200 W800/2 at 41008\n+1 t1 entry 0\n";

#[test]
fn pages_of_the_first_tdp_mmu_are_bound_to_the_tables_they_are() {
    // A page for small entries is made, and the install in it is lost to another vCPU; then a huge page is installed elsewhere.
    for between in ["+1 t1 entry 0\n+1 t1 exit\n", ""] {
        let text = format!(
            "{TDP_5_10}+1 t1 exit\n+1 t1 fault 405 w\n+1 t1 page 2 400\n{between}+1 t1 fault ba00 w\n+1 t1 set 2 ba00 Wc00/2 at 412e8\n+1 t1 entry 0\n"
        );
        let t = replayed(&text);
        assert_eq!(mapped(&t), [(2, 0x200), (2, 0xba00)], "{between:?}");
        assert_eq!(causes(&t), [], "nothing was zapped");
    }
    // A page that is made anew is empty, whichever table lay in it.
    let text = format!(
        "{TDP_5_10}+1 t1 exit\n+1 t1 fault 405 w\n+1 t1 page 2 400\n+1 t1 set 1 405 W77 at 42028\n+1 t1 entry 0\n\
         +1 t1 exit\n+1 t1 fault 406 w\n+1 t1 page 2 400\n+1 t1 set 1 406 W78 at 42030\n+1 t1 entry 0\n"
    );
    assert_eq!(mapped(&replayed(&text)), [(1, 0x406), (2, 0x200)]);
}

#[test]
fn another_host_page_in_an_occupied_entry_implies_a_zap() {
    let set = |value: &str| {
        format!(
            "+1 t1 exit\n+1 t1 fault 2 w\n+1 t1 want 1 2 7\n+1 t1 set 1 2 {value} at 40010\n+1 t1 entry 0\n"
        )
    };
    let text = format!(
        "layout C/npt\n1 t1 page 1 0\n{}{}{}{}{}",
        set("R77"),
        set("W78"),
        set("R77"),
        // The same page again is no zap.
        set("R77"),
        set("W79")
    );
    let t = replayed(&text);
    assert_eq!(causes(&t), [(ZapCause::Remapped, 3)]);
    let zaps: Vec<_> = t.all_zaps().collect();
    assert!(zaps.iter().all(|z| z.implied() && z.event > 0), "{zaps:?}");
    assert_eq!(t.top_zaps(1)[0].count, 3, "the most zapped page counts them");
    let story = t.page_story(&trace(&text), VmId(0), 0, 2);
    assert!(story.headline.contains("remapped 3 times to another host page"), "{}", story.headline);
    assert!(!story.headline.contains("write-protected"), "{}", story.headline);
    assert!(!story.headline.contains("made writable again"), "{}", story.headline);
    // Those that events state are not implied.
    let tdp = "layout C/npt\n1 t1 root\n+1 t1 page 3 0\n+1 t1 tdp 4 0 empty T11\n+1 t1 page 2 0\n+1 t1 tdp 3 0 empty T12\n\
               +1 t1 tdp 2 200 empty W800/2\n+1 t1 tdp 2 200 W800/2 empty\n";
    assert_eq!(causes(&replayed(tdp)), [(ZapCause::Changed, 1)]);
}

#[test]
fn a_vm_whose_threads_ended_maps_nothing() {
    let text = "layout C/npt\nvm 7 1 2\n1 t1 exit\n+1 t1 fault 2 r\n+1 t1 page 1 0\n+1 t1 set 1 2 R77 at 40010\n+1 t1 entry 0\n\
                +1 t2 exit\n+1 t2 entry 1\n";
    let ended = |tids: &[u32]| {
        let mut trace = trace(text);
        let last = trace.events.iter().last().expect("events");
        for tid in tids {
            let body = mmuscope_trace::Body::Task {
                kind: mmuscope_trace::TaskKind::Exit,
                tid: *tid,
                pid: Some(7),
                comm: mmuscope_trace::StrId::default(),
            };
            trace.events.push(&Event { ts: last.ts + 1000, body, ..last });
        }
        replay(&trace, &ReplayOptions::default())
    };
    assert_eq!(mapped(&ended(&[1])), [(1, 2)], "a vCPU's thread may end");
    assert_eq!(mapped(&ended(&[1, 2])), [(1, 2)], "its process lives");
    let t = ended(&[1, 2, 7]);
    assert_eq!(mapped(&t), []);
    assert_eq!(causes(&t), [(ZapCause::Ended, 1)]);
}

#[test]
fn levels_that_no_table_has_are_read_without_harm() {
    for level in [0, 6, 7, 254, 255] {
        let text = format!(
            "layout C/npt\n1 t1 page {level} 0\n+1 t1 fault 2 r\n+1 t1 set 1 2 R77 at 40010\n+1 t1 zappage {level} 0\n+1 t1 entry 0\n\
             +1 t1 root\n+1 t1 page {level} 0\n+1 t1 tdp 4 0 empty T11\n+1 t1 zappage {level} 0\n"
        );
        let t = replayed(&text);
        assert_eq!(t.events(), trace(&text).events.len());
        assert!(t.tables().all(|t| (1..=6).contains(&t.level)));
    }
}

#[test]
fn a_place_that_could_not_be_read_is_a_loss_from_the_event_before_it() {
    let mut trace = trace("layout C/npt\n5 t1 exit\n+7 t1 entry 0\n");
    let last = trace.events.iter().last().expect("events");
    let body = mmuscope_trace::Body::Damage { index: 0 };
    trace.events.push(&Event { ts: last.ts + 9000, tid: None, body, ..last });
    let t = replay(&trace, &ReplayOptions::default());
    let lost: BTreeMap<u64, u64> = t.lost().iter().map(|l| (l.start, l.end)).collect();
    assert_eq!(lost, BTreeMap::from([(last.ts, last.ts + 9000)]));
}
