//! Pictures against sums over the spans themselves, cell by cell.

use std::fmt::Write as _;
use std::path::Path;

use mmuscope_trace::{EventStore, ReadOptions, Trace};
use proptest::prelude::*;

use super::*;
use crate::keys::{Ix, SpanIx};
use crate::model::{State, VmId, pages_of};
use crate::pyramid::{Layer, Sizes, code_of, shift_of};
use crate::timeline::{ReplayOptions, Timeline, replay};

/// One change of what an entry shows, taken from the spans: each begins with one, and the last of an entry in a table ends with it.
struct Stated {
    layer: Layer,
    entry: u64,
    ev: u32,
    span: Option<u32>,
    new: u8,
    old: u8,
}

fn stated(t: &Timeline) -> Vec<Stated> {
    let s = t.store();
    let mut out = Vec::new();
    for i in SpanIx::FIRST.upto(SpanIx::nth(s.spans_len())) {
        let e = s.s_entry[i];
        let p = s.place(e);
        let table = &s.tables[p.table];
        let index = p.gfn >> shift_of(p.level);
        let layer = Layer { vm: table.vm, as_id: table.as_id, level: p.level, hi: (index >> 32) as u32 };
        let entry = index & 0xffff_ffff;
        let ev = s.s_ev[i];
        if table.dead_ev < ev {
            continue;
        }
        let m = s.meta(i);
        let code = code_of(m.shade, m.certainty);
        let old = s.replaced(i).map_or(0, |(s, c)| code_of(s, c));
        if code != 0 || old != 0 {
            out.push(Stated { layer, entry, ev, span: (code != 0).then_some(i.0), new: code, old });
        }
        let replaced = s.next_span(i).is_some_and(|n| s.replaced(n).is_some() && s.s_ev[n] <= table.dead_ev);
        if let Some((end, _)) = s.end_of(i).filter(|_| !replaced && code != 0) {
            out.push(Stated { layer, entry, ev: end, span: None, new: 0, old: code });
        }
    }
    out
}

fn planner_of<'a>(t: &'a Timeline, q: &'a MapQuery, live: &'a Live<'a>) -> Planner<'a> {
    Planner { store: t.store(), pyramid: t.pyramid(), q, cols: q.cols, rows: q.rows, slack: 1.0, live }
}

/// Every cell against the sum of all changes up to its end: on the rows and times that the picture says it uses, which are near the real
/// ones.
fn check(t: &Timeline, q: &MapQuery, stated: &[Stated]) {
    let s = t.store();
    let image = t.map(q);
    assert_eq!((image.cols, image.rows, image.cells.len()), (q.cols, q.rows, q.cols * q.rows));
    let live = |l: Layer, a: u64, b: u64, ev: u32| t.live(l, a, b, ev);
    let parts = planner_of(t, q, &live).parts(t.gfn_axis());
    let columns = Columns::new(q, q.cols);
    let column_ns = (q.t1 - q.t0) as f64 / q.cols as f64;
    let space = t.gfn_axis().space(q.vm, q.as_id).expect("a space");
    let per_row = (q.y1 - q.y0) / q.rows as f64;
    // (row, moment as drawn, change)
    let mut placed: Vec<Vec<(u64, &Stated, Layer)>> = vec![Vec::new(); q.rows];
    for c in stated {
        let real = s.ev_ts.get(c.ev as usize);
        let mut rows = Vec::new();
        for p in parts.iter().filter(|p| p.layer == c.layer) {
            for (i, r) in p.ranges.iter().enumerate() {
                if (r.0..r.1).contains(&c.entry) {
                    let stretch =
                        p.stretches.iter().find(|x| (x.segment.at.ev0..x.segment.at.ev1).contains(&c.ev));
                    let drawn = stretch.map_or(real, |x| {
                        let g = x.segment;
                        let tick = (real - g.at.t0) / g.at.tick;
                        match x.source {
                            _ if x.deep => real,
                            Source::Base(_) => g.at.t0 + tick * g.at.tick,
                            Source::Sums(u) => {
                                assert!((u.ticks * g.at.tick) as f64 <= column_ns, "no coarser than asked");
                                (g.at.t0 + (tick / u.ticks * u.ticks + u.ticks / 2) * g.at.tick).min(g.at.t1)
                            }
                        }
                    });
                    assert!(drawn.abs_diff(real) as f64 <= column_ns / 2.0 + 1.0, "near its time");
                    placed[p.row + i].push((drawn, c, p.layer));
                    rows.push(p.row + i);
                }
            }
        }
        // Near its row: not more than half a row off.
        let gfn = c.layer.gfn(c.entry);
        let inside =
            |g: &crate::axis::AxisSegment| gfn >= g.gfn_start && gfn + pages_of(c.layer.level) <= g.gfn_end;
        if (c.layer.vm, c.layer.as_id) == (q.vm.0, q.as_id) && space.segments.iter().any(inside) {
            let (a, b) = space.span_of(gfn, gfn + pages_of(c.layer.level)).expect("on the axis");
            let (a, b) = ((a - q.y0) / per_row, (b - q.y0) / per_row);
            let (lo, hi) = (rows.iter().min(), rows.iter().max());
            match plan::rows_between(a, b, q.rows) {
                Some((x, y)) if rows.is_empty() => {
                    assert!((x == 0 && b < 0.6) || (y + 1 == q.rows && a > q.rows as f64 - 0.6));
                }
                _ if image.exact => {
                    assert_eq!(lo.copied().zip(hi.copied()), plan::rows_between(a, b, q.rows));
                }
                _ => {
                    assert!(lo.is_none_or(|r| (*r as f64) < b + 0.51), "{lo:?} {a} {b}");
                    assert!(hi.is_none_or(|r| (*r as f64) + 1.0 > a - 0.51), "{hi:?} {a} {b}");
                }
            }
        }
    }
    for (r, placed) in placed.iter().enumerate() {
        for col in 0..q.cols {
            let (mut held, mut touched, mut changes) = ([0; WIDTH], 0u32, 0u32);
            let mut reps = Vec::new();
            for (at, c, layer) in placed {
                let here = if *at < q.t0 { None } else { Some(columns.of((*at).min(q.t1 - 1))) };
                if *at >= q.t1 || here.is_some_and(|h| h > col) {
                    continue;
                }
                add(&mut held, c.new, layer.level, 1);
                add(&mut held, c.old, layer.level, -1);
                reps.extend(c.span);
                if here == Some(col) {
                    changes += 1;
                    for code in [c.new, c.old] {
                        touched |= if code == 0 { 0 } else { 1 << shade_of(code) };
                    }
                }
            }
            let cell_is = image.at(col, r).expect("a cell");
            let empty = if t.complete(q.vm) { Shade::Nonpresent } else { Shade::Unknown };
            let want = cell(&held, touched, changes, 0, empty);
            // The share of frames is checked against spans, in `check_exact`.
            let flags = cell_is.flags & !Cell::EMPTY;
            assert_eq!(Cell { rep: 0, cover: 0, flags, ..*cell_is }, want, "row {r}, column {col} of {q:?}");
            if want.counts != [0; 8] {
                // The span that began last, of those that were there or came.
                let rep = cell_is.span().expect("something to point at");
                assert!(reps.contains(&rep.0), "row {r}, column {col}: {rep:?} of {reps:?}");
                if !parts.iter().any(Part::exact) {
                    assert_eq!(reps.iter().max(), Some(&rep.0));
                }
            }
        }
    }
    if image.exact {
        check_exact(t, q, &image);
    }
}

/// An exact picture against the spans as everyone reads them.
fn check_exact(t: &Timeline, q: &MapQuery, image: &MapImage) {
    let space = t.gfn_axis().space(q.vm, q.as_id).expect("a space");
    let per_row = (q.y1 - q.y0) / q.rows as f64;
    let width = u128::from(q.t1 - q.t0);
    let mut counts = vec![[0u32; 8]; q.cols * q.rows];
    // Frames that pages cover, and the most that they can, since an entry that reaches into a row may lie in it only in part.
    let mut frames = vec![0f64; q.cols * q.rows];
    for e in t.entries().filter(|e| (e.vm, e.as_id) == (q.vm, q.as_id)) {
        if space.segments.iter().filter(|s| e.gfn < s.gfn_end && e.gfn + e.pages() > s.gfn_start).count() != 1
        {
            return;
        }
        let Some((a, b)) = space.span_of(e.gfn, e.gfn + e.pages()) else { continue };
        let Some((lo, hi)) = plan::rows_between((a - q.y0) / per_row, (b - q.y0) / per_row, q.rows) else {
            continue;
        };
        for span in t.spans(e.id).filter(|s| s.id.is_some() && s.state != State::Table) {
            for col in 0..q.cols {
                let end = q.t0 + ((col as u128 + 1) * width).div_ceil(q.cols as u128) as u64;
                if span.start < end && span.end.is_none_or(|e| e >= end) {
                    for r in lo..=hi {
                        counts[r * q.cols + col][span.shade as usize] += 1;
                        if !matches!(span.state, State::Nonpresent | State::Unknown) {
                            frames[r * q.cols + col] += (e.pages() as f64).min(per_row.max(1.0));
                        }
                    }
                }
            }
        }
    }
    let unit = |s: &crate::axis::AxisSegment| (s.gfn_end - s.gfn_start) as f64 / (s.y_end - s.y_start);
    for (i, (want, cell)) in counts.iter().zip(&image.cells).enumerate() {
        // The axis has one row a frame, and a row without a fold or an edge in it has so many frames.
        let y = q.y0 + (i / q.cols) as f64 * per_row;
        let inside = space.segments.iter().find(|s| s.y_start <= y && y + per_row <= s.y_end);
        if let Some(s) = inside.filter(|s| (unit(s) - 1.0).abs() < 1e-9) {
            let pages: u32 = want[2..7].iter().sum();
            let share = f64::from(cell.cover) / 255.0;
            let all = (frames[i] / per_row.max(1.0)).min(1.0);
            assert!(
                s.y_end > s.y_start && (pages > 0 || cell.changes > 0) >= (cell.cover > 0),
                "cell {i}: {cell:?}"
            );
            if pages > 0 {
                // Frames are whole, rows may be not.
                let off = (1.0 + f64::from(pages)) / per_row.max(1.0);
                assert!(
                    cell.cover > 0 && (share - all).abs() <= off.min(1.0),
                    "cell {i} of {q:?}: {share} {all}"
                );
            }
        }
        for s in 0..7 {
            let is = u32::from(cell.counts[s]);
            // A shade that came and went counts as one.
            let ok = is == want[s].min(255) || (want[s] == 0 && is == 1 && cell.changes > 0);
            assert!(ok, "cell {i} of {q:?}: {is} of shade {s}, {} spans", want[s]);
        }
    }
}

fn tiny() -> Sizes {
    Sizes { least: 40, most: 200, few: 8, rows: 8 }
}

/// A history of two trees, with pages small and large, MMIO, zaps of tables and lost events.
fn history(seed: u64, steps: usize) -> String {
    let mut seed = seed;
    let mut r = move |n: u64| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) % n
    };
    let mut text = String::from("kernel 6.12.0\n100 t1 root\n");
    text.push_str("+1 t1 tdp 4 0 empty T10\n+1 t1 tdp 3 0 empty T11\n");
    let mut link = [None::<u64>; 4];
    let mut leaves: std::collections::BTreeMap<u64, String> = std::collections::BTreeMap::new();
    let mut next = 0x20u64;
    for _ in 0..steps {
        let dt = if r(20) == 0 { 1 + r(5000) } else { r(9) };
        let th = 1 + r(3);
        let table = r(4) as usize;
        let base = [0u64, 512, 1024, 0xfee00 / 512 * 512][table];
        match (r(40), link[table]) {
            (_, None) => {
                let old = leaves.remove(&(1 << 40 | base)).unwrap_or("empty".to_owned());
                if old == "empty" && r(3) == 0 && table < 3 {
                    let _ = writeln!(text, "+{dt} t{th} tdp 2 {base:x} empty W{:x}/2", 0x8000 + base);
                    leaves.insert(1 << 40 | base, format!("W{:x}/2", 0x8000 + base));
                } else {
                    let _ = writeln!(text, "+{dt} t{th} tdp 2 {base:x} {old} T{next:x}");
                    link[table] = Some(next);
                    next += 1;
                }
            }
            (0, Some(t)) => {
                let _ = writeln!(text, "+{dt} t{th} tdp 2 {base:x} T{t:x} empty");
                link[table] = None;
                leaves.retain(|g, _| *g < base || *g >= base + 512);
            }
            (1, _) if r(8) == 0 => {
                let _ = writeln!(text, "+{dt} t{th} lost 3");
            }
            (k, _) => {
                let few = if r(2) == 0 { 6 } else { 300 };
                let g = if table == 3 { 0xfee00 + r(3) } else { base + r(few) };
                let old = leaves.get(&g).cloned().unwrap_or("empty".to_owned());
                let new = match k {
                    2..=14 => format!("W{:x}", 0x9000 + g),
                    15..=24 => format!("R{:x}", 0x9000 + g),
                    25..=27 => "frozen".to_owned(),
                    28..=30 => "M5".to_owned(),
                    _ => "empty".to_owned(),
                };
                if old != new {
                    let _ = writeln!(text, "+{dt} t{th} tdp 1 {g:x} {old} {new}");
                    leaves.insert(g, new);
                }
            }
        }
    }
    text
}

fn parse(text: &str) -> Trace {
    mmuscope_testing::fixture::trace(text).expect("a fixture")
}

/// Windows of many shapes over a timeline.
fn windows(t: &Timeline, seed: u64, n: usize) -> Vec<MapQuery> {
    let mut seed = seed;
    let mut r = move || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 11) as f64 / (1u64 << 53) as f64
    };
    let (from, to) = t.range();
    let mut out = Vec::new();
    for (vm, as_id, axis) in &t.gfn_axis().spaces {
        for i in 0..n {
            let (zt, zy) = if i == 0 { (1.0, 1.0) } else { (r(), r()) };
            // Mostly small parts, down to nothing.
            let (zt, zy): (f64, f64) = (zt * zt * zt, zy * zy);
            let length = (((to - from) as f64 * zt) as u64).max(3);
            let t0 = from + ((to - from) as f64 * r() * (1.0 - zt)) as u64;
            let y0 = axis.height * (1.0 - zy) * r();
            let (cols, rows) = [(31, 17), (7, 40), (64, 5), (16, 16)][i % 4];
            let (t1, y1) = (t0 + length + 1, y0 + axis.height * zy);
            let t0 = if i % 5 == 4 { t0.saturating_sub(from / 2) } else { t0 };
            out.push(MapQuery { vm: *vm, as_id: *as_id, t0, t1, y0, y1, cols, rows });
        }
    }
    out
}

fn at_once(trace: &Trace, sizes: Sizes, threads: usize) -> Timeline {
    let mut t = replay(trace, &ReplayOptions { threads, ..ReplayOptions::default() });
    t.remake_pyramid(sizes);
    t
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn cells_are_sums_of_the_changes(seed in any::<u64>(), steps in 5usize..700) {
        let trace = parse(&history(seed, steps));
        for sizes in [tiny(), Sizes::default()] {
            let t = at_once(&trace, sizes, 2);
            let stated = stated(&t);
            for q in windows(&t, seed, 12) {
                check(&t, &q, &stated);
            }
        }
    }

    #[test]
    fn grown_step_by_step_it_is_the_same(seed in any::<u64>(), steps in 50usize..500) {
        let whole = parse(&history(seed, steps));
        let mut trace = Trace { events: EventStore::new(), ..whole.clone() };
        let mut t: Option<Timeline> = None;
        let step = 1 + (seed % 97) as usize;
        for (i, e) in whole.events.iter().enumerate() {
            trace.events.push(&e);
            if i % step == step - 1 || i + 1 == whole.events.len() {
                match &mut t {
                    Some(t) => t.extend(&trace),
                    None => {
                        t = Some(at_once(&trace, tiny(), 1));
                    }
                }
            }
        }
        let t = t.expect("a timeline");
        let stated = stated(&t);
        for q in windows(&t, seed, 8) {
            check(&t, &q, &stated);
        }
        prop_assert!(t.pyramid().segments().len() < 10 + t.span_count() / 20);
    }
}

#[test]
fn real_traces_too() {
    for name in ["6.1-npt", "7.3-npt", "6.1-shadow32", "linux-boot"] {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples").join(name);
        let file = ["trace.txt.zst", "trace.dat"].map(|f| dir.join(f)).into_iter().find(|f| f.exists());
        let trace = Trace::load(&[file.expect("a trace")], &ReadOptions::default()).expect("a sample");
        let t = at_once(&trace, Sizes { least: 3000, most: 9000, few: 500, rows: 30 }, 2);
        let stated = stated(&t);
        let windows = windows(&t, 5, 6);
        let sums = windows.iter().any(|q| {
            let live = |l: Layer, a: u64, b: u64, ev: u32| t.live(l, a, b, ev);
            let parts = planner_of(&t, q, &live).parts(t.gfn_axis());
            parts.iter().flat_map(|p| &p.stretches).any(|s| matches!(s.source, Source::Sums(_)))
        });
        assert!(sums || name == "6.1-shadow32", "{name} is drawn from sums somewhere");
        for q in &windows {
            check(&t, q, &stated);
        }
    }
}

/// Nothing to draw is drawn as nothing.
#[test]
fn windows_without_anything() {
    let trace = parse(&history(1, 100));
    let t = at_once(&trace, tiny(), 1);
    let (from, to) = t.range();
    let q = MapQuery { vm: VmId(0), as_id: 0, t0: from, t1: to, y0: 0.0, y1: 10.0, cols: 4, rows: 3 };
    let blank = |q: MapQuery| t.map(&q).cells.iter().all(|c| c.counts == [0; 8] && c.rep == 0);
    assert!(blank(MapQuery { vm: VmId(9), ..q }));
    assert!(blank(MapQuery { t1: from, ..q }));
    assert!(blank(MapQuery { t0: 0, t1: from, ..q }));
    assert!(blank(MapQuery { y0: 1e9, y1: 2e9, ..q }));
    assert!(!blank(q));
}
