//! The notes of the user: the tab that lists them, the dialog that one is written in, and their marks on the time axis.

use egui::{Key, RichText, Ui};
use mmuscope_analysis::session::Note;
use mmuscope_replay::VmId;

use super::Cx;
use super::there::{There, go};
use crate::command::Command;
use crate::fmt;
use crate::theme::Tokens;
use crate::widgets::rows::{Column, Scroll, Table, Text, table};

/// State of the tab.
#[derive(Debug, Default)]
pub(crate) struct State {
    /// The note that is selected.
    pub(crate) selected: Option<usize>,
    scroll: Scroll,
    /// The note that is to be changed.
    pub(crate) edit: Option<usize>,
}

const COLUMNS: [Column; 4] = [
    Column { name: "time", width: 140.0, right: true },
    Column { name: "vm", width: 34.0, right: true },
    Column { name: "gfn", width: 92.0, right: true },
    Column { name: "note", width: 0.0, right: false },
];

/// Draws the tab.
pub(crate) fn show(ui: &mut Ui, cx: &mut Cx<'_>) {
    let t = cx.tokens;
    ui.horizontal_wrapped(|ui| {
        for command in [Command::AddNote, Command::SaveSession] {
            let spec = command.spec();
            if ui.small_button(spec.name).on_hover_text(spec.help).clicked() {
                cx.out.push(command);
            }
        }
        let selected = cx.doc.tables.notes.selected.filter(|i| *i < cx.doc.notes.list.len());
        if let Some(i) = selected {
            if ui.small_button("Change…").clicked() {
                cx.doc.tables.notes.edit = Some(i);
                cx.out.push(Command::AddNote);
            }
            if ui.small_button("Delete").on_hover_text("Delete the selected note").clicked() {
                cx.doc.notes.list.remove(i);
                cx.doc.tables.notes.selected = None;
            }
        }
        let (text, color) = match &cx.doc.notes.file {
            Some(file) => (format!("kept in {}", file.display()), t.good),
            None if cx.doc.notes.unsaved() => ("not saved yet".to_owned(), t.warn),
            None => ("nothing is written before you name a file".to_owned(), t.muted),
        };
        ui.label(RichText::new(text).size(11.5).color(color));
    });
    let notes = &cx.doc.notes.list;
    if notes.is_empty() {
        ui.label(
            RichText::new("Point at a moment in the map and press M to write a note on it.").color(t.muted),
        );
        return;
    }
    let mut scroll = cx.doc.tables.notes.scroll;
    let selected = cx.doc.tables.notes.selected;
    let of = Table { name: "Notes", columns: &COLUMNS, count: notes.len(), selected, ..Table::default() };
    let done = table(ui, t, &of, &mut scroll, |row| {
        let n = &notes[row];
        vec![
            cx.when(n.at).into(),
            n.vm.to_string().into(),
            n.gfn.map_or_else(String::new, fmt::gfn).into(),
            Text { text: fmt::clean(&n.text), color: Some(t.ink) },
        ]
    });
    cx.doc.tables.notes.scroll = scroll;
    if let Some(row) = done.picked {
        pick(cx, row);
    }
}

/// Shows the moment of a note, and its page.
pub(super) fn pick(cx: &mut Cx<'_>, i: usize) {
    cx.doc.tables.notes.selected = Some(i);
    let Some(n) = cx.doc.notes.list.get(i) else { return };
    let ts = cx.cap.start().saturating_add(n.at);
    let known = cx.cap.spaces().iter().any(|s| s.vm.0 == n.vm);
    let as_id = if cx.doc.view.vm.0 == n.vm { cx.doc.view.as_id } else { 0 };
    let vm = known.then_some(VmId(n.vm));
    let there = There { vm, as_id, gfns: n.gfn.map(|g| (g, g)), time: (ts, ts), event: None };
    go(cx, &there);
}

/// The dialog that a note is written in.
#[derive(Debug)]
pub(crate) struct Writing {
    note: Note,
    /// The note that it takes the place of.
    instead: Option<usize>,
    place: String,
    opened: bool,
}

/// What the user did in this frame.
pub(crate) enum Answer {
    /// The dialog stays open.
    Stay,
    /// The dialog was closed.
    Close,
    /// The note was written.
    Put(Note, Option<usize>),
}

impl Writing {
    /// A note to change, or a new one on the moment at the pointer, else on the selection. The error says that there is neither.
    pub(crate) fn new(cx: &mut Cx<'_>) -> Result<Self, String> {
        let cap = cx.cap;
        let doc = &mut *cx.doc;
        let instead = doc.tables.notes.edit.take().filter(|i| *i < doc.notes.list.len());
        let old = instead.map(|i| doc.notes.list[i].clone());
        let hover = doc.hover.time.map(|at| Note {
            at: at.max(0.0) as u64,
            vm: doc.view.vm.0,
            gfn: doc.pointed.as_ref().map(|p| p.gfn).filter(|_| doc.hover.gfn.is_some()),
            text: String::new(),
        });
        let selected = doc.selection.map(|s| Note {
            at: cap.rel(s.time) as u64,
            vm: doc.view.vm.0,
            gfn: Some(s.gfn),
            text: String::new(),
        });
        let note = old.or(hover).or(selected).ok_or("point at a moment, or select a page first")?;
        let at = cx.when(note.at);
        let place = note.gfn.map_or_else(|| at.clone(), |g| format!("GFN {} at {at}", fmt::gfn(g)));
        Ok(Self { note, instead, place, opened: false })
    }
}

/// Draws the dialog.
pub(crate) fn write(ui: &mut Ui, t: &Tokens, w: &mut Writing) -> Answer {
    ui.set_width(480.0);
    ui.heading(format!("Note on {}", w.place));
    let edit = ui.add(egui::TextEdit::singleline(&mut w.note.text).desired_width(f32::INFINITY));
    crate::widgets::name_edit(&edit, "Note", &w.note.text);
    if !std::mem::replace(&mut w.opened, true) {
        edit.request_focus();
    }
    ui.label(
        RichText::new("Notes are part of the report: mmuscope report --session FILE")
            .size(11.5)
            .color(t.muted),
    );
    let enter = edit.lost_focus() && ui.input(|i| i.key_pressed(Key::Enter));
    let there = !w.note.text.trim().is_empty();
    let mut answer = Answer::Stay;
    ui.horizontal(|ui| {
        if ui.add_enabled(there, egui::Button::new("Keep")).clicked() || enter && there {
            answer = Answer::Put(w.note.clone(), w.instead);
        }
        if ui.button("Cancel").clicked() {
            answer = Answer::Close;
        }
    });
    answer
}
