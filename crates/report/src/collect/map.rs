//! [`map`]: the picture of time x GFN of an address space.
//!
//! The GFN axis of a page differs from the viewer's, because nobody can zoom into a page: stretches that are mapped by small pages get more
//! room than their size would give them, and a single MMIO page gets a row that is high enough for a label.

use mmuscope_analysis::visual::{Pixels, RasterOptions, Theme, Visual, raster_with};
use mmuscope_replay::{MapImage, MapQuery, Shade, Timeline, VmId, pages_of};
use mmuscope_units::ranges;

use super::Clock;
use crate::{
    model::{MapPicture, MapSegment},
    png,
    svg::overview::{FOLD, PLOT},
};

/// Height in pixels of the stretches of a map, without folds.
const ROWS: u32 = 420;
/// Smallest height of a stretch in pixels: a line of text.
const LEAST: u32 = 17;
/// Most stretches of one map.
const MOST: usize = 18;
/// Number of frames in a page of 2 MiB.
const LARGE: u64 = 512;

/// An entry that mapped a page or marked MMIO at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Leaf {
    pub(super) gfn: u64,
    pub(super) level: u8,
    /// Whether the entry mapped a page at some time.
    pub(super) ram: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Stretch {
    start: u64,
    end: u64,
    /// Share of the height that the stretch should get, relative to the others.
    weight: f64,
    /// Whether the stretch was mapped by pages of 4 KiB, or was MMIO, at some time.
    fine: bool,
    /// Whether a page was mapped at the last frame at some time.
    ram: bool,
}

/// Cuts the frames that leaves ever covered into stretches. The leaves must be sorted by frame.
fn stretches(leaves: &[Leaf]) -> Vec<Stretch> {
    // Stretches are cut by page size first, so that a few small pages among large ones get enough room to be seen.
    let mut runs: Vec<Stretch> = Vec::new();
    for Leaf { gfn, level, ram } in leaves {
        let end = gfn.saturating_add(pages_of(*level));
        let fine = *level == 1;
        match runs.last_mut() {
            // A region that was mapped by a large page and by small ones is drawn as small ones.
            Some(r) if *gfn < r.end && r.fine != fine => {
                if fine {
                    let region = gfn / LARGE * LARGE;
                    let old = *r;
                    r.end = region.max(old.start);
                    let cut = r.end;
                    if r.end == r.start {
                        runs.pop();
                    }
                    join(
                        &mut runs,
                        Stretch {
                            start: cut,
                            end: region.saturating_add(LARGE).min(old.end).max(end),
                            weight: 0.0,
                            fine: true,
                            ram: *ram,
                        },
                    );
                    if region.saturating_add(LARGE) < old.end {
                        runs.push(Stretch {
                            start: region.saturating_add(LARGE),
                            end: old.end,
                            weight: 0.0,
                            fine: false,
                            ram: old.ram,
                        });
                    }
                } else {
                    r.end = r.end.max(end);
                }
            }
            _ => join(&mut runs, Stretch { start: *gfn, end, weight: 0.0, fine, ram: *ram }),
        }
    }
    // Then the closest stretches are joined until there are few enough to draw.
    let mut gap = 128;
    while runs.len() > MOST {
        runs = ranges::fold(runs, |l, r| {
            let near = r.start <= l.end.saturating_add(gap);
            if near {
                l.end = l.end.max(r.end);
                l.fine &= r.fine;
            }
            near
        });
        if gap > 1 << 52 {
            break;
        }
        gap *= 4;
    }
    for r in &mut runs {
        let frames = (r.end - r.start) as f64;
        r.weight = if r.fine { frames.sqrt() } else { (frames / LARGE as f64 * 16.0).sqrt() };
    }
    runs
}

/// Appends a stretch, or joins it to the last one where both are of one kind and close to each other. Memory is joined over larger gaps than
/// MMIO, because neighbouring devices are unrelated.
fn join(runs: &mut Vec<Stretch>, s: Stretch) {
    let gap = match (s.fine, s.ram) {
        (false, _) => 4 * LARGE,
        (true, true) => LARGE / 2,
        (true, false) => 16,
    };
    match runs.last_mut() {
        Some(l)
            if l.fine == s.fine && s.start <= l.end.saturating_add(if l.ram == s.ram { gap } else { 16 }) =>
        {
            l.end = l.end.max(s.end);
            l.ram = s.ram;
        }
        _ => runs.push(s),
    }
}

/// Draws the map; `None` where nothing was ever mapped.
pub(super) fn map(
    timeline: &Timeline,
    vm: VmId,
    as_id: u8,
    leaves: &[Leaf],
    clock: &Clock,
) -> Option<MapPicture> {
    let stretches = stretches(leaves);
    let axis = timeline.gfn_axis().space(vm, as_id)?;
    if stretches.is_empty() || clock.duration() == 0 {
        return None;
    }
    let rows = (LEAST * stretches.len() as u32 * 3 / 2).max(if as_id == 0 { ROWS } else { ROWS / 4 });
    let sum: f64 = stretches.iter().map(|s| s.weight).sum();
    let spare = rows.saturating_sub(LEAST * stretches.len() as u32);
    let mut picture = MapPicture {
        width: PLOT,
        height: 0,
        segments: Vec::new(),
        light: Vec::new(),
        dark: Vec::new(),
        shades: Vec::new(),
        stale: false,
        assumed: false,
        large: false,
        column: clock.duration() / u64::from(PLOT),
        merged: 0,
    };
    let mut light = Sheet::new(Theme::Light);
    let mut dark = Sheet::new(Theme::Dark);
    let mut shades = [false; 8];
    for (i, s) in stretches.iter().enumerate().rev() {
        let one = s.end - s.start <= 1;
        let height = if one { LEAST } else { LEAST + (f64::from(spare) * s.weight / sum) as u32 };
        let (y0, y1) = axis.span_of(s.start, s.end)?;
        let image = timeline.map(&MapQuery {
            vm,
            as_id,
            t0: clock.start,
            t1: clock.end + 1,
            y0,
            y1,
            cols: PLOT as usize,
            rows: height as usize,
        });
        for c in &image.cells {
            for shade in Shade::ALL {
                shades[shade as usize] |= c.counts[shade as usize] > 0;
            }
            picture.stale |= c.stale();
            picture.assumed |= c.assumed();
            picture.large |= c.huge();
            picture.merged = picture.merged.max(c.merged());
        }
        let below = i.checked_sub(1).map_or(0, |b| stretches[b].end);
        let fold_below = s.start.saturating_sub(below);
        picture.segments.push(MapSegment {
            gfn_start: s.start,
            gfn_end: s.end,
            top: light.height,
            height,
            fold_below,
        });
        for sheet in [&mut light, &mut dark] {
            sheet.map(&image);
            if fold_below > 0 && i > 0 {
                sheet.fold();
            } else if i > 0 {
                sheet.seam();
            }
        }
        // Nothing is drawn below the lowest stretch.
        if i == 0
            && let Some(last) = picture.segments.last_mut()
        {
            last.fold_below = 0;
        }
    }
    picture.shades = Shade::ALL.into_iter().filter(|s| shades[*s as usize] && *s != Shade::Table).collect();
    picture.height = light.height;
    picture.light = png::encode(&light.pixels())?;
    picture.dark = png::encode(&dark.pixels())?;
    Some(picture)
}

/// A picture that grows downwards.
struct Sheet {
    theme: Theme,
    height: u32,
    rgba: Vec<u8>,
}

impl Sheet {
    fn new(theme: Theme) -> Self {
        Self { theme, height: 0, rgba: Vec::new() }
    }

    fn map(&mut self, image: &MapImage) {
        // The patterns continue from the last stretch.
        let options = RasterOptions { origin: (0, self.height), ..RasterOptions::new(self.theme, 1) };
        let p = raster_with(Visual::builtin(), image, &options);
        self.rgba.extend_from_slice(&p.rgba);
        self.height += p.height;
    }

    fn rows(&mut self, n: u32, color: [u8; 4]) {
        for _ in 0..n * PLOT {
            self.rgba.extend_from_slice(&color);
        }
        self.height += n;
    }

    fn fold(&mut self) {
        self.rows(FOLD, Visual::builtin().theme(self.theme).fold_fill.rgba());
    }

    /// Draws a line where the scale of the axis changes.
    fn seam(&mut self) {
        self.rows(1, Visual::builtin().theme(self.theme).axis.rgba());
    }

    fn pixels(self) -> Pixels {
        Pixels { width: PLOT, height: self.height, rgba: self.rgba }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cut(leaves: &[(u64, u8)]) -> Vec<(u64, u64, bool)> {
        // Frames of the PCI hole are MMIO.
        let leaf = |(gfn, level): &(u64, u8)| Leaf {
            gfn: *gfn,
            level: *level,
            ram: !(0xe0000..0x100000).contains(gfn),
        };
        let mut l: Vec<Leaf> = leaves.iter().map(leaf).collect();
        l.sort_unstable();
        stretches(&l).iter().map(|s| (s.start, s.end, s.fine)).collect()
    }

    #[test]
    fn small_pages_get_a_stretch_of_their_own() {
        let mut leaves: Vec<(u64, u8)> = (0..300).map(|g| (g, 1)).collect();
        leaves.extend((1..96).map(|i| (i * 512, 2)));
        leaves.push((0xfee00, 1));
        assert_eq!(cut(&leaves), [(0, 300, true), (512, 96 * 512, false), (0xfee00, 0xfee01, true)]);
    }

    #[test]
    fn memory_is_joined_over_gaps_that_part_devices() {
        assert_eq!(cut(&[(0x1000, 1), (0x1100, 1)]), [(0x1000, 0x1101, true)]);
        assert_eq!(
            cut(&[(0xfec00, 1), (0xfed00, 1), (0xfed02, 1)]),
            [(0xfec00, 0xfec01, true), (0xfed00, 0xfed03, true)]
        );
    }

    #[test]
    fn a_region_that_was_both_is_shown_finely() {
        let leaves: Vec<(u64, u8)> = (0..8).map(|i| (i * 512, 2)).chain([(1030, 1), (1031, 1)]).collect();
        assert_eq!(cut(&leaves), [(0, 1024, false), (1024, 1536, true), (1536, 4096, false)]);
    }

    #[test]
    fn however_many_stretches_few_are_drawn() {
        let leaves: Vec<(u64, u8)> = (0..5000).map(|i| (i * 100_000, 1)).collect();
        let s = cut(&leaves);
        assert!(s.len() <= MOST, "{}", s.len());
        assert_eq!((s[0].0, s[s.len() - 1].1), (0, 4999 * 100_000 + 1));
        // The ends of the address space do not overflow.
        assert_eq!(cut(&[(0, 1), (u64::MAX - 1, 1), (u64::MAX, 5)]).len(), 3);
    }
}
