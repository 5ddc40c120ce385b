//! The fault rows: number of faults over time, one row per vCPU.

use egui::{Align2, Rect, Sense, Stroke, StrokeKind, Ui, pos2, vec2};

use super::{Axis, Cx, gutter_text, nav, strips};
use crate::fmt;

/// One row of faults.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lane {
    /// Thread of the vCPU.
    pub(super) tid: Option<u32>,
    /// Label in the gutter.
    pub(super) label: String,
}

/// The fault rows of the VM that is shown; empty where they are hidden.
pub(super) fn list(cx: &Cx<'_>) -> Vec<Lane> {
    if !cx.doc.shown.faults {
        return Vec::new();
    }
    let vms = cx.cap.timeline.vms();
    let Some(vm) = vms.iter().find(|v| v.id == cx.doc.view.vm) else { return Vec::new() };
    vm.vcpus
        .iter()
        .map(|c| {
            // One vCPU number can be two threads in turn, if a VM was started again in the same process.
            let alone = vm.vcpus.iter().filter(|o| o.vcpu_id == c.vcpu_id).count() == 1;
            let label = match c.vcpu_id {
                Some(id) if alone => format!("vCPU {id} faults"),
                Some(id) => format!("vCPU {id} ({})", c.tid),
                None => format!("tid {} faults", c.tid),
            };
            Lane { tid: Some(c.tid), label }
        })
        .collect()
}

/// Draws the fault rows.
pub(super) fn show(ui: &mut Ui, cx: &mut Cx<'_>, rects: &[Rect], lanes: &[Lane], axis: &Axis) {
    let t = cx.tokens;
    let top = cx
        .doc
        .pictures
        .shown
        .as_ref()
        .map_or(1, |p| p.lanes.iter().flatten().map(|b| b.count).max().unwrap_or(1))
        .max(1);
    for (i, (rect, lane)) in rects.iter().zip(lanes).enumerate() {
        let response = ui.interact(*rect, ui.scope_id().with(("lane", i)), Sense::click_and_drag());
        response.widget_info(|| {
            egui::WidgetInfo::labeled(egui::Role::Canvas, true, format!("{} over time", lane.label))
        });
        nav::plot(ui, cx, &response, *rect, axis, false);
        let axis = Axis { time: cx.doc.view.time, ..*axis };
        let painter = ui.painter().with_clip_rect(*rect);
        painter.rect_filled(*rect, 0.0, t.background);
        if let Some(picture) = &cx.doc.pictures.shown
            && let Some(bins) = picture.lanes.get(i)
        {
            let w = &picture.wanted;
            let dest = Rect::from_x_y_ranges(axis.x(w.time.start)..=axis.x(w.time.end), rect.y_range());
            painter.add(strips::bars(bins, dest, *rect, top, t.series[i % t.series.len()], 2.0));
            if let Some(pos) = response.hover_pos().filter(|_| !response.dragged()) {
                let f = w.time.fraction(axis.t(pos.x));
                let bin = (f * bins.len() as f64) as usize;
                if let Some(b) = bins.get(bin).filter(|_| f >= 0.0) {
                    let per = w.time.span() / bins.len().max(1) as f64;
                    let event = b.first_event;
                    let text = format!(
                        "{}\n{} in {}",
                        lane.label,
                        fmt::plural(b.count, "fault", "faults"),
                        fmt::time(per)
                    );
                    let response = response.clone().on_hover_text_at_pointer(text);
                    if response.clicked()
                        && let Some(ix) = event
                    {
                        cx.doc.select_event(cx.cap, ix);
                    }
                }
            }
        }
        painter.rect_stroke(*rect, 0.0, Stroke::new(1.0, t.grid), StrokeKind::Inside);
        gutter_text(ui, pos2(rect.left(), rect.center().y), Align2::RIGHT_CENTER, &lane.label, t.muted);
    }
    if rects.len() < lanes.len()
        && let Some(last) = rects.last()
    {
        let more = format!("and {} more vCPUs", lanes.len() - rects.len());
        ui.painter().text(
            last.right_bottom() + vec2(-4.0, -1.0),
            Align2::RIGHT_BOTTOM,
            more,
            crate::theme::small(),
            t.muted,
        );
    }
}
