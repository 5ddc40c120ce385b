//! The strips over the map (overview of all events, phases, ruler), and the marks that cross all plots.

use egui::{Align2, Color32, CursorIcon, Mesh, Pos2, Rect, Sense, Shape, Stroke, StrokeKind, Ui, pos2, vec2};
use mmuscope_replay::Bin;

use super::{Axis, Cx, gutter_text, nav};
use crate::fmt;
use crate::theme::small;
use crate::view::{Range, time_ticks};

/// Bars from the bottom of `rect`, one per bin, as one mesh. `top` is the count of a full bar. The height is proportional to the square root
/// of the count, so that a single event stays visible beside a storm.
pub(super) fn bars(bins: &[Bin], rect: Rect, clip: Rect, top: u64, color: Color32, min_px: f32) -> Shape {
    let mut mesh = Mesh::default();
    let w = rect.width() / bins.len().max(1) as f32;
    for (i, bin) in bins.iter().enumerate().filter(|(_, b)| b.count > 0) {
        let h = ((bin.count as f32 / top.max(1) as f32).sqrt() * rect.height()).clamp(min_px, rect.height());
        let x = rect.left() + i as f32 * w;
        let r = Rect::from_min_max(pos2(x, rect.bottom() - h), pos2(x + w.max(1.0), rect.bottom()))
            .intersect(clip);
        if r.is_positive() {
            mesh.add_colored_rect(r, color);
        }
    }
    Shape::mesh(mesh)
}

/// Draws the number of events over the whole trace, and the part that is shown, which can be dragged.
#[expect(clippy::many_single_char_names, reason = "x, y, t, r, a and b are what a plot is made of")]
pub(super) fn overview(ui: &mut Ui, cx: &mut Cx<'_>, rect: Rect) {
    let t = cx.tokens;
    let full = cx.cap.full_time();
    let response = ui
        .interact(rect, ui.scope_id().with("overview"), Sense::click_and_drag())
        .on_hover_cursor(CursorIcon::Grab);
    response.widget_info(|| {
        egui::WidgetInfo::labeled(
            egui::Role::Slider,
            true,
            "Overview: events over the whole trace, with the part that is shown",
        )
    });
    let painter = ui.painter().with_clip_rect(rect);
    painter.rect_filled(rect, 3.0, t.background);
    if let Some(p) = &cx.doc.pictures.shown {
        let top = p.overview.iter().map(|b| b.count).max().unwrap_or(1);
        painter.add(bars(&p.overview, rect.shrink2(vec2(0.0, 2.0)), rect, top, t.faint, 1.0));
    }
    let x = |v: f64| rect.left() + rect.width() * full.fraction(v) as f32;
    for lost in cx.cap.timeline.lost() {
        let (a, b) = (x(cx.cap.rel(lost.start)), x(cx.cap.rel(lost.end)));
        painter.rect_filled(
            Rect::from_min_max(pos2(a, rect.top()), pos2(b.max(a + 1.5), rect.bottom())),
            0.0,
            t.lost.gamma_multiply(0.5),
        );
    }
    let (a, b) = (x(cx.doc.view.time.start), x(cx.doc.view.time.end));
    let shade = t.page.gamma_multiply(0.72);
    painter.rect_filled(Rect::from_min_max(rect.min, pos2(a, rect.bottom())), 0.0, shade);
    painter.rect_filled(Rect::from_min_max(pos2(b, rect.top()), rect.max), 0.0, shade);
    let window = Rect::from_min_max(pos2(a, rect.top()), pos2(b.max(a + 2.0), rect.bottom()));
    painter.rect_stroke(window, 2.0, Stroke::new(1.0, t.accent), StrokeKind::Inside);
    gutter_text(ui, pos2(rect.left(), rect.center().y), Align2::RIGHT_CENTER, "all events", t.muted);

    if response.drag_started() {
        cx.doc.leave();
    }
    let pos = response.interact_pointer_pos();
    if (response.dragged() || response.clicked())
        && let Some(pos) = pos
    {
        let at = full.at(f64::from((pos.x - rect.left()) / rect.width()));
        let time = if response.dragged() {
            let d = f64::from(response.drag_delta().x / rect.width()) * full.span();
            Range::new(cx.doc.view.time.start + d, cx.doc.view.time.end + d)
        } else {
            let half = cx.doc.view.time.span() / 2.0;
            Range::new(at - half, at + half)
        };
        cx.doc.show(cx.cap, time, cx.doc.view.rows);
    }
}

/// A phase that is narrower, in points, is drawn only.
const NARROW: f32 = 4.0;

/// Draws the phases, which texts written to trace_marker begin, as bands with these texts.
#[expect(clippy::many_single_char_names, reason = "x, y, t, r, a and b are what a plot is made of")]
pub(super) fn phases(ui: &mut Ui, cx: &mut Cx<'_>, rect: Rect, axis: &Axis) {
    let t = cx.tokens;
    let painter = ui.painter().with_clip_rect(rect);
    let mut zoom_to = None;
    let mut narrow = rect.left() - 1.0;
    for (i, phase) in cx.cap.timeline.phases_of(cx.doc.view.vm).into_iter().enumerate() {
        let (a, b) = (axis.x(cx.cap.rel(phase.start)), axis.x(cx.cap.rel(phase.end)));
        if b < rect.left() || a > rect.right() {
            continue;
        }
        let r = Rect::from_min_max(
            pos2(a.max(rect.left()), rect.top()),
            pos2(b.min(rect.right()).max(a + 1.0), rect.bottom()),
        );
        // Thousands of phases may be too narrow to be pointed at: of those, one line a point is drawn.
        if r.width() < NARROW {
            if r.right() >= narrow + 1.0 {
                narrow = r.right();
                painter.rect_filled(r, 0.0, t.phase[i % 2]);
                painter.vline(a, rect.y_range(), Stroke::new(1.0, t.axis));
            }
            continue;
        }
        painter.rect_filled(r, 0.0, t.phase[i % 2]);
        painter.vline(a, rect.y_range(), Stroke::new(1.0, t.axis));
        let text = fmt::clean(&phase.text);
        if r.width() > 14.0 {
            let galley = painter.layout_no_wrap(text.clone(), small(), t.ink);
            let inner = painter.with_clip_rect(r.shrink2(vec2(3.0, 0.0)));
            let y = r.center().y - galley.size().y / 2.0;
            inner.galley(pos2(r.left() + 5.0, y), galley, t.ink);
        }
        let response = ui.interact(r, ui.scope_id().with(("phase", i)), Sense::click());
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, format!("Phase {text}")));
        let tip = |ui: &mut Ui| {
            let length = cx.cap.rel(phase.end) - cx.cap.rel(phase.start);
            ui.label(format!(
                "{text}\nfrom {} for {}\nclick to show it",
                cx.at(phase.start),
                fmt::time(length)
            ));
        };
        if response.on_hover_ui(tip).clicked() {
            zoom_to = Some(Range::new(cx.cap.rel(phase.start), cx.cap.rel(phase.end)));
        }
    }
    gutter_text(ui, pos2(rect.left(), rect.center().y), Align2::RIGHT_CENTER, "phase", t.muted);
    if let Some(time) = zoom_to {
        cx.doc.leave();
        cx.doc.show(cx.cap, time.padded(0.02), cx.doc.view.rows);
    }
}

/// Draws the time axis.
pub(super) fn ruler(ui: &mut Ui, cx: &mut Cx<'_>, rect: Rect, axis: &Axis) {
    let t = cx.tokens;
    let response = ui.interact(rect, ui.scope_id().with("ruler"), Sense::click_and_drag());
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Slider, true, "Time axis"));
    nav::plot(ui, cx, &response, rect, axis, false);
    let painter = ui.painter().with_clip_rect(rect.expand2(vec2(40.0, 0.0)));
    painter.hline(rect.x_range(), rect.bottom() - 0.5, Stroke::new(1.0, t.axis));
    for tick in time_ticks(axis.time, (rect.width() / if cx.doc.absolute { 150.0 } else { 110.0 }) as usize) {
        let x = axis.x(tick.at);
        painter.vline(x, (rect.bottom() - 5.0)..=rect.bottom(), Stroke::new(1.0, t.axis));
        let label = if cx.doc.absolute && tick.at >= 0.0 { cx.when(tick.at as u64) } else { tick.label };
        painter.text(pos2(x, rect.top() + 1.0), Align2::CENTER_TOP, label, small(), t.muted);
    }
    gutter_text(ui, pos2(rect.left() - 30.0, rect.center().y), Align2::RIGHT_CENTER, "GFN", t.muted);
}

/// Dims what is outside of the scope of the tables: its time in all plots, its frames in the map.
pub(super) fn outside(ui: &Ui, cx: &Cx<'_>, rect: Rect, map: Rect, axis: &Axis) {
    let scope = cx.doc.scopes.now();
    let veil = cx.tokens.background.gamma_multiply(0.62);
    let painter = ui.painter().with_clip_rect(rect);
    let dim = |r: Rect| {
        if r.is_positive() {
            painter.rect_filled(r, 0.0, veil);
        }
    };
    if let Some((a, b)) = scope.time {
        let (a, b) = (axis.x(a as f64), axis.x(b as f64).max(axis.x(a as f64) + 1.0));
        dim(rect.with_max_x(a.min(rect.right())));
        dim(rect.with_min_x(b.max(rect.left())));
    }
    let view = cx.doc.view;
    let rows = scope.gfns(view.vm, view.as_id).map(|(first, last)| {
        cx.cap.rows_of(view.vm, view.as_id, first, last.saturating_add(1)).unwrap_or(Range::new(0.0, 0.0))
    });
    if let Some(rows) = rows {
        let y = |row: f64| super::map::y_of(map, view.rows, row);
        dim(map.with_max_y(y(rows.end).min(map.bottom())));
        dim(map.with_min_y(y(rows.start).max(map.top())));
    }
}

/// Draws what crosses all plots: lost events, cursors, the selected time and the crosshair.
///
/// In `apart` lies another trace, of which these events are not lost.
pub(super) fn over_all(ui: &Ui, cx: &Cx<'_>, rect: Rect, apart: Option<Rect>, axis: &Axis) {
    let t = cx.tokens;
    let painter = ui.painter().with_clip_rect(rect);
    match apart {
        None => lost(&painter, cx, rect, axis),
        Some(other) => {
            for part in [rect.with_max_y(other.top()), rect.with_min_y(other.bottom())] {
                lost(&painter.with_clip_rect(part), cx, part, axis);
            }
        }
    }
    if let Some(s) = cx.doc.selection {
        let x = axis.x(cx.cap.rel(s.time));
        painter.vline(x, rect.y_range(), Stroke::new(1.0, t.accent.gamma_multiply(0.9)));
    }
    for (name, at) in ["A", "B"].iter().zip(cx.doc.cursors) {
        let Some(at) = at else { continue };
        let x = axis.x(at);
        let color = t.series[if *name == "A" { 2 } else { 1 }];
        painter.vline(x, rect.y_range(), Stroke::new(1.5, color));
        flag(&painter, pos2(x, rect.top()), name, color, t.background);
    }
    if let Some(time) = cx.doc.hover.time {
        let x = axis.x(time);
        painter.vline(x, rect.y_range(), Stroke::new(1.0, t.ink.gamma_multiply(0.35)));
        let label = if cx.doc.absolute && time >= 0.0 {
            cx.when(time as u64)
        } else {
            fmt::time_at(time, axis.per_point())
        };
        let galley = painter.layout_no_wrap(label, small(), t.background);
        let size = galley.size() + vec2(8.0, 2.0);
        let left = (x - size.x / 2.0).clamp(rect.left(), (rect.right() - size.x).max(rect.left()));
        let r = Rect::from_min_size(pos2(left, rect.top()), size);
        painter.rect_filled(r, 3.0, t.ink);
        painter.galley(r.min + vec2(4.0, 1.0), galley, t.background);
    }
}

/// Draws the stretches of time in which events were lost.
pub(super) fn lost(painter: &egui::Painter, cx: &Cx<'_>, rect: Rect, axis: &Axis) {
    let t = cx.tokens;
    for lost in cx.cap.timeline.lost() {
        let (a, b) = (axis.x(cx.cap.rel(lost.start)), axis.x(cx.cap.rel(lost.end)));
        if b >= rect.left() && a <= rect.right() {
            let band = Rect::from_min_max(pos2(a, rect.top()), pos2(b.max(a + 1.5), rect.bottom()));
            painter.rect_filled(band, 0.0, t.lost.gamma_multiply(t.lost_opacity));
            painter.vline(b, rect.y_range(), Stroke::new(1.0, t.lost));
            if band.width() > 60.0 {
                let n = lost
                    .count
                    .map_or_else(|| "events lost".to_owned(), |n| format!("{} lost", fmt::count(n)));
                painter.text(band.left_top() + vec2(4.0, 22.0), Align2::LEFT_TOP, n, small(), t.lost);
            }
        }
    }
}

fn flag(painter: &egui::Painter, at: Pos2, text: &str, fill: Color32, ink: Color32) {
    let r = Rect::from_min_size(at, vec2(14.0, 15.0));
    painter.rect_filled(r, 2.0, fill);
    painter.text(r.center(), Align2::CENTER_CENTER, text, small(), ink);
}
