//! [`ColourBy`]: what else than the state of an entry can give a map its colours. [`raster_by`] draws such a map; where the cell holds no page,
//! it stays as the map of states has it.

use mmuscope_replay::{Cell, Certainty, MapImage, Span, SpanId, State, Timeline, pages_of};

use super::data::{Color, Theme, Visual};
use super::raster::{Pixels, RasterOptions, raster_with};

/// What gives a map its colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum ColourBy {
    /// The state of the entries, with patterns.
    #[default]
    State,
    /// The size of the page: 4K, 2M, 1G.
    PageSize,
    /// How what is shown is known.
    Certainty,
    /// The number of faults in the cell.
    Faults,
    /// The number of zaps in the cell.
    Zaps,
    /// How long ago the entry changed.
    Age,
    /// Whether the guest frames beside it are beside it on the host, too.
    Contiguity,
}

/// A number for each cell of a map, row by row as the cells are.
pub type Densities = Vec<u32>;

const AGES: [(u64, &str); 6] = [
    (1_000_000, "changed within 1 ms"),
    (10_000_000, "10 ms"),
    (100_000_000, "100 ms"),
    (1_000_000_000, "1 s"),
    (10_000_000_000, "10 s"),
    (u64::MAX, "longer ago"),
];
const COUNTS: [(u32, &str); 5] =
    [(1, "1"), (3, "2 to 3"), (10, "4 to 10"), (100, "11 to 100"), (u32::MAX, "more")];
const CONTIGUITY: [&str; 4] =
    ["alone on the host", "follows on one side", "on both sides", "a page of 2M or 1G"];
const SIZES: [&str; 3] = ["4K", "2M", "1G and more"];
const CERTAINTIES: [Certainty; 5] =
    [Certainty::Exact, Certainty::Observed, Certainty::Implied, Certainty::Assumed, Certainty::Stale];

impl ColourBy {
    /// All of them, in the order in which they are offered.
    pub const ALL: [Self; 7] =
        [Self::State, Self::PageSize, Self::Certainty, Self::Faults, Self::Zaps, Self::Age, Self::Contiguity];

    /// A short name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::PageSize => "page size",
            Self::Certainty => "certainty",
            Self::Faults => "fault density",
            Self::Zaps => "zap density",
            Self::Age => "age since last change",
            Self::Contiguity => "host contiguity",
        }
    }

    /// The classes of a legend: their words and colours, in order. Empty for the state, which has a legend of its own.
    pub fn legend(self, visual: &Visual, theme: Theme) -> Vec<(&'static str, Color)> {
        let t = visual.theme(theme);
        let series = |i: usize| t.series[i % t.series.len()];
        // A ramp from faint to strong; the strongest is the newest, or the most.
        let ramp = |n: usize, i: usize, color: Color| {
            color.over(t.background, 0.25 + 0.75 * i as f32 / (n - 1) as f32)
        };
        match self {
            Self::State => Vec::new(),
            Self::PageSize => SIZES.iter().enumerate().map(|(i, s)| (*s, series(i))).collect(),
            Self::Certainty => {
                let colors = [t.good, series(0), series(2), t.warn, t.muted];
                CERTAINTIES.iter().zip(colors).map(|(c, color)| (c.name(), color)).collect()
            }
            Self::Faults | Self::Zaps => {
                let color = if self == Self::Faults { t.warn } else { t.bad };
                COUNTS.iter().enumerate().map(|(i, c)| (c.1, ramp(COUNTS.len(), i, color))).collect()
            }
            Self::Age => {
                let n = AGES.len();
                AGES.iter().enumerate().map(|(i, a)| (a.1, ramp(n, n - 1 - i, t.accent))).collect()
            }
            Self::Contiguity => {
                let colors = [t.bad, t.warn, series(0), t.good];
                CONTIGUITY.iter().zip(colors).map(|(name, color)| (*name, color)).collect()
            }
        }
    }

    /// The class of a cell in the legend; `None` where it has none. `time` is the last moment that the cell shows, `density` its number.
    pub fn class(self, timeline: &Timeline, cell: &Cell, time: u64, density: u32) -> Option<usize> {
        if matches!(self, Self::Faults | Self::Zaps) {
            return (density > 0)
                .then(|| COUNTS.iter().position(|c| density <= c.0).unwrap_or(COUNTS.len() - 1));
        }
        if self == Self::Contiguity {
            return (density as usize).checked_sub(1).filter(|class| *class < CONTIGUITY.len());
        }
        let page = matches!(cell.shade().state(), State::Present | State::Mmio | State::Removed);
        let span = timeline.span(cell.span().filter(|_| page)?);
        match self {
            Self::PageSize => Some(usize::from(timeline.entry(span.entry).level.clamp(1, 3)) - 1),
            Self::Certainty => CERTAINTIES.iter().position(|c| *c == span.certainty),
            Self::Age => {
                let age = time.saturating_sub(span.start);
                AGES.iter().position(|a| age < a.0).or(Some(AGES.len() - 1))
            }
            _ => None,
        }
    }

    /// The faults or zaps in each cell of a map, or one more than the class of its contiguity; empty for what needs no such number.
    pub fn densities(self, timeline: &Timeline, map: &MapImage) -> Densities {
        let q = &map.query;
        let mut out = vec![0u32; map.cols * map.rows];
        let Some(axis) = timeline.gfn_axis().space(q.vm, q.as_id) else { return out };
        let span = q.t1.saturating_sub(q.t0).max(1);
        let mut count = |ts: u64, first: u64, end: u64| {
            if ts < q.t0 || ts >= q.t1 {
                return;
            }
            let Some((low, high)) = axis.span_of(first, end) else { return };
            let row = |y: f64| (y - q.y0) / (q.y1 - q.y0) * map.rows as f64;
            let (low, high) = (row(low), row(high));
            if high < 0.0 || low >= map.rows as f64 {
                return;
            }
            let col = (u128::from(ts - q.t0) * map.cols as u128 / u128::from(span)) as usize;
            let from = low.max(0.0) as usize;
            let to = (high.ceil() as usize).clamp(from + 1, map.rows.max(from + 1));
            for r in from..to.min(map.rows) {
                let n = &mut out[r * map.cols + col.min(map.cols - 1)];
                *n = n.saturating_add(1);
            }
        };
        match self {
            Self::Faults => {
                for f in timeline.faults().filter(|f| (f.vm, f.as_id) == (q.vm, q.as_id)) {
                    if let Some(gfn) = f.gfn {
                        count(f.ts, gfn, gfn.saturating_add(1));
                    }
                }
            }
            Self::Zaps => {
                for z in timeline.all_zaps() {
                    let e = timeline.entry(z.entry);
                    if (e.vm, e.as_id) == (q.vm, q.as_id) {
                        count(z.ts, e.gfn, e.gfn.saturating_add(pages_of(e.level)));
                    }
                }
            }
            Self::Contiguity => contiguity(timeline, map, &mut out),
            _ => out.clear(),
        }
        out
    }
}

/// For each cell that holds a present page, one more than the class of its contiguity.
fn contiguity(timeline: &Timeline, map: &MapImage, out: &mut [u32]) {
    let per_col = (map.query.t1 - map.query.t0) as f64 / map.cols.max(1) as f64;
    for row in 0..map.rows {
        // The cells of a row mostly show one span after another: what was found holds until something beside the page changes.
        let mut last: Option<(SpanId, u64, u32)> = None;
        for col in 0..map.cols {
            let Some(id) = map.at(col, row).and_then(Cell::span) else { continue };
            let time = map.query.t0 + (per_col * (col + 1) as f64) as u64;
            let known = last.filter(|(span, until, _)| *span == id && time < *until);
            let (class, until) = match known {
                Some((_, until, class)) => (class, until),
                None => beside(timeline, &timeline.span(id), time),
            };
            last = Some((id, until, class));
            out[row * map.cols + col] = class;
        }
    }
}

/// One more than the class of the contiguity of a page at a time, 0 if it is no present page; and until when that is so.
fn beside(timeline: &Timeline, span: &Span, time: u64) -> (u32, u64) {
    let end = span.end.unwrap_or(u64::MAX);
    let e = timeline.entry(span.entry);
    let pfn_of = |s: &Span| {
        let present = s.state == State::Present;
        present.then(|| timeline.decode(&timeline.entry(s.entry), s)?.pfn).flatten()
    };
    let Some(pfn) = pfn_of(span) else { return (0, end) };
    if e.level > 1 {
        return (4, end);
    }
    let time = time.clamp(span.start, end.saturating_sub(1));
    let mut until = end;
    let mut follows = |gfn: Option<u64>, wanted: Option<u64>| {
        let (Some(gfn), Some(wanted)) = (gfn, wanted) else { return 0 };
        let near = timeline.entries_at(e.vm, e.as_id, gfn).into_iter();
        let mut same = near.filter(|n| (timeline.entry(*n).table, timeline.entry(*n).level) == (e.table, 1));
        let Some(s) = same.next().and_then(|n| timeline.span_at(n, time)) else { return 0 };
        until = until.min(s.end.unwrap_or(u64::MAX));
        u32::from(pfn_of(&s) == Some(wanted))
    };
    let n =
        follows(e.gfn.checked_sub(1), pfn.checked_sub(1)) + follows(e.gfn.checked_add(1), pfn.checked_add(1));
    (n + 1, until)
}

/// Draws a map in the colours of `by`. The densities are those of [`ColourBy::densities`] for the same map. A cell is one pixel; a number is
/// drawn three pixels wide and high, because a single pixel is hard to see.
pub fn raster_by(
    visual: &Visual,
    map: &MapImage,
    options: &RasterOptions<'_>,
    by: ColourBy,
    timeline: &Timeline,
    densities: &[u32],
) -> Pixels {
    let mut pixels = raster_with(visual, map, &RasterOptions { cell: (1, 1), ..options.clone() });
    let legend = by.legend(visual, options.theme);
    if legend.is_empty() {
        return pixels;
    }
    let back = visual.theme(options.theme).background;
    let counts = matches!(by, ColourBy::Faults | ColourBy::Zaps);
    let per_col = (map.query.t1 - map.query.t0) as f64 / map.cols.max(1) as f64;
    let most = |col: usize, row: usize| {
        let cols = col.saturating_sub(1)..(col + 2).min(map.cols);
        let near =
            |r: usize| cols.clone().map(move |c| densities.get(r * map.cols + c).copied().unwrap_or(0));
        (row.saturating_sub(1)..(row + 2).min(map.rows)).flat_map(near).max().unwrap_or(0)
    };
    for row in 0..map.rows {
        for col in 0..map.cols {
            let Some(cell) = map.at(col, row) else { continue };
            let at = ((map.rows - 1 - row) * map.cols + col) * 4;
            let own = || densities.get(row * map.cols + col).copied().unwrap_or(0);
            let density = if counts { most(col, row) } else { own() };
            let time = map.query.t0 + (per_col * (col + 1) as f64) as u64;
            let color = match by.class(timeline, cell, time, density) {
                Some(class) => legend[class].1.over(back, if counts { 1.0 } else { share(visual, cell) }),
                // Where nothing is counted, what is mapped is still seen, faintly.
                None if counts => {
                    let p = &pixels.rgba[at..at + 3];
                    Color([p[0], p[1], p[2]]).over(back, 0.18)
                }
                None => continue,
            };
            pixels.rgba[at..at + 4].copy_from_slice(&color.rgba());
        }
    }
    pixels
}

/// How much of a cell its page covers, at least so much that it is seen.
fn share(visual: &Visual, cell: &Cell) -> f32 {
    (f32::from(cell.cover) / 255.0).max(visual.overlay.least_cover)
}

#[cfg(test)]
mod tests {
    use super::*;
    use mmuscope_replay::{MapQuery, ReplayOptions, VmId, replay};
    use mmuscope_testing::fixture;

    const TEXT: &str = "\
layout C/npt
1 t1 root
+1 t1 page 3 0
+1 t1 tdp 4 0 empty T11
+1 t1 page 2 0
+1 t1 tdp 3 0 empty T12
+1 t1 page 1 0
+1 t1 tdp 2 0 empty T13
+1 t1 exit
+1 t1 fault 0 w
+1 t1 tdp 1 0 empty W50
+1 t1 entry 0
+1 t1 tdp 2 200 empty W400/2
50 t1 tdp 1 0 W50 empty
100 t1 entry 0
";

    /// Frames 4, 5 and 6 follow each other on the host, until 6 moves; 8 is alone.
    #[test]
    fn pages_that_follow_each_other_on_the_host_are_told_from_those_that_do_not() {
        let text = "layout C/npt\n1 t1 root\n+1 t1 page 3 0\n+1 t1 tdp 4 0 empty T11\n+1 t1 page 2 0\n+1 t1 tdp 3 0 empty T12\n\
                    +1 t1 page 1 0\n+1 t1 tdp 2 0 empty T13\n+1 t1 tdp 1 4 empty W54\n+1 t1 tdp 1 5 empty W55\n+1 t1 tdp 1 6 empty W56\n\
                    +1 t1 tdp 1 8 empty W70\n500 t1 tdp 1 6 W56 empty\n+1 t1 tdp 1 6 empty W90\n999 t1 entry 0\n";
        let trace = fixture::trace(text).expect("lines of the language");
        let t = replay(&trace, &ReplayOptions::default());
        let class = |gfn: u64, at: u64| {
            let time = t.range().0 + at * 1000;
            let filter = mmuscope_replay::StateFilter { gfns: Some((gfn, gfn + 1)), ..Default::default() };
            let leaf = t.state_at(time, &filter).into_iter().find(|(e, _)| e.level == 1).expect("a leaf");
            CONTIGUITY[beside(&t, &leaf.1, time).0 as usize - 1]
        };
        let all = |at| [4, 5, 6, 8].map(|g| class(g, at));
        let (one, both, alone) = (CONTIGUITY[1], CONTIGUITY[2], CONTIGUITY[0]);
        assert_eq!(all(100), [one, both, one, alone]);
        assert_eq!(all(900), [one, one, alone, alone]);
    }

    #[test]
    fn each_kind_of_colour_has_its_class_of_a_cell() {
        let trace = fixture::trace(TEXT).expect("lines of the language");
        let t = replay(&trace, &ReplayOptions::default());
        let (t0, t1) = t.range();
        let axis = t.gfn_axis().space(VmId(0), 0).expect("frames");
        let map = t.map(&MapQuery {
            vm: VmId(0),
            as_id: 0,
            t0,
            t1: t1 + 1,
            y0: 0.0,
            y1: axis.height,
            cols: 100,
            rows: 40,
        });
        let row = |gfn: u64| (axis.y_of(gfn).0 / axis.height * 40.0) as usize;
        let of = |by: ColourBy, gfn: u64, col: usize| {
            let d = by.densities(&t, &map);
            let density = d.get(row(gfn) * map.cols + col).copied().unwrap_or(0);
            let class = by.class(&t, map.at(col, row(gfn))?, t0 + col as u64 * 1000 + 999, density)?;
            Some(by.legend(Visual::builtin(), Theme::Dark)[class].0)
        };
        assert_eq!(of(ColourBy::PageSize, 0x300, 60), Some("2M"));
        assert_eq!(of(ColourBy::PageSize, 0, 60), None, "zapped");
        assert_eq!(of(ColourBy::Certainty, 0x300, 60), Some("exact"));
        assert_eq!(of(ColourBy::Age, 0x300, 60), Some("changed within 1 ms"));
        assert_eq!(of(ColourBy::Contiguity, 0x300, 60), Some("a page of 2M or 1G"));
        assert_eq!(of(ColourBy::Contiguity, 0, 60), None, "zapped");
        let sum = |by: ColourBy| by.densities(&t, &map).iter().filter(|n| **n > 0).count();
        assert_eq!((sum(ColourBy::Faults), sum(ColourBy::Zaps), sum(ColourBy::Age)), (1, 1, 0));
        assert_eq!(of(ColourBy::Faults, 0, 8), Some("1"));
        for by in ColourBy::ALL {
            let d = by.densities(&t, &map);
            let p = raster_by(Visual::builtin(), &map, &RasterOptions::new(Theme::Dark, 1), by, &t, &d);
            assert_eq!((p.width, p.height), (100, 40), "{by:?}");
        }
    }
}
