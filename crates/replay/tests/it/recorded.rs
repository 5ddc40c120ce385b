//! Recording less never makes anything more certain: every sample without one class of events, by a recorder that says so and by one that
//! does not, against the whole of it.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use mmuscope_replay::{
    Certainty, Coverage, Reason, ReplayOptions, Span, State, StateFilter, Timeline, replay,
};
use mmuscope_testing::fixture;
use mmuscope_trace::{Body, EventStore, ReadOptions, Trace, event_name};

/// The events that tell anything of page tables.
const EVENTS: [&str; 19] = [
    "kvm_mmu_pagetable_walk",
    "kvm_mmu_paging_element",
    "kvm_mmu_walker_error",
    "kvm_mmu_get_page",
    "kvm_mmu_sync_page",
    "kvm_mmu_unsync_page",
    "kvm_mmu_prepare_zap_page",
    "mark_mmio_spte",
    "fast_page_fault",
    "kvm_mmu_zap_all_fast",
    "kvm_mmu_set_spte",
    "kvm_mmu_spte_requested",
    "kvm_tdp_mmu_spte_changed",
    "kvm_page_fault",
    "kvm_exit",
    "kvm_entry",
    "kvm_userspace_exit",
    "kvm_unmap_hva_range",
    "kvm_set_spte_hva",
];

fn samples() -> Vec<PathBuf> {
    let dir = std::env::var_os("MMUSCOPE_TRACES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples"), PathBuf::from);
    let mut v: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("samples")
        .filter_map(|e| e.ok().map(|e| e.path().join("trace.txt.zst")))
        .filter(|p| p.is_file())
        .collect();
    v.sort();
    v
}

/// The events that the kernel of a sample has.
fn events_of(file: &Path) -> Vec<&'static str> {
    let version = std::fs::read_to_string(file.with_file_name("version")).expect("the kernel's version");
    let release = version.split_whitespace().nth(2).expect("a release").to_owned();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse::<u32>().unwrap_or(0));
    let release = (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0));
    let has = |e: &&str| match *e {
        "kvm_tdp_mmu_spte_changed" => release >= (5, 11),
        "kvm_unmap_hva_range" => release >= (5, 13),
        "kvm_set_spte_hva" => ((5, 13)..(6, 10)).contains(&release),
        _ => true,
    };
    EVENTS.into_iter().filter(has).collect()
}

/// The trace of a recorder that was not asked for one event; `says`: and that shows which it was asked for.
fn without(trace: &Trace, has: &[&str], event: Option<&str>, says: bool) -> Trace {
    let mut events = EventStore::new();
    for e in &trace.events {
        if !matches!(e.body, Body::Other { .. })
            && event.is_some_and(|n| event_name(&e.body, &trace.strings) == n)
        {
            continue;
        }
        events.push(&e);
    }
    let mut info = trace.info.clone();
    if says {
        let asked: Vec<String> =
            has.iter().filter(|n| Some(**n) != event).map(|n| format!("kvm:{n}")).collect();
        info.host.facts.push(("record.scope".to_owned(), "the whole system".to_owned()));
        info.host.facts.push(("record.events".to_owned(), asked.join(",")));
    }
    Trace { info, strings: trace.strings.clone(), events }
}

fn is_fact(s: &Span) -> bool {
    matches!(s.certainty, Certainty::Exact | Certainty::Observed) || s.reason == Reason::MaybeProtected
}

fn maps(s: &Span) -> bool {
    matches!(s.state, State::Present | State::Mmio)
}

/// The leaves at a moment, by level and frame.
fn leaves(t: &Timeline, at: u64) -> HashMap<(u8, u64), Vec<Span>> {
    let mut out: HashMap<(u8, u64), Vec<Span>> = HashMap::new();
    for (e, s) in t.state_at(at, &StateFilter::default()) {
        out.entry((e.level, e.gfn)).or_default().push(s);
    }
    out
}

/// What one replay holds for a fact and the other does not.
fn risen(whole: &Timeline, part: &Timeline, moments: &[u64]) -> Vec<String> {
    let layout = part.layout(part.vms()[0].id).layout;
    let set = layout.masks.accessed_mask | layout.masks.dirty_mask;
    let mut wrong = Vec::new();
    for &at in moments {
        let known = leaves(whole, at);
        for (place, spans) in leaves(part, at) {
            for s in spans.iter().filter(|s| is_fact(s) && maps(s)) {
                let none = Vec::new();
                let all = known.get(&place).unwrap_or(&none);
                // An MMIO entry's value is shown by one event, and that there is one by another.
                // That an entry still is writable is no part of what is said of it then.
                let w = layout.masks.host_writable_mask | layout.masks.mmu_writable_mask | 2;
                let set = if s.reason == Reason::MaybeProtected { set | w } else { set };
                let same = |k: &&Span| {
                    k.state == s.state
                        && k.spte
                            .zip(s.spte)
                            .is_none_or(|(a, b)| (a ^ b) & !set == 0 || s.state == State::Mmio)
                };
                if !all
                    .iter()
                    .filter(same)
                    .any(|k| is_fact(k) || k.state == State::Mmio && k.certainty < Certainty::Stale)
                {
                    wrong.push(format!(
                        "at {at}: {place:x?} {:x?} {} ({:?}), and with all events {:x?}",
                        s.spte,
                        s.certainty.name(),
                        s.reason,
                        all.iter().map(|k| (k.spte, k.certainty.name(), k.reason)).collect::<Vec<_>>()
                    ));
                }
            }
        }
    }
    wrong
}

/// What is wrong in a sample, and how many facts there were to compare.
fn less_of(file: &Path) -> (usize, Vec<String>) {
    let (mut facts, mut all) = (0, Vec::new());
    let trace = Trace::load(&[file.to_path_buf()], &ReadOptions::default()).expect("a readable sample");
    let has = events_of(file);
    for says in [false, true] {
        let whole = replay(&without(&trace, &has, None, says), &ReplayOptions::default());
        let (a, b) = whole.range();
        let moments: Vec<u64> = (1..=8).map(|i| a + (b - a) / 8 * i).collect();
        let known = moments.iter().flat_map(|at| leaves(&whole, *at)).flat_map(|l| l.1);
        facts += known.filter(is_fact).count();
        for &event in &has {
            let less = without(&trace, &has, Some(event), says);
            if less.events.len() == trace.events.len() && !says || less.events.is_empty() {
                continue;
            }
            let part = replay(&less, &ReplayOptions::default());
            let wrong = risen(&whole, &part, &moments);
            if !wrong.is_empty() {
                all.push(format!(
                    "{} without {event} ({}): {} of them, as {:#?}",
                    file.display(),
                    if says { "known" } else { "not known" },
                    wrong.len(),
                    &wrong[..wrong.len().min(3)]
                ));
            }
            if says {
                assert_eq!(part.coverage(event).unwrap_or(Coverage::NotRecorded), Coverage::NotRecorded);
            }
        }
    }
    (facts, all)
}

#[test]
fn recording_less_makes_nothing_more_certain() {
    let files = samples();
    let done: Vec<(usize, Vec<String>)> = std::thread::scope(|s| {
        let work = files.iter().map(|f| s.spawn(move || less_of(f))).collect::<Vec<_>>();
        work.into_iter().map(|w| w.join().expect("a thread that ends")).collect()
    });
    let wrong: Vec<String> = done.iter().flat_map(|d| d.1.clone()).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    let facts: usize = done.iter().map(|d| d.0).sum();
    assert!(facts > 8_000, "{facts} facts to compare with");
}

/// What the entries of a frame are at the end.
fn of(text: &str, gfn: u64) -> Vec<(Certainty, Reason)> {
    let trace = fixture::trace(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let t = replay(&trace, &ReplayOptions::default());
    let state = t.state_at(t.range().1, &StateFilter::default());
    state.iter().filter(|(e, _)| e.level == 1 && e.gfn == gfn).map(|(_, s)| (s.certainty, s.reason)).collect()
}

#[test]
fn without_the_events_of_a_vcpu_an_install_is_known_for_its_moment_only() {
    // A recorder of kvmmmu events alone: nothing shows when the thread goes on, nor what the host takes away.
    let text = "layout C/npt\nrecorded unsaid\n1 t1 page 1 0\n+1 t1 set 1 2 R77 at 40010\n+1 t1 set 1 3 R78 at 40018\n";
    assert_eq!(of(text, 2), [(Certainty::Stale, Reason::SilentKernel)]);
    assert_eq!(of(text, 3), [(Certainty::Stale, Reason::SilentKernel)]);
}

#[test]
fn what_is_missing_is_named() {
    let text = "layout C/npt\nfact record.scope the whole system\nfact record.events kvm:kvm_entry,kvm:kvm_exit,kvmmmu:kvm_mmu_set_spte\n\
                1 t1 exit\n+1 t1 set 1 2 R77 at 40010\n+1 t1 entry 0\n";
    let t = replay(&fixture::trace(text).expect("lines"), &ReplayOptions::default());
    let missing: Vec<(&str, Coverage)> = t.unrecorded().iter().map(|u| (u.event, u.coverage)).collect();
    for event in
        ["kvm_unmap_hva_range", "kvm_mmu_prepare_zap_page", "kvm_mmu_get_page", "kvm_tdp_mmu_spte_changed"]
    {
        assert!(missing.contains(&(event, Coverage::NotRecorded)), "{event}: {missing:?}");
    }
    assert!(!missing.iter().any(|m| ["kvm_entry", "kvm_mmu_set_spte"].contains(&m.0)), "{missing:?}");
    assert_eq!(of(text, 2), [(Certainty::Stale, Reason::SilentKernel)]);
}
