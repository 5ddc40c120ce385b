//! Measures the replay: `bench_replay [EVENTS in millions]`. A made-up busy host: four vCPUs fault in, write-protect, re-dirty and zap
//! 4 KiB pages of a large guest, as boots, migrations and notifiers do.

#![allow(clippy::many_single_char_names, clippy::verbose_bit_mask, reason = "a bench reads as arithmetic")]

use std::time::Instant;

use mmuscope_replay::{MapQuery, ReplayOptions, StateFilter, VmId, replay};
use mmuscope_trace::{Body, ErrorEncoding, Event, EventStore, Isa, StrId, Trace};

fn main() {
    let millions: f64 = std::env::args().nth(1).and_then(|a| a.parse().ok()).unwrap_or(10.0);
    let want = (millions * 1e6) as usize;
    let mut trace = Trace { events: EventStore::new(), ..Trace::default() };
    make(&mut trace, want);
    let n = trace.events.len();
    let t0 = Instant::now();
    let t = replay(&trace, &ReplayOptions::default());
    let took = t0.elapsed();
    println!(
        "replay: {n} events in {:.0} ms: {:.2} M events/s",
        took.as_secs_f64() * 1e3,
        n as f64 / took.as_secs_f64() / 1e6
    );
    let (a, b) = (t.heap_bytes() as f64 / n as f64, trace.events.heap_bytes() as f64 / n as f64);
    println!(
        "memory: {a:.1} bytes an event for the replay, {b:.1} for the events, {:.1} in all; {} spans, {} faults",
        a + b,
        t.span_count(),
        t.fault_count()
    );
    let (from, to) = t.range();
    for part in [0.1, 0.5, 1.0] {
        let at = from + ((to - from) as f64 * part) as u64;
        let t0 = Instant::now();
        let s = t.state_at(at, &StateFilter::default());
        println!("state at {part}: {} entries in {:.1} ms", s.len(), t0.elapsed().as_secs_f64() * 1e3);
        let t0 = Instant::now();
        let c = t.counts_at(at);
        println!(
            "counts at {part}: {} present in {:.3} ms",
            c.state(mmuscope_replay::State::Present),
            t0.elapsed().as_secs_f64() * 1e3
        );
    }
    let t0 = Instant::now();
    let over = t.counts_over(from, to, 1000);
    println!("counts over 1000 buckets: {:.1} ms ({})", t0.elapsed().as_secs_f64() * 1e3, over.len());
    let h = t.gfn_axis().space(VmId(0), 0).map_or(1.0, |a| a.height);
    for zoom in [1u32, 4, 16, 64, 256] {
        let z = f64::from(zoom);
        let mid = from + (to - from) / 2;
        let half = ((to - from) as f64 / z / 2.0) as u64;
        let (y0, y1) = (h / 2.0 - h / z / 2.0, h / 2.0 + h / z / 2.0);
        let q =
            MapQuery { vm: VmId(0), as_id: 0, t0: mid - half, t1: mid + half, y0, y1, cols: 960, rows: 540 };
        let t0 = Instant::now();
        let m = t.map(&q);
        println!(
            "map zoom {zoom}: {:.1} ms, {} cells drawn, exact {}",
            t0.elapsed().as_secs_f64() * 1e3,
            m.cells.iter().filter(|c| !c.is_unknown()).count(),
            m.exact
        );
    }
}

/// Faults with all their events, then write-protection in bursts, fast-path fixes and zaps.
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
