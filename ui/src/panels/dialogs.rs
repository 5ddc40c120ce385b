//! The dialogs that open on top of the window: command palette, key help, file chooser.

use std::path::{Path, PathBuf};

use egui::{Key, RichText, ScrollArea, Ui, vec2};

use crate::command::{Command, Group, MOUSE, TABLE, keys_text};
use crate::theme::Tokens;

/// The dialog that is open; there is at most one.
#[derive(Debug)]
pub(crate) enum Dialog {
    /// The command palette, which finds any command by typing.
    Palette(Palette),
    /// The list of all keys.
    Help,
    /// The file chooser.
    Open(Chooser),
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
}

/// Draws the dialog that is open.
pub(crate) fn show(ui: &mut Ui, t: &Tokens, dialog: &mut Dialog, has_trace: bool) -> Outcome {
    let id = egui::Id::unique("dialog");
    let modal = egui::Modal::new(id).show(ui.ctx(), |ui| match dialog {
        Dialog::Palette(p) => palette(ui, t, p, has_trace),
        Dialog::Help => help(ui, t),
        Dialog::Open(c) => chooser(ui, t, c),
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

/// State of the file chooser. mmuscope has a chooser of its own, because the desktop portals of others are missing over ssh -X and in
/// containers.
#[derive(Debug)]
pub(crate) struct Chooser {
    text: String,
    folder: PathBuf,
    entries: Result<Vec<(String, bool, u64)>, String>,
    opened: bool,
}

impl Chooser {
    /// Opens in a folder.
    pub(crate) fn new(folder: &Path) -> Self {
        let mut c = Self {
            text: String::new(),
            folder: folder.to_path_buf(),
            entries: Ok(Vec::new()),
            opened: false,
        };
        c.read();
        c
    }

    fn read(&mut self) {
        self.entries = std::fs::read_dir(&self.folder)
            .map(|dir| {
                let mut all: Vec<(String, bool, u64)> = dir
                    .filter_map(Result::ok)
                    .take(5000)
                    .filter_map(|e| {
                        let name = e.file_name().to_string_lossy().into_owned();
                        let meta = std::fs::metadata(e.path()).ok()?;
                        (!name.starts_with('.')).then_some((name, meta.is_dir(), meta.len()))
                    })
                    .collect();
                all.sort_by(|a, b| (!a.1, &a.0).cmp(&(!b.1, &b.0)));
                all
            })
            .map_err(|e| format!("{}: {e}", self.folder.display()));
        self.text = format!("{}/", self.folder.display().to_string().trim_end_matches('/'));
    }
}

fn chooser(ui: &mut Ui, t: &Tokens, c: &mut Chooser) -> Outcome {
    ui.set_width(600.0);
    ui.heading("Open a trace");
    let edit = ui.add(
        egui::TextEdit::singleline(&mut c.text).desired_width(f32::INFINITY).hint_text("path of a trace"),
    );
    crate::widgets::name_edit(&edit, "Path", &c.text);
    if !std::mem::replace(&mut c.opened, true) {
        edit.request_focus();
    }
    let mut outcome = Outcome::Stay;
    let mut enter_folder = None;
    let typed = PathBuf::from(c.text.trim());
    if edit.lost_focus() && ui.input(|i| i.key_pressed(Key::Enter)) {
        if typed.is_dir() {
            enter_folder = Some(typed.clone());
        } else {
            outcome = Outcome::Open(typed.clone());
        }
    }
    let part = typed
        .file_name()
        .filter(|_| !c.text.ends_with('/'))
        .map(|n| n.to_string_lossy().to_lowercase())
        .unwrap_or_default();
    ScrollArea::vertical().max_height(380.0).min_scrolled_height(380.0).auto_shrink(false).show(ui, |ui| {
        if let Some(up) = c.folder.parent()
            && ui.selectable_label(false, "..").on_hover_text("Folder above").clicked()
        {
            enter_folder = Some(up.to_path_buf());
        }
        match &c.entries {
            Err(e) => {
                ui.label(RichText::new(e).color(t.bad));
            }
            Ok(entries) => {
                for (name, dir, size) in entries.iter().filter(|(n, ..)| n.to_lowercase().contains(&part)) {
                    ui.horizontal(|ui| {
                        let label = if *dir { format!("{name}/") } else { name.clone() };
                        if ui.selectable_label(false, label).clicked() {
                            let path = c.folder.join(name);
                            if *dir {
                                enter_folder = Some(path);
                            } else {
                                outcome = Outcome::Open(path);
                            }
                        }
                        if !dir {
                            ui.label(RichText::new(crate::fmt::bytes(*size)).size(11.0).color(t.muted));
                        }
                    });
                }
            }
        }
    });
    if let Some(folder) = enter_folder {
        c.folder = folder;
        c.read();
        c.opened = false;
    }
    ui.horizontal(|ui| {
        if ui.button("Open").clicked() {
            outcome = Outcome::Open(PathBuf::from(c.text.trim()));
        }
        if ui.button("Cancel").clicked() {
            outcome = Outcome::Close;
        }
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
