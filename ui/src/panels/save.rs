//! The dialog that asks for the file that something is written to. Nothing is ever written without it.

use std::path::{Path, PathBuf};

use egui::{Key, RichText, Ui};

use crate::theme::Tokens;

/// What is to be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Saving {
    /// A picture of the window, as PNG.
    Picture,
    /// The rows of a table, as CSV.
    Table(String),
    /// The events of the event table, in the format that the ending of the file names. They are written from the trace.
    Events,
    /// The figure of the whole trace, as SVG.
    Figure,
    /// Notes and view.
    Session,
}

impl Saving {
    /// What is asked for, in words.
    const fn heading(&self) -> &'static str {
        match self {
            Self::Picture => "Save a picture of the window",
            Self::Table(_) => "Save as CSV",
            Self::Events => "Save the events",
            Self::Figure => "Save the figure of the trace as SVG",
            Self::Session => "Keep notes and view in a file",
        }
    }

    /// What else there is to know before a file is named.
    const fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Session => Some(
                "From then on it is kept up to date, and read again with the trace. The trace itself is not changed.",
            ),
            Self::Events => {
                Some("The ending decides the format: .csv, .jsonl, .json, .parquet, .arrow, .md or .txt.")
            }
            Self::Picture | Self::Table(_) | Self::Figure => None,
        }
    }

    const fn ending(&self) -> &'static str {
        match self {
            Self::Picture => "png",
            Self::Table(_) | Self::Events => "csv",
            Self::Figure => "svg",
            Self::Session => "mmuscope",
        }
    }
}

/// State of the dialog.
#[derive(Debug)]
pub(crate) struct Save {
    what: Saving,
    text: String,
    opened: bool,
}

/// What the user did in this frame.
pub(crate) enum Answer {
    /// The dialog stays open.
    Stay,
    /// The dialog was closed.
    Close,
    /// The file was named.
    Save(Saving, PathBuf),
}

impl Save {
    /// Proposes a name that no file has, in the folder that the program was started in.
    pub(crate) fn new(what: Saving, stem: &str) -> Self {
        let ending = what.ending();
        let folder = std::env::current_dir().unwrap_or_default();
        let free = |n: u32| folder.join(format!("{stem}-{n}.{ending}"));
        let path = (1..1000).map(free).find(|p| !p.exists()).unwrap_or_else(|| free(1000));
        Self::at(what, &path)
    }

    /// Proposes a file.
    pub(crate) fn at(what: Saving, path: &Path) -> Self {
        Self { what, text: path.display().to_string(), opened: false }
    }
}

/// Why a path cannot be written to, as far as that shows before.
fn obstacle(path: &Path) -> Option<String> {
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    if path.as_os_str().is_empty() || path.file_name().is_none() {
        Some("name a file".to_owned())
    } else if path.is_dir() {
        Some("this is a folder".to_owned())
    } else if !folder.is_dir() {
        Some(format!("there is no folder {}", folder.display()))
    } else {
        None
    }
}

/// Draws the dialog.
pub(crate) fn show(ui: &mut Ui, t: &Tokens, s: &mut Save) -> Answer {
    ui.set_width(560.0);
    ui.heading(s.what.heading());
    let edit = ui.add(
        egui::TextEdit::singleline(&mut s.text).desired_width(f32::INFINITY).hint_text("path of the file"),
    );
    crate::widgets::name_edit(&edit, "File to write", &s.text);
    if let Some(text) = s.what.hint() {
        ui.add(egui::Label::new(RichText::new(text).size(11.5).color(t.muted)).wrap());
    }
    if !std::mem::replace(&mut s.opened, true) {
        edit.request_focus();
    }
    let path = PathBuf::from(s.text.trim());
    let obstacle = obstacle(&path);
    let exists = path.is_file();
    match &obstacle {
        Some(why) => {
            ui.label(RichText::new(why).color(t.bad));
        }
        None if exists => {
            ui.label(RichText::new("This file exists: “Replace” overwrites it.").color(t.warn));
        }
        None => {
            ui.label(RichText::new("A new file.").color(t.muted));
        }
    }
    let enter = edit.lost_focus() && ui.input(|i| i.key_pressed(Key::Enter));
    let mut answer = Answer::Stay;
    ui.horizontal(|ui| {
        let name = if exists { "Replace" } else { "Save" };
        let clicked = ui.add_enabled(obstacle.is_none(), egui::Button::new(name)).clicked();
        // Enter never overwrites.
        if clicked || enter && obstacle.is_none() && !exists {
            answer = Answer::Save(s.what.clone(), path.clone());
        }
        if ui.button("Cancel").clicked() {
            answer = Answer::Close;
        }
    });
    answer
}
