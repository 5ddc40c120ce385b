//! [`Pictures`]: the contents of the middle of the window for one view, computed off the UI thread. The map and the area are pixels, the fault
//! rows bins.

use std::sync::{Arc, RwLock};

use egui::{Color32, ColorImage};
use mmuscope_analysis::visual::{self, ColourBy, Densities, RasterOptions, Theme, Visual};
use mmuscope_replay::{Bin, Counts, MapImage, MapQuery, SeriesKind, Shade, State, VmId};

use crate::capture::{self, Capture};
use crate::view::Range;
use crate::worker::Worker;

/// States that the area stacks, from the bottom up.
pub(crate) const STACK: [Shade; 5] =
    [Shade::Writable, Shade::ReadOnly, Shade::AccessTracked, Shade::Mmio, Shade::Removed];

/// The view of which a picture is wanted, and everything else that the picture depends on.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Wanted {
    /// VM to show.
    pub(crate) vm: VmId,
    /// Address space to show: 0 is the normal one, 1 is SMM.
    pub(crate) as_id: u8,
    /// Time to show, in whole nanoseconds since the first event.
    pub(crate) time: Range,
    /// Rows of the GFN axis to show.
    pub(crate) rows: Range,
    /// Width and height of the map in device pixels.
    pub(crate) map: [u32; 2],
    /// Width and height of the area in device pixels; 0 if it is hidden.
    pub(crate) area: [u32; 2],
    /// Threads whose faults are shown, one row each.
    pub(crate) lanes: Vec<u32>,
    /// Number of bins of a fault row.
    pub(crate) bins: usize,
    /// Colour scheme.
    pub(crate) theme: Theme,
    /// Width and height in device pixels of one pixel of a pattern.
    pub(crate) scale: u32,
    /// Whether the area shows bytes of memory instead of numbers of entries.
    pub(crate) memory: bool,
    /// What gives the map its colours.
    pub(crate) colour: ColourBy,
    /// Version of the capture, which changes when the trace grows.
    pub(crate) version: u64,
}

/// The area under the map.
#[derive(Clone, Debug)]
pub(crate) struct Area {
    /// Number of entries per state, one element per column.
    pub(crate) counts: Vec<Counts>,
    /// Upper end of the axis, in entries or bytes.
    pub(crate) top: f64,
    /// Picture of the area.
    pub(crate) pixels: ColorImage,
}

/// A finished picture.
pub(crate) struct Picture {
    /// The view that the picture is of.
    pub(crate) wanted: Wanted,
    /// Cells of the map, to look up what is under the pointer.
    pub(crate) map: MapImage,
    /// Faults or zaps in each cell of the map, where these give it its colours.
    pub(crate) densities: Densities,
    /// Pixels of the map, until they are on the graphics card.
    pub(crate) pixels: Option<ColorImage>,
    /// The area, unless it is hidden.
    pub(crate) area: Option<Area>,
    /// Number of faults per bin, one row per thread.
    pub(crate) lanes: Vec<Vec<Bin>>,
    /// Number of events per bin over the whole trace.
    pub(crate) overview: Vec<Bin>,
}

/// Number of bins of the overview: enough for any screen, and few enough to draw as one mesh.
pub(crate) const OVERVIEW_BINS: usize = 600;

/// Computes the picture of a view.
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
    let densities = w.colour.densities(timeline, &map);
    let pixels = visual::raster_by(Visual::builtin(), &map, &options, w.colour, timeline, &densities);
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
    Picture { wanted: w, map, densities, pixels: Some(pixels), area, lanes, overview }
}

/// Number of entries in a state, or bytes that they cover, as the area shows it.
///
/// Removed entries are no memory: a table of them would cover gigabytes and flatten everything else.
pub(crate) fn amount(counts: &Counts, shade: Shade, memory: bool) -> f64 {
    match (memory, shade) {
        (true, Shade::Removed) => 0.0,
        (true, _) => counts.bytes(shade) as f64,
        (false, _) => counts.total(shade) as f64,
    }
}

/// The part of what is present, or of what is MMIO, 0 to 1, that is only known from stale entries.
pub(crate) fn stale_part(counts: &Counts, shade: Shade) -> f64 {
    let (stale, all) = match shade.state() {
        State::Present => (counts.stale_bytes(None), counts.present_bytes(None)),
        State::Mmio => (counts.stale_mmio.saturating_mul(4096), counts.bytes(Shade::Mmio)),
        _ => (0, 0),
    };
    if all == 0 { 0.0 } else { (stale as f64 / all as f64).min(1.0) }
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
            // Every state that occurs gets at least one pixel, so that one MMIO page among thousands is seen.
            let until = ((below / top * height as f64).round() as usize).max(filled + 1).min(height);
            let style = visual.shade_style(shade);
            // The stale part is faint here, too; it is drawn on top.
            let part = stale_part(c, shade);
            let faint = until - ((until - filled) as f64 * part).round() as usize;
            for y in filled..until {
                let row = height - 1 - y;
                let s = w.scale.max(1);
                let mut here = style.pixel(w.theme, false, x as u32 / s, row as u32 / s);
                if y >= faint {
                    here = here.over(back, visual.overlay.stale_opacity);
                }
                pixels[row * width + x] = color(here);
            }
            filled = until;
        }
    }
    Area { counts, top, pixels: ColorImage::new([width, height], pixels) }
}

/// A round number a little above `most`, as the upper end of an axis.
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

/// The picture that is shown and the one that is being computed.
pub(crate) struct Pictures {
    worker: Worker<Wanted, Picture>,
    asked: Option<Wanted>,
    /// The newest picture that is finished.
    pub(crate) shown: Option<Picture>,
    /// The map on the graphics card.
    pub(crate) map: Option<egui::TextureHandle>,
    /// The area on the graphics card.
    pub(crate) area: Option<egui::TextureHandle>,
    /// The error of the last picture, if it failed.
    pub(crate) error: Option<String>,
}

impl Pictures {
    /// Pictures of a capture. With `inline` they are computed on the caller's thread, so that they are ready in the same frame.
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

    /// Asks for the picture of a view unless it was the last one asked for, and takes over a picture that has become ready.
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

    /// Whether the picture that is shown is the one that is wanted.
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

    /// Stale MMIO is as faint in the plot as in the map.
    #[test]
    fn stale_mmio_is_told_from_known_mmio() {
        let text = "layout C/npt\nkernel 6.1.0\n1 t1 root\n+1 t1 page 3 0\n+1 t1 tdp 4 0 empty T11\n+1 t1 page 2 0\n+1 t1 tdp 3 0 empty T12\n\
                    +1 t1 page 1 0\n+1 t1 tdp 2 0 empty T13\n+1 t1 tdp 1 5 empty M1\n+1 t1 tdp 1 6 empty M1\n9 t1 lost 3\n+1 t1 entry 0\n";
        let trace = mmuscope_testing::fixture::trace(text).expect("lines of the language");
        let t = mmuscope_replay::replay(&trace, &mmuscope_replay::ReplayOptions::default());
        let at = |back: u64| t.counts_at(t.range().1 - back);
        assert!(stale_part(&at(4000), Shade::Mmio) < 0.01, "{:?}", at(4000));
        assert!((stale_part(&at(0), Shade::Mmio) - 1.0).abs() < 0.01, "{:?}", at(0));
        assert_eq!((at(0).stale_mmio, at(0).bytes(Shade::Mmio)), (2, 8192));
    }

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
