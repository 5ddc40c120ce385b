//! The details of the selected entry: its state and how it is known, its value bit by bit, and the spans around the selected one.

use egui::{RichText, ScrollArea, Ui, vec2};
use mmuscope_replay::{Entry, Shade, Span};

use super::Cx;
use crate::command::Command;
use crate::fmt;
use crate::theme::Tokens;
use crate::widgets::bits;

/// Draws the state of a span in one line, with a swatch.
pub(crate) fn state_line(ui: &mut Ui, t: &Tokens, span: &Span) {
    ui.horizontal(|ui| {
        super::legend::swatch(ui, t, span.shade, vec2(20.0, 13.0));
        let words = if span.shade == Shade::Unknown || span.state.name() == span.shade.name() {
            span.state.name().to_owned()
        } else {
            span.shade.name().to_owned()
        };
        ui.label(RichText::new(words).strong());
    });
}

/// Draws the details panel.
pub(crate) fn show(ui: &mut Ui, cx: &mut Cx<'_>) {
    let Some(s) = cx.doc.selection else {
        empty(ui, cx.tokens);
        return;
    };
    let found = s.entry.and_then(|e| Some((cx.cap.timeline.entry(e), cx.cap.timeline.span_at(e, s.time)?)));
    head(ui, cx, s.gfn, found.as_ref());
    ui.separator();
    ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        let Some((entry, span)) = found else {
            ui.label("No entry that covers this page is known at this moment.");
            ui.label(
                RichText::new("No event has shown it yet: that is not the same as “not present”.").weak(),
            );
            return;
        };
        summary(ui, cx, &entry, &span);
        ui.add_space(6.0);
        value(ui, cx, &entry, &span);
        ui.add_space(6.0);
        nearby(ui, cx, &entry, &span);
    });
}

fn empty(ui: &mut Ui, t: &Tokens) {
    ui.add_space(24.0);
    ui.vertical_centered(|ui| {
        ui.label(RichText::new("Nothing selected").heading().color(t.muted));
        ui.add_space(6.0);
        ui.label(RichText::new("Click a page in the map or a row of a table.").color(t.muted));
        ui.label(RichText::new("G goes to a time, a frame or an event.").color(t.muted));
    });
}

fn head(ui: &mut Ui, cx: &mut Cx<'_>, gfn: u64, found: Option<&(Entry, Span)>) {
    ui.horizontal(|ui| {
        ui.label(RichText::new(format!("GFN {}", fmt::gfn(gfn))).heading().monospace());
        if let Some((entry, _)) = found {
            ui.label(
                RichText::new(format!("{} entry, level {}", fmt::level(entry.level), entry.level))
                    .color(cx.tokens.muted),
            );
        }
    });
    let time = cx.doc.selection.map_or(0, |s| s.time);
    ui.label(RichText::new(format!("at {}   guest address {}", cx.at(time), fmt::gpa(gfn))).weak());
    ui.horizontal(|ui| {
        let entry = found.map(|(e, _)| e.id);
        let prev = entry.and_then(|e| cx.cap.prev_span(e, time));
        let next = entry.and_then(|e| cx.cap.timeline.next_change(e, time));
        for (there, name, command) in [
            (prev.is_some(), "Previous change", Command::PrevChange),
            (next.is_some(), "Next change", Command::NextChange),
            (true, "Fit", Command::FitSelection),
            (found.is_some_and(|(_, s)| s.spte.is_some()), "Copy SPTE", Command::CopyValue),
        ] {
            let spec = command.spec();
            let tip = format!("{} ({})", spec.help, crate::keys::keys_text(spec));
            if ui.add_enabled(there, egui::Button::new(name)).on_hover_text(tip).clicked() {
                cx.out.push(command);
            }
        }
    });
}

fn summary(ui: &mut Ui, cx: &mut Cx<'_>, entry: &Entry, span: &Span) {
    let t = cx.tokens;
    state_line(ui, t, span);
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing.x = 4.0;
        let color = match span.certainty {
            mmuscope_replay::Certainty::Exact | mmuscope_replay::Certainty::Observed => t.good,
            mmuscope_replay::Certainty::Implied => t.ink,
            _ => t.warn,
        };
        ui.label(RichText::new(span.certainty.name()).color(color).strong());
        ui.label(RichText::new(span.reason.words()).color(t.muted));
    });
    egui::Grid::new("summary").num_columns(2).spacing(vec2(10.0, 2.0)).show(ui, |ui| {
        let mut line = |name: &str, text: String| {
            ui.label(RichText::new(name).color(t.muted));
            ui.label(RichText::new(text).monospace());
            ui.end_row();
        };
        let from = cx.cap.rel(span.start);
        line("since", cx.when(from as u64));
        match span.end {
            Some(e) => line("until", format!("{}  ({})", cx.at(e), fmt::time((e - span.start) as f64))),
            None => line("until", "the end of the trace".to_owned()),
        }
        let last = entry.gfn.saturating_add(entry.pages()).saturating_sub(1);
        if entry.pages() > 1 {
            line("covers", format!("{} … {}", fmt::gfn(entry.gfn), fmt::gfn(last)));
        }
        if let Some(sptep) = entry.sptep {
            line("entry at", format!("host 0x{sptep:x}"));
        }
    });
    ui.horizontal_wrapped(|ui| {
        for (label, event) in [("opened by", span.opened_by), ("closed by", span.closed_by)] {
            let Some(ix) = event else { continue };
            let name = cx.cap.event(ix).map_or_else(String::new, |e| cx.cap.event_name(&e).to_owned());
            ui.label(RichText::new(label).color(t.muted));
            if ui.link(format!("#{ix} {name}")).on_hover_text("Select this event").clicked() {
                cx.doc.leave();
                cx.doc.select_event(cx.cap, ix);
            }
        }
    });
    if let Some(ix) = span.closed_by {
        why_it_ended(ui, cx, entry, span, ix);
    }
}

/// Says why a span ended: what the event did to the entry, how a zap is known, and the cause of which the event is a part.
fn why_it_ended(ui: &mut Ui, cx: &mut Cx<'_>, entry: &Entry, span: &Span, ix: u32) {
    let t = cx.tokens;
    let key = (entry.id, ix, cx.cap.version, cx.doc.survey.version);
    let lines = super::page::ended(cx, key, |cx| reasons(cx, entry, span, ix));
    if lines.is_empty() {
        return;
    }
    ui.label(RichText::new("why it ended").color(t.muted));
    for line in lines {
        ui.add(egui::Label::new(RichText::new(fmt::clean(&line)).size(11.5)).wrap());
    }
}

/// The lines of [`why_it_ended`].
fn reasons(cx: &mut Cx<'_>, entry: &Entry, span: &Span, ix: u32) -> Vec<String> {
    let mut lines = Vec::new();
    if let Some((who, text)) = super::page::line_of(cx, ix) {
        lines.push(if who.is_empty() { text } else { format!("{who}: {text}") });
    }
    if let Some(zap) = cx.cap.timeline.zaps(entry.id).find(|z| z.event == ix && Some(z.ts) == span.end) {
        let how =
            if zap.implied() { "the zap is not traced itself; it follows from this" } else { "shown by" };
        lines.push(format!("{how}: {}", zap.cause.words()));
    }
    let tid = cx.cap.event(ix).and_then(|e| e.tid);
    if let (Some(found), Some(tid)) = (&cx.doc.survey.done, tid)
        && let Some(c) = found.cause_of(tid, ix)
    {
        lines.push(format!("part of {}: {}", c.kind().name(), c.text(&cx.cap.trace)));
    }
    lines
}

fn value(ui: &mut Ui, cx: &mut Cx<'_>, entry: &Entry, span: &Span) {
    let t = cx.tokens;
    let Some(raw) = span.spte else {
        ui.label(
            RichText::new(
                "The trace shows the state of this entry but not its value, so there are no bits to show.",
            )
            .color(t.muted),
        );
        return;
    };
    let before = cx.cap.prev_span(entry.id, span.start).and_then(|p| p.spte);
    let decoded = cx.cap.explain(entry, raw);
    ui.horizontal(|ui| {
        ui.label(RichText::new(fmt::spte(raw)).monospace().size(15.0).strong());
        ui.label(RichText::new(&decoded.layout).color(t.muted))
            .on_hover_text("The layout these bits are read under: see the Layout tab");
    });
    if !decoded.headline.is_empty() {
        ui.label(&decoded.headline);
    }
    ui.add_space(4.0);
    let lit = cx.doc.lit;
    let over_bits = bits::diagram(ui, t, raw, before, &decoded.fields, lit);
    if let Some(b) = before.filter(|b| *b != raw) {
        let n = (b ^ raw).count_ones();
        ui.label(
            RichText::new(format!(
                "framed: {} since {}",
                fmt::plural(u64::from(n), "bit changed", "bits changed"),
                fmt::spte(b)
            ))
            .size(11.0)
            .color(t.warn),
        );
    }
    ui.add_space(4.0);
    let over_list = bits::list(ui, t, &decoded.fields, lit);
    let now = over_bits.or(over_list).unwrap_or(0);
    if now != lit {
        cx.doc.lit = now;
        ui.ctx().request_repaint();
    }
    if !decoded.effects.is_empty() {
        ui.add_space(4.0);
        let stale = span.certainty == mmuscope_replay::Certainty::Stale;
        let title =
            if stale { "What an access would do, if the entry is still so" } else { "What an access does" };
        ui.label(RichText::new(title).strong());
        for (access, allowed, text) in &decoded.effects {
            ui.horizontal_top(|ui| {
                let color = match (stale, *allowed) {
                    (true, _) => t.warn,
                    (false, true) => t.good,
                    (false, false) => t.bad,
                };
                ui.label(RichText::new(*access).color(color).size(11.5));
                ui.add(egui::Label::new(RichText::new(text).size(11.5).color(t.muted)).wrap());
            });
        }
    }
    for note in &decoded.notes {
        ui.horizontal_top(|ui| {
            ui.label(RichText::new("•").color(t.muted));
            ui.add(egui::Label::new(RichText::new(note).size(12.0)).wrap());
        });
    }
}

/// Draws up to four spans of the entry before the selected one and up to four after it.
fn nearby(ui: &mut Ui, cx: &mut Cx<'_>, entry: &Entry, span: &Span) {
    let t = cx.tokens;
    // An entry can have a great many spans, so only those beside the selected one are looked up.
    let mut spans = vec![*span];
    while spans.len() < 5
        && let Some(before) = cx.cap.prev_span(entry.id, spans[0].start)
    {
        spans.insert(0, before);
    }
    let here = spans.len() - 1;
    while spans.len() < here + 5
        && let Some(after) = spans.last().and_then(|s| cx.cap.timeline.next_change(entry.id, s.start))
    {
        spans.push(after);
    }
    ui.label(RichText::new("Spans of this entry around this one").strong());
    for (n, s) in spans.iter().enumerate() {
        let text = format!(
            "{}  {}  {}",
            cx.at(s.start),
            s.spte.map_or_else(|| "                  ".to_owned(), fmt::spte),
            s.shade.name()
        );
        let response = ui
            .horizontal(|ui| {
                super::legend::swatch(ui, t, s.shade, vec2(12.0, 10.0));
                ui.selectable_label(n == here, RichText::new(text).monospace().size(11.0))
            })
            .inner;
        if response.clicked() {
            let gfn = cx.doc.selection.map_or(entry.gfn, |s| s.gfn);
            cx.doc.select_at(cx.cap, gfn, s.start, Some(entry.id));
            cx.doc.reveal(cx.cap, Some(gfn));
        }
    }
}
