//! What is written to files: tables, figures, notes. Each asks for its file first; what takes long is written by another thread.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};

use egui::Context;

use super::{Page, Viewer};
use crate::beside;
use crate::capture;
use crate::load::{Job, Source};
use crate::panels::Cx;
use crate::panels::dialogs::Dialog;
use crate::panels::notes::Writing;
use crate::panels::recorder::Choice;
use crate::panels::save::{Save, Saving};
use crate::panels::tables::Tab;
use crate::recorder::{self, Recorder};
use crate::theme::Tokens;
use crate::widgets::rows;

/// A file that is being written: its outcome in words.
pub(super) type Written = Receiver<Result<String, String>>;

impl Viewer {
    /// Asks for the file that something is written to.
    pub(super) fn ask_where(&mut self, what: Saving) {
        let Page::Open(doc) = &self.page else { return };
        let first = capture::read(&doc.capture).paths.first().cloned();
        let save = if let (Some(trace), Saving::Session) = (&first, &what) {
            let own = doc.notes.file.clone();
            let beside = own.unwrap_or_else(|| mmuscope_analysis::session::beside(trace));
            Save::at(what, &std::path::absolute(&beside).unwrap_or(beside))
        } else {
            let stem = first.and_then(|p| p.file_stem().map(|s| s.to_string_lossy().into_owned()));
            Save::new(what, &stem.unwrap_or_else(|| "mmuscope".to_owned()))
        };
        self.dialog = Some(Dialog::Save(save));
    }

    /// Asks for the file that the difference of the cursors is written to.
    pub(super) fn save_changes(&mut self) {
        let Page::Open(doc) = &self.page else { return };
        match doc.tables.between.csv() {
            Some(csv) => self.ask_where(Saving::Table(csv)),
            None => self.toast("set the cursors A and B (keys 1 and 2), and open the tab A to B", false),
        }
    }

    /// Asks for the file that the open table is written to.
    pub(super) fn save_table(&mut self, ctx: &Context) {
        let Page::Open(doc) = &self.page else { return };
        match doc.tables.tab {
            Tab::Events if self.options.write_events.is_some() => self.ask_where(Saving::Events),
            Tab::Between => self.save_changes(),
            // The table hands over its rows when it is drawn next.
            _ => rows::ask_for_csv(ctx),
        }
    }

    /// Opens the dialog of a note.
    pub(super) fn write_note(&mut self, tokens: &Tokens) {
        let Page::Open(doc) = &mut self.page else { return };
        let shared = Arc::clone(&doc.capture);
        let cap = capture::read(&shared);
        let mut out = Vec::new();
        let made = Writing::new(&mut Cx { cap: &cap, doc, tokens, out: &mut out });
        drop(cap);
        match made {
            Ok(writing) => self.dialog = Some(Dialog::Note(writing)),
            Err(why) => self.toast(why, false),
        }
    }

    /// Writes what a dialog asked a file for.
    pub(super) fn save(&mut self, ctx: &Context, what: Saving, path: PathBuf) {
        match what {
            // The dialog must be gone from the picture.
            Saving::Picture => self.picture_soon = Some((2, path)),
            Saving::Table(text) => {
                let written = std::fs::write(&path, text);
                self.say_written(&path, written.map_err(|e| e.to_string()));
            }
            Saving::Session => {
                if let Page::Open(doc) = &mut self.page {
                    doc.notes.file = Some(path.clone());
                    let written = beside::autosave(doc, true);
                    self.say_written(&path, written);
                }
            }
            Saving::Events | Saving::Figure => self.write_aside(ctx, &what, path),
        }
    }

    fn say_written(&mut self, path: &std::path::Path, written: Result<(), String>) {
        match written {
            Ok(()) => self.toast(format!("saved {}", path.display()), false),
            Err(e) => self.toast(format!("{}: {e}", path.display()), true),
        }
    }

    /// Writes what is made of the whole trace on a thread of its own.
    fn write_aside(&mut self, ctx: &Context, what: &Saving, path: PathBuf) {
        let Page::Open(doc) = &self.page else { return };
        let (Some(events), Some(figure)) = (self.options.write_events, self.options.figure) else {
            self.toast("this program can write no such file", true);
            return;
        };
        let (capture, view) = (Arc::clone(&doc.capture), doc.view);
        let rows = (*what == Saving::Events).then(|| doc.tables.events.shown());
        let (done, outcome) = mpsc::channel();
        let wake = ctx.clone();
        let work = move || {
            let cap = capture::read(&capture);
            let result = match rows {
                Some(rows) => {
                    let all: Vec<u32> = rows.map_or_else(
                        || (0..cap.trace.events.len() as u32).collect(),
                        |p| (0..p.len()).filter_map(|r| p.event_at(r)).collect(),
                    );
                    events(&cap.trace, &cap.timeline, &all, &path)
                }
                None => match figure(&cap.trace, &cap.timeline, view.vm.0, view.as_id) {
                    Some(svg) => std::fs::write(&path, svg).map_err(|e| e.to_string()),
                    None => Err("the report has no figure of this address space".to_owned()),
                },
            };
            drop(cap);
            let said = match result {
                Ok(()) => Ok(format!("saved {}", path.display())),
                Err(e) => Err(format!("{}: {e}", path.display())),
            };
            done.send(said).ok();
            wake.request_repaint();
        };
        if self.inline {
            work();
        } else {
            std::thread::spawn(work);
            self.toast("writing…", false);
        }
        self.written = Some(outcome);
    }

    /// Starts a recording of this host, and follows its file.
    pub(super) fn record(&mut self, ctx: &Context, how: Choice) {
        let Some(command) = &self.options.recorder else { return };
        let words = recorder::words(command, how.rights, how.seconds);
        let folder =
            self.options.record_to.clone().or_else(|| std::env::current_dir().ok()).unwrap_or_default();
        let free = |n: u32| folder.join(format!("recorded-{n}.perf.data"));
        let file = (1..1000).map(free).find(|p| !p.exists()).unwrap_or_else(|| free(1000));
        let wake = ctx.clone();
        match Recorder::start(&words, how.rights, &file, move || wake.request_repaint()) {
            Ok(started) => {
                self.recorder = Some(started);
                let layout = self.options.layout.clone();
                self.open(ctx, Job { source: Source::Files(vec![file]), follow: true, layout });
            }
            Err(e) => self.page = Page::Welcome { error: Some(e) },
        }
    }

    /// Leaves a recording that failed before it wrote anything: the start page then says what the recorder said.
    pub(super) fn watch_recorder(&mut self) {
        let Some(r) = &mut self.recorder else { return };
        let Some(Err(why)) = r.outcome() else { return };
        if std::fs::metadata(&r.file).is_ok_and(|m| m.len() == 0) {
            let said = r.said().join("\n");
            std::fs::remove_file(&r.file).ok();
            self.recorder = None;
            self.following = None;
            self.page = Page::Welcome { error: Some(format!("{why}\n{said}")) };
        }
    }

    /// Says what has been written, takes over a table that was asked for, and keeps the session up to date.
    pub(super) fn keep(&mut self, ctx: &Context) {
        if let Some(said) = self.written.as_ref().and_then(|w| w.try_recv().ok()) {
            self.written = None;
            match said {
                Ok(text) => self.toast(text, false),
                Err(text) => self.toast(text, true),
            }
        }
        match rows::take_csv(ctx) {
            Some(Ok(csv)) => self.ask_where(Saving::Table(csv)),
            Some(Err(why)) => self.toast(why, false),
            None => {}
        }
        let Page::Open(doc) = &mut self.page else { return };
        if self.options.screenshot.is_some() || doc.reading.is_some() {
            return;
        }
        if let Err(e) = beside::autosave(doc, false) {
            self.toast(e, true);
        }
    }

    /// Keeps the window open once if there are notes that no file has, and asks for the file.
    pub(super) fn closing(&mut self, ctx: &Context) {
        if !ctx.input(|i| i.viewport().close_requested()) {
            return;
        }
        let Page::Open(doc) = &mut self.page else { return };
        if doc.notes.file.is_some() {
            beside::autosave(doc, true).ok();
        } else if doc.notes.unsaved() && !std::mem::replace(&mut self.warned, true) {
            ctx.send_viewport_cmd(egui::ViewportCommand::CancelClose);
            self.ask_where(Saving::Session);
            self.toast("the notes are not saved yet; close the window again to drop them", false);
        }
    }
}
