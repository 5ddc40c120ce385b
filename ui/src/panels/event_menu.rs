//! The menu of a row of the event table: filter on a value, copy what is there.

use egui::Ui;
use mmuscope_replay::EventIx;

use super::Cx;
use crate::rows::{Term, terms_of};

/// The column of `mmuscope events` that a column of the table shows; the last shows all others.
const SHOWN: [&str; 7] = ["event_id", "ts", "cpu", "tid", "vcpu", "event", "gfn"];

/// What the user chose.
enum Choice {
    /// The filter is replaced.
    Filter(String),
    /// A text was copied.
    Copied,
}

/// Draws the menu of an event; `column` is the one that was clicked.
pub(super) fn show(ui: &mut Ui, cx: &mut Cx<'_>, ix: EventIx, column: usize) {
    ui.set_min_width(300.0);
    let terms = terms_of(cx.cap, ix);
    let filter = cx.doc.tables.events.filter().to_owned();
    let mut choice = None;
    let clicked = SHOWN.get(column).and_then(|name| terms.iter().find(|t| t.column == *name));
    if let Some(t) = clicked.filter(|t| t.column != "ts" && t.column != "event_id") {
        choice = filters(ui, t, &filter);
        ui.separator();
    }
    ui.menu_button("Filter on another field", |ui| {
        egui::ScrollArea::vertical().max_height(420.0).show(ui, |ui| {
            for t in terms.iter().filter(|t| t.column != "ts" && t.column != "event_id") {
                ui.menu_button(format!("{} = {}", t.column, t.value), |ui| {
                    choice = filters(ui, t, &filter).or(choice.take());
                });
            }
        });
    });
    ui.separator();
    let value = clicked.map(|t| t.value.clone());
    if let Some(v) = value
        && ui.button(format!("Copy {v}")).clicked()
    {
        ui.ctx().copy_text(v);
        choice = Some(Choice::Copied);
    }
    if ui.button("Copy row").on_hover_text("Copy all fields as name=value").clicked() {
        let all: Vec<String> = terms.iter().map(|t| format!("{}={}", t.column, t.value)).collect();
        ui.ctx().copy_text(all.join("  "));
        choice = Some(Choice::Copied);
    }
    if ui.button("Copy command").on_hover_text("Copy the command line that prints this event").clicked() {
        let files = cx.cap.shell_words();
        ui.ctx().copy_text(format!("mmuscope events {files} --where 'event_id == {ix}'"));
        choice = Some(Choice::Copied);
    }
    match choice {
        Some(Choice::Filter(text)) => {
            cx.doc.tables.events.set_filter(&text);
            cx.doc.tables.events.reveal = Some(ix);
            ui.close();
        }
        Some(Choice::Copied) => ui.close(),
        None => {}
    }
}

/// Draws the filters that a value can make.
fn filters(ui: &mut Ui, t: &Term, filter: &str) -> Option<Choice> {
    let mut out = None;
    let mut offer = |ui: &mut Ui, label: String, text: String| {
        if ui.button(label).clicked() {
            out = Some(Choice::Filter(text));
        }
    };
    offer(ui, format!("Only {}", t.is), t.is.clone());
    offer(ui, format!("Hide {}", t.is), format!("not ({})", t.is));
    if !filter.is_empty() {
        offer(ui, format!("… and {}", t.is), format!("({filter}) and {}", t.is));
        offer(ui, format!("… and not {}", t.is), format!("({filter}) and not ({})", t.is));
    }
    out
}
