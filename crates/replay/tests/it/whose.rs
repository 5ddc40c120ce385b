//! Whose an event is: what may be said where the recording does not name processes, and what may not.

use mmuscope_replay::{
    Certainty, Entry, MmuKind, ReplayOptions, Shade, Span, StateFilter, Timeline, VmId, replay,
};
use mmuscope_testing::fixture;
use mmuscope_trace::VmHint;

/// A recording that names no process. The vCPU threads, as thread and vCPU number, are in the groups that a reader puts them in.
fn unnamed(text: &str, groups: &[&[(u32, u32)]]) -> Timeline {
    let mut trace = fixture::trace(text).expect("fixture");
    let group = |vcpus: &&[(u32, u32)]| VmHint { vcpus: vcpus.to_vec(), ..VmHint::default() };
    trace.info.vm_hints = groups.iter().map(group).collect();
    replay(&trace, &ReplayOptions::default())
}

fn leaves(t: &Timeline, at: u64) -> Vec<(Entry, Span)> {
    let all = t.state_at(at, &StateFilter::default()).into_iter();
    all.filter(|(e, s)| e.level == 1 && s.shade != Shade::Unknown).collect()
}

/// t1 and t2 run vCPU 0 of a VM each; t9 runs none, and works on no table that a vCPU thread does.
const TWO: &[&[(u32, u32)]] = &[&[(1, 0)], &[(2, 0)]];

#[test]
fn a_thread_of_no_known_vm_makes_no_table_in_any() {
    let text = "
        100 t9 tdp 1 2 W77 R77
        +1 t1 entry 0
        +1 t2 entry 0
        +1 t9 tdp 1 3 W78 R78
        +1 t9 tdp 2 200 T30 empty
        +1 t9 set 1 4 R79 at 12020
        +1 t9 zappage 1 0
        +1 t9 mmio 7 1";
    let t = unnamed(text, TWO);
    assert_eq!(t.vms().iter().map(|v| v.kind).collect::<Vec<_>>(), [MmuKind::Unknown; 2]);
    assert_eq!(t.entries().count(), 0, "{:x?}", t.entries().collect::<Vec<_>>());
    // Where the recording says whose thread it is, the entries are that VM's, and the other has none.
    let trace = fixture::trace(&format!("vm 10 t1\nvm 20 t2 t9\n{text}")).expect("fixture");
    let t = replay(&trace, &ReplayOptions::default());
    assert!(t.entries().count() > 0 && t.entries().all(|e| e.vm == VmId(1)));
    // With one VM in the trace, all is its.
    let t = unnamed(&text.replace("t2", "t1"), &[&[(1, 0)]]);
    assert!(t.entries().count() > 0 && t.entries().all(|e| e.vm == VmId(0)));
}

#[test]
fn what_an_entry_held_before_its_first_event_rests_on_every_change_of_it() {
    // t9's change is of the entry that t1 changes next, or of another VM's. The old value held since the former, not since the beginning.
    let text = "
        100 t9 tdp 1 2 W77 R77
        +1 t1 entry 0
        +1 t2 entry 0
        +50 t1 tdp 1 2 R77 W77";
    let t = unnamed(text, TWO);
    assert!(leaves(&t, 120_000).is_empty(), "{:x?}", leaves(&t, 120_000));
    assert_eq!(
        leaves(&t, 152_000).iter().map(|(e, s)| (e.vm, s.shade)).collect::<Vec<_>>(),
        [(VmId(0), Shade::Writable)]
    );
    // Nothing was changed there but in a table further up: then the entry was in another table.
    let t = unnamed(&text.replace("1 2 W77 R77", "2 0 empty T30"), TWO);
    assert!(leaves(&t, 120_000).is_empty(), "{:x?}", leaves(&t, 120_000));
    // A change of another place says nothing about it.
    let t = unnamed(&text.replace("1 2 W77 R77", "1 3 W77 R77"), TWO);
    assert_eq!(
        leaves(&t, 120_000).iter().map(|(e, s)| (e.vm, s.shade)).collect::<Vec<_>>(),
        [(VmId(0), Shade::ReadOnly)]
    );
}

/// Two VMs whose making is in the trace, and t3, which runs vCPU 1 of one of them and works on no page that another thread does.
const BOTH: &str = "
    100 t1 root
    +1 t1 page 3 0
    +1 t1 tdp 4 0 empty T10
    +1 t1 page 2 0
    +1 t1 tdp 3 0 empty T11
    +1 t1 page 1 0
    +1 t1 tdp 2 0 empty T12
    +1 t1 entry 0
    +1 t2 root
    +1 t2 page 3 0
    +1 t2 tdp 4 0 empty T20
    +1 t2 page 2 0
    +1 t2 tdp 3 0 empty T21
    +1 t2 page 1 0
    +1 t2 tdp 2 0 empty T22
    +1 t2 entry 0
    +1 t3 entry 1
";

#[test]
fn a_vcpu_thread_that_made_no_root_is_no_fact_of_a_vm_of_its_own() {
    let groups: &[&[(u32, u32)]] = &[&[(1, 0)], &[(2, 0)], &[(3, 1)]];
    let t = unnamed(&format!("{BOTH}+1 t3 tdp 1 5 empty W88"), groups);
    let all = leaves(&t, t.range().1);
    assert!(all.iter().all(|(_, s)| s.certainty > Certainty::Observed), "{all:x?}");
    let whose = t.vms().iter().find(|v| v.vcpus.iter().any(|c| c.tid == 3)).expect("a VM");
    assert!(whose.provenance.contains("may be another VM's"), "{}", whose.provenance);
    // With a root of its own it is a third VM.
    let own = "
        +1 t3 root
        +1 t3 page 3 0
        +1 t3 tdp 4 0 empty T30
        +1 t3 page 2 0
        +1 t3 tdp 3 0 empty T31
        +1 t3 page 1 0
        +1 t3 tdp 2 0 empty T32
        +1 t3 tdp 1 5 empty W88";
    let t = unnamed(&format!("{BOTH}{own}"), groups);
    let all = leaves(&t, t.range().1);
    assert_eq!(
        all.iter().map(|(e, s)| (e.vm, s.certainty)).collect::<Vec<_>>(),
        [(VmId(2), Certainty::Exact)]
    );
}
