//! [`overview`]: the picture that a reader looks at first. It shows the map of time x GFN, and under it, on the same time axis, numbers of
//! entries, bytes, faults and zaps.

mod marks;

use std::fmt::Write;

use maud::{Markup, html};
use mmuscope_analysis::visual::Visual;

use super::{Scale, byte_ticks, count_ticks, px, spread, text_width, time_ticks};
use crate::model::{MapPicture, MapSegment, PhaseReport, Report, SpaceReport, VmReport};
use crate::png::data_uri;
use crate::slots;
use crate::words;

/// Width of the whole figure in CSS pixels.
pub(crate) const WIDTH: f64 = 1200.0;
const LEFT: f64 = 104.0;
const RIGHT: f64 = 148.0;
/// Width of the plots in CSS pixels. The picture of a map is exactly as wide, so that its patterns stay sharp.
pub(crate) const PLOT: u32 = 948;
/// Number of stretches of time in a series: a bar is two pixels wide.
pub(crate) const STEPS: usize = PLOT as usize / 2;
/// Height in pixels of a fold in the map.
pub(crate) const FOLD: u32 = 13;

const GAP: f64 = 26.0;
const LABEL: f64 = 11.0;

struct Figure<'a> {
    report: &'a Report,
    vm: u16,
    x: Scale,
    y: f64,
    parts: Vec<Markup>,
    /// Top and bottom of each plot, for bands and lines that cross all of them.
    plots: Vec<(f64, f64)>,
}

/// Draws the figure of one address space of one VM. `id` is the id of the SVG element.
pub(crate) fn overview(report: &Report, vm: &VmReport, space: &SpaceReport, id: &str) -> Markup {
    let (start, end) = report.axis();
    let mut f = Figure {
        report,
        vm: vm.vm,
        x: Scale::new(start as f64, end.max(start + 1) as f64, LEFT, LEFT + f64::from(PLOT)),
        y: 4.0,
        parts: Vec::new(),
        plots: Vec::new(),
    };
    f.phases();
    f.findings();
    if let Some(map) = &space.map {
        f.heading("Guest frames over time", "each pixel: one stretch of time of one stretch of guest memory");
        f.map(map, vm, space);
        f.time_axis();
    }
    let o = &space.over_time;
    if o.entries.iter().any(|s| s.peak > 0) {
        f.heading("Leaves by state", "entries that map a page or mark MMIO, whatever their size");
        f.states(space);
    }
    // SMM has few entries, so that a plot of their bytes says nothing.
    let whole = space.as_id == 0;
    if o.peak_bytes > 0 && whole {
        f.heading("Guest memory present, by page size", "");
        f.levels(space);
    }
    if o.faults.iter().any(|n| *n > 0) {
        f.heading("Faults", &format!("per {}", words::duration(o.step)));
        f.bars(&o.faults, "series-1", o.faults.iter().sum(), "fault", "faults");
    }
    if whole && o.first_faults.iter().any(|n| *n > 0) {
        f.heading("Frames faulted on for the first time", &format!("per {}", words::duration(o.step)));
        f.bars(&o.first_faults, "series-2", o.first_faults.iter().sum(), "frame", "frames");
    }
    if whole && o.zaps.iter().any(|n| *n > 0) {
        f.heading("Leaves zapped", &format!("per {}", words::duration(o.step)));
        f.bars(&o.zaps, "series-3", o.zaps.iter().sum(), "zap", "zaps");
    }
    f.time_axis();
    f.finish(vm, space, id)
}

impl<'a> Figure<'a> {
    fn text(&mut self, x: f64, y: f64, class: &str, text: &str) {
        self.parts.push(html! { text x=(px(x)) y=(px(y)) class=(class) { (text) } });
    }

    fn heading(&mut self, title: &str, unit: &str) {
        self.y += GAP;
        self.parts.push(html! {
            text x=(px(LEFT)) y=(px(self.y - 8.0)) class="h" {
                (title)
                @if !unit.is_empty() { tspan class="u" dx="8" { (unit) } }
            }
        });
    }

    /// The phases that the process of this VM marked, or, where it marked none, those that no VM's process marked.
    fn own_phases(&self) -> Vec<&'a PhaseReport> {
        if self.report.vms.len() < 2 {
            return self.report.phases.iter().collect();
        }
        let of = |vm: Option<u16>| self.report.phases.iter().filter(|p| p.vm == vm).collect::<Vec<_>>();
        let own = of(Some(self.vm));
        if own.is_empty() { of(None) } else { own }
    }

    fn phases(&mut self) {
        const BAND: f64 = 18.0;
        const ROW: f64 = 14.0;
        const ROWS: usize = 12;
        let phases = self.own_phases();
        if phases.is_empty() {
            return;
        }
        let right = LEFT + f64::from(PLOT) + RIGHT;
        // Labels that do not fit into their stretch go above it, in the first row that is free there. Going from right to left, a label
        // never crosses the leader of one further left in a lower row.
        let mut ends = [f64::INFINITY; ROWS];
        let mut placed: Vec<Option<usize>> = vec![None; phases.len()];
        let mut hidden = 0;
        for (i, p) in phases.iter().enumerate().rev() {
            let (x0, x1) = (self.x.at(p.start as f64), self.x.at(p.end as f64));
            // Phase labels are drawn in a heavier weight.
            let w = text_width(&label(&p.text), LABEL) * 1.12;
            if w + 10.0 <= x1 - x0 {
                placed[i] = Some(0);
                continue;
            }
            let row = (1..ROWS).find(|r| x0 + 3.0 + w + 8.0 <= ends[*r].min(right));
            if let Some(r) = row {
                // The leader goes down through the rows below, so that no label further left may reach across it there.
                for end in &mut ends[1..=r] {
                    *end = end.min(x0);
                }
                placed[i] = Some(r);
            } else {
                hidden += 1;
            }
        }
        let rows = placed.iter().flatten().max().copied().unwrap_or(0);
        let top = self.y + rows as f64 * ROW + 2.0;
        for (i, p) in phases.iter().enumerate() {
            let (x0, x1) =
                (self.x.at(p.start as f64), self.x.at(p.end as f64).max(self.x.at(p.start as f64) + 1.0));
            let shown = label(&p.text);
            self.parts.push(html! {
                g {
                    title { (p.text) ": " (words::duration(p.start)) " to " (words::duration(p.end)) }
                    rect x=(px(x0)) y=(px(top)) width=(px(x1 - x0)) height=(px(BAND)) class=(if i % 2 == 0 { "phase a" } else { "phase b" }) {}
                    @match placed[i] {
                        Some(0) => text x=(px(x0 + 5.0)) y=(px(top + 13.0)) class="p" { (shown) },
                        Some(r) => {
                            path d=(format!("M{} {}V{}", px(x0 + 0.5), px(top), px(top - r as f64 * ROW + 1.0))) class="leader" {}
                            text x=(px(x0 + 4.0)) y=(px(top - (r - 1) as f64 * ROW - 4.0)) class="p" { (shown) }
                        },
                        None => {},
                    }
                }
            });
        }
        if hidden > 0 {
            let more = format!("{} more", words::count(hidden));
            self.text(LEFT + f64::from(PLOT) + 8.0, top + 13.0, "u", &more);
        }
        self.text(LEFT - 8.0, top + 13.0, "e u", "phases");
        self.y = top + BAND;
    }

    fn map(&mut self, map: &MapPicture, vm: &VmReport, space: &SpaceReport) {
        let top = self.y;
        let (w, h) = (f64::from(map.width), f64::from(map.height));
        let alt = map_alt(map, vm);
        for (class, png) in [("only-light", &map.light), ("only-dark", &map.dark)] {
            self.parts.push(html! {
                image class=(class) x=(px(LEFT)) y=(px(top)) width=(px(w)) height=(px(h)) href=(data_uri(png)) preserveAspectRatio="none" aria-label=(alt) {}
            });
        }
        let right = LEFT + w;
        let mut labels: Vec<(f64, String, &str)> = Vec::new();
        for s in &map.segments {
            let (y0, y1) = (top + f64::from(s.top), top + f64::from(s.top + s.height));
            self.parts.push(
                html! { path d=(format!("M{} {}V{}", px(LEFT - 0.5), px(y0), px(y1))) class="axis" {} },
            );
            for (gfn, y) in frame_ticks(s, y0, y1) {
                self.parts
                    .push(html! { path d=(format!("M{} {}h4", px(LEFT - 4.5), px(y))) class="axis" {} });
                labels.push((y, words::gfn(gfn), "e n"));
            }
            let what = segment_words(s, vm, space);
            for (i, line) in what.iter().enumerate() {
                let lines = what.len() as f64;
                let middle = f64::midpoint(y0, y1) - (lines - 1.0) * 6.5 + i as f64 * 13.0;
                self.text(right + 8.0, middle + 3.5, if i == 0 { "n" } else { "u" }, line);
            }
            if s.fold_below > 0 {
                self.fold(y1, s.fold_below);
            }
        }
        // Labels sit on their tick; where a fold puts two too close, they move apart.
        let mut ys: Vec<f64> = labels.iter().map(|l| l.0).collect();
        spread(&mut ys, 12.0, top + 4.0, top + h - 2.0);
        for ((_, text, class), y) in labels.iter().zip(ys) {
            self.text(LEFT - 8.0, y + 3.5, class, text);
        }
        self.parts.push(html! { rect x=(px(LEFT - 0.5)) y=(px(top - 0.5)) width=(px(w + 1.0)) height=(px(h + 1.0)) class="frame" {} });
        self.plots.push((top, top + h));
        self.y = top + h;
    }

    /// Draws the mark of a fold of the GFN axis, which leaves out `frames` frames.
    fn fold(&mut self, y: f64, frames: u64) {
        let mid = y + f64::from(FOLD) / 2.0;
        let mut zigzag = format!("M{} {}", px(LEFT - 6.0), px(mid));
        for i in 0..6 {
            let _ = write!(zigzag, "l2 {}", if i % 2 == 0 { "-3.5" } else { "3.5" });
        }
        let size = frames.checked_mul(4096).map_or_else(|| "more than 16 EiB".to_owned(), words::bytes);
        self.parts.push(html! {
            g {
                title { (size) " of guest frames without an entry are left out here" }
                path d=(format!("M{} {}H{}M{} {}H{}", px(LEFT), px(y + 0.5), px(LEFT + f64::from(PLOT)),
                    px(LEFT), px(y + f64::from(FOLD) - 0.5), px(LEFT + f64::from(PLOT)))) class="fold" {}
                path d=(zigzag) class="fold" {}
                text x=(px(LEFT + f64::from(PLOT) / 2.0)) y=(px(mid + 3.5)) class="m f" { (size) " folded" }
            }
        });
    }

    fn time_axis(&mut self) {
        let y = self.y;
        let mut ticks = String::new();
        let n = (f64::from(PLOT) / 90.0) as u64;
        for (t, label) in time_ticks(self.report.axis(), n) {
            let x = self.x.at(t as f64);
            let _ = write!(ticks, "M{} {}v5", px(x), px(y));
            self.text(x, y + 17.0, "m n", &label);
        }
        self.parts.push(html! { path d=(ticks) class="axis" {} });
        self.y += 20.0;
    }

    /// Draws axis and grid of a plot whose values go up from 0, and returns the scale of the values.
    fn values(&mut self, ticks: &[(u64, String)], height: f64) -> Scale {
        let (top, bottom) = (self.y, self.y + height);
        let max = ticks.last().map_or(1, |t| t.0).max(1);
        let y = Scale::new(0.0, max as f64, bottom, top);
        for (v, label) in ticks {
            let at = y.at(*v as f64);
            self.parts.push(html! { path d=(format!("M{} {}H{}", px(LEFT), px(at), px(LEFT + f64::from(PLOT)))) class=(if *v == 0 { "axis" } else { "grid" }) {} });
            self.text(LEFT - 8.0, at + 3.5, "e n", label);
        }
        self.plots.push((top, bottom));
        self.y = bottom;
        y
    }

    /// Draws layers on top of each other, each with a label at its right end.
    fn stack(&mut self, layers: &[Layer<'_>], y: Scale, height: f64) {
        let step = f64::from(PLOT) / layers.first().map_or(1, |l| l.values.len()).max(1) as f64;
        let bottom = self.y;
        let mut base: Vec<u64> = vec![0; layers.first().map_or(0, |l| l.values.len())];
        let mut labels = Vec::new();
        let mut below = 0u64;
        for layer in layers {
            // What is certain is drawn below what is stale.
            let certain: Vec<u64> = (0..base.len())
                .map(|i| {
                    let stale = layer.stale.get(i).copied().unwrap_or(0);
                    base[i].saturating_add(layer.values[i].saturating_sub(stale))
                })
                .collect();
            let upper: Vec<u64> = base.iter().zip(layer.values).map(|(a, b)| a.saturating_add(*b)).collect();
            for (lower, upper, extra, word) in
                [(&base, &certain, "", ""), (&certain, &upper, " stale", ", stale")]
            {
                let d = area(lower, upper, step, y);
                if !d.is_empty() {
                    let class = format!("area {}{extra}", layer.class);
                    self.parts.push(html! { path d=(d) class=(class) { title { (layer.name) (word) } } });
                }
            }
            let end = layer.values.last().copied().unwrap_or(0);
            let middle = below as f64 + end as f64 / 2.0;
            labels.push((y.at(middle), layer));
            below = below.saturating_add(end);
            base = upper;
        }
        let mut ys: Vec<f64> = labels.iter().map(|l| l.0).collect();
        // The labels keep the order of the layers.
        spread(&mut ys, 15.0, bottom - height + 2.0, bottom - 2.0);
        let right = LEFT + f64::from(PLOT);
        for ((_, layer), y) in labels.iter().zip(ys) {
            self.parts.push(html! {
                rect x=(px(right + 8.0)) y=(px(y - 5.0)) width="11" height="10" class=(format!("key {}", layer.class)) {}
                text x=(px(right + 24.0)) y=(px(y + 3.5)) class="n" {
                    (layer.end) tspan class="u" dx="5" { (layer.name) }
                    @if let Some(peak) = layer.room_for_peak() { tspan class="u" dx="5" { "≤ " (peak) } }
                }
            });
        }
    }

    fn states(&mut self, space: &SpaceReport) {
        let series: Vec<_> = space.over_time.entries.iter().filter(|s| s.peak > 0).collect();
        let steps = series.iter().map(|s| s.counts.len()).max().unwrap_or(0);
        let max =
            (0..steps).map(|i| series.iter().filter_map(|s| s.counts.get(i)).sum::<u64>()).max().unwrap_or(0);
        let height = (f64::from(series.len() as u32) * 15.0 + 6.0).max(110.0);
        let y = self.values(
            &count_ticks(max, 4).into_iter().map(|v| (v, words::count(v))).collect::<Vec<_>>(),
            height,
        );
        let layers: Vec<Layer<'_>> = series
            .iter()
            .map(|s| Layer {
                class: format!("s-{}", Visual::builtin().shade_style(s.shade).id),
                name: words::short_name(s.shade).to_owned(),
                end: words::count(s.counts.last().copied().unwrap_or(0)),
                peak: (s.counts.last() != Some(&s.peak)).then(|| words::count(s.peak)),
                values: &s.counts,
                stale: &s.stale,
            })
            .collect();
        self.stack(&layers, y, height);
    }

    fn levels(&mut self, space: &SpaceReport) {
        let levels = &space.over_time.present_bytes;
        let steps = levels.iter().map(|s| s.bytes.len()).max().unwrap_or(0);
        let max = (0..steps)
            .map(|i| levels.iter().filter_map(|s| s.bytes.get(i)).fold(0u64, |a, b| a.saturating_add(*b)))
            .max()
            .unwrap_or(0);
        let height = 92.0;
        let y = self.values(
            &byte_ticks(max, 4).into_iter().map(|v| (v, words::bytes(v))).collect::<Vec<_>>(),
            height,
        );
        let layers: Vec<Layer<'_>> = levels
            .iter()
            .map(|l| Layer {
                class: format!("level-{}", l.level),
                name: format!("in {}", words::level_size(l.level)),
                end: words::bytes(l.bytes.last().copied().unwrap_or(0)),
                peak: l.bytes.iter().max().filter(|m| l.bytes.last() != Some(m)).map(|m| words::bytes(*m)),
                values: &l.bytes,
                stale: &l.stale,
            })
            .collect();
        self.stack(&layers, y, height);
    }

    fn bars(&mut self, values: &[u64], class: &str, total: u64, one: &str, many: &str) {
        let height = 62.0;
        let max = values.iter().copied().max().unwrap_or(0);
        let y = self.values(
            &count_ticks(max, 3).into_iter().map(|v| (v, words::count(v))).collect::<Vec<_>>(),
            height,
        );
        let step = f64::from(PLOT) / values.len().max(1) as f64;
        let d = area(&vec![0; values.len()], values, step, y);
        self.parts.push(html! { path d=(d) class=(format!("area {class}")) {} });
        let right = LEFT + f64::from(PLOT) + 8.0;
        let total = words::counted(total, one, many);
        self.text(right, self.y - height + 10.0, "n", &total);
        let peak = format!("at most {}", words::count(max));
        self.text(right, self.y - height + 24.0, "u", &peak);
    }

    fn finish(mut self, vm: &VmReport, space: &SpaceReport, id: &str) -> Markup {
        let height = self.y + 4.0;
        let mut rules = String::new();
        for p in self.own_phases().iter().filter(|p| p.start > self.report.axis().0) {
            for (top, bottom) in &self.plots {
                let _ = write!(rules, "M{} {}V{}", px(self.x.at(p.start as f64)), px(*top), px(*bottom));
            }
        }
        if !rules.is_empty() {
            self.parts.push(html! { path d=(rules) class="rule" {} });
        }
        // A recording can have very many moments of loss: those that touch each other on the screen become one band.
        let mut bands: Vec<(f64, f64, u64, Option<u64>)> = Vec::new();
        for l in &self.report.lost {
            let x0 = self.x.at(l.start as f64);
            let x1 = self.x.at(l.end as f64).max(x0 + 1.5);
            match bands.last_mut() {
                Some(b) if x0 <= b.1 + 1.0 => {
                    b.1 = b.1.max(x1);
                    b.2 += 1;
                    b.3 = b.3.zip(l.count).map(|(a, c)| a.saturating_add(c));
                }
                _ => bands.push((x0, x1, 1, l.count)),
            }
        }
        for (x0, x1, moments, n) in bands {
            let top = self.plots.first().map_or(0.0, |p| p.0);
            let title = match n {
                Some(n) => format!("{} lost here", words::counted(n, "event", "events")),
                None => format!(
                    "events lost here ({}), how many is not known",
                    words::counted(moments, "moment", "moments")
                ),
            };
            self.parts.push(html! {
                rect x=(px(x0)) y=(px(top)) width=(px(x1 - x0)) height=(px(self.plots.last().map_or(0.0, |p| p.1) - top)) class="lost" {
                    title { (title) }
                }
            });
        }
        let title = format!(
            "{}{}: guest memory over time",
            vm.label(self.report.vms.len() > 1),
            if space.as_id == 0 { "" } else { " (SMM)" }
        );
        html! {
            svg id=(id) class="overview" xmlns="http://www.w3.org/2000/svg" viewBox=(format!("0 0 {} {}", px(WIDTH), px(height)))
                width=(px(WIDTH)) height=(px(height)) role="img" aria-labelledby=(format!("{id}-t {id}-d")) {
                title id=(format!("{id}-t")) { (title) }
                desc id=(format!("{id}-d")) { (figure_words(self.report, vm, space)) }
                @for p in &self.parts { (p) }
            }
        }
    }
}

struct Layer<'a> {
    class: String,
    name: String,
    end: String,
    /// The highest value, where it is not the one at the end.
    peak: Option<String>,
    values: &'a [u64],
    /// The stale part of `values`.
    stale: &'a [u64],
}

impl Layer<'_> {
    fn room_for_peak(&self) -> Option<&str> {
        let peak = self.peak.as_deref()?;
        let width = text_width(&self.end, LABEL)
            + text_width(&self.name, LABEL)
            + text_width(peak, LABEL)
            + text_width("≤ ", LABEL);
        (width + 10.0 <= RIGHT - 34.0).then_some(peak)
    }
}

/// The path of a stepped area between two series. Every step is a counted value; nothing is interpolated.
fn area(lower: &[u64], upper: &[u64], step: f64, y: Scale) -> String {
    let mut path = String::new();
    let n = upper.len();
    let mut from = 0;
    // Stretches where both series are equal are left out, so that no thin outline suggests a value.
    while from < n {
        if upper[from] == lower[from] {
            from += 1;
            continue;
        }
        let mut to = from;
        while to < n && upper[to] != lower[to] {
            to += 1;
        }
        let x = |k: usize| px(LEFT + k as f64 * step);
        let _ = write!(path, "M{} {}", x(from), px(y.at(upper[from] as f64)));
        for k in from + 1..to {
            if upper[k] != upper[k - 1] {
                let _ = write!(path, "H{}V{}", x(k), px(y.at(upper[k] as f64)));
            }
        }
        let _ = write!(path, "H{}V{}", x(to), px(y.at(lower[to - 1] as f64)));
        for k in (from..to - 1).rev() {
            if lower[k] != lower[k + 1] {
                let _ = write!(path, "H{}V{}", x(k + 1), px(y.at(lower[k] as f64)));
            }
        }
        let _ = write!(path, "H{}Z", x(from));
        from = to;
    }
    path
}

/// Ticks of one stretch of frames as frame and height: its first frame, and, where there is room, its last and round ones between.
fn frame_ticks(s: &MapSegment, top: f64, bottom: f64) -> Vec<(u64, f64)> {
    let height = bottom - top;
    let y = Scale::new(s.gfn_start as f64, s.gfn_end as f64, bottom, top);
    if height < 22.0 {
        // There is room for one label: the first frame, at half height.
        return vec![(s.gfn_start, f64::midpoint(top, bottom))];
    }
    let mut out = vec![(s.gfn_start, bottom - 0.5)];
    let frames = s.gfn_end - s.gfn_start;
    let room = (height / 34.0) as u64;
    let mut step = 1u64;
    while room > 0 && frames / step > room && step < 1 << 51 {
        step *= 2;
    }
    if room > 1 && step > 1 {
        // A stretch may end at the last frame number there is.
        let round = (s.gfn_start / step + 1).checked_mul(step);
        let more = std::iter::successors(round, |g| g.checked_add(step)).take_while(|g| *g < s.gfn_end);
        out.extend(
            more.map(|g| (g, y.at(g as f64))).filter(|(_, at)| *at < bottom - 16.0 && *at > top + 16.0),
        );
    }
    out.push((s.gfn_end - 1, top + 0.5));
    out
}

/// Lines of text for the right margin: the size of a stretch of frames, and the memory and devices that usually lie there.
fn segment_words(s: &MapSegment, vm: &VmReport, space: &SpaceReport) -> Vec<String> {
    let size = words::bytes((s.gfn_end - s.gfn_start).saturating_mul(4096));
    let mut names = slots::names(&space.slots, s.gfn_start, s.gfn_end);
    for m in &vm.mmio {
        if (s.gfn_start..s.gfn_end).contains(&m.frames.gfn_start) {
            for name in m.usually.as_deref().unwrap_or("MMIO").split(", ") {
                if !names.contains(&name) {
                    names.push(name);
                }
            }
        }
    }
    let room = (s.height / 13).max(1) as usize;
    let mut lines: Vec<String> = Vec::new();
    if names.is_empty() || room > 1 {
        lines.push(size);
    }
    let left = room - lines.len().min(room);
    if names.len() > left && left > 0 {
        lines.extend(names.iter().take(left - 1).map(|n| (*n).to_owned()));
        let rest = &names[left - 1..];
        let all = rest.join(", ");
        let fits = text_width(&all, LABEL) <= RIGHT - 10.0;
        lines.push(if fits { all } else { format!("{} and {} more", rest[0], rest.len() - 1) });
    } else {
        lines.extend(names.iter().take(left).map(|n| (*n).to_owned()));
    }
    lines
}

fn label(text: &str) -> String {
    words::one_line(text, 28)
}

fn map_alt(map: &MapPicture, vm: &VmReport) -> String {
    let names: Vec<String> = map.shades.iter().map(|s| words::short_name(*s).to_owned()).collect();
    format!(
        "Map of {}: time from left to right, guest frames from bottom to top in {}, coloured by state ({})",
        vm.name,
        words::counted(map.segments.len() as u64, "stretch", "stretches"),
        words::list(&names)
    )
}

fn figure_words(report: &Report, vm: &VmReport, space: &SpaceReport) -> String {
    let o = &space.over_time;
    let mut s = format!("Over {}, ", words::duration(report.length()));
    // How much of some frames is present is not summed up.
    if report.part.as_ref().is_none_or(|p| p.gfn_start.is_none()) {
        let (peak, end) = (words::bytes(o.peak_bytes), words::bytes(o.end_bytes));
        let _ = write!(s, "{peak} of guest memory was present at most, {end} at the end; ");
    }
    let _ = write!(s, "{}.", words::counted(vm.faults.total, "fault", "faults"));
    for e in o.entries.iter().filter(|e| e.peak > 0) {
        let _ = write!(
            s,
            " {}: at most {}, {} at the end.",
            words::sentence(words::short_name(e.shade)),
            words::count(e.peak),
            words::count(e.counts.last().copied().unwrap_or(0))
        );
    }
    s
}
