//! The fuzzers' corpora, every file through every target; and short random runs of what the fuzzers run, with fixed seeds.

use mmuscope_fuzzing::{Head, LAYOUTS, Scenario, Step, all, compare, events, pieces, replayed, whole};
use mmuscope_spte::LayoutSpec;
use mmuscope_testing::fixture;
use std::collections::BTreeMap;
use std::path::PathBuf;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..")
}

#[test]
fn every_target_survives_every_file() {
    let corpus = root().join("fuzz/corpus");
    let mut folders = Vec::new();
    let mut n = 0;
    for dir in std::fs::read_dir(&corpus).expect("the corpus").flatten() {
        let name = dir.file_name().into_string().expect("text");
        assert!(all().any(|t| t.0 == name), "corpus of no target: {name}");
        folders.push(name);
        for f in std::fs::read_dir(dir.path()).expect("a folder").flatten() {
            let bytes = std::fs::read(f.path()).expect("a file");
            for (target, body) in all() {
                // Its name says which input it was.
                println!("{target} on {}", f.path().display());
                body(&bytes);
            }
            n += 1;
        }
    }
    for (name, _) in all() {
        assert!(folders.iter().any(|f| f == name), "the target {name} has no corpus");
    }
    assert!(n >= 30, "{n} files in {}", corpus.display());
}

#[test]
fn every_target_can_be_fuzzed() {
    let manifest = std::fs::read_to_string(root().join("fuzz/Cargo.toml")).expect("the fuzzers");
    for (name, _) in all() {
        let path = format!("fuzz_targets/{name}.rs");
        assert!(manifest.contains(&format!("name = \"{name}\"\npath = \"{path}\"")), "{name}");
        let text = std::fs::read_to_string(root().join("fuzz").join(&path)).expect("a target");
        assert!(text.contains(&format!("::{name}(data)")), "{text}");
    }
}

/// Numbers that look random and are the same every time (SplitMix64).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ self.0 >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    fn below(&mut self, n: u64) -> u64 {
        self.next() % n
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len() as u64) as usize]
    }
}

/// Few frames, tables, values and threads, so that events are often about the same thing; now and then anything at all.
fn scenario(r: &mut Random) -> Scenario {
    let layout = r.below(LAYOUTS.len() as u64 + 1) as u8;
    let name = LAYOUTS.get(usize::from(layout)).unwrap_or(&"6.1/npt");
    let l = LayoutSpec::named(name).and_then(|s| s.resolve()).expect("a layout").layout;
    let words = ["empty", "W77", "R77", "O78", "N79", "T10", "T11", "T12", "frozen", "M5", "K77"];
    let mut steps = Vec::new();
    for _ in 0..r.below(120) {
        let level = r.one(&[1, 1, 1, 2, 2, 3, 4, 5, 0, 15]);
        let gfn = r.one(&[0, 1, 2, 0x1ff, 0x200, 0x201, 0x40000, 0xfee00]);
        let mut value = || match r.below(20) {
            0 => r.next(),
            1 => u64::MAX,
            _ => fixture::value(&l, r.one(&words), level, gfn).unwrap_or(0),
        };
        let (new, old) = (value(), value());
        let table = r.one(&[0x10, 0x11, 0x12, 0x13]) << 12;
        let address = match r.below(12) {
            0 => r.next(),
            1 => gfn << 12,
            2 => 0xffff_8880_0000_0000 + table + (gfn & 511) * 8,
            3 => u64::MAX,
            _ => table + (gfn & 511) * 8,
        };
        steps.push(Step {
            // Half of them are those that make pages and entries.
            kind: if r.below(2) == 0 { r.below(4) } else { r.below(Step::KINDS.into()) } as u8,
            flags: r.next() as u8 & r.next() as u8,
            tid: r.below(4) as u8,
            level: level | if r.below(12) == 0 { 0x10 } else { 0 },
            later: r.one(&[0, 1, 1, 3, 1000]),
            small: r.one(&[0, 0, 1, 2, 7, -1, -11]),
            gfn: if r.below(40) == 0 { r.next() } else { gfn },
            address,
            new,
            old,
        });
    }
    let flags = r.next() as u8;
    Scenario { head: Head { layout, flags, ..Head::default() }, steps }
}

/// `MMUSCOPE_FUZZ_RUNS=N` makes more of them than the tests do.
fn runs(usual: u64) -> u64 {
    std::env::var("MMUSCOPE_FUZZ_RUNS").ok().and_then(|n| n.parse().ok()).unwrap_or(usual)
}

/// What a body said when it panicked; `None` if it did not.
fn panics(body: impl FnOnce()) -> Option<String> {
    let e = std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).err()?;
    let text = e.downcast_ref::<String>().cloned();
    Some(text.or_else(|| e.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default())
}

/// The kind of a failure: its words without the numbers.
fn kind(said: &str) -> String {
    said.lines().next().unwrap_or_default().chars().filter(|c| !c.is_ascii_digit()).take(60).collect()
}

/// Leaves out what is not needed for a failure of the same kind.
fn smallest(mut s: Scenario, body: &dyn Fn(&Scenario)) -> (Scenario, String) {
    let first = panics(|| body(&s)).expect("it fails");
    let wanted = kind(&first);
    let mut said = first;
    let mut size = s.steps.len();
    while size > 0 {
        let mut at = 0;
        while at < s.steps.len() {
            let mut less = s.clone();
            less.steps.drain(at..(at + size).min(s.steps.len()));
            match panics(|| body(&less)).filter(|m| kind(m) == wanted) {
                Some(m) => (s, said) = (less, m),
                None => at += size,
            }
        }
        size /= 2;
    }
    (s, said)
}

/// Gives random scenarios to a body, and prints a small one for each kind of failure.
fn survives(body: &dyn Fn(&Scenario)) {
    let mut failures = BTreeMap::new();
    for seed in 0..runs(400) {
        let s = scenario(&mut Random(seed));
        if let Some(said) = panics(|| body(&s)) {
            failures.entry(kind(&said)).or_insert((seed, s));
        }
    }
    let n = failures.len();
    for (seed, s) in failures.into_values() {
        let (s, said) = smallest(s, body);
        eprintln!("seed {seed}: {said}\nlayout {:?}, {:?}", LAYOUTS.get(usize::from(s.head.layout)), s.head);
        for e in &s.trace().0.events {
            eprintln!("  {} {:x?} {:x?}", e.ts, e.tid, e.body);
        }
    }
    assert_eq!(n, 0, "kinds of failures");
}

#[test]
fn random_events_are_replayed() {
    survives(&|s| drop(replayed(s)));
}

#[test]
fn random_events_are_known_in_one_way() {
    survives(&|s| compare(&replayed(s)));
}

#[test]
fn a_scenario_is_read_as_it_was_written() {
    let one = scenario(&mut Random(7));
    let bytes = one.bytes();
    let read: Scenario =
        arbitrary::Arbitrary::arbitrary_take_rest(arbitrary::Unstructured::new(&bytes)).expect("a scenario");
    assert!(!one.steps.is_empty());
    assert_eq!(read, one);
}

/// Bytes of the corpus with some of them changed, left out or doubled, as a fuzzer does first.
#[test]
fn damaged_inputs_are_replayed() {
    let read = |target: &str| -> Vec<Vec<u8>> {
        let dir = root().join("fuzz/corpus").join(target);
        let mut files: Vec<_> =
            std::fs::read_dir(dir).expect("a corpus").flatten().map(|f| f.path()).collect();
        files.sort();
        files.iter().map(|f| std::fs::read(f).expect("a file")).collect()
    };
    for (body, inputs) in
        [(whole as fn(&[u8]), read("whole")), (events, read("events")), (pieces, read("pieces"))]
    {
        for seed in 0..runs(60) {
            let mut r = Random(seed);
            for (i, input) in inputs.iter().enumerate() {
                println!("seed {seed}, input {i}");
                let mut bytes = input.clone();
                for _ in 0..=r.below(8) {
                    let at = r.below(bytes.len() as u64) as usize;
                    let end = (at + r.below(200) as usize).min(bytes.len());
                    match r.below(4) {
                        0 => bytes[at] = r.next() as u8,
                        1 if end - at < bytes.len() => drop(bytes.drain(at..end)),
                        2 => {
                            let part = bytes[at..end].to_vec();
                            let to = r.below(bytes.len() as u64) as usize;
                            bytes.splice(to..to, part);
                        }
                        _ => bytes[at] ^= 1 << r.below(8),
                    }
                }
                body(&bytes);
            }
        }
    }
}
