//! The map of time x GFN. The cells are one texture, computed in the background; labels, folds and the selection are drawn over it.

use egui::{Align2, Color32, CursorIcon, Mesh, Pos2, Rect, Sense, Shape, Stroke, StrokeKind, Ui, pos2, vec2};
use mmuscope_replay::{AxisSegment, Cell};

use super::{Axis, Cx, nav, row_at, tip};
use crate::fmt;
use crate::probe::{Place, Probe, is_page};
use crate::theme::{mono, small};
use crate::view::{Range, gfn_step};

/// Draws the map, its GFN axis and the overview of the GFN space beside it.
pub(super) fn show(ui: &mut Ui, cx: &mut Cx<'_>, rect: Rect, side: Rect, axis: &Axis) {
    let t = cx.tokens;
    let response = ui
        .interact(rect, ui.scope_id().with("map"), Sense::click_and_drag())
        .on_hover_cursor(CursorIcon::Crosshair);
    let label = format!(
        "GFN map: guest frames over time, {} to {} after the first event",
        fmt::exact(cx.doc.view.time.start.max(0.0) as u64),
        fmt::exact(cx.doc.view.time.end.max(0.0) as u64)
    );
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Canvas, true, label.clone()));
    nav::plot(ui, cx, &response, rect, axis, true);
    let axis = Axis { time: cx.doc.view.time, ..*axis };
    let rows = cx.doc.view.rows;
    let painter = ui.painter().with_clip_rect(rect);
    painter.rect_filled(rect, 0.0, t.background);
    if let (Some(picture), Some(texture)) = (&cx.doc.pictures.shown, &cx.doc.pictures.map) {
        let w = &picture.wanted;
        if (w.vm, w.as_id) == (cx.doc.view.vm, cx.doc.view.as_id) {
            let dest = Rect::from_min_max(
                pos2(axis.x(w.time.start), y_of(rect, rows, w.rows.end)),
                pos2(axis.x(w.time.end), y_of(rect, rows, w.rows.start)),
            );
            draw_clipped(&painter, texture.id(), dest, rect);
        }
    }
    beyond(&painter, cx, rect, &axis);
    let segments = cx.cap.segments(cx.doc.view.vm, cx.doc.view.as_id);
    folds(&painter, cx, segments, rect);
    gfn_labels(ui, cx, segments, rect);
    selected(&painter, cx, rect, &axis);
    if segments.is_empty() {
        let text = nothing(cx);
        let galley = painter.layout(text, small(), t.muted, (rect.width() - 24.0).max(80.0));
        painter.galley(rect.center() - galley.size() / 2.0, galley, t.muted);
    }
    if let Some(error) = &cx.doc.pictures.error {
        painter.text(rect.left_top() + vec2(8.0, 8.0), Align2::LEFT_TOP, error, small(), t.bad);
    }
    painter.rect_stroke(rect, 0.0, Stroke::new(1.0, t.axis), StrokeKind::Inside);
    space_overview(ui, cx, segments, side);
    pointer(ui, cx, &response, rect, &axis);
}

/// Why there is nothing to draw.
fn nothing(cx: &Cx<'_>) -> String {
    let info = &cx.cap.trace.info;
    match (cx.cap.timeline.event_count(), info.damage.first(), cx.cap.growing) {
        (0, _, true) => "Waiting for events.".to_owned(),
        (0, Some(why), _) => {
            format!(
                "No event could be read of this trace: {}. The Recording tab has more.",
                fmt::clean(&why.to_string())
            )
        }
        (0, None, _) => {
            "There are no events in this trace: the Recording tab says what is known of it.".to_owned()
        }
        _ => "No event of this address space names a guest frame.".to_owned(),
    }
}

/// Covers the time that the trace does not have, beside another trace that begins earlier or ends later.
fn beyond(painter: &egui::Painter, cx: &Cx<'_>, rect: Rect, axis: &Axis) {
    let full = cx.cap.full_time();
    for r in [rect.with_max_x(axis.x(full.start)), rect.with_min_x(axis.x(full.end))] {
        let r = r.intersect(rect);
        if r.width() >= 1.0 {
            painter.rect_filled(r, 0.0, cx.tokens.page);
        }
    }
}

/// The coordinate of a row of the GFN axis.
pub(super) fn y_of(rect: Rect, rows: Range, row: f64) -> f32 {
    rect.bottom() - rect.height() * rows.fraction(row).clamp(-4.0, 5.0) as f32
}

/// Draws the part of a stretched picture that is inside of `clip`, because a deep zoom needs coordinates beyond the precision of floats.
fn draw_clipped(painter: &egui::Painter, texture: egui::TextureId, dest: Rect, clip: Rect) {
    let seen = dest.intersect(clip);
    if !seen.is_positive() || !dest.is_positive() {
        return;
    }
    let uv = |p: Pos2| pos2((p.x - dest.left()) / dest.width(), (p.y - dest.top()) / dest.height());
    let mut mesh = Mesh::with_texture(texture);
    mesh.add_rect_with_uv(seen, Rect::from_min_max(uv(seen.min), uv(seen.max)), Color32::WHITE);
    painter.add(Shape::mesh(mesh));
}

/// Draws the marks of folds, where the GFN axis leaves out an empty stretch.
fn folds(painter: &egui::Painter, cx: &Cx<'_>, segments: &[AxisSegment], rect: Rect) {
    let t = cx.tokens;
    let rows = cx.doc.view.rows;
    let mut last = f32::INFINITY;
    for pair in segments.windows(2) {
        let (low, high) = (y_of(rect, rows, pair[0].y_end), y_of(rect, rows, pair[1].y_start));
        if low < rect.top() || high > rect.bottom() {
            continue;
        }
        let mid = f32::midpoint(low, high);
        if (last - mid).abs() < 7.0 {
            continue;
        }
        last = mid;
        let half = ((low - high) / 2.0).max(2.5);
        let band = Rect::from_x_y_ranges(rect.x_range(), (mid - half)..=(mid + half));
        painter.rect_filled(band, 0.0, t.fold_fill);
        // A zigzag is the usual sign of a broken axis.
        let step = 5.0;
        let n = (rect.width() / step) as usize + 1;
        let points = (0..=n)
            .map(|i| pos2(rect.left() + i as f32 * step, mid + if i % 2 == 0 { -1.5 } else { 1.5 }))
            .collect();
        painter.add(Shape::line(points, Stroke::new(1.0, t.fold)));
    }
}

fn gfn_labels(ui: &Ui, cx: &Cx<'_>, segments: &[AxisSegment], rect: Rect) {
    let t = cx.tokens;
    let rows = cx.doc.view.rows;
    let painter = ui.painter().clone();
    let mut taken: Vec<f32> = Vec::new();
    let mut label = |y: f32, gfn: u64, strong: bool| {
        if y < rect.top() - 1.0 || y > rect.bottom() + 1.0 {
            return;
        }
        let at = y.clamp(rect.top() + 6.0, rect.bottom() - 6.0);
        if taken.iter().any(|v| (v - at).abs() < 12.0) {
            return;
        }
        taken.push(at);
        painter.hline(
            (rect.left() - 4.0)..=rect.left(),
            y.clamp(rect.top(), rect.bottom()),
            Stroke::new(1.0, t.axis),
        );
        let color = if strong { t.ink } else { t.muted };
        let text = fmt::gfn(gfn);
        painter.text(pos2(rect.left() - 8.0, at), Align2::RIGHT_CENTER, text, mono(10.5), color);
    };
    // The starts of segments are the most important labels; round numbers inside of them come next.
    for s in segments {
        label(y_of(rect, rows, s.y_start), s.gfn_start, true);
    }
    for s in segments {
        let frames = (s.gfn_end - s.gfn_start).max(1) as f64;
        let per_frame = (s.y_end - s.y_start) / frames;
        let px = f64::from(rect.height()) / rows.span() * per_frame;
        if px <= 0.0 {
            continue;
        }
        let step = gfn_step(30.0 / px);
        // Only steps in sight are walked, because a segment may have a great many.
        let low = s.gfn_start as f64 + ((rows.start - s.y_start) / per_frame).max(0.0);
        let high = s.gfn_start as f64 + ((rows.end - s.y_start) / per_frame).clamp(0.0, frames);
        let mut gfn = (low as u64).div_ceil(step).saturating_mul(step);
        let mut guard = 0;
        while (gfn as f64) < high && guard < 400 {
            label(y_of(rect, rows, s.y_start + (gfn - s.gfn_start) as f64 * per_frame), gfn, false);
            gfn = gfn.saturating_add(step);
            guard += 1;
        }
    }
}

/// Draws the outline of the selected span.
fn selected(painter: &egui::Painter, cx: &Cx<'_>, rect: Rect, axis: &Axis) {
    let Some(s) = cx.doc.selection else { return };
    let rows = cx.doc.view.rows;
    let (vm, as_id) = (cx.doc.view.vm, cx.doc.view.as_id);
    marker(painter, cx, rect, s.gfn);
    let span = s.entry.and_then(|e| cx.cap.timeline.span_at(e, s.time));
    // An entry that holds no page may cover a whole guest; the marker shows which frame was selected.
    let span = span.filter(is_page);
    let entry = span.and(s.entry).map(|e| cx.cap.timeline.entry(e));
    let (first, pages) = entry.map_or((s.gfn, 1), |e| (e.gfn, e.pages()));
    let Some(y0) = cx.cap.row_of(vm, as_id, first) else { return };
    let y1 = cx.cap.row_of(vm, as_id, first.saturating_add(pages)).filter(|y| *y > y0).unwrap_or(y0 + 1.0);
    let (a, b) = span.map_or((s.time, Some(s.time)), |sp| (sp.start, sp.end));
    let x0 = axis.x(cx.cap.rel(a));
    let x1 = b.map_or(rect.right() + 10.0, |b| axis.x(cx.cap.rel(b)));
    let r = Rect::from_min_max(pos2(x0, y_of(rect, rows, y1)), pos2(x1, y_of(rect, rows, y0)));
    let r = Rect::from_center_size(r.center(), r.size().max(vec2(5.0, 5.0))).expand(1.5);
    painter.rect_stroke(r, 1.0, Stroke::new(3.0, cx.tokens.background), StrokeKind::Outside);
    painter.rect_stroke(r, 1.0, Stroke::new(1.5, cx.tokens.accent), StrokeKind::Outside);
}

/// Draws a line across the map at the selected frame, with a triangle at its left end, so that it is found at any zoom.
fn marker(painter: &egui::Painter, cx: &Cx<'_>, rect: Rect, gfn: u64) {
    let Some(row) = cx.cap.row_of(cx.doc.view.vm, cx.doc.view.as_id, gfn) else { return };
    let y = y_of(rect, cx.doc.view.rows, row + 0.5);
    let color = cx.tokens.accent;
    let (left, right) = (pos2(rect.left(), y), pos2(rect.right(), y));
    painter.extend(Shape::dashed_line(&[left, right], Stroke::new(1.0, color.gamma_multiply(0.5)), 2.0, 6.0));
    let tip = vec![left + vec2(8.0, 0.0), left + vec2(0.0, -5.0), left + vec2(0.0, 5.0)];
    painter.add(Shape::convex_polygon(tip, color, Stroke::NONE));
}

/// Draws the whole GFN space as a narrow strip, with the part that is shown in it.
fn space_overview(ui: &mut Ui, cx: &mut Cx<'_>, segments: &[AxisSegment], side: Rect) {
    let t = cx.tokens;
    let full = cx.cap.full_rows(cx.doc.view.vm, cx.doc.view.as_id);
    let response = ui
        .interact(side, ui.scope_id().with("gfn-overview"), Sense::click_and_drag())
        .on_hover_cursor(CursorIcon::Grab);
    response.widget_info(|| {
        egui::WidgetInfo::labeled(
            egui::Role::Slider,
            true,
            "Overview of the GFN space, with the part that is shown",
        )
    });
    let painter = ui.painter().with_clip_rect(side);
    painter.rect_filled(side, 2.0, t.background);
    for s in segments {
        let r = Rect::from_min_max(
            pos2(side.left(), y_of(side, full, s.y_end)),
            pos2(side.right(), y_of(side, full, s.y_start)),
        );
        painter.rect_filled(r.shrink2(vec2(3.0, 0.5)), 1.0, t.axis);
    }
    slots(&painter, cx, side, full);
    if let Some(pos) = response.hover_pos().filter(|_| !response.dragged()) {
        let (vm, as_id) = (cx.doc.view.vm, cx.doc.view.as_id);
        let gfn = cx.cap.gfn_at(vm, as_id, row_at(side, full, pos));
        let t = cx.cap.abs(cx.doc.view.time.centre());
        let place = gfn.and_then(|g| Some((g, cx.cap.place_of(vm, as_id, g, t)?)));
        if let Some((gfn, place)) = place {
            response.clone().on_hover_text_at_pointer(format!("GFN {}: {place}", fmt::gfn(gfn)));
        }
    }
    let rows = cx.doc.view.rows;
    let (top, bottom) = (y_of(side, full, rows.end), y_of(side, full, rows.start));
    let window = Rect::from_min_max(pos2(side.left(), top), pos2(side.right(), bottom.max(top + 3.0)));
    painter.rect(window, 2.0, t.accent.gamma_multiply(0.18), Stroke::new(1.0, t.accent), StrokeKind::Inside);
    if response.drag_started() {
        cx.doc.leave();
    }
    if let Some(pos) = response.interact_pointer_pos() {
        let rows = if response.dragged() {
            let d = -f64::from(response.drag_delta().y / side.height()) * full.span();
            Range::new(rows.start + d, rows.end + d)
        } else if response.clicked() {
            let at = row_at(side, full, pos);
            Range::new(at - rows.span() / 2.0, at + rows.span() / 2.0)
        } else {
            rows
        };
        if rows != cx.doc.view.rows {
            cx.doc.show(cx.cap, cx.doc.view.time, rows);
        }
    }
}

/// Draws the memory slots of the moment in the middle of the view, each in a colour of its own.
fn slots(painter: &egui::Painter, cx: &Cx<'_>, side: Rect, full: Range) {
    let (vm, as_id) = (cx.doc.view.vm, cx.doc.view.as_id);
    let at = cx.cap.abs(cx.doc.view.time.centre());
    let bands = mmuscope_analysis::slots::bands(&cx.cap.timeline, vm, as_id, at);
    for band in bands.iter().filter(|b| !b.is_hole()) {
        let Some(rows) = cx.cap.rows_of(vm, as_id, band.first, band.end) else { continue };
        let (top, bottom) = (y_of(side, full, rows.end), y_of(side, full, rows.start));
        let color = cx.tokens.series[usize::from(band.slot.unwrap_or(0)) % cx.tokens.series.len()];
        let r = Rect::from_x_y_ranges((side.right() - 4.0)..=side.right(), top..=bottom.max(top + 1.0));
        painter.rect_filled(r, 0.0, color);
    }
}

/// The place of the map under the pointer.
fn place_at(cx: &Cx<'_>, rect: Rect, axis: &Axis, pos: Pos2, ppp: f32) -> Place {
    let rows = cx.doc.view.rows;
    let row = row_at(rect, rows, pos);
    let per_row = rows.span() / f64::from((rect.height() * ppp).round().max(1.0));
    let first = rows.start + ((row - rows.start) / per_row).floor() * per_row;
    // A column shows what its entries held at its end, and ends before the next one begins.
    let cols = f64::from(((axis.x1 - axis.x0) * ppp).round().max(1.0));
    let per_col = axis.time.span() / cols;
    let col = ((axis.t(pos.x) - axis.time.start) / per_col).floor();
    let last = cx.cap.abs((axis.time.start + (col + 1.0) * per_col).ceil()).saturating_sub(1);
    let start = cx.cap.abs((axis.time.start + col * per_col).floor());
    let (vm, as_id) = (cx.doc.view.vm, cx.doc.view.as_id);
    Place {
        vm,
        as_id,
        row,
        rows: (first, first + per_row),
        time: last.max(start).min(cx.cap.timeline.range().1),
    }
}

/// What the map answers about a place: what the pixel holds at its end, or else the page that came and went within it.
fn answer(cx: &Cx<'_>, place: &Place, cell: Option<&Cell>, per_col: f64) -> Option<Probe> {
    let probe = Probe::at(cx.cap, place)?;
    if probe.found.as_ref().is_some_and(|(_, s)| is_page(s)) {
        return Some(probe);
    }
    let passing = cell.and_then(Cell::span).map(|s| cx.cap.timeline.span(s)).filter(is_page);
    let Some(span) = passing else { return Some(probe) };
    let from = place.time.saturating_sub(per_col.ceil() as u64);
    let Some(time) = span.end.map_or(Some(place.time), |e| e.checked_sub(1)).map(|t| t.min(place.time))
    else {
        return Some(probe);
    };
    if time < span.start || time < from {
        return Some(probe);
    }
    let earlier = Probe::at(cx.cap, &Place { time, ..*place });
    Some(earlier.filter(|p| p.found.as_ref().is_some_and(|(_, s)| is_page(s))).unwrap_or(probe))
}

/// Handles click and double click, and draws the tooltip.
fn pointer(ui: &Ui, cx: &mut Cx<'_>, response: &egui::Response, rect: Rect, axis: &Axis) {
    cx.doc.pointed = None;
    let Some(pos) = response.hover_pos() else { return };
    let ppp = ui.ctx().pixels_per_point();
    let (here, full) = (axis.t(pos.x), cx.cap.full_time());
    if here < full.start || here >= full.end {
        let ended = here >= full.end;
        response.clone().on_hover_text_at_pointer(if ended {
            "This trace has ended before."
        } else {
            "This trace begins later."
        });
        return;
    }
    let place = place_at(cx, rect, axis, pos, ppp);
    let cell = cell_under(cx, axis, place.row, pos.x);
    let probe = answer(cx, &place, cell.as_ref(), axis.per_point() / f64::from(ppp));
    if response.clicked() || response.double_clicked() {
        if let Some(p) = &probe {
            cx.doc.select_at(cx.cap, p.gfn, p.time, p.found.as_ref().map(|(e, _)| e.id));
        } else {
            cx.doc.selection = None;
        }
    }
    if response.double_clicked() {
        cx.doc.fit_selection(cx.cap);
    }
    // Where no frame is known, there is nothing to say of one.
    if response.dragged() || cx.cap.segments(cx.doc.view.vm, cx.doc.view.as_id).is_empty() {
        return;
    }
    ui.painter().with_clip_rect(rect).hline(
        rect.x_range(),
        pos.y,
        Stroke::new(1.0, cx.tokens.ink.gamma_multiply(0.25)),
    );
    egui::Tooltip::always_open(
        ui.ctx().clone(),
        ui.layer_id(),
        response.id.with("tip"),
        egui::PopupAnchor::Pointer,
    )
    .gap(14.0)
    .show(|ui| {
        ui.set_max_width(400.0);
        match &probe {
            None => {
                ui.label("A stretch of the GFN space in which nothing happened is left out here.");
            }
            Some(p) => {
                tip::show(ui, cx, p, cell.as_ref());
                if let Some(words) = class_under(cx, axis, place.row, pos.x) {
                    ui.label(words);
                }
            }
        }
    });
    cx.doc.pointed = probe;
}

/// What the colour of the cell says, where the map is not coloured by state.
fn class_under(cx: &Cx<'_>, axis: &Axis, row: f64, x: f32) -> Option<String> {
    let p = cx.doc.pictures.shown.as_ref()?;
    let by = p.wanted.colour;
    let cell = cell_under(cx, axis, row, x)?;
    let (fx, fy) = (p.wanted.time.fraction(axis.t(x)), p.wanted.rows.fraction(row));
    let (col, line) = ((fx * p.map.cols as f64) as usize, (fy * p.map.rows as f64) as usize);
    let density = p.densities.get(line * p.map.cols + col).copied().unwrap_or(0);
    let time = cx.cap.abs(p.wanted.time.at((col + 1) as f64 / p.map.cols as f64));
    let class = by.class(&cx.cap.timeline, &cell, time, density)?;
    let words = by.legend(mmuscope_analysis::visual::Visual::builtin(), cx.tokens.theme).get(class)?.0;
    Some(match by {
        mmuscope_analysis::visual::ColourBy::Faults => {
            fmt::plural(density.into(), "fault in this pixel", "faults in this pixel")
        }
        mmuscope_analysis::visual::ColourBy::Zaps => {
            fmt::plural(density.into(), "zap in this pixel", "zaps in this pixel")
        }
        _ => format!("{}: {words}", by.name()),
    })
}

fn cell_under(cx: &Cx<'_>, axis: &Axis, row: f64, x: f32) -> Option<Cell> {
    let p = cx.doc.pictures.shown.as_ref()?;
    let fx = p.wanted.time.fraction(axis.t(x));
    let fy = p.wanted.rows.fraction(row);
    if !((0.0..1.0).contains(&fx) && (0.0..1.0).contains(&fy)) {
        return None;
    }
    p.map.at((fx * p.map.cols as f64) as usize, (fy * p.map.rows as f64) as usize).copied()
}
