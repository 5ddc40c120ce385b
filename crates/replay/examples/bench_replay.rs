//! Measures the replay: `bench_replay [EVENTS in millions …]`; numbers are means and, in brackets, the worst; maps: the whole picture, then
//! random views. A made-up busy host: four vCPUs fault in, write-protect, re-dirty and zap
//! 4 KiB pages of a large guest, as boots, migrations and notifiers do.
//!
//! To look at one part alone: `BENCH_REPLAY=1` replays the made-up host and asks nothing, `BENCH_FILES=1` only reads and replays files,
//! `BENCH_FOLLOW=1` only takes in small steps, as a live view does, `BENCH_FILES=replay` reads a file and replays it once, `BENCH_VIEWS=1` names the views that take longest.

#![allow(clippy::many_single_char_names, clippy::verbose_bit_mask, reason = "a bench reads as arithmetic")]

use std::fs::File;
use std::io::BufWriter;
use std::path::Path;
use std::time::Instant;

use mmuscope_replay::{MapQuery, ReplayOptions, StateFilter, Timeline, VmId, load, replay};
use mmuscope_testing::write::{PerfStyle, perf_data};
use mmuscope_trace::undecoded::RawTrace;
use mmuscope_trace::{Body, ErrorEncoding, Event, EventStore, Isa, ReadOptions, StrId, Trace};
use rayon::prelude::*;

fn main() {
    let mut sizes: Vec<f64> = std::env::args().skip(1).filter_map(|a| a.parse().ok()).collect();
    if sizes.is_empty() {
        sizes.push(10.0);
    }
    println!(
        "{:>8} {:>8} {:>9} {:>7} {:>7} {:>7}  {:>17}  {:>17}  {:>23}  {:>23}",
        "events",
        "replay",
        "M/s",
        "B/event",
        "map B",
        "spans",
        "state at, ms",
        "counts, us",
        "map 960x540, ms",
        "map 1600x800, ms"
    );
    let parts = ["BENCH_FILES", "BENCH_FOLLOW"];
    for millions in sizes.iter().filter(|_| parts.iter().all(|p| std::env::var_os(p).is_none())) {
        measure((millions * 1e6) as usize);
    }
    if std::env::var_os("BENCH_REPLAY").is_some() {
        return;
    }
    println!("\n{:>8} {:>8} {:>22}", "events", "replay", "step of 1,000, ms");
    for millions in &sizes {
        follow((millions * 1e6) as usize);
    }
    if std::env::var_os("BENCH_FOLLOW").is_some() {
        return;
    }
    println!(
        "\n{:>8} {:>12} {:>12} {:>18} {:>12}",
        "events", "read", "then replay", "both at once", "first glimpse"
    );
    for millions in &sizes {
        if let Err(e) = from_file((millions * 1e6) as u64) {
            println!("{millions} M events from a file: {e}");
        }
    }
}

/// From a perf.data (a real boot, repeated with shifted times) to what can be drawn.
fn from_file(want: u64) -> Result<(), Box<dyn std::error::Error>> {
    let sample = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/6.1-npt/trace.dat");
    let raw = RawTrace::read_dat(&sample)?;
    let times = want.div_ceil(raw.records.len() as u64).max(1);
    let dir = tempfile::tempdir()?;
    let paths = [dir.path().join("large.perf.data")];
    perf_data(&mut BufWriter::new(File::create(&paths[0])?), &raw, times, PerfStyle::default())?;
    let (read, opts) = (ReadOptions::default(), ReplayOptions::default());
    let t0 = Instant::now();
    let trace = Trace::load(&paths, &read)?;
    let reading = t0.elapsed().as_secs_f64();
    let n = trace.events.len() as f64 / 1e6;
    let t0 = Instant::now();
    let one = replay(&trace, &opts);
    let replaying = t0.elapsed().as_secs_f64();
    let spans = one.span_count();
    if std::env::var_os("BENCH_FILES").is_some_and(|v| v == "replay") {
        println!("{replaying:.3} s");
        return Ok(());
    }
    drop((one, trace));
    let t0 = Instant::now();
    let (_, timeline) = load(&paths, &read, &opts, None)?;
    let both = t0.elapsed().as_secs_f64();
    if timeline.span_count() != spans {
        return Err("it is not the same".into());
    }
    drop(timeline);
    let t0 = Instant::now();
    let mut first = None;
    let mut glimpse = |_: &Trace, _: &Timeline| {
        first.get_or_insert_with(|| t0.elapsed().as_secs_f64());
    };
    drop(load(&paths, &read, &opts, Some(&mut glimpse))?);
    let glimpses = t0.elapsed().as_secs_f64();
    println!(
        "{n:>7.1}M {:>6.0}ms {:>3.1} {:>6.0}ms {:>3.1} {:>6.0}ms {:>5.2} M/s {:>10.0}ms {:>11.0}ms",
        reading * 1e3,
        n / reading,
        replaying * 1e3,
        n / replaying,
        both * 1e3,
        n / both,
        first.unwrap_or(both) * 1e3,
        glimpses * 1e3,
    );
    Ok(())
}

/// What a step costs that takes in 1,000 events more, as a live view does some times a second, behind so many.
fn follow(want: usize) {
    const STEP: usize = 1000;
    let mut whole = Trace { events: EventStore::new(), ..Trace::default() };
    make(&mut whole, want);
    let first = want.saturating_sub(100 * STEP);
    let mut trace = Trace { events: EventStore::new(), ..Trace::default() };
    let mut events = whole.events.iter();
    events.by_ref().take(first).for_each(|e| trace.events.push(&e));
    let t0 = Instant::now();
    let mut t = replay(&trace, &ReplayOptions::default());
    let all = t0.elapsed().as_secs_f64() * 1e3;
    let mut steps = Times::default();
    loop {
        let before = trace.events.len();
        events.by_ref().take(STEP).for_each(|e| trace.events.push(&e));
        if trace.events.len() < before + STEP {
            break;
        }
        let t0 = Instant::now();
        t.extend(&trace);
        steps.0.push(t0.elapsed().as_secs_f64() * 1e3);
    }
    println!("{:>7.1}M {all:>6.0}ms {:>12.2} ({:>7.2})", want as f64 / 1e6, steps.mean(), steps.worst());
}

/// Numbers that look random and are the same each time.
struct Random(u64);

impl Random {
    /// Between 0 and 1.
    fn next(&mut self) -> f64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 11) as f64 / (1u64 << 53) as f64
    }
}

/// Mean and worst of some times, in milliseconds.
#[derive(Default)]
struct Times(Vec<f64>);

impl Times {
    /// The best of three, so that what else the machine does shows less.
    fn time<T>(&mut self, mut f: impl FnMut() -> T) {
        let mut best = f64::MAX;
        for _ in 0..3 {
            let t0 = Instant::now();
            std::hint::black_box(f());
            best = best.min(t0.elapsed().as_secs_f64() * 1e3);
        }
        self.0.push(best);
    }
    fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }
    fn worst(&self) -> f64 {
        self.0.iter().copied().fold(0.0, f64::max)
    }
}

fn measure(want: usize) {
    let mut trace = Trace { events: EventStore::new(), ..Trace::default() };
    make(&mut trace, want);
    let n = trace.events.len();
    let t0 = Instant::now();
    let t = replay(&trace, &ReplayOptions::default());
    let took = t0.elapsed();
    if std::env::var_os("BENCH_REPLAY").is_some() {
        println!(
            "{:>7.1}M {:>6.0}ms {:>9.2}",
            n as f64 / 1e6,
            took.as_secs_f64() * 1e3,
            n as f64 / took.as_secs_f64() / 1e6
        );
        return;
    }
    let bytes = (t.heap_bytes() + trace.events.heap_bytes()) as f64 / n as f64;
    let (from, to) = t.range();
    let mut r = Random(7);
    let (mut state, mut counts) = (Times::default(), Times::default());
    for i in 0..12 {
        let part = if i == 0 { 1.0 } else { r.next() };
        let at = from + ((to - from) as f64 * part) as u64;
        // Every row is made and looked at.
        state.time(|| {
            let rows = t.at(at, &StateFilter::default());
            rows.par_iter()
                .map(|(e, s)| e.gfn ^ s.spte.unwrap_or(0) ^ s.end.unwrap_or(0))
                .reduce(|| 0, |a, b| a ^ b)
        });
        counts.time(|| t.counts_at(at));
    }
    let h = t.gfn_axis().space(VmId(0), 0).map_or(1.0, |a| a.height);
    let mut maps = Vec::new();
    for (cols, rows) in [(960, 540), (1600, 800)] {
        let (mut full, mut any) = (Times::default(), Times::default());
        for i in 0..60 {
            // Zoomed by up to 4096 each way, and not by the same.
            let (zt, zy) =
                if i < 3 { (1.0, 1.0) } else { (2f64.powf(r.next() * 12.0), 2f64.powf(r.next() * 12.0)) };
            let half = ((to - from) as f64 / zt / 2.0) as u64 + 1;
            let mid = from + half + ((to - from) as f64 * (1.0 - 1.0 / zt) * r.next()) as u64;
            let y0 = h * (1.0 - 1.0 / zy) * r.next();
            let (t0, t1) = (mid - half, mid + half);
            let q = MapQuery { vm: VmId(0), as_id: 0, t0, t1, y0, y1: y0 + h / zy, cols, rows };
            let before = any.worst();
            (if i < 3 { &mut full } else { &mut any }).time(|| t.map(&q).cells.len());
            if std::env::var_os("BENCH_VIEWS").is_some() && i >= 3 && any.worst() > before {
                println!("  time / {zt:.1}, frames / {zy:.1}: {:.2} ms", any.worst());
            }
        }
        maps.push(format!("{:5.1} {:5.1} ({:5.1})", full.mean(), any.mean(), any.worst()));
    }
    println!(
        "{:>7.1}M {:>6.0}ms {:>9.2} {bytes:>7.1} {:>7.1} {:>6.1}M  {:>7.1} ({:>7.1})  {:>7.0} ({:>7.0})  {:>23}  {:>23}",
        n as f64 / 1e6,
        took.as_secs_f64() * 1e3,
        n as f64 / took.as_secs_f64() / 1e6,
        t.map_bytes() as f64 / n as f64,
        t.span_count() as f64 / 1e6,
        state.mean(),
        state.worst(),
        counts.mean() * 1e3,
        counts.worst() * 1e3,
        maps[0],
        maps[1],
    );
}

/// Faults with all their events, then write-protection in bursts, fast-path fixes and zaps.
#[expect(clippy::too_many_lines, reason = "a table: one block for each figure that is measured")]
fn make(trace: &mut Trace, want: usize) {
    let pages: u64 = (want as u64 / 16).clamp(512, 4 << 20);
    let mut ts = 1_000_000u64;
    let leaf = |g: u64, w: bool| ((g + 0x10_0000) << 12) | if w { 0xe67 } else { 0xe65 };
    let push = |trace: &mut Trace, ts: &mut u64, tid: u32, body: Body| {
        *ts += 280;
        trace.events.push(&Event {
            ts: *ts,
            cpu: (tid % 4) as u16,
            tid: Some(tid),
            pid: Some(100),
            comm: StrId::default(),
            body,
        });
    };
    let link = |gfn: u64, level: u8, page: u64| Body::TdpSpteChanged {
        as_id: 0,
        gfn,
        level,
        old_spte: 0,
        new_spte: page << 12 | 0x827,
    };
    push(trace, &mut ts, 101, link(0, 4, 0x9000));
    let mut seed = 1u64;
    let mut next = 0u64;
    let mut state = vec![0u8; pages as usize];
    let mut l3 = u64::MAX;
    while trace.events.len() < want {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let tid = 101 + (seed >> 60) as u32 % 4;
        let g = if next < pages { next } else { (seed >> 20) % pages };
        let exit = Body::Exit {
            vcpu: Some(tid - 101),
            reason: Some(0x400),
            reason_name: StrId::default(),
            isa: Some(Isa::Svm),
            rip: 0xffff_ffff_8100_0000 + (seed >> 40),
            info1: Some(6),
            info2: Some(g << 12),
            intr_info: None,
            error_code: None,
            requests: None,
        };
        let fault = Body::PageFault {
            vcpu: Some(tid - 101),
            rip: Some(0xffff_ffff_8100_0000),
            address: g << 12,
            error_code: 0x1_0000_0006,
            encoding: ErrorEncoding::NestedPageFault,
        };
        let entry = Body::Entry {
            vcpu: tid - 101,
            rip: None,
            immediate_exit: None,
            intr_info: None,
            error_code: None,
        };
        match state[g as usize] {
            0 => {
                push(trace, &mut ts, tid, exit);
                push(trace, &mut ts, tid, fault);
                push(
                    trace,
                    &mut ts,
                    tid,
                    Body::SpteRequested { gfn: g, pfn: g + 0x10_0000, level: 1, access: None },
                );
                if next < pages {
                    if g % (512 * 512) == 0 && g >> 18 != l3 {
                        l3 = g >> 18;
                        push(trace, &mut ts, tid, link(g, 3, 0xa000 + (g >> 18)));
                    }
                    if g % 512 == 0 {
                        push(trace, &mut ts, tid, link(g, 2, 0xb0000 + (g >> 9)));
                    }
                    next += 1;
                }
                let new_spte = leaf(g, true);
                push(
                    trace,
                    &mut ts,
                    tid,
                    Body::TdpSpteChanged { as_id: 0, gfn: g, level: 1, old_spte: 0, new_spte },
                );
                let sptep = ((0xb0000 + (g >> 9)) << 12) + (g % 512) * 8;
                push(
                    trace,
                    &mut ts,
                    tid,
                    Body::SetSpte {
                        gfn: g,
                        spte: new_spte,
                        sptep,
                        level: 1,
                        r: true,
                        w: true,
                        x: true,
                        u: Some(true),
                    },
                );
                push(trace, &mut ts, tid, entry);
                state[g as usize] = 1;
            }
            1 => {
                let zap = seed >> 33 & 3 == 0;
                let new_spte = if zap { 0 } else { leaf(g, false) };
                push(
                    trace,
                    &mut ts,
                    90,
                    Body::TdpSpteChanged { as_id: 0, gfn: g, level: 1, old_spte: leaf(g, true), new_spte },
                );
                state[g as usize] = if zap { 0 } else { 2 };
            }
            _ => {
                push(trace, &mut ts, tid, exit);
                push(trace, &mut ts, tid, fault);
                push(
                    trace,
                    &mut ts,
                    tid,
                    Body::FastPageFault {
                        vcpu: tid - 101,
                        cr2_or_gpa: g << 12,
                        error_code: 7,
                        sptep: None,
                        old_spte: leaf(g, false),
                        new_spte: leaf(g, true),
                        result: mmuscope_trace::FastPfResult::Fixed,
                    },
                );
                push(trace, &mut ts, tid, entry);
                state[g as usize] = 1;
            }
        }
    }
}
