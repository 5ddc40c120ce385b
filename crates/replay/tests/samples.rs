//! Every sample against what the kernel's memory held when its trace ended.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use mmuscope_replay::{ReplayOptions, Shade, State, StateFilter, Timeline, replay};
use mmuscope_trace::{EventStore, ReadOptions, Trace};

fn samples() -> Vec<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples");
    let mut v: Vec<PathBuf> = std::fs::read_dir(dir)
        .expect("samples")
        .filter_map(|e| e.ok().map(|e| e.path()))
        .filter(|p| p.is_dir())
        .collect();
    v.sort();
    v
}

fn load(file: &Path) -> (Trace, Timeline) {
    let trace = Trace::load(&[file.to_path_buf()], &ReadOptions::default()).expect("a readable sample");
    let t = replay(&trace, &ReplayOptions::default());
    (trace, t)
}

fn hex(s: &str) -> u64 {
    u64::from_str_radix(s.trim().trim_start_matches("0x"), 16).expect("hex in truth")
}

/// Value without what the CPU sets on its own; MMIO words (not MMU-present) whole.
fn still(v: u64, ad: u64) -> u64 {
    if v >> 11 & 1 == 1 { v & !ad } else { v }
}

#[test]
fn leaves_at_the_end_are_the_kernels() {
    let mut checked = 0;
    for dir in samples() {
        let Ok(truth) = std::fs::read_to_string(dir.join("truth-leaves.csv")) else { continue };
        let (_, t) = load(&dir.join("trace.txt.zst"));
        let m = t.layout(t.vms()[0].id).layout.masks;
        let ad = m.accessed_mask | m.dirty_mask;
        let truth: BTreeSet<(u8, u64, u64)> = truth
            .lines()
            .map(|l| {
                let p: Vec<&str> = l.split(',').collect();
                (p[0].trim().parse().expect("level"), hex(p[1]), still(hex(p[2]), ad))
            })
            .collect();
        let ours: BTreeSet<(u8, u64, u64)> = t
            .state_at(t.range().1, &StateFilter::default())
            .iter()
            .filter(|(_, s)| matches!(s.state, State::Present | State::Mmio))
            .map(|(e, s)| (e.level, e.gfn, still(s.spte.expect("a value"), ad)))
            .collect();
        assert_eq!(ours, truth, "{}", dir.display());
        assert!(t.evidence().is_empty(), "{}: {:?}", dir.display(), t.evidence());
        checked += 1;
    }
    assert!(checked >= 6, "{checked} samples have truth");
}

#[test]
fn counts_are_those_of_the_state() {
    for dir in samples() {
        for file in ["trace.txt.zst", "trace.dat"].map(|f| dir.join(f)).iter().filter(|f| f.exists()) {
            let (_, t) = load(file);
            let (a, b) = t.range();
            for i in 0..=10 {
                let at = a + (b - a) * i / 10;
                let state = t.state_at(at, &StateFilter::default());
                let counts = t.counts_at(at);
                let over = t.counts_over(a, at, 7);
                for s in Shade::ALL {
                    // Torn-down tables keep what their teardown emptied; only live and removed entries are state.
                    if s == Shade::Nonpresent {
                        continue;
                    }
                    let n = state.iter().filter(|(_, x)| x.shade == s).count() as u64;
                    assert_eq!(counts.total(s), n, "{} at {at}: {s:?}", file.display());
                    assert_eq!(over.last().map(|c| c.total(s)), Some(n));
                }
            }
        }
    }
}

#[test]
fn a_prefix_replays_to_the_state_of_its_end() {
    for name in ["6.1-npt", "7.3-npt", "6.1-shadow32", "linux-boot"] {
        let dir = samples().into_iter().find(|d| d.ends_with(name)).expect("sample");
        let file = ["trace.txt.zst", "trace.dat"]
            .map(|f| dir.join(f))
            .into_iter()
            .find(|f| f.exists())
            .expect("trace");
        let (trace, whole) = load(&file);
        for part in [3, 5, 8] {
            let n = trace.events.len() * part / 10;
            let mut events = EventStore::new();
            for e in trace.events.range(0..n) {
                events.push(&e);
            }
            // Events of one time belong together.
            let at = events.ts(n - 1);
            for e in trace.events.range(n..trace.events.len()).take_while(|e| e.ts == at) {
                events.push(&e);
            }
            let cut = Trace { info: trace.info.clone(), strings: trace.strings.clone(), events };
            let t = replay(&cut, &ReplayOptions::default());
            let rows = |t: &Timeline| -> BTreeSet<_> {
                t.state_at(at, &StateFilter::default())
                    .iter()
                    .filter(|(_, s)| s.state != State::Nonpresent)
                    .map(|(e, s)| (e.vm, e.as_id, e.level, e.gfn, e.sptep, s.state, s.spte, s.start))
                    .collect()
            };
            assert_eq!(rows(&t), rows(&whole), "{name}, {part}0 %");
        }
    }
}

#[test]
fn growing_gives_what_reading_at_once_gives() {
    let dir = samples().into_iter().find(|d| d.ends_with("6.1-npt")).expect("sample");
    let (trace, whole) = load(&dir.join("trace.txt.zst"));
    let mut grown =
        Trace { info: trace.info.clone(), strings: trace.strings.clone(), events: EventStore::new() };
    let mut t: Option<Timeline> = None;
    for (i, e) in trace.events.iter().enumerate() {
        grown.events.push(&e);
        if i % 9000 == 8999 || i + 1 == trace.events.len() {
            match &mut t {
                Some(t) => t.extend(&grown),
                None => t = Some(replay(&grown, &ReplayOptions::default())),
            }
        }
    }
    let t = t.expect("a timeline");
    assert_eq!(t.span_count(), whole.span_count());
    assert_eq!(t.fault_count(), whole.fault_count());
    for at in [whole.range().0 + 500_000_000, whole.range().1] {
        assert_eq!(t.state_at(at, &StateFilter::default()), whole.state_at(at, &StateFilter::default()));
        assert_eq!(t.counts_at(at), whole.counts_at(at));
    }
}
