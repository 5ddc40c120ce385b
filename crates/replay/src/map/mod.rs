//! The time x GFN picture, drawn row by row from the pyramid: what a row held before, then what changes in each column.

mod plan;
#[cfg(test)]
mod tests;

use rayon::prelude::*;

use crate::axis::{AxisSegment, GfnAxis};
use crate::model::{Cell, MapImage, MapQuery, Shade};
use crate::pyramid::{ASSUMED, HUGE, Item, Pyramid, STALE, Sum, WIDTH, add, shade_of};
use crate::store::Store;
pub(crate) use plan::Live;
use plan::{Before, Columns, Part, Planner, Source, Stretch};

/// What changes in one column of a row.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
struct Change {
    delta: [i32; WIDTH],
    cover: Cover,
    changes: u32,
    touched: u32,
    rep: u32,
}

/// Frames that are covered: by pages, and by entries that are known to be nonpresent.
#[derive(Clone, Copy, Default, Debug)]
struct Cover {
    pages: i64,
    gone: i64,
}

impl Cover {
    /// Adds entries that cover `each` frames of a row.
    #[inline]
    fn add(&mut self, shade: usize, n: i32, each: u32) {
        let frames = i64::from(n) * i64::from(each);
        if shade == Shade::Nonpresent as usize {
            self.gone += frames;
        } else if shade != Shade::Unknown as usize && shade < Shade::Table as usize {
            self.pages += frames;
        }
    }

    #[inline]
    fn add_all<T: Copy + Into<i32>>(&mut self, counts: &[T], each: u32) {
        for (shade, n) in counts.iter().enumerate().take(STALE) {
            self.add(shade, (*n).into(), each);
        }
    }

    #[inline]
    fn change(&mut self, new: u8, old: u8, each: u32) {
        if new != 0 {
            self.add(shade_of(new), 1, each);
        }
        if old != 0 {
            self.add(shade_of(old), -1, each);
        }
    }
}

/// One row while it is drawn.
struct Row {
    columns: Vec<Change>,
    cover: Cover,
    /// How many frames of this row an entry of the part that is being added covers.
    each: u32,
    /// Bit per column with a change.
    used: Vec<u64>,
    before: [i32; WIDTH],
    rep: u32,
}

impl Row {
    fn new(cols: usize) -> Self {
        Self {
            columns: vec![Change::default(); cols],
            cover: Cover::default(),
            each: 1,
            used: vec![0; cols.div_ceil(64)],
            before: [0; WIDTH],
            rep: 0,
        }
    }

    #[inline]
    fn at(&mut self, col: usize) -> &mut Change {
        self.used[col / 64] |= 1 << (col % 64);
        &mut self.columns[col]
    }

    /// Writes the cells of a row of so many frames, and is empty again.
    fn finish(&mut self, cells: &mut [Cell], empty: Shade, frames: f64) {
        let mut held = std::mem::take(&mut self.before);
        let mut cover = std::mem::take(&mut self.cover);
        let mut rep = std::mem::take(&mut self.rep);
        let mut next = 0;
        for (w, bits) in self.used.iter_mut().enumerate() {
            while *bits != 0 {
                let col = w * 64 + bits.trailing_zeros() as usize;
                *bits &= *bits - 1;
                if next < col {
                    cells[next..col].fill(cell(&held, 0, 0, rep, empty).covered(cover, frames, empty));
                }
                let c = std::mem::take(&mut self.columns[col]);
                for (h, d) in held.iter_mut().zip(c.delta) {
                    *h += d;
                }
                cover.pages += c.cover.pages;
                cover.gone += c.cover.gone;
                rep = rep.max(c.rep);
                cells[col] = cell(&held, c.touched, c.changes, rep, empty).covered(cover, frames, empty);
                next = col + 1;
            }
        }
        if next < cells.len() {
            cells[next..].fill(cell(&held, 0, 0, rep, empty).covered(cover, frames, empty));
        }
    }
}

/// A cell that holds these at its end, where these shades were at some time.
fn cell(held: &[i32; WIDTH], touched: u32, changes: u32, rep: u32, empty: Shade) -> Cell {
    let mut counts = [0u8; 8];
    let mut best = (0, empty as u8);
    for (i, count) in counts.iter_mut().enumerate().take(STALE) {
        let n = held[i].max((touched >> i & 1) as i32);
        *count = n.clamp(0, 255) as u8;
        // Rare states must not drown among many pages.
        let weight = match i {
            i if i == Shade::Unknown as usize || i == Shade::Nonpresent as usize => 0,
            i if i == Shade::Removed as usize => n.saturating_mul(64),
            i if i == Shade::Mmio as usize => n.saturating_mul(16),
            _ => n,
        };
        if weight > best.0 {
            best = (weight, i as u8);
        }
    }
    if best.0 == 0 && counts[Shade::Nonpresent as usize] > 0 {
        best.1 = Shade::Nonpresent as u8;
    }
    let flag = |i: usize, f: u8| if held[i] > 0 { f } else { 0 };
    let flags = flag(STALE, Cell::STALE) | flag(ASSUMED, Cell::ASSUMED) | flag(HUGE, Cell::HUGE);
    Cell { counts, changes: changes.min(65535) as u16, flags, shade: best.1, rep, cover: 0 }
}

impl Cell {
    /// The cell with its share of covered frames.
    fn covered(mut self, cover: Cover, frames: f64, empty: Shade) -> Self {
        let any = (Shade::Writable as usize..Shade::Table as usize).any(|s| self.counts[s] > 0);
        let frames = frames.max(1.0);
        // What came and went within the column covered a frame at least.
        let pages = (cover.pages.max(i64::from(any)) as f64).min(frames);
        if any {
            self.cover = ((pages / frames * 255.0) as u8).max(1);
        }
        let rest = frames - pages;
        let gone = if empty == Shade::Nonpresent { rest } else { cover.gone.max(0) as f64 };
        if gone * 2.0 >= rest && (gone > 0.0 || empty == Shade::Nonpresent) {
            self.flags |= Self::EMPTY;
        }
        self
    }
}

/// What drawing needs to know.
pub(crate) struct Scene<'a> {
    pub(crate) store: &'a Store,
    pub(crate) pyramid: &'a Pyramid,
    pub(crate) axis: &'a GfnAxis,
    pub(crate) live: &'a Live<'a>,
    /// What no event has shown is empty, not unknown.
    pub(crate) complete: bool,
}

/// Rows that one task draws.
const BAND: usize = 24;

/// Draws a window. `slack`: how many times coarser than its cells the sums may be that it is drawn from.
pub(crate) fn draw(scene: &Scene<'_>, q: &MapQuery, slack: f64) -> MapImage {
    let cols = q.cols.clamp(1, 16384);
    let rows = q.rows.clamp(1, 16384);
    let empty = if scene.complete { Shade::Nonpresent } else { Shade::Unknown };
    let background = Cell { shade: empty as u8, ..Cell::default() }.covered(Cover::default(), 1.0, empty);
    let frames = RowFrames::new(scene.axis, q, rows);
    let parts = if q.t1 > q.t0 && q.y1 > q.y0 {
        planner(scene, q, cols, rows, slack).parts(scene.axis)
    } else {
        Vec::new()
    };
    let columns = Columns::new(q, cols);
    let exact = parts.iter().all(|p| {
        p.exact()
            && p.stretches
                .iter()
                .all(|s| matches!(s.source, Source::Base(_)) && (s.segment.at.tick == 1 || s.deep))
    });
    let mut cells = vec![background; rows * cols];
    cells.par_chunks_mut(BAND * cols).enumerate().for_each_init(
        || Row::new(cols),
        |row, (band, cells)| {
            let first = band * BAND;
            let end = first + cells.len() / cols;
            let mine: Vec<&Part<'_>> =
                parts.iter().filter(|p| p.row < end && p.row + p.ranges.len() > first).collect();
            if mine.is_empty() {
                return;
            }
            for r in first..end {
                let at = (r - first) * cols;
                // One huge page in many rows is drawn once.
                let same = r > first
                    && mine.iter().all(|p| {
                        let now = p.range(r);
                        now == p.range(r - 1) && (now.is_none() || p.exact())
                    });
                if same {
                    cells.copy_within(at - cols..at, at);
                    continue;
                }
                let frames = frames.of(r);
                for p in &mine {
                    if let Some(range) = p.range(r) {
                        let most = 1u64 << p.layer.shift().min(30);
                        row.each = (frames.ceil() as u64).clamp(1, most) as u32;
                        add_part(scene.store, q, &columns, row, p, range);
                    }
                }
                row.finish(&mut cells[at..at + cols], empty, frames);
            }
        },
    );
    MapImage { query: *q, cols, rows, cells, exact }
}

/// How many frames the rows of a picture have.
struct RowFrames<'a> {
    segments: &'a [AxisSegment],
    from: f64,
    per_row: f64,
}

impl<'a> RowFrames<'a> {
    fn new(axis: &'a GfnAxis, q: &MapQuery, rows: usize) -> Self {
        let segments = axis.space(q.vm, q.as_id).map_or(&[][..], |s| &s.segments);
        Self { segments, from: q.y0, per_row: (q.y1 - q.y0) / rows as f64 }
    }

    /// Frames of a row; folds have none.
    fn of(&self, row: usize) -> f64 {
        let (a, b) = (self.from + row as f64 * self.per_row, self.from + (row + 1) as f64 * self.per_row);
        let first = self.segments.partition_point(|s| s.y_end <= a);
        self.segments[first..]
            .iter()
            .take_while(|s| s.y_start < b)
            .map(|s| {
                let per_unit = (s.gfn_end - s.gfn_start) as f64 / (s.y_end - s.y_start);
                (b.min(s.y_end) - a.max(s.y_start)).max(0.0) * per_unit
            })
            .sum()
    }
}

fn planner<'a>(scene: &Scene<'a>, q: &'a MapQuery, cols: usize, rows: usize, slack: f64) -> Planner<'a> {
    Planner { store: scene.store, pyramid: scene.pyramid, q, cols, rows, slack, live: scene.live }
}

/// Adds the entries of a part that lie in a row.
fn add_part(
    store: &Store,
    q: &MapQuery,
    columns: &Columns,
    row: &mut Row,
    p: &Part<'_>,
    (from, to): (u64, u64),
) {
    let level = p.layer.level;
    match &p.before {
        Before::Start(None) => {}
        Before::Start(Some(l)) => {
            let a = l.start.partition_point(|s| u64::from(s.key) << 4 < from);
            for s in l.start[a..].iter().take_while(|s| u64::from(s.key) << 4 < to) {
                for (b, c) in row.before.iter_mut().zip(s.counts) {
                    *b += i32::from(c);
                }
                row.cover.add_all(&s.counts, row.each);
                row.rep = row.rep.max(s.rep);
            }
        }
        Before::Live(live) => {
            let a = live.partition_point(|x| x.0 < from);
            for (_, span, code) in live[a..].iter().take_while(|x| x.0 < to) {
                add(&mut row.before, *code, level, 1);
                row.cover.change(*code, 0, row.each);
                row.rep = row.rep.max(span.rep());
            }
        }
    }
    for s in &p.stretches {
        match s.source {
            Source::Base(b) => {
                let items = &b.items[b.position(from)..b.position(to)];
                add_items(store, q, columns, row, s, items, level, p.exact());
            }
            Source::Sums(x) => {
                let recs = &x.recs[x.position(from)..x.position(to)];
                add_sums(q, columns, row, s, x.ticks, recs);
            }
        }
    }
}

#[inline]
fn add_items(
    store: &Store,
    q: &MapQuery,
    columns: &Columns,
    row: &mut Row,
    s: &Stretch<'_>,
    items: &[Item],
    level: u8,
    live: bool,
) {
    let seg = s.segment;
    for item in items {
        let tick = item.tick();
        let (new, old) = (item.new_code(), item.old_code());
        let mut t = seg.at.t0 + tick * seg.at.tick;
        let mut before = tick < s.from;
        if !before {
            if tick >= s.to {
                continue;
            }
            if s.deep {
                t = store.ev_ts.get(seg.event(store, *item) as usize);
                if t >= q.t1 {
                    continue;
                }
                before = t < q.t0;
            }
        }
        let rep = if new == 0 { 0 } else { seg.at.span0.plus(item.what()).rep() };
        if before {
            // What is live when the picture begins includes it already.
            if !live {
                add(&mut row.before, new, level, 1);
                add(&mut row.before, old, level, -1);
                row.cover.change(new, old, row.each);
                row.rep = row.rep.max(rep);
            }
            continue;
        }
        let each = row.each;
        let c = row.at(columns.of(t));
        c.cover.change(new, old, each);
        add(&mut c.delta, new, level, 1);
        add(&mut c.delta, old, level, -1);
        c.changes += 1;
        c.rep = c.rep.max(rep);
        if new != 0 {
            c.touched |= 1 << shade_of(new);
        }
        if old != 0 {
            c.touched |= 1 << shade_of(old);
        }
    }
}

fn add_sums(q: &MapQuery, columns: &Columns, row: &mut Row, s: &Stretch<'_>, ticks: u64, recs: &[Sum]) {
    let seg = s.segment;
    for r in recs {
        // A cell lies in the column of its middle.
        let t = (seg.at.t0 + (u64::from(r.cell) * ticks + ticks / 2) * seg.at.tick).min(seg.at.t1);
        if t < q.t0 {
            for (b, d) in row.before.iter_mut().zip(r.delta) {
                *b += i32::from(d);
            }
            row.cover.add_all(&r.delta, row.each);
            row.rep = row.rep.max(r.rep);
        } else if t < q.t1 {
            let each = row.each;
            let c = row.at(columns.of(t));
            c.cover.add_all(&r.delta, each);
            for (b, d) in c.delta.iter_mut().zip(r.delta) {
                *b += i32::from(d);
            }
            c.changes += u32::from(r.changes);
            c.touched |= u32::from(r.touched);
            c.rep = c.rep.max(r.rep);
        }
    }
}
