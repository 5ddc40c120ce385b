//! The dialogs that open on top of the window: command palette, key help, file chooser.

use std::path::PathBuf;

use egui::{Key, RichText, ScrollArea, Ui, vec2};

use mmuscope_analysis::session::Note;

use super::{chooser, decode, notes, save};
use crate::command::{Command, Group};
use crate::commands::{MOUSE, TABLE};
use crate::keys::keys_text;
use crate::theme::Tokens;

/// The dialog that is open; there is at most one.
#[derive(Debug)]
pub(crate) enum Dialog {
    /// The command palette, which finds any command by typing.
    Palette(Palette),
    /// The list of all keys.
    Help,
    /// The file chooser.
    Open(chooser::Chooser),
    /// The file chooser for a trace beside the open one.
    Beside(chooser::Chooser),
    /// The explanation of a value that was pasted.
    Decode(Box<decode::Decode>),
    /// The note that is being written.
    Note(notes::Writing),
    /// The question for the file that something is written to.
    Save(save::Save),
}

/// State of the command palette.
#[derive(Debug, Default)]
pub(crate) struct Palette {
    text: String,
    at: usize,
    opened: bool,
}

/// What the user did with a dialog in this frame.
pub(crate) enum Outcome {
    /// The dialog stays open.
    Stay,
    /// The dialog was closed.
    Close,
    /// The user chose a command.
    Run(Command),
    /// The user chose a file.
    Open(PathBuf),
    /// The user chose a file to show beside the open one.
    Beside(PathBuf),
    /// The user wrote a note, perhaps in the place of another.
    Note(Note, Option<usize>),
    /// The user named the file to write.
    Save(save::Saving, PathBuf),
}

/// Draws the dialog that is open.
pub(crate) fn show(ui: &mut Ui, t: &Tokens, dialog: &mut Dialog, has_trace: bool) -> Outcome {
    let id = egui::Id::unique("dialog");
    let modal = egui::Modal::new(id).show(ui.ctx(), |ui| match dialog {
        Dialog::Palette(p) => palette(ui, t, p, has_trace),
        Dialog::Help => help(ui, t),
        Dialog::Open(c) => match chooser::show(ui, t, c) {
            chooser::Answer::Stay => Outcome::Stay,
            chooser::Answer::Close => Outcome::Close,
            chooser::Answer::Open(path) => Outcome::Open(path),
        },
        Dialog::Beside(c) => match chooser::show(ui, t, c) {
            chooser::Answer::Stay => Outcome::Stay,
            chooser::Answer::Close => Outcome::Close,
            chooser::Answer::Open(path) => Outcome::Beside(path),
        },
        Dialog::Decode(d) => {
            if decode::show(ui, t, d) {
                Outcome::Close
            } else {
                Outcome::Stay
            }
        }
        Dialog::Note(w) => match notes::write(ui, t, w) {
            notes::Answer::Stay => Outcome::Stay,
            notes::Answer::Close => Outcome::Close,
            notes::Answer::Put(note, instead) => Outcome::Note(note, instead),
        },
        Dialog::Save(s) => match save::show(ui, t, s) {
            save::Answer::Stay => Outcome::Stay,
            save::Answer::Close => Outcome::Close,
            save::Answer::Save(what, path) => Outcome::Save(what, path),
        },
    });
    if modal.should_close() && matches!(modal.inner, Outcome::Stay) { Outcome::Close } else { modal.inner }
}

/// How badly a name matches what was typed; 0 is best. All letters must occur in order; gaps cost, and less so at the start of a word.
/// `None` if the name does not match.
fn fit(name: &str, typed: &str) -> Option<usize> {
    let name: Vec<char> = name.to_lowercase().chars().collect();
    let mut at = 0;
    let mut cost = 0;
    for c in typed.to_lowercase().chars().filter(|c| !c.is_whitespace()) {
        let found = name[at..].iter().position(|n| *n == c)?;
        let start = at + found == 0 || name[at + found - 1] == ' ';
        cost += if found == 0 {
            0
        } else if start {
            1
        } else {
            3 + found
        };
        at += found + 1;
    }
    Some(cost)
}

fn palette(ui: &mut Ui, t: &Tokens, p: &mut Palette, has_trace: bool) -> Outcome {
    ui.set_width(520.0);
    let edit = ui.add(
        egui::TextEdit::singleline(&mut p.text).hint_text("type a command").desired_width(f32::INFINITY),
    );
    crate::widgets::name_edit(&edit, "Command", &p.text);
    if !std::mem::replace(&mut p.opened, true) || !edit.has_focus() {
        edit.request_focus();
    }
    if edit.changed() {
        p.at = 0;
    }
    let mut found: Vec<_> = TABLE
        .iter()
        .filter(|s| (has_trace || !s.needs_trace) && s.command != Command::Palette)
        .filter_map(|s| Some((fit(s.name, &p.text).or_else(|| fit(s.help, &p.text).map(|c| c + 50))?, s)))
        .collect();
    found.sort_by_key(|(cost, _)| *cost);
    let (down, up, enter) =
        ui.input(|i| (i.key_pressed(Key::ArrowDown), i.key_pressed(Key::ArrowUp), i.key_pressed(Key::Enter)));
    let last = found.len().saturating_sub(1);
    p.at = if down {
        p.at + 1
    } else if up {
        p.at.saturating_sub(1)
    } else {
        p.at
    }
    .min(last);
    let mut run = None;
    ui.separator();
    ScrollArea::vertical().max_height(380.0).min_scrolled_height(380.0).show(ui, |ui| {
        for (i, (_, spec)) in found.iter().enumerate() {
            let response = ui
                .horizontal(|ui| {
                    let r = ui.selectable_label(i == p.at, spec.name);
                    ui.label(RichText::new(spec.help).size(11.5).color(t.muted));
                    ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
                        ui.label(RichText::new(keys_text(spec)).monospace().size(11.0).color(t.muted));
                    });
                    r
                })
                .inner;
            if i == p.at && (down || up) {
                response.scroll_to_me(None);
            }
            if response.clicked() {
                run = Some(spec.command);
            }
        }
        if found.is_empty() {
            ui.label(RichText::new("no command fits").color(t.muted));
        }
    });
    if enter {
        run = found.get(p.at).map(|(_, s)| s.command);
    }
    run.map_or(Outcome::Stay, Outcome::Run)
}

fn help(ui: &mut Ui, t: &Tokens) -> Outcome {
    ui.set_width(760.0);
    let mut outcome = Outcome::Stay;
    ui.horizontal(|ui| {
        ui.heading("Keys");
        ui.with_layout(egui::Layout::right_to_left(egui::Align::Center), |ui| {
            if ui.button("Close").clicked() {
                outcome = Outcome::Close;
            }
        });
    });
    ui.separator();
    let height = (ui.ctx().content_rect().height() - 160.0).clamp(200.0, 620.0);
    ScrollArea::vertical().max_height(height).min_scrolled_height(height).show(ui, |ui| {
        ui.columns(2, |columns| {
            for (i, group) in Group::ALL.into_iter().enumerate() {
                // The longest lists are in different columns, so that both columns have about the same height.
                let ui = &mut columns[usize::from(i >= 2)];
                ui.label(RichText::new(group.title()).strong().color(t.accent));
                egui::Grid::new(("keys", i)).num_columns(2).spacing(vec2(12.0, 2.0)).show(ui, |ui| {
                    for spec in TABLE.iter().filter(|s| s.group == group && !s.keys.is_empty()) {
                        ui.label(RichText::new(keys_text(spec)).monospace().size(11.5));
                        ui.label(spec.name).on_hover_text(spec.help);
                        ui.end_row();
                    }
                });
                ui.add_space(8.0);
            }
            let ui = &mut columns[0];
            ui.label(RichText::new("Mouse").strong().color(t.accent));
            egui::Grid::new("mouse").num_columns(2).spacing(vec2(12.0, 2.0)).show(ui, |ui| {
                for (what, does) in MOUSE {
                    ui.label(RichText::new(*what).monospace().size(11.5));
                    ui.label(*does);
                    ui.end_row();
                }
            });
        });
    });
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_palette_finds_by_letters_in_order_and_prefers_beginnings() {
        assert!(fit("Fit everything", "fe").is_some());
        assert!(fit("Fit everything", "xyz").is_none());
        assert!(fit("Fit everything", "fit") < fit("Follow the end of it", "fit"));
    }
}
