//! The tooltip of the map: one frame at one moment, and what else its pixel holds.

use egui::{RichText, Ui};
use mmuscope_replay::{Cell, Shade};

use super::Cx;
use crate::fmt;
use crate::probe::Probe;

/// Draws the tooltip.
pub(super) fn show(ui: &mut Ui, cx: &Cx<'_>, probe: &Probe, cell: Option<&Cell>) {
    let t = cx.tokens;
    ui.horizontal(|ui| {
        ui.label(RichText::new(format!("GFN {}", fmt::gfn(probe.gfn))).strong().monospace());
        ui.label(RichText::new(format!("guest address {}", fmt::gpa(probe.gfn))).weak());
    });
    ui.label(RichText::new(format!("at {}", cx.at(probe.time))).weak());
    let view = cx.doc.view;
    if let Some(place) = cx.cap.place_of(view.vm, view.as_id, probe.gfn, probe.time) {
        ui.label(RichText::new(place).weak());
    }
    if let Some((entry, span)) = &probe.found {
        crate::panels::details::state_line(ui, t, span);
        if let Some(v) = span.spte {
            ui.label(
                RichText::new(format!("{}   {} entry", fmt::spte(v), fmt::level(entry.level))).monospace(),
            );
        }
        ui.label(format!("{}: {}", span.certainty.name(), span.reason.words()));
        let from = cx.at(span.start);
        ui.label(match span.end {
            Some(e) => format!("from {from} for {}", fmt::time((e - span.start) as f64)),
            None => format!("from {from} to the end of the trace"),
        });
    } else if cx.cap.timeline.unseen(cx.doc.view.vm) == Shade::Nonpresent {
        ui.label("nonpresent: every table of this VM was seen, and none has an entry for this page");
    } else {
        ui.label("unknown: no event has shown an entry of this page yet");
    }
    for (shade, text) in probe.others() {
        ui.horizontal(|ui| {
            crate::panels::legend::swatch(ui, t, shade, egui::vec2(14.0, 10.0));
            ui.label(RichText::new(text).size(11.5));
        });
    }
    let changes = cell.map_or(0, |c| u64::from(c.changes));
    // Frames that all hold the same look the same at any zoom.
    if changes > 1 || probe.differ() {
        let what = if changes > 1 {
            format!("{} in this pixel: ", fmt::plural(changes, "change", "changes"))
        } else {
            String::new()
        };
        ui.label(RichText::new(format!("{what}zoom in to see them apart")).color(t.warn));
    }
}
