//! The time x GFN picture, drawn from the changes themselves: a row keeps what it holds and writes cells only when that changes.

use crate::axis::GfnAxis;
use crate::model::{Cell, Certainty, MapImage, MapQuery, Shade, pages_of};
use crate::store::{CHUNK, NONE, Store};

/// Place of each chunk on its axis, so that drawing looks up one small record a span.
#[derive(Clone, Debug, Default)]
pub(crate) struct ChunkPlaces {
    /// Axis number (`u16::MAX`: none), and whether its entries lie one after another.
    places: Vec<ChunkPlace>,
}

#[derive(Clone, Copy, Debug)]
struct ChunkPlace {
    y: f64,
    /// Axis units per entry; negative: look each entry up.
    dy: f32,
    axis: u16,
    level: u8,
}

impl ChunkPlaces {
    pub(crate) fn build(store: &Store, axis: &GfnAxis) -> Self {
        let n = store.slots() as usize / CHUNK;
        let mut places = Vec::with_capacity(n);
        for c in 0..n {
            let first = (c * CHUNK) as u32;
            let p = store.place(first);
            let t = &store.tables[p.table as usize];
            let none = ChunkPlace { y: 0.0, dy: 0.0, axis: u16::MAX, level: p.level };
            let Some(ix) = axis.index(crate::model::VmId(t.vm), t.as_id) else {
                places.push(none);
                continue;
            };
            let space = &axis.spaces[ix].2;
            let pages = pages_of(p.level);
            let one_run = store.chunk_is_regular(c) && {
                let s = space.segments.partition_point(|s| s.gfn_end <= p.gfn);
                space.segments.get(s).is_some_and(|s| {
                    s.gfn_start <= p.gfn
                        && p.gfn.saturating_add(pages.saturating_mul(CHUNK as u64)) <= s.gfn_end
                })
            };
            if one_run {
                let (y, _) = space.y_of(p.gfn);
                let s = &space.segments[space.segments.partition_point(|s| s.gfn_end <= p.gfn)];
                let per_page = (s.y_end - s.y_start) / (s.gfn_end - s.gfn_start) as f64;
                places.push(ChunkPlace {
                    y,
                    dy: (per_page * pages as f64) as f32,
                    axis: ix as u16,
                    level: p.level,
                });
            } else {
                places.push(ChunkPlace { dy: -1.0, axis: ix as u16, ..none });
            }
        }
        Self { places }
    }

    /// Stretch of axis an entry takes up, if it is on this axis.
    #[inline]
    fn span(&self, store: &Store, axis: &GfnAxis, ix: u16, entry: u32) -> Option<(f64, f64, u8)> {
        let p = self.places.get(entry as usize / CHUNK)?;
        if p.axis != ix {
            return None;
        }
        if p.dy >= 0.0 {
            let i = f64::from(entry % CHUNK as u32);
            let dy = f64::from(p.dy);
            let y = p.y + i * dy;
            return Some((y, y + dy, p.level));
        }
        let e = store.place(entry);
        let (a, b) =
            axis.spaces[usize::from(ix)].2.span_of(e.gfn, e.gfn.saturating_add(pages_of(e.level)))?;
        Some((a, b, e.level))
    }

    pub(crate) fn heap(&self) -> usize {
        self.places.capacity() * size_of::<ChunkPlace>()
    }
}

/// What a row holds at the column being drawn.
#[derive(Clone, Copy, Debug, Default)]
struct Row {
    counts: [i32; 8],
    stale: i32,
    assumed: i32,
    huge: i32,
    col: u32,
    changes: u32,
    /// Shades that were there at some time in this column.
    touched: u8,
    rep: u32,
}

impl Row {
    fn add(&mut self, shade: Shade, certainty: Certainty, level: u8, sign: i32) {
        self.counts[shade as usize] += sign;
        match certainty {
            Certainty::Stale => self.stale += sign,
            Certainty::Assumed | Certainty::Implied if shade != Shade::Nonpresent => self.assumed += sign,
            _ => {}
        }
        if level > 1 && crate::counts::is_leaf(shade) {
            self.huge += sign;
        }
    }

    fn cell(&self, touched: u8, changes: u32, empty: Shade) -> Cell {
        let mut counts = [0u8; 8];
        let mut best = (0, empty);
        for s in Shade::ALL {
            let i = s as usize;
            let n = self.counts[i].max(i32::from(touched >> i & 1));
            counts[i] = n.clamp(0, 255) as u8;
            if matches!(s, Shade::Unknown | Shade::Nonpresent | Shade::Table) {
                continue;
            }
            // Rare states must not drown among many pages.
            let weight = match s {
                Shade::Removed => n * 64,
                Shade::Mmio => n * 16,
                _ => n,
            };
            if weight > best.0 {
                best = (weight, s);
            }
        }
        if best.0 == 0 && counts[Shade::Nonpresent as usize] > 0 {
            best.1 = Shade::Nonpresent;
        }
        let mut flags = 0;
        if self.stale > 0 {
            flags |= Cell::STALE;
        }
        if self.assumed > 0 {
            flags |= Cell::ASSUMED;
        }
        if self.huge > 0 {
            flags |= Cell::HUGE;
        }
        Cell { counts, changes: changes.min(65535) as u16, flags, shade: best.1 as u8, rep: self.rep }
    }
}

struct Canvas<'a> {
    rows: Vec<Row>,
    cells: Vec<Cell>,
    cols: usize,
    empty: Shade,
    y0: f64,
    per_row: f64,
    store: &'a Store,
}

impl Canvas<'_> {
    fn flush(&mut self, r: usize, to: u32) {
        let row = &mut self.rows[r];
        if to <= row.col {
            return;
        }
        let base = r * self.cols;
        let first = row.cell(row.touched, row.changes, self.empty);
        self.cells[base + row.col as usize] = first;
        if to > row.col + 1 {
            let steady = row.cell(0, 0, self.empty);
            self.cells[base + row.col as usize + 1..base + to as usize].fill(steady);
        }
        row.col = to;
        row.touched = 0;
        row.changes = 0;
    }

    fn rows_of(&self, a: f64, b: f64) -> Option<(usize, usize)> {
        let n = self.rows.len() as f64;
        let lo = (a - self.y0) / self.per_row;
        let hi = (b - self.y0) / self.per_row;
        if hi <= 0.0 || lo >= n {
            return None;
        }
        let lo_r = lo.max(0.0) as usize;
        let hi_r = (hi.min(n) - 1e-9).max(0.0) as usize;
        Some((lo_r, hi_r.max(lo_r).min(self.rows.len() - 1)))
    }

    fn put(&mut self, rows: (usize, usize), span: u32, level: u8, sign: i32) {
        let m = self.store.meta(span);
        for r in rows.0..=rows.1 {
            self.rows[r].add(m.shade, m.certainty, level, sign);
            if sign > 0 {
                self.rows[r].rep = span + 1;
            }
        }
    }

    fn change(
        &mut self,
        rows: (usize, usize),
        col: u32,
        new: Option<u32>,
        old: Option<(Shade, Certainty)>,
        level: u8,
    ) {
        for r in rows.0..=rows.1 {
            if self.rows[r].col < col {
                self.flush(r, col);
            }
            let row = &mut self.rows[r];
            row.changes += 1;
            if let Some((shade, certainty)) = old {
                row.touched |= 1 << shade as u8;
                row.add(shade, certainty, level, -1);
            }
            if let Some(n) = new {
                let m = self.store.meta(n);
                row.touched |= 1 << m.shade as u8;
                row.add(m.shade, m.certainty, level, 1);
                row.rep = n + 1;
            }
        }
    }
}

/// Draws a window from the spans.
pub(crate) fn draw(
    store: &Store,
    axis: &GfnAxis,
    places: &ChunkPlaces,
    complete: bool,
    q: &MapQuery,
) -> MapImage {
    let cols = q.cols.clamp(1, 16384);
    let rows = q.rows.clamp(1, 16384);
    let empty = if complete { Shade::Nonpresent } else { Shade::Unknown };
    let background = Cell { shade: empty as u8, ..Cell::default() };
    let mut c = Canvas {
        rows: vec![Row::default(); rows],
        cells: vec![background; rows * cols],
        cols,
        empty,
        y0: q.y0,
        per_row: ((q.y1 - q.y0) / rows as f64).max(1e-12),
        store,
    };
    let done = |c: Canvas<'_>| MapImage { query: *q, cols, rows, cells: c.cells, exact: true };
    let Some(ix) = axis.index(q.vm, q.as_id).map(|i| i as u16) else { return done(c) };
    if q.t1 <= q.t0 {
        return done(c);
    }
    let ev0 = if q.t0 == 0 { 0 } else { store.ev_ts.upto(q.t0 - 1) as u32 };
    let p0 = store.s_ev.partition_point(|e| *e < ev0);
    let ev1 = store.ev_ts.upto(q.t1 - 1) as u32;
    let p1 = store.s_ev.partition_point(|e| *e < ev1);
    store.visit_open(ev0, p0, &mut |i| {
        let e = store.s_entry[i];
        if let Some((a, b, level)) = places.span(store, axis, ix, e)
            && let Some(r) = c.rows_of(a, b)
        {
            let s = store.meta(i as u32).shade;
            if s != Shade::Table {
                c.put(r, i as u32, level, 1);
            }
        }
    });
    let width = (q.t1 - q.t0) as f64;
    let col_of =
        |t: u64| (((t.saturating_sub(q.t0)) as f64 / width * cols as f64) as u32).min(cols as u32 - 1);
    let mut d = store.detaches.partition_point(|t| store.tables[*t as usize].detach_ev < ev0);
    let mut k = store.deaths.partition_point(|t| store.tables[*t as usize].dead_ev < ev0);
    let mut i = p0;
    loop {
        let next_span = if i < p1 { store.s_ev[i] } else { NONE };
        let next_detach = store.detaches.get(d).map_or(NONE, |t| store.tables[*t as usize].detach_ev);
        let next_death = store.deaths.get(k).map_or(NONE, |t| store.tables[*t as usize].dead_ev);
        let ev = next_span.min(next_detach).min(next_death);
        if ev >= ev1 || ev == NONE {
            break;
        }
        let col = col_of(store.ev_ts.get(ev as usize));
        if ev == next_span {
            let e = store.s_entry[i];
            if let Some((a, b, level)) = places.span(store, axis, ix, e)
                && let Some(r) = c.rows_of(a, b)
            {
                let new = Some(i as u32).filter(|s| store.meta(*s).shade != Shade::Table);
                let old = store.replaced(i as u32).filter(|o| o.0 != Shade::Table);
                if new.is_some() || old.is_some() {
                    c.change(r, col, new, old, level);
                }
            }
            i += 1;
        } else {
            let (t, detach) = if ev == next_detach {
                d += 1;
                (store.detaches[d - 1], true)
            } else {
                k += 1;
                (store.deaths[k - 1], false)
            };
            let at = store.tables[t as usize].detach_sp;
            for e in store.table_entries(t) {
                let s =
                    if detach { store.last_before(e, at) } else { store.last_span(e).filter(|s| *s >= at) };
                let Some(s) = s.filter(|s| store.meta(*s).shade != Shade::Table) else { continue };
                if let Some((a, b, level)) = places.span(store, axis, ix, e)
                    && let Some(r) = c.rows_of(a, b)
                {
                    let m = store.meta(s);
                    c.change(r, col, None, Some((m.shade, m.certainty)), level);
                }
            }
        }
    }
    for r in 0..rows {
        c.flush(r, cols as u32);
    }
    done(c)
}
