//! What the middle of the window shows for one view, computed off the UI thread: the map and the area as pixels, the fault rows as bins.

use std::sync::{Arc, RwLock};

use egui::{Color32, ColorImage};
use mmuscope_analysis::visual::{self, RasterOptions, Theme, Visual};
use mmuscope_replay::{Bin, Counts, MapImage, MapQuery, SeriesKind, Shade, VmId};

use crate::capture::{self, Capture};
use crate::view::Range;
use crate::worker::Worker;

/// Shades of the area, from the bottom up.
pub(crate) const STACK: [Shade; 5] =
    [Shade::Writable, Shade::ReadOnly, Shade::AccessTracked, Shade::Mmio, Shade::Removed];

/// A view of which a picture is wanted.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    /// VM.
    pub(crate) vm: VmId,
    /// Address space.
    pub(crate) as_id: u8,
    /// Time, in nanoseconds since the first event; whole numbers.
    pub(crate) time: Range,
    /// Rows of the GFN axis.
    pub(crate) rows: Range,
    /// Device pixels of the map.
    pub(crate) map: [u32; 2],
    /// Device pixels of the area; nothing if it is hidden.
    pub(crate) area: [u32; 2],
    /// Threads with a row of faults.
    pub(crate) lanes: Vec<u32>,
    /// Bins of a fault row.
    pub(crate) bins: usize,
    /// Dark or light.
    pub(crate) theme: Theme,
    /// Device pixels of a pattern's pixel.
    pub(crate) scale: u32,
    /// The area shows memory instead of entries.
    pub(crate) memory: bool,
    /// State of a growing trace.
    pub(crate) version: u64,
}

/// The area under the map.
#[derive(Clone, Debug)]
pub(crate) struct Area {
    /// One per bucket.
    pub(crate) counts: Vec<Counts>,
    /// Top of its axis.
    pub(crate) top: f64,
    /// Picture.
    pub(crate) pixels: ColorImage,
}

/// A finished picture.
pub(crate) struct Picture {
    /// What was asked.
    pub(crate) wanted: Wanted,
    /// Cells, for what is under the pointer.
    pub(crate) map: MapImage,
    /// The map's pixels, until they are on the graphics card.
    pub(crate) pixels: Option<ColorImage>,
    /// The area.
    pub(crate) area: Option<Area>,
    /// Faults per bin, a row a thread.
    pub(crate) lanes: Vec<Vec<Bin>>,
    /// Events per bin over the whole trace.
    pub(crate) overview: Vec<Bin>,
}

/// Bins of the overview: enough for any screen, few enough to draw as one mesh.
pub(crate) const OVERVIEW_BINS: usize = 600;

/// Computes a picture.
pub(crate) fn compute(capture: &Arc<RwLock<Capture>>, w: Wanted) -> Picture {
    let cap = capture::read(capture);
    let (t0, t1) = (cap.abs(w.time.start), cap.abs(w.time.end));
    let timeline = &cap.timeline;
    let query = MapQuery {
        vm: w.vm,
        as_id: w.as_id,
        t0,
        t1: t1.max(t0 + 1),
        y0: w.rows.start,
        y1: w.rows.end,
        cols: w.map[0] as usize,
        rows: w.map[1] as usize,
    };
    let map = timeline.map(&query);
    let options = RasterOptions { pattern_scale: w.scale, ..RasterOptions::new(w.theme, 1) };
    let pixels = visual::raster_with(Visual::builtin(), &map, &options);
    let pixels =
        ColorImage::from_rgba_unmultiplied([pixels.width as usize, pixels.height as usize], &pixels.rgba);
    let area = (w.area[0] > 0 && w.area[1] > 0).then(|| {
        let counts = timeline.counts_over_of(w.vm, w.as_id, t0, t1.max(t0 + 1), w.area[0] as usize);
        area(counts, &w)
    });
    let lanes = w
        .lanes
        .iter()
        .map(|tid| timeline.series(&SeriesKind::FaultsOf(*tid), t0, t1.max(t0 + 1), w.bins))
        .collect();
    let (start, end) = timeline.range();
    let overview = timeline.series(&SeriesKind::Events, start, end + 1, OVERVIEW_BINS);
    drop(cap);
    Picture { wanted: w, map, pixels: Some(pixels), area, lanes, overview }
}

/// What the area counts of a shade.
pub(crate) fn amount(counts: &Counts, shade: Shade, memory: bool) -> f64 {
    if memory { counts.bytes(shade) as f64 } else { counts.total(shade) as f64 }
}

fn area(counts: Vec<Counts>, w: &Wanted) -> Area {
    let [width, height] = w.area.map(|n| n as usize);
    let visual = Visual::builtin();
    let back = visual.theme(w.theme).background;
    let sum = |c: &Counts| STACK.iter().map(|s| amount(c, *s, w.memory)).sum::<f64>();
    let most = counts.iter().map(sum).fold(0.0, f64::max);
    let top = nice_top(most, w.memory);
    let color = |c: visual::Color| Color32::from_rgb(c.0[0], c.0[1], c.0[2]);
    let mut pixels = vec![color(back); width * height];
    for (x, c) in counts.iter().take(width).enumerate() {
        let mut below = 0.0;
        let mut filled = 0usize;
        for shade in STACK {
            let n = amount(c, shade, w.memory);
            if n <= 0.0 {
                continue;
            }
            below += n;
            // A state that is there at all gets a pixel: one MMIO page among thousands shall not vanish.
            let until = ((below / top * height as f64).round() as usize).max(filled + 1).min(height);
            let style = visual.shade_style(shade);
            for y in filled..until {
                let row = height - 1 - y;
                let s = w.scale.max(1);
                pixels[row * width + x] = color(style.pixel(w.theme, false, x as u32 / s, row as u32 / s));
            }
            filled = until;
        }
    }
    Area { counts, top, pixels: ColorImage::new([width, height], pixels) }
}

/// A round number a little above `most`, so that the axis has room and says something simple.
fn nice_top(most: f64, binary: bool) -> f64 {
    let most = (most * 1.05).max(1.0);
    if binary {
        let unit = 1024f64.powf((most.ln() / 1024f64.ln()).floor());
        let v = most / unit;
        return [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 64.0, 128.0, 256.0, 512.0, 1024.0]
            .into_iter()
            .find(|n| *n >= v)
            .unwrap_or(v)
            * unit;
    }
    let unit = 10f64.powf(most.log10().floor());
    let v = most / unit;
    [1.0, 1.5, 2.0, 3.0, 4.0, 5.0, 6.0, 8.0, 10.0].into_iter().find(|n| *n >= v).unwrap_or(v) * unit
}

/// The picture that is shown and the one that is on its way.
pub(crate) struct Pictures {
    worker: Worker<Wanted, Picture>,
    asked: Option<Wanted>,
    /// The newest finished picture.
    pub(crate) shown: Option<Picture>,
    /// The map on the graphics card.
    pub(crate) map: Option<egui::TextureHandle>,
    /// The area on the graphics card.
    pub(crate) area: Option<egui::TextureHandle>,
    /// Why the last one failed.
    pub(crate) error: Option<String>,
}

impl Pictures {
    /// Pictures of a capture; in place (`inline`) where the caller needs them in the same frame.
    pub(crate) fn new(capture: &Arc<RwLock<Capture>>, ctx: &egui::Context, inline: bool) -> Self {
        let capture = Arc::clone(capture);
        let compute = move |w| compute(&capture, w);
        let ctx = ctx.clone();
        let worker = if inline {
            Worker::inline(compute)
        } else {
            Worker::start("mmuscope-map", compute, move || ctx.request_repaint())
        };
        Self { worker, asked: None, shown: None, map: None, area: None, error: None }
    }

    /// Asks for a view unless it is what was last asked, and takes over what has become ready.
    pub(crate) fn want(&mut self, ctx: &egui::Context, wanted: Wanted) {
        if self.asked.as_ref() != Some(&wanted) {
            self.asked = Some(wanted.clone());
            self.worker.ask(wanted);
        }
        match self.worker.take() {
            Some(Ok(mut picture)) => {
                if let Some(image) = picture.pixels.take() {
                    upload(ctx, &mut self.map, "map", image);
                }
                if let Some(area) = &mut picture.area {
                    upload(ctx, &mut self.area, "area", std::mem::take(&mut area.pixels));
                }
                self.error = None;
                self.shown = Some(picture);
            }
            Some(Err(message)) => self.error = Some(message),
            None => {}
        }
    }

    /// Whether the picture shown is the one wanted.
    pub(crate) fn settled(&self) -> bool {
        !self.worker.busy() && self.shown.as_ref().is_some_and(|p| Some(&p.wanted) == self.asked.as_ref())
    }
}

fn upload(ctx: &egui::Context, slot: &mut Option<egui::TextureHandle>, name: &str, image: ColorImage) {
    match slot {
        Some(texture) => texture.set(image, egui::TextureOptions::NEAREST),
        None => *slot = Some(ctx.load_texture(name, image, egui::TextureOptions::NEAREST)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_top_of_an_axis_is_round_and_above_everything() {
        for most in [0.0, 1.0, 3.0, 9.7, 480.0, 512.0, 123_456.0] {
            let top = nice_top(most, false);
            assert!(top >= most && top <= (most * 2.2).max(2.0), "{most} {top}");
            let top = nice_top(most * 4096.0, true);
            assert!(top >= most * 4096.0 && top <= (most * 4096.0 * 2.2).max(2.0), "{most} {top}");
        }
    }
}
