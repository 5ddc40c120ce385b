//! Every sample against what the kernel's memory held when its trace ended.

use crate::replayed::load;
use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use mmuscope_replay::{
    Bin, Certainty, Entry, EventIx, ReplayOptions, SeriesKind, Shade, Span, SpanFilter, State, StateFilter,
    Timeline, VmId, load_in_steps, replay,
};
use mmuscope_trace::{Body, ErrorEncoding, Event, EventStore, Isa, Page, ReadOptions, Trace};

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

/// The names of recordings in a folder; all that exist are of the same run.
const RECORDINGS: [&str; 3] = ["trace.txt.zst", "trace.dat", "mmuscope.perf.data"];

/// The first recording in a folder.
fn recording(dir: &Path) -> PathBuf {
    RECORDINGS.map(|f| dir.join(f)).into_iter().find(|f| f.exists()).expect("a recording in each folder")
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
        let (_, t) = load(&recording(&dir));
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
        for file in RECORDINGS.map(|f| dir.join(f)).iter().filter(|f| f.exists()) {
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

/// The frames of a shade, frame by frame: each is what the best of its entries makes it, a known one before a stale one.
fn frames(state: &[(Entry, Span)], vm: VmId, as_id: u8) -> std::collections::HashMap<Shade, u64> {
    let mut best = std::collections::HashMap::new();
    for (e, s) in state.iter().filter(|(e, _)| (e.vm, e.as_id) == (vm, as_id)) {
        if matches!(s.state, State::Present | State::Mmio) {
            let class = (s.certainty == Certainty::Stale, s.shade);
            for gfn in e.gfn..e.gfn + e.pages() {
                best.entry(gfn).and_modify(|b| *b = class.min(*b)).or_insert(class);
            }
        }
    }
    let mut out = std::collections::HashMap::new();
    for (_, shade) in best.into_values() {
        *out.entry(shade).or_default() += 1;
    }
    out
}

#[test]
fn a_frame_is_counted_once_by_every_sum() {
    let mut several = 0;
    for dir in samples() {
        for file in RECORDINGS.map(|f| dir.join(f)).iter().filter(|f| f.exists()) {
            let (_, t) = load(file);
            let (a, b) = t.range();
            for (vm, as_id) in
                t.vms().iter().flat_map(|v| t.address_spaces(v.id).into_iter().map(|s| (v.id, s)))
            {
                let peak = t.peak(vm, as_id);
                let mut most = 0;
                for at in (0..=6).map(|i| a + (b - a) * i / 6).chain(peak.map(|p| p.0)) {
                    let name = format!("{} {vm:?} {as_id} at {at}", file.display());
                    let state = t.state_at(at, &StateFilter::default());
                    let counts = t.counts_of(vm, as_id, at);
                    let naive = frames(&state, vm, as_id);
                    let of = |s: Shade| naive.get(&s).copied().unwrap_or(0);
                    let present =
                        [Shade::Writable, Shade::ReadOnly, Shade::AccessTracked].map(of).iter().sum::<u64>();
                    assert_eq!(counts.present_bytes(None), present * 4096, "{name}");
                    assert_eq!(t.counts_over_of(vm, as_id, a, at, 3)[2], counts, "{name}");
                    let entries =
                        state.iter().filter(|(e, s)| (e.vm, e.as_id, s.state) == (vm, as_id, State::Present));
                    several += entries.map(|(e, _)| e.pages()).sum::<u64>() - present;
                    most = most.max(present);
                    let memory = t.memory_at(vm, at);
                    for shade in
                        Shade::ALL.into_iter().filter(|s| matches!(s.state(), State::Present | State::Mmio))
                    {
                        let ranges = memory.iter().filter(|m| {
                            m.as_id == as_id
                                && m.shade == shade
                                && m.kind != mmuscope_replay::MemoryKind::Gone
                        });
                        let n: u64 = ranges.map(|m| m.gfn_end - m.gfn_start).sum();
                        assert_eq!((counts.bytes(shade), n), (n * 4096, of(shade)), "{name} {shade:?}");
                    }
                }
                assert_eq!(peak.map_or(0, |p| p.1), most * 4096, "{} {vm:?} {as_id}", file.display());
            }
        }
    }
    assert!(several > 0, "no sample maps a frame twice");
}

#[test]
fn a_prefix_replays_to_the_state_of_its_end() {
    for name in ["6.1-npt", "7.3-npt", "6.1-shadow32", "linux-boot"] {
        let dir = samples().into_iter().find(|d| d.ends_with(name)).expect("sample");
        let file = RECORDINGS.map(|f| dir.join(f)).into_iter().find(|f| f.exists()).expect("trace");
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
            assert_eq!(rows(&t), rows(whole), "{name}, {part}0 %");
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

/// Buckets by going through everything.
fn bins(times: &mut [(u64, EventIx)], t0: u64, t1: u64, n: usize) -> Vec<Bin> {
    times.sort_unstable();
    let mut subs = vec![0u64; n * 4];
    let mut out = vec![Bin::default(); n];
    for (t, ev) in times.iter().filter(|x| (t0..=t1).contains(&x.0)) {
        let s = (u128::from(t - t0) * (n as u128 * 4) / u128::from(t1 - t0)).min(n as u128 * 4 - 1) as usize;
        subs[s] += 1;
        let b = &mut out[s / 4];
        b.count += 1;
        b.max = b.max.max(subs[s]);
        b.first_event.get_or_insert(*ev);
    }
    out
}

#[test]
fn rows_are_what_counting_one_by_one_gives() {
    for name in ["6.1-npt", "6.1-shadow32", "linux-boot"] {
        let dir = samples().into_iter().find(|d| d.ends_with(name)).expect("sample");
        let file = RECORDINGS.map(|f| dir.join(f)).into_iter().find(|f| f.exists());
        let (trace, t) = load(&file.expect("trace"));
        let (a, b) = t.range();
        let tid = t.faults().next().expect("a fault").tid;
        let spans: Vec<Span> = t.all_spans(&SpanFilter::default()).collect();
        let frames = t.layout(t.vms()[0].id).layout.masks.base_addr_mask;
        // A leaf that ends: by the span that follows, which may map another page, or with its table, which leaves a gap.
        let zap = |s: &Span| {
            let leaf = matches!(s.state, State::Present | State::Mmio);
            let (at, ev) = s.end.zip(s.closed_by).filter(|_| leaf)?;
            let next = t.spans(s.entry).skip_while(|x| x.id != s.id).nth(1);
            let stays = next.is_some_and(|n| {
                n.start == at
                    && n.opened_by == Some(ev)
                    && !matches!(n.state, State::Nonpresent | State::Removed)
                    && (n.state == s.state || n.state == State::Table)
                    && (n.state != State::Present
                        || n.spte.zip(s.spte).is_none_or(|(a, b)| (a ^ b) & frames == 0))
            });
            (!stays).then_some((at, ev))
        };
        let all_zaps: Vec<(u64, EventIx)> = spans.iter().filter_map(zap).collect();
        assert!(all_zaps.len() > 100, "{name}: {}", all_zaps.len());
        assert_eq!(t.zap_count(), all_zaps.len() as u64, "{name}");
        for (t0, t1, n) in [(a, b, 40), (a + (b - a) / 3, a + (b - a) / 2, 7), (a, a + 1000, 3)] {
            let mut faults: Vec<_> = t.faults().map(|f| (f.ts, f.event)).collect();
            assert_eq!(t.series(&SeriesKind::Faults, t0, t1, n), bins(&mut faults, t0, t1, n), "{name}");
            let mut one: Vec<_> = t.faults().filter(|f| f.tid == tid).map(|f| (f.ts, f.event)).collect();
            assert_eq!(t.series(&SeriesKind::FaultsOf(tid), t0, t1, n), bins(&mut one, t0, t1, n), "{name}");
            let opened = |s: &Span| (s.start, s.opened_by.expect("an event"));
            let mut changes: Vec<_> = spans.iter().map(opened).collect();
            assert_eq!(t.series(&SeriesKind::Changes, t0, t1, n), bins(&mut changes, t0, t1, n), "{name}");
            let mut zaps = all_zaps.clone();
            let counts = |v: Vec<Bin>| v.iter().map(|b| (b.count, b.first_event)).collect::<Vec<_>>();
            let is = counts(t.series(&SeriesKind::Zaps, t0, t1, n));
            assert_eq!(is, counts(bins(&mut zaps, t0, t1, n)), "{name}");
        }
        // A page's life counts them alike: those of each entry that covers it.
        for z in t.top_zaps(20) {
            let words = match z.count {
                1 => "zapped once".to_owned(),
                2 => "zapped twice".to_owned(),
                n => format!("zapped {n} times"),
            };
            let story = t.page_story(trace, z.vm, z.as_id, z.gfn).headline;
            assert!(story.contains(&words), "{name}: {words} in {story}");
        }
        assert!(trace.events.len() > 1000);
    }
}

/// First frame and one past the last of what an event names outside of SMM, field by field: a second opinion, which knows nothing of tables.
fn named(e: &Event) -> Option<(u64, u64)> {
    let size = |level: u8| 1u64 << (9 * (u32::from(level.clamp(1, 6)) - 1));
    let around =
        |gfn: u64, level: u8| Some((gfn & !(size(level) - 1), (gfn & !(size(level) - 1)) + size(level)));
    let page = |p: &Page| around(p.gfn?, if p.role.direct { p.role.level + 1 } else { 1 });
    match &e.body {
        Body::TdpSpteChanged { as_id: 1.., .. } => None,
        Body::GetPage { page: p, .. } | Body::PrepareZapPage { page: p } if p.role.smm == Some(true) => None,
        Body::TdpSpteChanged { gfn, level, .. }
        | Body::SetSpte { gfn, level, .. }
        | Body::SplitHugePage { gfn, level, .. }
        | Body::AgePage { gfn, level, .. } => around(*gfn, *level),
        Body::SpteRequested { gfn, .. }
        | Body::MarkMmioSpte { gfn, .. }
        | Body::HandleMmioPageFault { gfn, .. }
        | Body::TryAsyncGetPage { gfn, .. } => around(*gfn, 1),
        Body::GetPage { page: p, .. }
        | Body::SyncPage { page: p }
        | Body::UnsyncPage { page: p }
        | Body::PrepareZapPage { page: p } => page(p),
        Body::FastPageFault { cr2_or_gpa: gpa, .. }
        | Body::Mmio { gpa, .. }
        | Body::FastMmio { gpa }
        | Body::VcpuMatchMmio { gpa, .. }
        | Body::RmpFault { gpa, .. }
        | Body::SetAccessedBit { gpa }
        | Body::SetDirtyBit { gpa }
        | Body::Exit { isa: Some(Isa::Svm), reason: Some(0x400), info2: Some(gpa), .. } => {
            around(gpa >> 12, 1)
        }
        // A #PF's address is the guest's virtual one.
        Body::PageFault { address, encoding, .. } if *encoding != ErrorEncoding::PageFault => {
            around(address >> 12, 1)
        }
        _ => None,
    }
}

#[test]
fn a_story_tells_of_every_event_that_names_its_page() {
    for dir in samples() {
        let Some(file) = RECORDINGS.map(|f| dir.join(f)).into_iter().find(|f| f.exists()) else {
            continue;
        };
        let (trace, t) = load(&file);
        let name = dir.file_name().unwrap_or_default().to_string_lossy();
        let ranges: Vec<(u64, u64)> = trace.events.iter().filter_map(|e| named(&e)).collect();
        let pages: BTreeSet<u64> = ranges.iter().filter(|r| r.1 - r.0 == 1).map(|r| r.0).collect();
        let large: BTreeSet<u64> = ranges.iter().filter(|r| r.1 - r.0 > 1).map(|r| r.1 - 1).collect();
        // All would take minutes.
        let some = |all: &BTreeSet<u64>| {
            all.iter().copied().step_by(all.len().div_ceil(8).max(1)).collect::<Vec<_>>()
        };
        for gfn in [some(&pages), some(&large)].concat() {
            let story = t.page_story(trace, VmId(0), 0, gfn);
            let n = ranges.iter().filter(|r| r.0 <= gfn && gfn < r.1).count();
            let said = match n {
                1 => "one event names this page, ".to_owned(),
                n => format!("{n} events name this page, "),
            };
            assert!(
                story.notes.iter().any(|x| x.starts_with(&said)),
                "{name} {gfn:#x}: {said}: {:?}",
                story.notes
            );
            assert!(!story.headline.contains("never seen"), "{name} {gfn:#x}: {}", story.headline);
        }
        // And of one that none names.
        let unnamed = 1u64 << 46;
        assert!(!ranges.iter().any(|r| r.0 <= unnamed && unnamed < r.1));
        let story = t.page_story(trace, VmId(0), 0, unnamed);
        assert_eq!(story.notes.last().map(String::as_str), Some("no event names this page"), "{name}");
        assert!(story.headline.ends_with("never seen") && story.lines.is_empty(), "{name}: {story:?}");
    }
}

#[test]
fn few_frames_are_what_is_left_of_everything() {
    for dir in samples() {
        let Some(file) = RECORDINGS.map(|f| dir.join(f)).into_iter().find(|f| f.exists()) else {
            continue;
        };
        let (_, timeline) = load(&file);
        let t = &timeline;
        let (start, end) = t.range();
        for (i, gfns) in
            [(0, 700), (512, 513), (0xfee00, 0xfee01), (100, 9000), (3, 3)].into_iter().enumerate()
        {
            let at = start + (end - start) * (i as u64 + 1) / 5;
            let f = StateFilter { gfns: Some(gfns), ..StateFilter::default() };
            let mut all = t.state_at(at, &StateFilter::default());
            all.retain(|(e, _)| e.gfn < gfns.1 && e.gfn + e.pages() > gfns.0);
            assert_eq!(t.state_at(at, &f), all, "{} {gfns:x?}", dir.display());
            let f = SpanFilter { gfns: Some(gfns), time: Some((start, at)), ..SpanFilter::default() };
            let mut all: Vec<Span> = t.all_spans(&SpanFilter { gfns: None, ..f.clone() }).collect();
            all.retain(|s| {
                let e = t.entry(s.entry);
                e.gfn < gfns.1 && e.gfn + e.pages() > gfns.0
            });
            assert_eq!(t.all_spans(&f).collect::<Vec<_>>(), all, "{} {gfns:x?}", dir.display());
        }
    }
}

#[test]
fn counts_of_a_vm_are_its_own() {
    let mut text = String::from("vm 100 1\nvm 200 2\n100 t1 root\n+1 t2 root\n");
    for (vm, page) in [(1, 0x10), (2, 0x50)] {
        for level in [4, 3, 2] {
            let _ = writeln!(text, "+1 t{vm} tdp {level} 0 empty T{:x}", page + 4 - level);
        }
    }
    // Enough for more than one checkpoint, the VMs in turn; the second one write-protects and zaps as well.
    for i in 0..6000u64 {
        let g = i % 300;
        let (empty, mapped) = ("empty".to_owned(), format!("W{g:x}"));
        let (old, new) = if i / 300 % 2 == 0 { (empty, mapped) } else { (mapped, empty) };
        let _ = writeln!(text, "+1 t1 tdp 1 {g:x} {old} {new}");
        let g = i % 70;
        let value = |turn: u64| {
            ["empty".to_owned(), format!("W{g:x}"), format!("R{g:x}")][(turn % 3) as usize].clone()
        };
        let _ = writeln!(text, "+1 t2 tdp 1 {g:x} {} {}", value(i / 70), value(i / 70 + 1));
    }
    let t = replay(&mmuscope_testing::fixture::trace(&text).expect("a fixture"), &ReplayOptions::default());
    assert_eq!(t.vms().len(), 2);
    let (a, b) = t.range();
    let mut seen = [0; 2];
    for i in 1..=9 {
        let at = a + (b - a) * i / 9;
        let state = t.state_at(at, &StateFilter::default());
        let mut sum = [0; 8];
        for vm in t.vms().iter().map(|v| v.id) {
            let counts = t.counts_at_in(Some(vm), at);
            let over = t.counts_over_in(Some(vm), a, at, 300);
            for s in Shade::ALL {
                let n = state.iter().filter(|(e, x)| e.vm == vm && x.shade == s).count() as u64;
                assert_eq!(counts.total(s), n, "{vm:?} {s:?}");
                assert_eq!(over.last().map(|c| c.total(s)), Some(n));
                sum[s as usize] += n;
            }
            seen[usize::from(vm.0)] += counts.state(State::Present);
        }
        let all = t.counts_at(at);
        assert_eq!(Shade::ALL.map(|s| all.total(s)), sum);
    }
    assert!(seen[0] > 0 && seen[1] > 0 && seen[0] != seen[1]);
}

#[test]
fn devices_side_by_side_are_two() {
    // The page below the I/O APIC is a PCI function's.
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/linux-boot");
    let file = samples_file(&dir);
    let (_, t) = load(&file);
    let holds = |lo: u64, hi: u64| lo <= 0xfebff && hi > 0xfec00;
    assert!(t.mmio_ranges().iter().all(|r| !holds(r.gfn_start, r.gfn_end)), "{:x?}", t.mmio_ranges());
    assert!(t.vms().iter().flat_map(|v| t.memory(v.id)).all(|r| !holds(r.gfn_start, r.gfn_end)));
}

fn samples_file(dir: &Path) -> PathBuf {
    let mut files = std::fs::read_dir(dir).expect("the sample").filter_map(|e| e.ok().map(|e| e.path()));
    files.find(|p| p.file_name().is_some_and(|n| n.to_string_lossy().starts_with("trace"))).expect("a trace")
}

#[test]
fn memslots_of_the_labs_workload_are_told_apart() {
    // It has 64 MiB at 0, for a while 2 MiB of read-only memory at 0x1000_0000, and nothing at 0xd000_0000.
    for name in ["6.1-npt", "6.1-ept-ad", "6.18-npt", "7.3-npt", "5.10-shadow64"] {
        let dir = samples().into_iter().find(|d| d.ends_with(name)).expect("sample");
        let (_, t) = load(&recording(&dir));
        let vm = t.vms()[0].id;
        let memory = t.memory(vm);
        assert!(memory.iter().any(|m| m.slot == Some(1)), "{name}");
        if name == "6.1-npt" {
            assert!(memory.iter().any(|m| m.slot == Some(2)), "{name}");
        }
        for m in &memory {
            let slot = match m.gfn_start {
                0..0x4000 => Some(1),
                0x10000..0x10200 if m.kind != mmuscope_replay::MemoryKind::Mmio && m.shade != Shade::Mmio => {
                    Some(2)
                }
                _ => None,
            };
            assert_eq!(m.slot, slot, "{name}: {m:x?}");
        }
        // With the frames that no event names, ranges lie end to end.
        let whole = t.memory_and_unseen(vm);
        assert!(whole.windows(2).all(|w| w[0].gfn_end == w[1].gfn_start), "{name}");
        assert!(whole.iter().filter(|m| m.entries == 0).all(|m| m.shade == Shade::Unknown));
    }
}

#[test]
fn eras_that_fit_equally_are_all_named() {
    // The values of 6.18 (E13) are those of 6.12 (E12) too; the text of a trace does not name the release.
    let text = "\
        vm-7 [001] 5.1: kvm_tdp_mmu_spte_changed: as id 0 gfn 0 level 2 old_spte 8000000000000000 new_spte 9c168827\n\
        vm-7 [001] 5.2: kvm_tdp_mmu_spte_changed: as id 0 gfn 2 level 1 old_spte 7e6fe67 new_spte 80000000000005a0\n";
    let info = |text: &str| {
        let t = replay(&mmuscope_trace::Trace::from_text(text).expect("a trace"), &ReplayOptions::default());
        t.layout(mmuscope_replay::VmId(0)).clone()
    };
    let open = info(text);
    let era = open.parts.iter().find(|p| p.what == "era").expect("an era");
    assert_eq!(era.value, "E12 or E13");
    assert!(era.why.contains("both fit equally"), "{}", era.why);
    assert_eq!(open.alternatives, ["E12/npt"]);
    assert!(open.confidence <= 0.5, "{}", open.confidence);
    // A field that only 6.14 and later record settles it.
    let exit = "vm-7 [001] 5.0: kvm_exit: vcpu 0 reason npf rip 0x1 info1 0x0000000100000006 info2 0x0000000000002000 \
        intr_info 0x00000000 error_code 0x00000000 requests 0x0000000000000000\n";
    let settled = info(&format!("{exit}{text}"));
    let era = settled.parts.iter().find(|p| p.what == "era").expect("an era");
    assert_eq!(era.value, "E13");
    assert!(era.why.contains("6.14 and later"), "{}", era.why);
    assert!(settled.alternatives.is_empty() && settled.confidence > 0.8);
}

/// Everything that can be asked of both.
#[test]
fn reading_and_replaying_at_once_is_one_after_the_other() {
    let mut glimpses = 0;
    let mut many = 0;
    for dir in samples() {
        for file in ["trace.txt.zst", "trace.dat", "perf.data"].map(|f| dir.join(f)) {
            if !file.exists() {
                continue;
            }
            let paths = [file.clone()];
            let (trace, want) = load(&file);
            let mut last = 0;
            let mut seen = |trace: &Trace, t: &Timeline| {
                assert!(trace.events.len() >= last && t.events() == trace.events.len());
                let (a, b) = t.range();
                // What was there already does not change, but for what only later events tell.
                assert_eq!((a, Some(b)), (want.range().0, want.event_ts(t.events() as u32 - 1)));
                assert!(t.span_count() > 0 && t.span_count() <= want.span_count());
                last = trace.events.len();
                glimpses += 1;
            };
            let read = ReadOptions { threads: 2, ..ReadOptions::default() };
            let opts = ReplayOptions { threads: 2, ..ReplayOptions::default() };
            let (got_trace, got) =
                load_in_steps(3000, &paths, &read, &opts, Some(&mut seen)).expect("a sample");
            assert!(got_trace.events.iter().eq(trace.events.iter()), "{}", file.display());
            assert_eq!(got_trace.info.vm_hints, trace.info.vm_hints);
            let spans = |t: &Timeline| t.all_spans(&SpanFilter::default()).collect::<Vec<_>>();
            assert_eq!(spans(&got), spans(want), "{}", file.display());
            assert!(got.faults().eq(want.faults()), "{}", file.display());
            assert_eq!(got.evidence(), want.evidence());
            assert_eq!(got.vms(), want.vms());
            assert_eq!(got.phases(), want.phases());
            let at = want.range().1;
            assert_eq!(got.state_at(at, &StateFilter::default()), want.state_at(at, &StateFilter::default()));
            many += 1;
        }
    }
    assert!(many > 10 && glimpses >= 5, "{glimpses} glimpses of {many} samples");
}
