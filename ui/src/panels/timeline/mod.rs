//! The middle of the window: overview, phases, ruler, map, states over time and fault rows, all on one time axis.

mod area;
mod causes;
mod lanes;
mod map;
pub(crate) mod nav;
mod notes;
mod other;
pub(crate) mod second;
mod strips;
mod tip;

use egui::{Pos2, Rect, Ui, pos2, vec2};

use super::Cx;
use crate::contain::Contained;
use crate::picture::Wanted;
use crate::view::Range;

/// Width in points of the labels left of the plots.
const GUTTER: f32 = 96.0;
/// Width in points of the GFN overview right of the map.
const SIDE: f32 = 14.0;

/// The time axis on the screen. `x` coordinates are in points, times in nanoseconds since the first event.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Axis {
    /// Left end of the plots.
    pub(crate) x0: f32,
    /// Right end of the plots.
    pub(crate) x1: f32,
    /// Time between both ends.
    pub(crate) time: Range,
}

impl Axis {
    /// The coordinate of a time.
    pub(crate) fn x(&self, t: f64) -> f32 {
        // Far outside of the window the exact place does not matter, but a float must not overflow.
        let f = self.time.fraction(t).clamp(-2.0, 3.0);
        self.x0 + (self.x1 - self.x0) * f as f32
    }

    /// The time at a coordinate.
    pub(crate) fn t(&self, x: f32) -> f64 {
        self.time.at(f64::from((x - self.x0) / (self.x1 - self.x0)))
    }

    /// Nanoseconds per point.
    pub(crate) fn per_point(&self) -> f64 {
        self.time.span() / f64::from((self.x1 - self.x0).max(1.0))
    }
}

/// Places of all parts of the middle of the window.
#[derive(Clone)]
struct Rects {
    overview: Rect,
    phases: Rect,
    causes: Vec<Rect>,
    ruler: Rect,
    map: Rect,
    side: Rect,
    area: Rect,
    lanes: Vec<Rect>,
}

fn rects(full: Rect, ppp: f32, phases: bool, causes: usize, area: bool, lanes: usize) -> Rects {
    // Pictures are drawn pixel by pixel, so their corners lie on pixels.
    let snap = |v: f32| (v * ppp).round() / ppp;
    let x0 = snap(full.left() + GUTTER);
    let x1 = snap((full.right() - SIDE - 8.0).max(x0 + 16.0));
    let mut y = snap(full.top() + 2.0);
    let take = |y: &mut f32, h: f32, gap: f32| {
        let r = Rect::from_min_max(pos2(x0, *y), pos2(x1, snap(*y + h)));
        *y = snap(*y + h + gap);
        r
    };
    let overview = take(&mut y, 30.0, 4.0);
    let phase_rect = take(&mut y, if phases { 20.0 } else { 0.0 }, 0.0);
    let causes = (0..causes).map(|_| take(&mut y, causes::HEIGHT, 1.0)).collect();
    let ruler = take(&mut y, 20.0, 0.0);
    // Many vCPUs share a limited height, because the map is the most important part.
    let room = full.bottom() - y;
    let area_h = if area { (room * 0.22).clamp(48.0, 150.0) } else { 0.0 };
    let lane_h = if lanes == 0 { 0.0 } else { (room * 0.25 / lanes as f32).clamp(9.0, 26.0) };
    let lanes_fit = if lanes == 0 { 0 } else { lanes.min((room * 0.3 / lane_h) as usize).max(1) };
    let below = area_h
        + if area { 6.0 } else { 0.0 }
        + lanes_fit as f32 * (lane_h + 2.0)
        + if lanes > 0 { 4.0 } else { 0.0 };
    let map_h = (room - below - 4.0).max(40.0);
    let map = take(&mut y, map_h, 6.0);
    let side = Rect::from_min_max(pos2(x1 + 4.0, map.top()), pos2(x1 + 4.0 + SIDE, map.bottom()));
    let area = take(&mut y, area_h, 4.0);
    let lanes = (0..lanes_fit).map(|_| take(&mut y, lane_h, 2.0)).collect();
    Rects { overview, phases: phase_rect, causes, ruler, map, side, area, lanes }
}

/// Draws the middle of the window.
pub(crate) fn show(ui: &mut Ui, cx: &mut Cx<'_>, contained: &mut Contained) {
    let full = ui.available_rect_before_wrap();
    ui.allocate_rect(full, egui::Sense::hover());
    let ppp = ui.ctx().pixels_per_point();
    let lanes = lanes::list(cx);
    let has_phases = !cx.cap.timeline.phases_of(cx.doc.view.vm).is_empty();
    // In a low window the plots go before the map does.
    let area = cx.doc.shown.area && full.height() >= 240.0;
    let fit = if full.height() >= 260.0 { lanes.len() } else { 0 };
    let kinds = cx.doc.survey.done.as_ref().map_or(0, |s| s.rows(cx.doc.view.vm).len());
    let kinds = if cx.doc.shown.causes && full.height() >= 320.0 { kinds } else { 0 };
    let mut r = rects(full, ppp, has_phases, kinds, area, fit);
    let whole = r.map;
    let beside = cx.doc.other.is_some();
    let other = second::split(cx, &mut r);
    cx.doc.band = None;
    nav::keys(ui, cx);
    cx.doc.hover = pointer(ui, cx, &r, whole);
    let axis = Axis { x0: r.map.left(), x1: r.map.right(), time: cx.doc.view.time };
    ask(ui, cx, &r, &lanes, ppp);
    contained.show(ui, "Overview", |ui| strips::overview(ui, cx, r.overview));
    if has_phases {
        contained.show(ui, "Phases", |ui| strips::phases(ui, cx, r.phases, &axis));
    }
    contained.show(ui, "Causes", |ui| causes::show(ui, cx, &r.causes, &axis));
    contained.show(ui, "Time axis", |ui| strips::ruler(ui, cx, r.ruler, &axis));
    notes::marks(ui, cx, r.ruler, &axis);
    contained.show(ui, "GFN map", |ui| map::show(ui, cx, r.map, r.side, &axis));
    match other {
        Some(place) if beside => other::show(ui, cx, &r, place, &axis, contained),
        Some(place) => second::show(ui, cx, &r, place, &axis, contained),
        None => {}
    }
    if area {
        contained.show(ui, "States over time", |ui| area::show(ui, cx, r.area, &axis));
    }
    contained.show(ui, "Fault rates", |ui| lanes::show(ui, cx, &r.lanes, &lanes, &axis));
    let bottom = r.lanes.last().map_or(if area { r.area.bottom() } else { whole.bottom() }, Rect::bottom);
    let top = r.causes.first().map_or(r.ruler.top(), Rect::top);
    let all = Rect::from_min_max(pos2(axis.x0, top), pos2(axis.x1, bottom));
    strips::outside(ui, cx, all.with_min_y(r.ruler.bottom()), r.map, &axis);
    causes::band(ui, cx, all, r.map, &axis);
    let rows = cx.doc.view.rows;
    if cx.doc.shown.tables && cx.doc.tables.tab == super::tables::Tab::Between {
        super::between::on_map(ui, cx, r.map, |t| axis.x(t), |row| map::y_of(r.map, rows, row));
    }
    // What was lost of this trace is not lost of the other.
    let apart = other.map(|(map, _)| map).filter(|_| beside);
    strips::over_all(ui, cx, all.with_min_y(r.ruler.top()), apart, &axis);
}

/// The place under the pointer in the view of this frame.
fn pointer(ui: &Ui, cx: &Cx<'_>, r: &Rects, whole: Rect) -> crate::doc::Hover {
    let mut hover = crate::doc::Hover::default();
    let Some(pos) = ui.ctx().pointer_hover_pos() else { return hover };
    let all = whole.union(r.ruler).union(r.area).union(r.lanes.last().copied().unwrap_or(r.map));
    if !all.contains(pos) || ui.ctx().layer_id_at(pos).is_some_and(|l| l != ui.layer_id()) {
        return hover;
    }
    let axis = Axis { x0: r.map.left(), x1: r.map.right(), time: cx.doc.view.time };
    hover.time = Some(axis.t(pos.x));
    if r.map.contains(pos) {
        hover.gfn = cx.cap.gfn_at(cx.doc.view.vm, cx.doc.view.as_id, row_at(r.map, cx.doc.view.rows, pos));
    }
    hover
}

/// The row of the GFN axis at a position. Rows go up.
fn row_at(map: Rect, rows: Range, pos: Pos2) -> f64 {
    rows.at(f64::from((map.bottom() - pos.y) / map.height()))
}

fn ask(ui: &Ui, cx: &mut Cx<'_>, r: &Rects, lanes: &[lanes::Lane], ppp: f32) {
    let view = cx.doc.view;
    let px = |rect: Rect| {
        let s = rect.size() * ppp;
        [(s.x.round() as u32).clamp(1, 8192), (s.y.round() as u32).clamp(1, 8192)]
    };
    // Beside another trace, the view may show time that this trace does not have; the picture has only what it has.
    let full = cx.cap.full_time();
    let start = view.time.start.floor().clamp(full.start, (full.end - 1.0).max(full.start));
    let time = Range::new(start, view.time.end.ceil().min(full.end).max(start + 1.0));
    let mut map = px(r.map);
    let part = (time.span() / view.time.span()).min(1.0);
    map[0] = ((f64::from(map[0]) * part).round() as u32).max(1);
    let wanted = Wanted {
        vm: view.vm,
        as_id: view.as_id,
        time,
        rows: view.rows,
        map,
        area: if r.area.height() > 0.5 { [map[0], px(r.area)[1]] } else { [0, 0] },
        lanes: lanes.iter().take(r.lanes.len()).filter_map(|l| l.tid).collect(),
        bins: (map[0] as usize / 2).clamp(1, (time.span() as usize).max(1)),
        theme: cx.tokens.theme,
        scale: (ppp.round() as u32).max(1),
        memory: cx.doc.shown.memory,
        colour: cx.doc.colour,
        version: cx.cap.version,
    };
    cx.doc.pictures.want(ui.ctx(), wanted);
}

/// Draws a text in the gutter, right-aligned against the plots.
fn gutter_text(ui: &Ui, at: Pos2, align: egui::Align2, text: &str, color: egui::Color32) {
    ui.painter().text(at + vec2(-8.0, 0.0), align, text, crate::theme::small(), color);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_axis_maps_there_and_back() {
        let axis = Axis { x0: 100.0, x1: 600.0, time: Range::new(1e9, 2e9) };
        assert!((axis.x(1.5e9) - 350.0).abs() < 0.01);
        assert!((axis.t(350.0) - 1.5e9).abs() < 1.0);
        assert!(axis.x(1e30).is_finite() && axis.x(-1e30).is_finite());
    }

    #[test]
    fn the_map_gets_most_of_the_height_and_everything_stays_inside() {
        for (h, lanes) in [(700.0, 2), (300.0, 0), (900.0, 64), (160.0, 4)] {
            let full = Rect::from_min_size(pos2(0.0, 0.0), vec2(1000.0, h));
            let r = rects(full, 1.0, true, if h >= 320.0 { 3 } else { 0 }, true, lanes);
            let bottom = r.lanes.last().map_or(r.area.bottom(), Rect::bottom);
            if h >= 300.0 {
                assert!(bottom <= full.bottom() + 1.0, "{h} {lanes}: {bottom}");
                assert!(r.map.height() >= 0.25 * h, "{h} {lanes}: {}", r.map.height());
            }
            assert!(r.map.height() >= 40.0);
        }
    }
}
