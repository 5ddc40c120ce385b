//! [`raster_with`]: a map (cells of time x GFN) to pixels.
//!
//! Patterns are laid out in device pixels, not in cells: an area in one state shows its pattern at every zoom, down to cells of one pixel.
//! A cell that holds several states shows all of them, mixed by an ordered dither in proportion to their numbers (each at least an eighth,
//! so that one MMIO page among five hundred does not vanish). The rest of its frames, which hold `nonpresent` or `unknown`, are the background:
//! the fewer frames are covered, the more of it is seen, down to a share at which a single page can still be noticed.

use mmuscope_replay::{Cell, MapImage, Shade};

use super::data::{Color, PERIOD, Theme, Visual};

/// A picture: rows from the top, four bytes (red, green, blue, alpha) a pixel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pixels {
    /// Width in pixels.
    pub width: u32,
    /// Height in pixels.
    pub height: u32,
    /// `width * height * 4` bytes, opaque.
    pub rgba: Vec<u8>,
}

impl Pixels {
    /// The colour of one pixel, counted from the top left; `None` outside of the picture.
    pub fn at(&self, x: u32, y: u32) -> Option<Color> {
        if x >= self.width || y >= self.height {
            return None;
        }
        let i = (y as usize * self.width as usize + x as usize) * 4;
        self.rgba.get(i..i + 3).map(|c| Color([c[0], c[1], c[2]]))
    }
}

/// How [`raster_with`] draws a map.
#[derive(Clone, Debug)]
pub struct RasterOptions<'a> {
    /// Colour scheme.
    pub theme: Theme,
    /// Width and height of a cell in device pixels; at least 1 each.
    pub cell: (u32, u32),
    /// Width and height in device pixels of one pixel of a pattern (2 on a screen with two device pixels per point).
    pub pattern_scale: u32,
    /// Place at which the patterns begin, in device pixels: a view that pans by whole pixels keeps them still.
    pub origin: (u32, u32),
    /// Stretches of time in which events were lost, to be drawn as bands; empty where the caller draws them.
    pub lost: &'a [(u64, u64)],
}

impl RasterOptions<'_> {
    /// Options for cells of `scale` by `scale` device pixels and nothing drawn over them.
    pub fn new(theme: Theme, scale: u32) -> Self {
        Self { theme, cell: (scale.max(1), scale.max(1)), pattern_scale: 1, origin: (0, 0), lost: &[] }
    }
}

/// Draws a map with the built-in visual language; a cell is `scale` by `scale` device pixels. The highest GFN is on top.
pub fn raster(map: &MapImage, theme: Theme, scale: u32) -> Pixels {
    raster_with(Visual::builtin(), map, &RasterOptions::new(theme, scale))
}

/// A patch of one state, for legends; `width` and `height` are in pixels.
pub fn swatch(visual: &Visual, shade: Shade, theme: Theme, large: bool, width: u32, height: u32) -> Pixels {
    let style = visual.shade_style(shade);
    let mut rgba = Vec::with_capacity(width as usize * height as usize * 4);
    for y in 0..height {
        for x in 0..width {
            rgba.extend_from_slice(&style.pixel(theme, large, x, y).rgba());
        }
    }
    Pixels { width, height, rgba }
}

const LARGE: usize = 1;
const STALE: usize = 2;

/// The pattern of every shade, ready to copy from, in four variants: plain, large, stale, stale and large.
struct Tiles(Vec<[u8; 4]>);

impl Tiles {
    fn new(visual: &Visual, theme: Theme) -> Tiles {
        let background = visual.theme(theme).background;
        let mut out = Vec::with_capacity(Shade::ALL.len() * 4 * (PERIOD * PERIOD) as usize);
        for shade in Shade::ALL {
            let style = visual.shade_style(shade);
            for variant in 0..4 {
                for y in 0..PERIOD {
                    for x in 0..PERIOD {
                        let mut c = style.pixel(theme, variant & LARGE != 0, x, y);
                        if variant & STALE != 0 {
                            c = c.over(background, visual.overlay.stale_opacity);
                        }
                        out.push(c.rgba());
                    }
                }
            }
        }
        Tiles(out)
    }

    /// `x` and `y` are below [`PERIOD`].
    fn pixel(&self, shade: u8, variant: usize, x: u32, y: u32) -> [u8; 4] {
        self.0[((shade as usize * 4 + variant) * PERIOD as usize + y as usize) * PERIOD as usize + x as usize]
    }
}

/// How the pixels of one cell are painted.
#[derive(Clone, Copy)]
struct Paint {
    /// Shades of the cell; `steps[i]` sixteenths of the pixels up to there show `shades[..=i]`.
    shades: [u8; 8],
    steps: [u8; 8],
    variant: usize,
    /// What is behind them, and how much of that they cover, in 256ths.
    rest: u8,
    cover: u16,
}

/// States of pages, the rarest in practice first; `Table` is not drawn in maps unless nothing else is there.
const CONTENT: [Shade; 5] =
    [Shade::Removed, Shade::Mmio, Shade::AccessTracked, Shade::ReadOnly, Shade::Writable];

/// `least` is the smallest share, in 256ths, that is covered where anything is.
fn paint(cell: &Cell, least: u16) -> Paint {
    let count = |s: Shade| u32::from(cell.counts[s as usize]);
    let rest = cell.rest() as u8;
    let cover = match cell.cover {
        255 => 256,
        c => u16::from(c).max(least),
    };
    let mut p = Paint { shades: [rest; 8], steps: [16; 8], variant: 0, rest, cover };
    let total: u32 = CONTENT.iter().map(|s| count(*s)).sum();
    if total == 0 {
        p.cover = 256;
        return p;
    }
    p.variant = if cell.huge() { LARGE } else { 0 } | if cell.stale() { STALE } else { 0 };
    let mut n = 0;
    let mut step = 0;
    for s in CONTENT {
        let c = count(s);
        if c > 0 {
            step += (c * 16 / total).max(2);
            p.shades[n] = s as u8;
            p.steps[n] = step.min(16) as u8;
            n += 1;
        }
    }
    // The remainder of the rounding goes to the last state, which is the most frequent one in practice.
    p.steps[n - 1] = 16;
    p
}

/// Mixes a colour with what is behind it; `cover` is its own part, in 256ths.
fn mix(color: &mut [u8; 4], behind: [u8; 4], cover: u16) {
    for (c, b) in color.iter_mut().zip(behind) {
        *c = ((u16::from(*c) * cover + u16::from(b) * (256 - cover)) / 256) as u8;
    }
}

/// Ordered dither: each of the sixteen ranks occurs once in every 4 by 4 pixels, spread out.
const BAYER: [[u8; 4]; 4] = [[0, 8, 2, 10], [12, 4, 14, 6], [3, 11, 1, 9], [15, 7, 13, 5]];

/// Draws a map. The highest GFN is on top.
pub fn raster_with(visual: &Visual, map: &MapImage, options: &RasterOptions<'_>) -> Pixels {
    let (cw, ch) = (options.cell.0.max(1), options.cell.1.max(1));
    let (cols, rows) = (map.cols as u32, map.rows as u32);
    let (width, height) = (cols.saturating_mul(cw), rows.saturating_mul(ch));
    let tiles = Tiles::new(visual, options.theme);
    let scale = options.pattern_scale.max(1);
    let mut rgba = vec![255; width as usize * height as usize * 4];
    let unknown = Cell::default();
    let least = (visual.overlay.least_cover.clamp(0.0, 1.0) * 256.0) as u16;
    // Pattern column of each pixel column, so that the inner loop does not divide.
    let across: Vec<u32> = (0..width).map(|x| (x.wrapping_add(options.origin.0) / scale) % PERIOD).collect();
    let mut paints = Vec::with_capacity(map.cols);
    for row in 0..map.rows {
        paints.clear();
        paints.extend((0..map.cols).map(|col| paint(map.at(col, row).unwrap_or(&unknown), least)));
        let top = (rows - 1 - row as u32) * ch;
        for y in top..top + ch {
            let py = (y.wrapping_add(options.origin.1) / scale) % PERIOD;
            let line = &mut rgba[y as usize * width as usize * 4..][..width as usize * 4];
            for (x, out) in line.chunks_exact_mut(4).enumerate() {
                let p = &paints[x / cw as usize];
                let px = across[x];
                let shade = if p.steps[0] == 16 {
                    p.shades[0]
                } else {
                    let rank = BAYER[(py & 3) as usize][(px & 3) as usize];
                    let i = p.steps.iter().position(|s| rank < *s).unwrap_or(0);
                    p.shades[i]
                };
                let mut color = tiles.pixel(shade, p.variant, px, py);
                if p.cover < 256 {
                    mix(&mut color, tiles.pixel(p.rest, 0, px, py), p.cover);
                }
                out.copy_from_slice(&color);
            }
        }
    }
    let mut pixels = Pixels { width, height, rgba };
    edges(visual, map, options, &mut pixels);
    lost(visual, map, options, &mut pixels);
    pixels
}

/// Draws edge lines of large leaves, dashed edges of what is assumed, and corners of merged cells.
fn edges(visual: &Visual, map: &MapImage, options: &RasterOptions<'_>, pixels: &mut Pixels) {
    let theme = visual.theme(options.theme);
    let (cw, ch) = (options.cell.0.max(1), options.cell.1.max(1));
    let scale = options.pattern_scale.max(1);
    let dash = visual.overlay.dash.max(1) * scale;
    let get = |col: usize, row: usize, dc: isize, dr: isize| {
        map.at(col.checked_add_signed(dc)?, row.checked_add_signed(dr)?)
    };
    // A line is only drawn along something thick enough to show its own colour beside it.
    let thick = |c: u32| 5u32.div_ceil(c) as isize;
    let shown = |c: &Cell| CONTENT.iter().any(|s| c.counts[*s as usize] > 0);
    let assumed = |c: Option<&Cell>| c.is_some_and(|c| c.assumed() && shown(c));
    let huge = |c: Option<&Cell>| c.filter(|c| c.huge() && shown(c)).map(|c| c.rep);
    for row in 0..map.rows {
        let top = (map.rows - 1 - row) as u32 * ch;
        for col in 0..map.cols {
            let Some(cell) = map.at(col, row) else { continue };
            let left = col as u32 * cw;
            if let Some(rep) = huge(Some(cell)) {
                let opacity = if cell.stale() { 0.35 } else { 0.8 };
                let same = |dc, dr| huge(get(col, row, dc, dr)) == Some(rep);
                if !same(0, -1) && (1..thick(ch)).all(|k| same(0, k)) {
                    for x in left..left + cw {
                        blend(pixels, x, top + ch - 1, theme.edge, opacity);
                    }
                }
                let some = |dc| huge(get(col, row, dc, 0)).is_some();
                if !some(-1) && (1..thick(cw)).all(some) {
                    for y in top..top + ch {
                        blend(pixels, left, y, theme.edge, opacity);
                    }
                }
            }
            if assumed(Some(cell)) {
                for (dc, dr) in [(-1, 0), (1, 0), (0, -1), (0, 1)] {
                    let c = if dc == 0 { ch } else { cw };
                    let inside = (1..thick(c)).all(|k| assumed(get(col, row, -dc * k, -dr * k)));
                    if !inside || assumed(get(col, row, dc, dr)) {
                        continue;
                    }
                    let (xs, ys) = match (dc, dr) {
                        (-1, _) => (left..left + 1, top..top + ch),
                        (1, _) => (left + cw - 1..left + cw, top..top + ch),
                        (_, -1) => (left..left + cw, top + ch - 1..top + ch),
                        _ => (left..left + cw, top..top + 1),
                    };
                    for y in ys {
                        for x in xs.clone() {
                            let at = x
                                .wrapping_add(options.origin.0)
                                .wrapping_add(y)
                                .wrapping_add(options.origin.1);
                            if (at / dash).is_multiple_of(2) {
                                blend(pixels, x, y, theme.ink, 0.8);
                            }
                        }
                    }
                }
            }
            let corner = visual.overlay.merged_corner.max(4) * scale;
            if cw >= corner && ch >= corner && cell.merged() > 1 {
                let size = cw.min(ch) / 3;
                for i in 0..size {
                    for j in 0..size - i {
                        blend(pixels, left + cw - 1 - j, top + i, theme.ink, 0.7);
                    }
                }
            }
        }
    }
}

fn lost(visual: &Visual, map: &MapImage, options: &RasterOptions<'_>, pixels: &mut Pixels) {
    let (t0, t1) = (map.query.t0, map.query.t1);
    if t1 <= t0 || pixels.width == 0 {
        return;
    }
    let color = visual.theme(options.theme).lost;
    let per_ns = f64::from(pixels.width) / (t1 - t0) as f64;
    // Bands that overlap are drawn once: the tint says that something is missing, not how often.
    let mut columns = vec![false; pixels.width as usize];
    for &(start, end) in options.lost {
        if end < t0 || start >= t1 {
            continue;
        }
        let x = |t: u64| (t.clamp(t0, t1) - t0) as f64 * per_ns;
        let from = (x(start) as usize).min(columns.len() - 1);
        let to = (x(end).ceil() as usize).clamp(from + 1, columns.len());
        columns[from..to].fill(true);
    }
    for (x, _) in columns.iter().enumerate().filter(|(_, on)| **on) {
        for y in 0..pixels.height {
            blend(pixels, x as u32, y, color, visual.overlay.lost_opacity);
        }
    }
}

fn blend(pixels: &mut Pixels, x: u32, y: u32, color: Color, opacity: f32) {
    if let Some(below) = pixels.at(x, y) {
        let i = (y as usize * pixels.width as usize + x as usize) * 4;
        pixels.rgba[i..i + 4].copy_from_slice(&color.over(below, opacity).rgba());
    }
}
