use super::*;
use crate::stat::Query;
use mmuscope_replay::{ReplayOptions, replay};
use mmuscope_trace::Trace;
use std::fmt::Write as _;

/// A run: so many faults that map a page each, each of so many microseconds, and so many retries on one page.
fn run(faults: u64, us: u64, retries: u64) -> Run {
    let mut text = String::new();
    let mut ts = 5_000_000u64;
    let mut line = |us: u64, event: &str| {
        ts += us;
        writeln!(text, "vmm-7  [001] ..... {}.{:06}: {event}", ts / 1_000_000, ts % 1_000_000)
            .expect("a string");
    };
    let mut fault = |gfn: u64, us: u64, fixed: bool| {
        line(
            10,
            "kvm_exit: vcpu 0 reason npf rip 0x1000 info1 0x0000000100000006 info2 0x0000000000100000 intr_info 0x00000000 error_code 0x00000000",
        );
        line(
            1,
            &format!("kvm_page_fault: vcpu 0 rip 0x1000 address 0x{:x} error_code 0x100000006", gfn << 12),
        );
        if fixed {
            line(1, &format!("kvm_mmu_spte_requested: gfn {gfn:x} pfn 7ea1 level 1"));
            line(
                0,
                &format!("kvm_tdp_mmu_spte_changed: as id 0 gfn {gfn:x} level 1 old_spte 0 new_spte 7ea1e67"),
            );
            line(
                0,
                &format!(
                    "kvm_mmu_set_spte: gfn {gfn:x} spte 7ea1e67 (rwxu) level 1 at {:x}",
                    0x55f_e000 + gfn * 8
                ),
            );
        }
        line(us, "kvm_entry: vcpu 0, rip 0x1000");
    };
    for n in 0..retries {
        // In bursts of 100 at one page.
        fault(0x9000 + n / 100, 10, false);
    }
    for n in 0..faults {
        fault(n, us, true);
    }
    let trace = Trace::from_text(&text).expect("a trace");
    Run::new(&trace, &replay(&trace, &ReplayOptions::default()), &Query::default(), Align::Progress)
}

fn verdicts(d: &Diff) -> Vec<(String, What, Verdict)> {
    let said = d.measures.iter().filter(|m| m.verdict != Verdict::Same);
    said.map(|m| (format!("{} {}", m.group.name(), m.name), m.what, m.verdict)).collect()
}

#[test]
fn a_run_does_not_differ_from_itself() {
    let r = [run(200, 20, 100)];
    let d = Diff::new(&r, &r, Align::Progress);
    assert_eq!((d.changes, verdicts(&d)), (0, vec![]));
    assert_eq!((d.unlike, d.findings, d.ranges, d.frames), (vec![], vec![], vec![], vec![]));
    let last = d.course.last().expect("points");
    assert_eq!((last.present, last.faults), ([200 * 4096; 2], [300; 2]));
}

#[test]
fn one_run_a_side_names_counts_and_leaves_times_open() {
    let d = Diff::new(&[run(200, 20, 100)], &[run(700, 40, 500)], Align::Progress);
    let said = verdicts(&d);
    let change = |what: &str| said.contains(&(what.to_owned(), What::Count, Verdict::Change));
    // More than three times as many pages are no chance; five bursts in place of one are.
    assert!(
        change("fault fixed") && change("install 4K") && change("memory 4K present, writable"),
        "{said:?}"
    );
    assert!(!said.iter().any(|s| s.0 == "fault retry" && s.1 == What::Count), "{said:?}");
    assert!(said.contains(&("fault fixed".to_owned(), What::P50, Verdict::Unsure)), "{said:?}");
    assert!(!said.iter().any(|s| s.1 != What::Count && s.2 == Verdict::Change), "{said:?}");
    assert!(d.changes > 0);
}

#[test]
fn several_runs_a_side_name_times() {
    let a = [run(200, 20, 0), run(201, 21, 0), run(199, 22, 0)];
    let b = [run(200, 40, 0), run(201, 42, 0), run(202, 41, 0)];
    let d = Diff::new(&a, &b, Align::Progress);
    let said = verdicts(&d);
    assert!(said.contains(&("fault fixed".to_owned(), What::P50, Verdict::Change)), "{said:?}");
    assert!(said.iter().all(|s| s.1 != What::Count), "{said:?}");
    let m = d.measures.iter().find(|m| m.group == Group::Fault && m.what == What::P50).expect("a median");
    // From exit to entry: 1 + 1 µs to the last event, then 20 to 22, or 40 to 42.
    let values = |side: &[Value]| side.iter().map(|v| v.value / 1000.0).collect::<Vec<_>>();
    assert_eq!((values(&m.a), values(&m.b)), (vec![22.0, 23.0, 24.0], vec![42.0, 44.0, 43.0]));
}

#[test]
fn what_one_side_did_not_record_is_unknown() {
    let mut other = run(200, 20, 0);
    other.unknown.push(Group::Exit);
    let d = Diff::new(&[run(200, 20, 0)], &[other], Align::Progress);
    let exits: Vec<_> = d.measures.iter().filter(|m| m.group == Group::Exit).collect();
    assert!(!exits.is_empty() && exits.iter().all(|m| m.verdict == Verdict::Unknown && m.b.is_empty()));
    assert_eq!(d.changes, 0);
}
