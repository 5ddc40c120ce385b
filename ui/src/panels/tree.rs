//! The page tables that lead to the selected frame, from the root to the leaf, at the selected moment and at the cursors; and the 512 entries
//! of each table at a glance.

use egui::{Rect, RichText, ScrollArea, Sense, Stroke, StrokeKind, Ui, UiBuilder, vec2};
use mmuscope_replay::{EntryId, Shade, Span, TableId, VmId, pages_of};

use super::Cx;
use crate::capture::{Capture, rank};
use crate::fmt;

/// Entries of a table, and how many are drawn in a row.
const ENTRIES: u64 = 512;
const ACROSS: u64 = 64;

/// One entry on the way to a frame, with what it held at each of the moments.
struct Step {
    entry: EntryId,
    level: u8,
    table: TableId,
    at: Vec<Option<Span>>,
}

/// Everything that the way depends on.
type Key = (VmId, u8, u64, Vec<u64>, u64);

/// State of the tab.
#[derive(Default)]
pub(crate) struct State {
    key: Option<Key>,
    steps: Vec<Step>,
    /// The level whose table is shown, and which of the moments.
    level: u8,
    moment: usize,
    /// What the entries of that table hold, by their index, with the key of which it is so.
    table: Vec<Option<(EntryId, Span)>>,
    table_of: Option<(Key, u8, usize)>,
}

impl State {
    fn update(&mut self, cap: &Capture, key: Key) {
        if self.key.as_ref() == Some(&key) {
            return;
        }
        let (vm, as_id, gfn, times, _) = &key;
        let mut steps: Vec<Step> = cap
            .timeline
            .entries_at(*vm, *as_id, *gfn)
            .into_iter()
            .map(|id| {
                let e = cap.timeline.entry(id);
                let at = times.iter().map(|t| cap.timeline.span_at(id, *t)).collect();
                Step { entry: id, level: e.level, table: e.table, at }
            })
            .filter(|s| s.at.iter().any(Option::is_some))
            .collect();
        // Of several tables of one level, those that say most come first.
        let says = |s: &Step| s.at.iter().flatten().map(rank).min();
        steps.sort_by_key(|s| (std::cmp::Reverse(s.level), says(s)));
        let lowest = steps.last().map_or(1, |s| s.level);
        if !steps.iter().any(|s| s.level == self.level) {
            self.level = lowest;
        }
        self.moment = self.moment.min(times.len() - 1);
        self.steps = steps;
        self.key = Some(key);
    }

    /// Looks up the entries of the table of the chosen level.
    fn update_table(&mut self, cap: &Capture) {
        let Some(key) = self.key.clone() else { return };
        let of = (key, self.level, self.moment);
        if self.table_of.as_ref() == Some(&of) {
            return;
        }
        self.table.clear();
        let (vm, as_id, gfn, times, _) = &of.0;
        let t = times[self.moment];
        if let Some(step) = self.steps.iter().find(|s| s.level == self.level) {
            let pages = pages_of(step.level);
            let base = gfn / pages.saturating_mul(ENTRIES) * pages.saturating_mul(ENTRIES);
            self.table = (0..ENTRIES)
                .map(|i| {
                    let first = base.checked_add(i.checked_mul(pages)?)?;
                    let mut all = cap.timeline.entries_at(*vm, *as_id, first).into_iter();
                    let id = all.find(|e| {
                        let e = cap.timeline.entry(*e);
                        (e.table, e.level) == (step.table, step.level)
                    })?;
                    Some((id, cap.timeline.span_at(id, t)?))
                })
                .collect();
        }
        self.table_of = Some(of);
    }
}

/// Draws the tab.
pub(crate) fn show(ui: &mut Ui, cx: &mut Cx<'_>) {
    let Some(s) = cx.doc.selection else {
        ui.add_space(8.0);
        let text =
            "Select a page in the map, or type G and its frame, to see the page tables that lead to it.";
        ui.label(RichText::new(text).color(cx.tokens.muted));
        return;
    };
    let mut names = vec!["now".to_owned()];
    let mut times = vec![s.time];
    for (name, at) in ["A", "B"].iter().zip(cx.doc.cursors) {
        if let Some(at) = at {
            names.push(format!("at {name}"));
            times.push(cx.cap.abs(at));
        }
    }
    let key = (cx.doc.view.vm, cx.doc.view.as_id, s.gfn, times, cx.cap.version);
    cx.doc.tables.tree.update(cx.cap, key);
    ui.horizontal(|ui| {
        let when = cx.at(s.time);
        ui.label(RichText::new(format!("From the root to GFN {} at {when}", fmt::gfn(s.gfn))).strong());
        if names.len() == 1 {
            ui.label(RichText::new("cursors A and B (1, 2) add columns").color(cx.tokens.muted));
        }
    });
    let full = ui.available_rect_before_wrap();
    let split = full.left() + (full.width() * 0.54).max(full.width() - 620.0);
    ui.scope_builder(UiBuilder::new().max_rect(full.with_max_x(split - 10.0)), |ui| {
        ScrollArea::both().id_salt("tree").auto_shrink(false).show(ui, |ui| way(ui, cx, &names));
    });
    ui.scope_builder(UiBuilder::new().max_rect(full.with_min_x(split)), |ui| table(ui, cx, s.gfn, &names));
}

/// Draws the entries on the way, one row a table.
fn way(ui: &mut Ui, cx: &mut Cx<'_>, names: &[String]) {
    let t = cx.tokens;
    let steps = std::mem::take(&mut cx.doc.tables.tree.steps);
    if steps.is_empty() {
        ui.label("No entry that leads to this frame is known at these moments.");
    }
    let gfn = cx.doc.selection.map_or(0, |s| s.gfn);
    egui::Grid::new("way").num_columns(2 + names.len()).spacing(vec2(14.0, 3.0)).show(ui, |ui| {
        for head in ["level", "index"].into_iter().chain(names.iter().map(String::as_str)) {
            ui.label(RichText::new(head).size(11.0).color(t.muted));
        }
        ui.end_row();
        for step in &steps {
            let chosen = cx.doc.tables.tree.level == step.level;
            let text = format!("{} ({})", step.level, fmt::level(step.level));
            if ui.selectable_label(chosen, text).on_hover_text("Show all entries of this table").clicked() {
                cx.doc.tables.tree.level = step.level;
            }
            let index = gfn / pages_of(step.level) % ENTRIES;
            ui.label(RichText::new(index.to_string()).monospace());
            for (n, span) in step.at.iter().enumerate() {
                held(ui, cx, step, span.as_ref(), step.at[0].as_ref().filter(|_| n > 0));
            }
            ui.end_row();
        }
    });
    cx.doc.tables.tree.steps = steps;
}

/// Draws what an entry held at one moment; `now` is what it holds at the selected one, to tell what differs.
fn held(ui: &mut Ui, cx: &mut Cx<'_>, step: &Step, span: Option<&Span>, now: Option<&Span>) {
    let t = cx.tokens;
    let Some(span) = span else {
        ui.label(RichText::new("not linked").color(t.faint));
        return;
    };
    let entry = cx.cap.timeline.entry(step.entry);
    let differs = now.is_some_and(|n| (n.state, n.spte) != (span.state, span.spte));
    ui.horizontal(|ui| {
        super::legend::swatch(ui, t, span.shade, vec2(14.0, 10.0));
        let value = span.spte.map_or_else(|| span.shade.name().to_owned(), fmt::spte);
        let color = if differs { t.warn } else { t.ink };
        let decoded = span.spte.map(|raw| cx.cap.explain(&entry, raw).headline).unwrap_or_default();
        let known = format!("{}: {}", span.certainty.name(), span.reason.words());
        let sptep = entry.sptep.map_or_else(String::new, |a| format!("\nentry at host 0x{a:x}"));
        let tip = format!("{}\n{decoded}\n{known}{sptep}", span.shade.name());
        let link = egui::Link::new(RichText::new(value).monospace().size(11.5).color(color));
        if ui.add(link).on_hover_text(tip).clicked() {
            let gfn = cx.doc.selection.map_or(entry.gfn, |s| s.gfn);
            let time = cx.doc.selection.map_or(span.start, |s| s.time);
            let time = if span.covers(time) { time } else { span.start };
            cx.doc.select_at(cx.cap, gfn, time, Some(step.entry));
        }
        // Beside the values of other moments there is no room for it; it is in the tooltip.
        if !decoded.is_empty() && step.at.len() == 1 {
            ui.label(RichText::new(decoded).size(11.5).color(t.muted));
        }
    });
}

/// Draws all entries of the table of the chosen level.
fn table(ui: &mut Ui, cx: &mut Cx<'_>, gfn: u64, names: &[String]) {
    let t = cx.tokens;
    let state = &mut cx.doc.tables.tree;
    let level = state.level;
    ui.horizontal(|ui| {
        ui.label(RichText::new(format!("The table of level {level}")).strong());
        for (n, name) in names.iter().enumerate() {
            ui.selectable_value(&mut state.moment, n, name);
        }
    });
    state.update_table(cx.cap);
    let full = ui.available_rect_before_wrap();
    let cell = (full.width() / ACROSS as f32).min(full.height() / (ENTRIES / ACROSS) as f32).clamp(4.0, 14.0);
    let size = vec2(cell * ACROSS as f32, cell * (ENTRIES / ACROSS) as f32);
    let (rect, response) = ui.allocate_exact_size(size, Sense::click());
    let known = state.table.iter().flatten().count();
    let label = format!("Table of level {level}: 512 entries, {known} known");
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Image, true, &label));
    let pages = pages_of(level);
    let here = gfn / pages % ENTRIES;
    let base = gfn / pages.saturating_mul(ENTRIES) * pages.saturating_mul(ENTRIES);
    let place = |i: u64| {
        let at = rect.min + vec2((i % ACROSS) as f32 * cell, (i / ACROSS) as f32 * cell);
        Rect::from_min_size(at, vec2(cell, cell))
    };
    let painter = ui.painter();
    painter.rect_filled(rect, 0.0, t.background);
    for i in 0..ENTRIES {
        let shade = state.table.get(i as usize).and_then(|e| e.as_ref()).map(|(_, s)| (s.shade, s.certainty));
        let r = place(i).shrink(0.5);
        match shade {
            Some((Shade::Nonpresent, _)) => {
                painter.rect_stroke(r, 0.0, Stroke::new(1.0, t.grid), StrokeKind::Inside);
            }
            Some((shade, certainty)) if shade != Shade::Unknown => {
                let stale = certainty == mmuscope_replay::Certainty::Stale;
                let color = if shade == Shade::Table { t.muted } else { t.shade(shade) };
                painter.rect_filled(r, 0.0, if stale { color.gamma_multiply(0.4) } else { color });
            }
            _ => {
                painter.circle_filled(r.center(), 0.8, t.faint);
            }
        }
    }
    painter.rect_stroke(place(here), 0.0, Stroke::new(2.0, t.accent), StrokeKind::Outside);
    let Some(pos) = response.hover_pos() else { return };
    let (x, y) = (((pos.x - rect.left()) / cell) as u64, ((pos.y - rect.top()) / cell) as u64);
    let i = (y * ACROSS + x).min(ENTRIES - 1);
    let first = base.saturating_add(i.saturating_mul(pages));
    let found = state.table.get(i as usize).and_then(|e| *e);
    let frames = mmuscope_units::gfn_range(first, first.saturating_add(pages));
    let words = found.map_or_else(
        || "unknown: no event has shown this entry yet".to_owned(),
        |(_, s)| {
            let value = s.spte.map_or_else(String::new, |v| format!(" {}", fmt::spte(v)));
            format!("{}{value}\n{}: {}", s.shade.name(), s.certainty.name(), s.reason.words())
        },
    );
    let clicked = response.clicked();
    response.on_hover_text_at_pointer(format!("entry {i}, frames {frames}\n{words}"));
    if clicked {
        let time = cx.doc.selection.map_or(0, |s| s.time);
        let time = found.map_or(time, |(_, s)| if s.covers(time) { time } else { s.start });
        cx.doc.leave();
        cx.doc.select_at(cx.cap, first, time, found.map(|(e, _)| e));
        cx.doc.reveal(cx.cap, Some(first));
    }
}
