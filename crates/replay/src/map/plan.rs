//! What a picture is drawn from: which changes or sums, and which row each entry lies in.

use crate::axis::{AxisSegment, GfnAxis};
use crate::keys::SpanIx;
use crate::model::MapQuery;
use crate::pyramid::{Base, Layer, Pyramid, SegLayer, Segment, Sums};
use crate::store::Store;

/// Rows with fewer entries than this show each where it is; in others stretches of entries lie in the row that has their middle.
const COARSE: f64 = 32.0;

/// What the changes of one segment are taken from.
#[derive(Clone, Copy)]
pub(super) enum Source<'a> {
    Base(&'a Base),
    Sums(&'a Sums),
}

/// One segment of time for one part.
#[derive(Clone, Copy)]
pub(super) struct Stretch<'a> {
    pub(super) segment: &'a Segment,
    pub(super) source: Source<'a>,
    /// Ticks before this one come before the picture (whole ones; see `exact`).
    pub(super) from: u64,
    /// Ticks from this one on come after the picture.
    pub(super) to: u64,
    /// A column is no longer than a few ticks: the changes of the picture are looked up for their times.
    pub(super) deep: bool,
}

/// What the rows held before the first column.
pub(super) enum Before<'a> {
    /// What the first segment begins with, and its changes until then.
    Start(Option<&'a SegLayer>),
    /// Entries, the spans they were in, and their codes: sorted by entry.
    Live(Vec<(u64, SpanIx, u8)>),
}

/// Entries of one layer in one stretch of the axis.
pub(super) struct Part<'a> {
    pub(super) layer: Layer,
    /// First row.
    pub(super) row: usize,
    /// Entries of each row from there: first, and one past the last.
    pub(super) ranges: Vec<(u64, u64)>,
    pub(super) before: Before<'a>,
    pub(super) stretches: Vec<Stretch<'a>>,
}

impl Part<'_> {
    pub(super) fn range(&self, row: usize) -> Option<(u64, u64)> {
        self.ranges.get(row.checked_sub(self.row)?).copied().filter(|r| r.1 > r.0)
    }
    /// Each entry is drawn where it is.
    pub(super) fn exact(&self) -> bool {
        matches!(self.before, Before::Live(_))
    }
}

/// The columns of a picture.
#[derive(Clone, Copy)]
pub(super) struct Columns {
    t0: u64,
    width: u64,
    cols: u64,
    per_ns: f64,
}

impl Columns {
    pub(super) fn new(q: &MapQuery, cols: usize) -> Self {
        let width = q.t1.saturating_sub(q.t0).max(1);
        Self { t0: q.t0, width, cols: cols as u64, per_ns: cols as f64 / width as f64 }
    }

    /// Column of a moment of the picture: `cols * (t - t0) / (t1 - t0)`, rounded down.
    #[inline]
    pub(super) fn of(&self, t: u64) -> usize {
        let x = t - self.t0;
        let mut c = (x as f64 * self.per_ns) as u64;
        // What rounding did at the edge of a column is put right, as long as the products fit: 6 days in 16384 columns.
        if self.width < 1 << 49 {
            if c * self.width > x * self.cols {
                c -= 1;
            } else if (c + 1) * self.width <= x * self.cols {
                c += 1;
            }
        }
        c.min(self.cols - 1) as usize
    }
}

/// Finds the entries of a layer between two entry numbers that show something just before an event.
pub(crate) type Live<'a> = dyn Fn(Layer, u64, u64, u32) -> Vec<(u64, SpanIx, u8)> + 'a;

/// Everything that is needed to draw.
pub(super) struct Planner<'a> {
    pub(super) store: &'a Store,
    pub(super) pyramid: &'a Pyramid,
    pub(super) q: &'a MapQuery,
    pub(super) cols: usize,
    pub(super) rows: usize,
    /// How many times coarser than its cells the sums may be (1: not at all).
    pub(super) slack: f64,
    pub(super) live: &'a Live<'a>,
}

impl<'a> Planner<'a> {
    fn per_row(&self) -> f64 {
        ((self.q.y1 - self.q.y0) / self.rows as f64).max(1e-12)
    }

    /// The parts of the picture.
    pub(super) fn parts(&self, axis: &GfnAxis) -> Vec<Part<'a>> {
        let q = self.q;
        let mut out = Vec::new();
        let Some(space) = axis.space(q.vm, q.as_id) else { return out };
        for a in space.segments.iter().filter(|a| a.y_start < q.y1 && a.y_end > q.y0) {
            for (number, layer) in self.pyramid.layers(q.vm.0, q.as_id) {
                self.part(a, number, layer, &mut out);
            }
        }
        out
    }

    /// The parts of one stretch of the axis and one layer: where rows are coarse, whole groups of entries in the middle and what is left
    /// at the edges on its own.
    fn part(&self, a: &AxisSegment, number: u32, layer: Layer, out: &mut Vec<Part<'a>>) {
        let shift = layer.shift();
        let base = u64::from(layer.hi) << 32;
        // Entries that overlap the stretch.
        let e0 = (a.gfn_start >> shift).max(base) - base;
        let e1 = (((a.gfn_end - 1) >> shift) + 1).saturating_sub(base).min(1 << 32);
        if e0 >= e1 {
            return;
        }
        let frames = (a.gfn_end - a.gfn_start) as f64;
        let per_row = self.per_row() / (a.y_end - a.y_start) * frames / (1u64 << shift) as f64;
        if per_row < COARSE {
            self.fine(a, number, layer, (e0, e1), out);
            return;
        }
        let group = (per_row * self.slack).log2().floor().clamp(5.0, 31.0) as u32;
        // Entries at the ends may reach over the end of the stretch.
        let inner = |n: u32| {
            let from = (a.gfn_start.div_ceil(1 << shift).max(base) - base).div_ceil(1 << n) << n;
            let to = ((a.gfn_end >> shift).saturating_sub(base).min(1 << 32)) >> n << n;
            (from, to)
        };
        let (node0, node1) = inner(4);
        let (group0, group1) = inner(group);
        if node0 >= node1 {
            self.fine(a, number, layer, (e0, e1), out);
            return;
        }
        self.fine(a, number, layer, (e0, node0), out);
        if group0 < group1 {
            self.coarse(a, number, layer, (node0, group0), 4, out);
            self.coarse(a, number, layer, (group0, group1), group, out);
            self.coarse(a, number, layer, (group1, node1), 4, out);
        } else {
            self.coarse(a, number, layer, (node0, node1), 4, out);
        }
        self.fine(a, number, layer, (node1, e1), out);
    }

    /// Place of a frame, in rows.
    fn row_of(&self, a: &AxisSegment, gfn: f64) -> f64 {
        let f = (gfn - a.gfn_start as f64) / (a.gfn_end - a.gfn_start) as f64;
        (a.y_start + f * (a.y_end - a.y_start) - self.q.y0) / self.per_row()
    }

    /// Frame at a place in rows.
    fn frame_at(&self, a: &AxisSegment, row: f64) -> f64 {
        let y = self.q.y0 + row * self.per_row();
        a.gfn_start as f64 + (y - a.y_start) / (a.y_end - a.y_start) * (a.gfn_end - a.gfn_start) as f64
    }

    fn coarse(
        &self,
        a: &AxisSegment,
        number: u32,
        layer: Layer,
        (from, to): (u64, u64),
        group: u32,
        out: &mut Vec<Part<'a>>,
    ) {
        if from >= to {
            return;
        }
        let unit = ((1u64 << group) as f64) * (1u64 << layer.shift()) as f64;
        let origin = layer.gfn(0) as f64;
        // First group whose middle is at or above a row's lower edge.
        let bound = |row: usize| {
            let g = ((self.frame_at(a, row as f64) - origin) / unit - 0.5).ceil().max(0.0);
            ((g as u64).min(1 << 32) << group).clamp(from, to)
        };
        let middle = |e: u64| {
            self.row_of(
                a,
                origin + (e as f64 + (1u64 << group) as f64 / 2.0) * (1u64 << layer.shift()) as f64,
            )
        };
        let first = middle(from).floor().max(0.0);
        let last = middle(to - (1 << group)).floor();
        if last < 0.0 || first >= self.rows as f64 {
            return;
        }
        let row = (first as usize).saturating_sub(1);
        let end = (last as usize + 2).min(self.rows);
        let edges: Vec<u64> = (row..=end).map(bound).collect();
        let ranges = edges.windows(2).map(|w| (w[0], w[1])).collect();
        let first = self.first_segment();
        let before = Before::Start(self.pyramid.segments().get(first).and_then(|s| s.layer(number)));
        let stretches = self.stretches(number, Some(group));
        out.push(Part { layer, row, ranges, before, stretches });
    }

    fn fine(
        &self,
        a: &AxisSegment,
        number: u32,
        layer: Layer,
        (from, to): (u64, u64),
        out: &mut Vec<Part<'a>>,
    ) {
        if from >= to {
            return;
        }
        let rows_of = |e: u64| {
            let start = layer.gfn(e).max(a.gfn_start);
            let end = layer.gfn(e).saturating_add(1 << layer.shift()).min(a.gfn_end);
            rows_between(self.row_of(a, start as f64), self.row_of(a, end as f64), self.rows)
        };
        // Only entries near the window are looked at one by one.
        let near = |row: f64| {
            let e = (self.frame_at(a, row).max(0.0) as u64) >> layer.shift();
            e.saturating_sub(u64::from(layer.hi) << 32)
        };
        let e0 = near(-1.0).saturating_sub(1).clamp(from, to);
        let e1 = near(self.rows as f64 + 1.0).saturating_add(2).clamp(from, to);
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        let mut row = None;
        for e in e0..e1 {
            let Some((lo, hi)) = rows_of(e) else { continue };
            let first = *row.get_or_insert(lo);
            for r in lo..=hi {
                if ranges.len() <= r - first {
                    ranges.resize(r - first + 1, (e, e));
                }
                ranges[r - first].1 = e + 1;
            }
        }
        let Some(row) = row else { return };
        let (l0, l1) = ranges.iter().fold((to, from), |b, r| (b.0.min(r.0), b.1.max(r.1)));
        let before = Before::Live((self.live)(layer, l0, l1, self.first_event()));
        let stretches = self.stretches(number, None);
        out.push(Part { layer, row, ranges, before, stretches });
    }

    /// The last segment that begins before the picture does.
    fn first_segment(&self) -> usize {
        self.pyramid.segments().partition_point(|s| s.at.t0 < self.q.t0).saturating_sub(1)
    }

    /// The first event that a change in the picture can be from.
    fn first_event(&self) -> u32 {
        let before = |t: u64| if t == 0 { 0 } else { self.store.ev_ts.upto(t - 1) as u32 };
        match self.pyramid.segments().get(self.first_segment()) {
            Some(s) if s.at.t0 < self.q.t0 && !self.is_deep(s) => {
                before(s.at.t0 + (self.q.t0 - s.at.t0).div_ceil(s.at.tick) * s.at.tick).min(s.at.ev1)
            }
            _ => before(self.q.t0),
        }
    }

    /// Length of a column in nanoseconds.
    fn column_ns(&self) -> f64 {
        (self.q.t1 - self.q.t0) as f64 / self.cols as f64
    }

    fn is_deep(&self, s: &Segment) -> bool {
        s.at.tick > 1 && self.column_ns() < 4.0 * s.at.tick as f64
    }

    /// Where the changes are taken from, segment by segment. `group`: 2^group entries may be one (none: each entry is drawn on its own).
    fn stretches(&self, number: u32, group: Option<u32>) -> Vec<Stretch<'a>> {
        let q = self.q;
        let mut out = Vec::new();
        let all = self.pyramid.segments();
        for s in &all[self.first_segment().min(all.len())..] {
            if s.at.t0 >= q.t1 {
                break;
            }
            let Some(l) = s.layer(number) else { continue };
            let most = self.column_ns() * self.slack;
            let sums = l
                .sums
                .iter()
                .filter(|x| x.shift <= group.unwrap_or(0) && (x.ticks * s.at.tick) as f64 <= most)
                .min_by_key(|x| x.recs.len());
            let source = sums.map_or(Source::Base(&l.base), Source::Sums);
            let deep = self.is_deep(s);
            let ticks = |t: u64, up: bool| {
                let d = t.saturating_sub(s.at.t0);
                if deep && !up || s.at.tick == 1 { d / s.at.tick } else { d.div_ceil(s.at.tick) }
            };
            out.push(Stretch { segment: s, source, from: ticks(q.t0, false), to: ticks(q.t1, true), deep });
        }
        out
    }
}

/// Rows that a stretch covers, if any.
pub(super) fn rows_between(lo: f64, hi: f64, rows: usize) -> Option<(usize, usize)> {
    let n = rows as f64;
    if hi <= 0.0 || lo >= n {
        return None;
    }
    let first = lo.max(0.0) as usize;
    let last = (hi.min(n) - 1e-9).max(0.0) as usize;
    Some((first, last.max(first).min(rows - 1)))
}
