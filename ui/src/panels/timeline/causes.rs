//! The rows of causes over the map: what changed many entries at once, one row a kind. Pointing at one marks its time in all plots and its
//! frames in the map.

use egui::{Align2, CursorIcon, Mesh, Rect, Sense, Shape, Stroke, Ui, pos2};
use mmuscope_analysis::findings::{Cause, CauseKind};

use super::{Axis, Cx, gutter_text};
use crate::fmt;
use crate::panels::there::{There, go};
use crate::survey::{Band, CauseRow, Surveyed, end_of};
use crate::theme::small;
use crate::view::Range;

/// Height of a row in points.
pub(super) const HEIGHT: f32 = 13.0;
/// How far from a cause the pointer may be, in points.
const NEAR: f32 = 3.0;

/// Draws the rows.
pub(super) fn show(ui: &mut Ui, cx: &mut Cx<'_>, rects: &[Rect], axis: &Axis) {
    let Some(found) = cx.doc.survey.done.clone() else { return };
    let t = cx.tokens;
    let rows = found.rows(cx.doc.view.vm);
    for (i, (rect, row)) in rects.iter().zip(rows).enumerate() {
        let response = ui
            .interact(*rect, ui.scope_id().with(("cause", i)), Sense::click())
            .on_hover_cursor(CursorIcon::PointingHand);
        let name = row.kind.name();
        let label = format!("Causes: {name}, {}", row.causes.len());
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Canvas, true, &label));
        let painter = ui.painter().with_clip_rect(*rect);
        painter.rect_filled(*rect, 0.0, t.background);
        let color = t.series[row.kind as usize % t.series.len()];
        painter.add(marks(cx, row, *rect, axis, color));
        painter.hline(rect.x_range(), rect.bottom(), Stroke::new(1.0, t.grid));
        let at = pos2(rect.left(), rect.center().y);
        gutter_text(ui, at, Align2::RIGHT_CENTER, name, t.muted);
        let pointed = response.hover_pos().and_then(|p| under(cx, &found, row, axis, p.x));
        if let Some((cause, others)) = pointed {
            let gfns = cause.gfns;
            let (a, b) = (cx.cap.rel(cause.start), cx.cap.rel(end_of(cause)));
            cx.doc.band = Some(Band { time: Range::new(a, b), gfns });
            tip(&response, cx, cause, others);
            if response.clicked() {
                let there = There {
                    vm: cause.vm,
                    as_id: cx.doc.view.as_id,
                    gfns: None,
                    time: (cause.start, end_of(cause)),
                    event: Some(cause.event),
                };
                go(cx, &there);
            }
        }
    }
}

/// All causes of a row that are in view, as one mesh. What lies within a point is drawn once, so that a million cost no more than a
/// thousand.
fn marks(cx: &Cx<'_>, row: &CauseRow, rect: Rect, axis: &Axis, color: egui::Color32) -> Shape {
    let mut mesh = Mesh::default();
    // That it may have gone on until its thread did something else is faint.
    let mut x = rect.left();
    // Before its first event, the trace says nothing.
    while let Some((a, b)) = row.next_open(cx.cap.abs(axis.t(x).max(0.0))) {
        let from = axis.x(cx.cap.rel(a)).max(x);
        let to = axis.x(cx.cap.rel(b)).max(from + 1.0).min(rect.right());
        if from >= rect.right() {
            break;
        }
        let faint = Rect::from_x_y_ranges(from..=to, rect.shrink(4.0).y_range());
        mesh.add_colored_rect(faint, color.gamma_multiply(0.35));
        x = to.max(x + 1.0);
    }
    let mut drawn = rect.left();
    let seen = |start: u64| cx.cap.rel(start) <= axis.time.end;
    let mut from = cx.cap.abs(axis.time.start);
    while let Some((start, last)) = row.next_acting(from).filter(|(start, _)| seen(*start)) {
        let a = axis.x(cx.cap.rel(start)).min(rect.right() - 2.0);
        let b = axis.x(cx.cap.rel(last)).max(a + 2.0).min(rect.right());
        if b > drawn {
            mesh.add_colored_rect(Rect::from_x_y_ranges(a.max(drawn)..=b, rect.shrink(2.0).y_range()), color);
            drawn = b;
        }
        if drawn >= rect.right() {
            break;
        }
        // What ends within what is drawn cannot be seen.
        from = cx.cap.abs(axis.t(drawn)).max(last).saturating_add(1);
    }
    Shape::mesh(mesh)
}

/// The cause at a coordinate, the shortest of several, and how many others there are.
fn under<'a>(
    cx: &Cx<'_>,
    found: &'a Surveyed,
    row: &CauseRow,
    axis: &Axis,
    x: f32,
) -> Option<(&'a Cause, usize)> {
    let (from, to) = (cx.cap.abs(axis.t(x - NEAR)), cx.cap.abs(axis.t(x + NEAR)));
    let first = row.first_reaching(from);
    let near: Vec<&Cause> = row.causes[first..]
        .iter()
        .map(|i| &found.causes[*i as usize])
        .take_while(|c| c.start <= to)
        .filter(|c| end_of(c) >= from)
        .take(10_000)
        .collect();
    let here = axis.t(x);
    let far = |c: &Cause| {
        let (a, b) = (cx.cap.rel(c.start), cx.cap.rel(end_of(c)));
        if here < a { a - here } else { (here - b).max(0.0) }
    };
    let best = near
        .iter()
        .min_by(|a, b| far(a).total_cmp(&far(b)).then((end_of(a) - a.start).cmp(&(end_of(b) - b.start))))?;
    Some((*best, near.len() - 1))
}

fn tip(response: &egui::Response, cx: &Cx<'_>, c: &Cause, others: usize) {
    let t = cx.tokens;
    let when = cx.at(c.start);
    let text = c.text(&cx.cap.trace);
    response.clone().on_hover_ui_at_pointer(|ui| {
        ui.set_max_width(440.0);
        ui.label(egui::RichText::new(c.kind().name()).strong());
        ui.label(match c.end {
            // The end of an invalidation is not traced: it is the thread's next event at the latest.
            Some(e) if e > c.start && c.kind() == CauseKind::Notifier => {
                format!("from {when}, over after {} at the latest", fmt::time((e - c.start) as f64))
            }
            Some(e) if e > c.start => format!("from {when} for {}", fmt::time((e - c.start) as f64)),
            Some(_) => format!("at {when}"),
            None => format!("from {when}; no later event of the thread shows when it was over"),
        });
        ui.add(egui::Label::new(fmt::clean(&text)).wrap());
        if others > 0 {
            let more = format!(
                "and {} here: zoom in to see them apart",
                fmt::plural(others as u64, "other", "others")
            );
            ui.label(egui::RichText::new(more).font(small()).color(t.warn));
        }
    });
}

/// Draws the band of the cause under the pointer: its time across all plots, its frames in the map.
pub(super) fn band(ui: &Ui, cx: &Cx<'_>, all: Rect, map: Rect, axis: &Axis) {
    let Some(band) = cx.doc.band else { return };
    let t = cx.tokens;
    let begin = axis.x(band.time.start).max(all.left());
    let end = axis.x(band.time.end).max(begin + 2.0).min(all.right());
    if begin > end {
        return;
    }
    let painter = ui.painter().with_clip_rect(all);
    let rect = Rect::from_x_y_ranges(begin..=end, all.y_range());
    painter.rect_filled(rect, 0.0, t.accent.gamma_multiply(0.16));
    painter.vline(begin, all.y_range(), Stroke::new(1.0, t.accent));
    let rows = band.gfns.and_then(|(first, last)| {
        cx.cap.rows_of(cx.doc.view.vm, cx.doc.view.as_id, first, last.saturating_add(1))
    });
    if let Some(rows) = rows {
        let y = |row: f64| super::map::y_of(map, cx.doc.view.rows, row);
        let (top, bottom) = (y(rows.end), y(rows.start));
        let frames = Rect::from_x_y_ranges(map.x_range(), top..=bottom.max(top + 2.0)).intersect(map);
        if frames.is_positive() {
            painter.rect_filled(frames, 0.0, t.accent.gamma_multiply(0.12));
            painter.hline(map.x_range(), frames.top(), Stroke::new(1.0, t.accent.gamma_multiply(0.6)));
            painter.hline(map.x_range(), frames.bottom(), Stroke::new(1.0, t.accent.gamma_multiply(0.6)));
        }
    }
}
