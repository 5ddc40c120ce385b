//! The status line at the bottom: the place under the pointer, the cursors, and whether events were lost.

use egui::{RichText, Ui};

use super::Cx;
use crate::command::Command;
use crate::fmt;
use crate::theme::Tokens;

/// Draws the status line.
pub(crate) fn show(ui: &mut Ui, cx: &mut Cx<'_>) {
    let t = cx.tokens;
    ui.horizontal(|ui| {
        ui.spacing_mut().item_spacing.x = 14.0;
        let mono = |s: String| RichText::new(s).monospace().size(11.5);
        let hover = cx.doc.hover;
        if let Some(time) = hover.time {
            let before = time < 0.0;
            let text = if before {
                format!("{} before the first event", fmt::time(-time))
            } else {
                cx.when(time as u64)
            };
            ui.label(mono(text));
        }
        if let Some(gfn) = hover.gfn {
            ui.label(mono(format!("GFN {}", fmt::gfn(gfn))));
        }
        ui.label(
            RichText::new(format!("{} in view", fmt::time(cx.doc.view.time.span())))
                .size(11.5)
                .color(t.muted),
        );
        if let Some(play) = &mut cx.doc.play {
            let text = format!("playing: a second is {}", fmt::time(play.speed));
            ui.label(RichText::new(text).size(11.5).color(t.accent));
            for (name, factor) in [("slower", 0.5), ("faster", 2.0)] {
                if ui.small_button(name).clicked() {
                    play.speed = (play.speed * factor).clamp(1.0, 1e12);
                }
            }
            if ui.small_button("halt").on_hover_text("Space").clicked() {
                cx.doc.play = None;
            }
        }
        if let (Some(a), Some(b)) = (cx.doc.cursors[0], cx.doc.cursors[1]) {
            let (lo, hi) = (a.min(b), a.max(b));
            let store = &cx.cap.trace.events;
            let n = store
                .first_at_or_after(cx.cap.abs(hi))
                .saturating_sub(store.first_at_or_after(cx.cap.abs(lo)));
            let text =
                format!("A to B: {}, {}", fmt::time(hi - lo), fmt::plural(n as u64, "event", "events"));
            ui.label(RichText::new(text).strong().color(t.accent));
        } else if hover.time.is_none() {
            ui.label(
                RichText::new("?  keys   Ctrl+P  commands   G  go to   F  fit").size(11.5).color(t.muted),
            );
        }
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            let info = &cx.cap.trace.info;
            if info.is_partial() {
                let text = RichText::new("• events were lost or damaged").size(11.5).color(t.bad);
                let tip = "What is shown is partial. Click for what was lost and where";
                if ui.add(egui::Button::new(text).frame(false)).on_hover_text(tip).clicked() {
                    cx.out.push(Command::TabRecording);
                }
            } else if let Some(why) = info.losses().unknown() {
                ui.label(RichText::new("• losses not known").size(11.5).color(t.warn)).on_hover_text(why);
            } else {
                ui.label(RichText::new("• nothing lost").size(11.5).color(t.good));
            }
            if let Some(share) = cx.doc.reading {
                let text = format!("• reading, {:.0} %", share * 100.0);
                ui.label(RichText::new(text).size(11.5).color(t.accent))
                    .on_hover_text("The window shows the part of the trace that has been read so far");
            }
            if !cx.doc.pictures.settled() {
                ui.label(RichText::new("drawing…").size(11.5).color(t.muted));
            }
            ui.label(
                RichText::new(fmt::plural(cx.cap.timeline.event_count(), "event", "events"))
                    .size(11.5)
                    .color(t.muted),
            );
        });
    });
}

/// Draws why something that was asked for is not there, until the user hides it: then it is true.
pub(crate) fn failed(ui: &mut Ui, t: &Tokens, why: &str) -> bool {
    ui.horizontal(|ui| {
        let hidden = ui.small_button("×").on_hover_text("Hide this line").clicked();
        ui.add(egui::Label::new(RichText::new(why).size(11.5).color(t.bad)).wrap());
        hidden
    })
    .inner
}
