//! [`Probe`]: what is at a place of the map. Tooltip, click and selection ask it, so that they give one answer, and that answer is what
//! `mmuscope state` prints of the frame at the moment.

use mmuscope_analysis::visual::Visual;
use mmuscope_replay::{Entry, Shade, Span, State, VmId};

use crate::capture::{Capture, rank};

/// Most frames around the pointer that are looked at. A pixel has so many where a guest of 40 GiB is 600 pixels high.
const MOST: u64 = 1 << 14;

/// A place of the map: a pixel, and the exact row in it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Place {
    pub(crate) vm: VmId,
    pub(crate) as_id: u8,
    /// Row of the GFN axis under the pointer.
    pub(crate) row: f64,
    /// First row and end of the rows of the pixel.
    pub(crate) rows: (f64, f64),
    /// The moment that the pixel shows: the last one of its stretch of time, on the trace's clock.
    pub(crate) time: u64,
}

/// What is at a place.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    /// The moment of the answer, on the trace's clock.
    pub(crate) time: u64,
    /// The frame under the pointer.
    pub(crate) pointed: u64,
    /// The frame that the answer is about: the one under the pointer, or else the nearest in the pixel that has a page.
    pub(crate) gfn: u64,
    /// The entry that says most about that frame, with what it held.
    pub(crate) found: Option<(Entry, Span)>,
    /// Number of frames in the pixel that were looked at.
    pub(crate) frames: u64,
    /// For each state that frames of the pixel hold, by [`Shade`]: how many, and the nearest to the pointer.
    pub(crate) tally: [(u64, u64); 8],
}

/// Whether a span is of a page: present, MMIO or removed.
pub(crate) fn is_page(span: &Span) -> bool {
    matches!(span.state, State::Present | State::Mmio | State::Removed)
}

impl Probe {
    /// What is at a place; `None` in a fold.
    pub(crate) fn at(cap: &Capture, place: &Place) -> Option<Self> {
        let pointed = cap.gfn_at(place.vm, place.as_id, place.row)?;
        let (first, end) = frames(cap, place, pointed);
        let held = Held::read(cap, place, first, end);
        let nearest = |wanted: &dyn Fn(u64) -> bool| {
            (first..end).filter(|g| wanted(*g)).min_by_key(|g| (g.abs_diff(pointed), *g))
        };
        let has_page = |g: u64| held.of(g).is_some_and(|(_, s)| is_page(s));
        let gfn = if has_page(pointed) { pointed } else { nearest(&has_page).unwrap_or(pointed) };
        let mut tally = [(0u64, 0u64); 8];
        for g in first..end {
            let (n, near) = &mut tally[held.shade(g) as usize];
            if *n == 0 || g.abs_diff(pointed) < near.abs_diff(pointed) {
                *near = g;
            }
            *n += 1;
        }
        let found = held.of(gfn).copied();
        Some(Self { time: place.time, pointed, gfn, found, frames: end - first, tally })
    }

    /// Whether the frames of the pixel hold different states.
    pub(crate) fn differ(&self) -> bool {
        self.tally.iter().filter(|(n, _)| *n > 0).count() > 1
    }

    /// What the pixel holds besides the frame of the answer, in sentences, the rarest first; nothing where the pixel has one frame.
    pub(crate) fn others(&self) -> Vec<(Shade, String)> {
        if self.frames < 2 {
            return Vec::new();
        }
        let mut held: Vec<Shade> = Shade::ALL.into_iter().filter(|s| self.tally[*s as usize].0 > 0).collect();
        held.sort_by_key(|s| self.tally[*s as usize].0);
        let frames = crate::fmt::count(self.frames);
        held.into_iter()
            .map(|s| {
                let (n, near) = self.tally[s as usize];
                let verb = if n == 1 { "is" } else { "are" };
                let name = &Visual::builtin().shade_style(s).name;
                let n = crate::fmt::count(n);
                let near = if near == self.pointed {
                    String::new()
                } else {
                    format!(", nearest {}", crate::fmt::gfn(near))
                };
                if self.differ() {
                    (s, format!("{n} of {frames} frames here {verb} {name}{near}"))
                } else {
                    (s, format!("all {frames} frames here are {name}"))
                }
            })
            .collect()
    }
}

/// The frames of a pixel: those of the stretch of the axis that the pointer is in.
fn frames(cap: &Capture, place: &Place, pointed: u64) -> (u64, u64) {
    let segments = cap.segments(place.vm, place.as_id);
    let Some(s) = segments.iter().find(|s| (s.gfn_start..s.gfn_end).contains(&pointed)) else {
        return (pointed, pointed + 1);
    };
    let per_unit = (s.gfn_end - s.gfn_start) as f64 / (s.y_end - s.y_start);
    let frame = |row: f64| (row.clamp(s.y_start, s.y_end) - s.y_start) * per_unit;
    // A frame belongs to each pixel that shows more than a trifle of it.
    let first = s.gfn_start + (frame(place.rows.0) + 0.01).floor() as u64;
    let end = s.gfn_start + (frame(place.rows.1) - 0.01).ceil().max(0.0) as u64;
    let first = first.min(pointed).max(pointed.saturating_sub(MOST / 2));
    let end = end.min(s.gfn_end).max(pointed + 1).min(pointed + MOST / 2);
    (first, end)
}

/// What the frames of a pixel hold.
struct Held {
    first: u64,
    rows: Vec<(Entry, Span)>,
    /// For each frame, which of the rows says most about it.
    best: Vec<Option<u32>>,
    /// What frames hold that no entry covers.
    empty: Shade,
}

impl Held {
    fn read(cap: &Capture, place: &Place, first: u64, end: u64) -> Self {
        let rows = cap.state_of(place.vm, place.as_id, (first, end), place.time);
        let mut best: Vec<Option<u32>> = vec![None; (end - first) as usize];
        for (i, (entry, span)) in rows.iter().enumerate() {
            let key = |(e, s): &(Entry, Span)| (rank(s), e.level, std::cmp::Reverse(s.start));
            let from = entry.gfn.max(first);
            let to = entry.gfn.saturating_add(entry.pages()).min(end);
            let mine = key(&(*entry, *span));
            for g in from..to {
                let slot = &mut best[(g - first) as usize];
                if slot.is_none_or(|b| mine < key(&rows[b as usize])) {
                    *slot = Some(i as u32);
                }
            }
        }
        Self { first, rows, best, empty: cap.timeline.unseen(place.vm) }
    }

    fn of(&self, gfn: u64) -> Option<&(Entry, Span)> {
        let i = *self.best.get(gfn.checked_sub(self.first)? as usize)?;
        self.rows.get(i? as usize)
    }

    fn shade(&self, gfn: u64) -> Shade {
        self.of(gfn).map_or(self.empty, |(_, s)| if s.shade == Shade::Table { self.empty } else { s.shade })
    }
}
