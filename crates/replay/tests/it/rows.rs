//! What each kernel shows of each kind of change, row by row: `rows/*.txt` hold event sequences in the language of
//! [`mmuscope_testing::fixture`] with what must be known at which moment. The expectations are the kernels' rules, not ours.
//!
//! A file is a row. `case COLUMN… [with MODE…]` begins a sequence that is replayed for each of the columns (kernels and MMUs) under each of the
//! modes (`npt` and `ept` if none is named); `n/a COLUMN…: REASON` says where there is nothing to show. Beside events a sequence has
//!
//! - `tree`: a root, and tables 0x10 (level 3), 0x11 (level 2) and 0x12 (level 1) for frame 0, shown as the column's kernel shows it (where
//!   links are not shown: the pages are made by the thread that first asks for an entry, `want`);
//! - `notifiers`: where the kernel shows mmu_notifier ranges and the legacy MMU runs, one of them, so that it is known to;
//! - `retry THREAD GFN MICROSECONDS`: so much later a write fault for which nothing was done;
//! - `= LEVEL GFN VALUE CERTAINTY [REASON] [at ADDRESS] [as N]`: what is known after the event before. VALUE is a value of the language,
//!   or a state's name. CERTAINTY may be `fact` (stated or re-read) or `unsure` (less). Instead of both, `none`: the entry is not shown; and
//!   `nofact`: it is not shown, or unsure;
//! - `= count LEVEL STATE N`: so many entries are in this state;
//! - `= spans LEVEL GFN N`: in the end, so many spans;
//! - `= faults OUTCOME[@GFN]…`: in the end, these faults (`-` for none);
//! - `= evidence KIND…`: in the end, this is kept as evidence. Without it there must be none.
//!
//! What is known at a moment must not depend on what comes after it: each expectation is checked with and without the rest.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use mmuscope_replay::{Certainty, Entry, LayoutOverride, ReplayOptions, Span, StateFilter, Timeline, replay};
use mmuscope_spte::{Layout, LayoutSpec};
use mmuscope_testing::fixture;
use mmuscope_trace::{EventStore, Trace};

/// Columns: legacy (L) or TDP MMU (T), and the first kernel that behaves so. Names of layouts are releases of the column.
const COLUMNS: [(&str, &str); 11] = [
    ("L5.2", "5.2"),
    ("L5.3", "5.4"),
    ("L5.13", "6.1"),
    ("L6.13", "6.18"),
    ("T5.10", "5.10"),
    ("T5.11", "5.11"),
    ("T5.12", "5.12"),
    ("T5.13", "6.1"),
    ("T6.10", "6.12"),
    ("T6.13", "6.18"),
    ("T7.2", "7.2"),
];

/// Every kind of change there is: a test for each, and its file, which has `-` where the test has `_`.
macro_rules! rows {
    ($($test:ident)+) => {
        const ROWS: &[&str] = &[$(stringify!($test)),+];

        mod row {
            $(
                #[test]
                fn $test() {
                    super::replayed_as_each_kernel_tells_it(stringify!($test));
                }
            )+
        }
    };
}

rows! {
    leaf_by_fault
    leaf_by_prefetch
    leaf_by_pre_fault
    same_value_again
    mmio_installed
    non_leaf_linked
    leaf_zapped_by_notifier
    leaf_zapped_atomically
    table_removed
    table_freed
    live_root_zapped
    all_pages_obsoleted
    memslot_deleted_quirk_off
    huge_page_split_eagerly
    huge_page_split_by_fault
    huge_page_recovered
    write_protected_for_dirty_log
    dirty_bit_cleared
    write_tracked
    writable_by_fast_fault
    accessed_bit_cleared
    bits_set_by_hardware
    unsync_and_sync
    change_pte
    mirror_root
    root_allocated
    not_traced_at_all
    stuck_frozen
    old_values
    fault_outcomes
}

/// A sequence of a file, with the number of the line that begins it.
struct Case<'a> {
    line: usize,
    columns: Vec<&'a str>,
    modes: Vec<&'a str>,
    body: Vec<(usize, &'a str)>,
}

fn dir() -> std::path::PathBuf {
    std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/rows")
}

fn files() -> BTreeMap<String, String> {
    let name = |p: &std::path::Path| p.file_stem().expect("a name").to_string_lossy().into_owned();
    std::fs::read_dir(dir())
        .expect("rows")
        .map(|f| f.expect("a file").path())
        .map(|p| (name(&p), std::fs::read_to_string(&p).expect("text")))
        .collect()
}

/// The cases of a file, and the columns that have nothing to show.
fn parse(text: &str) -> (Vec<Case<'_>>, BTreeSet<&str>) {
    let (mut cases, mut not) = (Vec::<Case<'_>>::new(), BTreeSet::new());
    for (i, line) in text.lines().enumerate() {
        let words: Vec<&str> = line.split('#').next().unwrap_or("").split_whitespace().collect();
        match words.as_slice() {
            [] => {}
            ["n/a", ..] => {
                let columns = line.trim_start_matches("n/a").split(':').next().unwrap_or("");
                not.extend(columns.split_whitespace());
            }
            ["case", rest @ ..] => {
                let mut parts = rest.split(|w| *w == "with");
                let columns = parts.next().expect("columns").to_vec();
                let modes = parts.next().map_or(vec!["npt", "ept"], <[&str]>::to_vec);
                cases.push(Case { line: i + 1, columns, modes, body: Vec::new() });
            }
            _ => cases.last_mut().expect("a case first").body.push((i + 1, line)),
        }
    }
    (cases, not)
}

/// The root alone, or the tables below it as well.
fn tree(column: &str, told: bool) -> String {
    let mut s = String::new();
    for (level, page) in [(3, 0x10), (2, 0x11), (1, 0x12)] {
        // The TDP MMU of 5.10 prints the level of the entry that will point to it.
        let printed = if column == "T5.10" { level + 1 } else { level };
        write!(s, "\n+1 t1 page {printed} 0").expect("a string");
        if told {
            write!(s, "\n+1 t1 tdp {} 0 empty T{page:x}", level + 1).expect("a string");
        }
    }
    s
}

/// The events of a case as text, and after how many of them what is expected: with the line.
fn expand<'a>(case: &Case<'a>, column: &str) -> (String, Vec<(usize, usize, &'a str)>) {
    let (mut text, mut wants) = (String::new(), Vec::new());
    let told = column.starts_with('T') && column != "T5.10";
    let mut unmade = false;
    let events = |text: &str| text.lines().filter(|l| !l.is_empty()).count();
    for (line, s) in &case.body {
        let words: Vec<&str> = s.split_whitespace().collect();
        match words.as_slice() {
            ["=", ..] => wants.push((*line, events(&text), s.trim_start_matches('=').trim())),
            ["tree"] => {
                writeln!(text, "100 t1 root{}", if told { tree(column, true) } else { String::new() })
                    .expect("a string");
                unmade = !told;
            }
            [_, "t1", "want", ..] if unmade => {
                writeln!(text, "{s}{}", tree(column, false)).expect("a string");
                unmade = false;
            }
            ["notifiers"] if ["L5.13", "L6.13"].contains(&column) => {
                writeln!(text, "90 t9 unmap 7f0000000000 7f0000001000\n+1 t9 user 0 0").expect("a string");
            }
            ["notifiers"] => {}
            ["retry", t, gfn, later] => writeln!(
                text,
                "+{later} {t} exit\n+1 {t} fault {gfn} w\n+1 {t} want 1 {gfn} 77\n+1 {t} entry {}",
                t.trim_start_matches('t')
            )
            .expect("a string"),
            _ => writeln!(text, "{s}").expect("a string"),
        }
    }
    (text, wants)
}

fn part(trace: &Trace, n: usize) -> Trace {
    let mut events = EventStore::new();
    trace.events.range(0..n).for_each(|e| events.push(&e));
    let mut info = trace.info.clone();
    info.events = n as u64;
    info.last_ts = trace.events.ts(n - 1);
    Trace { info, strings: trace.strings.clone(), events }
}

fn number(s: &str) -> u64 {
    u64::from_str_radix(s, 16).unwrap_or_else(|_| panic!("`{s}` is not a number"))
}

fn after<'a>(words: &[&'a str], word: &str) -> Option<&'a str> {
    words.iter().position(|w| *w == word).and_then(|i| words.get(i + 1)).copied()
}

/// What is wrong with what is known at a moment, if anything.
fn check(t: &Timeline, ts: u64, l: &Layout, words: &[&str]) -> Option<String> {
    let state: Vec<(Entry, Span)> = t.state_at(ts, &StateFilter::default());
    let level: u8 = words[usize::from(words[0] == "count")].parse().expect("a level");
    if words[0] == "count" {
        let n = state.iter().filter(|(e, s)| e.level == level && s.state.name() == words[2]).count();
        return (n.to_string() != words[3]).then(|| format!("{n} are {}", words[2]));
    }
    let gfn = number(words[1]);
    let place = after(words, "at").map(number);
    let as_id = after(words, "as").map(number);
    let found: Vec<&(Entry, Span)> = state
        .iter()
        .filter(|(e, _)| e.level == level && e.gfn == gfn)
        .filter(|(e, _)| place.is_none_or(|p| e.sptep == Some(p)))
        .filter(|(e, _)| as_id.is_none_or(|a| u64::from(e.as_id) == a))
        .collect();
    let show = || {
        let all: Vec<String> = state
            .iter()
            .filter(|(e, _)| e.level == level && e.gfn == gfn)
            .map(|(e, s)| {
                format!(
                    "{} {:x?} {} {:?} at {:x?} as {}",
                    s.state.name(),
                    s.spte,
                    s.certainty.name(),
                    s.reason,
                    e.sptep,
                    e.as_id
                )
            })
            .collect();
        format!("shown: {all:?}")
    };
    let fact = |s: &Span| s.certainty <= Certainty::Observed;
    match words[2] {
        "none" => return (!found.is_empty()).then(show),
        "nofact" => return found.iter().any(|(_, s)| fact(s)).then(show),
        _ => {}
    }
    let [(_, s)] = found.as_slice() else { return Some(show()) };
    let names = ["unknown", "nonpresent", "present", "table", "mmio", "removed"];
    let right = if names.contains(&words[2]) {
        s.state.name() == words[2]
    } else {
        s.spte == Some(fixture::value(l, words[2], level, gfn).expect("a value"))
    };
    let sure = match words[3] {
        "fact" => fact(s),
        "unsure" => !fact(s),
        name => s.certainty.name() == name,
    };
    let reason = words.get(4).filter(|w| !["at", "as"].contains(w));
    let why = reason.is_none_or(|w| format!("{:?}", s.reason).to_lowercase() == **w);
    (!right || !sure || !why).then(show)
}

/// What is wrong with the end, if anything.
fn check_end(t: &Timeline, words: &[&str]) -> Option<String> {
    match words[0] {
        "spans" => {
            let (level, gfn) = (words[1].parse::<u8>().expect("a level"), number(words[2]));
            let of = t.entries().filter(|e| e.level == level && e.gfn == gfn);
            let n: usize = of.map(|e| t.spans(e.id).filter(|s| s.id.is_some()).count()).sum();
            (n.to_string() != words[3]).then(|| format!("{n} spans"))
        }
        "faults" => {
            let all: Vec<(String, String)> = t
                .faults()
                .map(|f| {
                    let o = f.outcome.name().to_owned();
                    (format!("{o}@{:x}", f.gfn.unwrap_or(u64::MAX)), o)
                })
                .collect();
            let wanted: Vec<&&str> = words[1..].iter().filter(|w| **w != "-").collect();
            let right =
                all.len() == wanted.len() && all.iter().zip(&wanted).all(|(f, w)| f.0 == ***w || f.1 == ***w);
            (!right).then(|| format!("{all:?}"))
        }
        "evidence" => {
            let mut all: Vec<String> =
                t.evidence().iter().map(|e| format!("{:?}", e.kind).to_lowercase()).collect();
            all.sort_unstable();
            (all != words[1..]).then(|| format!("{:?}", t.evidence()))
        }
        _ => None,
    }
}

/// Replays a case as one kernel shows it; what is wrong, line by line.
fn run(file: &str, case: &Case<'_>, column: &str, mode: &str) -> Vec<String> {
    let release = COLUMNS.iter().find(|c| c.0 == column).unwrap_or_else(|| panic!("{file}: {column}?")).1;
    let name = format!("{release}/{mode}");
    let spec = LayoutSpec::named(&name).expect("a layout");
    let layout = spec.resolve().expect("a layout").layout;
    let options = ReplayOptions { layout: LayoutOverride { spec }, ..ReplayOptions::default() };
    let (text, wants) = expand(case, column);
    let trace = fixture::trace(&format!("layout {name}\n{text}"))
        .unwrap_or_else(|e| panic!("{file}.txt, case of line {}, {column}: {e}", case.line));
    let whole = replay(&trace, &options);
    let mut wrong = Vec::new();
    let mut evidence = false;
    for (line, n, want) in wants {
        let words: Vec<&str> = want.split('#').next().unwrap_or("").split_whitespace().collect();
        let mut note = |what: String, with: &str| {
            wrong.push(format!("{file}.txt:{line} ({column}/{mode}) = {want}, {with}: {what}"));
        };
        evidence |= words[0] == "evidence";
        if ["spans", "faults", "evidence"].contains(&words[0]) {
            if let Some(w) = check_end(&whole, &words) {
                note(w, "in the end");
            }
            continue;
        }
        let ts = trace.events.ts(n - 1);
        if let Some(w) = check(&replay(&part(&trace, n), &options), ts, &layout, &words) {
            note(w, "then");
        }
        if let Some(w) = check(&whole, ts, &layout, &words) {
            note(w, "seen from the end");
        }
    }
    if !evidence && !whole.evidence().is_empty() {
        wrong.push(format!("{file}.txt:{} ({column}/{mode}): {:?}", case.line, whole.evidence()));
    }
    wrong
}

#[test]
fn every_row_has_a_file_that_speaks_of_every_column() {
    let files = files();
    let names: BTreeSet<&str> = files.keys().map(String::as_str).collect();
    let rows: BTreeSet<String> = ROWS.iter().map(|r| file_of(r)).collect();
    assert_eq!(names, rows.iter().map(String::as_str).collect());
    let mut runs = 0;
    for (name, text) in &files {
        let (cases, not) = parse(text);
        let shown: BTreeSet<&str> = cases.iter().flat_map(|c| c.columns.iter().copied()).collect();
        let all: BTreeSet<&str> = COLUMNS.iter().map(|c| c.0).collect();
        assert!(shown.is_disjoint(&not), "{name}: {not:?} have cases");
        runs += cases.iter().map(|c| c.columns.len() * c.modes.len()).sum::<usize>();
        assert_eq!(shown.union(&not).copied().collect::<BTreeSet<_>>(), all, "{name}");
        assert!(cases.iter().all(|c| c.body.iter().any(|(_, l)| l.starts_with('='))), "{name}");
    }
    assert!(runs > 500, "{runs}");
}

fn file_of(row: &str) -> String {
    row.replace('_', "-")
}

fn replayed_as_each_kernel_tells_it(row: &str) {
    let file = file_of(row);
    let path = dir().join(format!("{file}.txt"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let mut wrong = Vec::new();
    let mut runs = 0;
    for case in &parse(&text).0 {
        for column in &case.columns {
            for mode in &case.modes {
                wrong.extend(run(&file, case, column, mode));
                runs += 1;
            }
        }
    }
    assert!(runs > 0, "{file}: no case");
    assert!(wrong.is_empty(), "{} of {runs} runs:\n{}", wrong.len(), wrong.join("\n"));
}
