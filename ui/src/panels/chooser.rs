//! The file chooser. mmuscope has one of its own, because the desktop portals of others are missing over ssh -X and in containers.

use std::path::{Path, PathBuf};

use egui::{Key, RichText, ScrollArea, Ui};

use crate::theme::Tokens;

/// Most entries of a folder that are listed.
const MOST: usize = 5000;

/// A file or folder of the list.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Item {
    name: String,
    folder: bool,
    bytes: u64,
    /// Whether its name is one that recorders give their files.
    trace: bool,
}

/// State of the file chooser.
#[derive(Debug)]
pub(crate) struct Chooser {
    text: String,
    folder: PathBuf,
    entries: Result<Vec<Item>, String>,
    /// Whether files that do not look like traces are listed too.
    all: bool,
    opened: bool,
}

/// What the user did in this frame.
pub(crate) enum Answer {
    /// The chooser stays open.
    Stay,
    /// The chooser was closed.
    Close,
    /// A file was chosen.
    Open(PathBuf),
}

/// Whether a name is one that recorders give their files. What a file really is, its content decides when it is opened.
fn looks_like_a_trace(name: &str) -> bool {
    let name = name.to_ascii_lowercase();
    let name = [".zst", ".gz", ".xz"].iter().find_map(|e| name.strip_suffix(e)).unwrap_or(&name);
    let ending = Path::new(name).extension().and_then(|e| e.to_str()).unwrap_or_default();
    matches!(ending, "data" | "dat" | "txt" | "log" | "trace" | "perf")
        || ["trace", "perf", "capture"].iter().any(|w| name.contains(w))
}

impl Chooser {
    /// Opens in a folder.
    pub(crate) fn new(folder: &Path) -> Self {
        let mut c = Self {
            text: String::new(),
            folder: folder.to_path_buf(),
            entries: Ok(Vec::new()),
            all: false,
            opened: false,
        };
        c.enter(folder.to_path_buf());
        c
    }

    /// Shows another folder.
    fn enter(&mut self, folder: PathBuf) {
        self.folder = folder;
        self.read();
        self.text = format!("{}/", self.folder.display().to_string().trim_end_matches('/'));
        self.opened = false;
    }

    fn read(&mut self) {
        self.entries = std::fs::read_dir(&self.folder)
            .map(|dir| {
                let item = |e: std::fs::DirEntry| {
                    let name = e.file_name().to_string_lossy().into_owned();
                    let meta = std::fs::metadata(e.path()).ok()?;
                    let trace = looks_like_a_trace(&name);
                    (!name.starts_with('.')).then_some(Item {
                        name,
                        folder: meta.is_dir(),
                        bytes: meta.len(),
                        trace,
                    })
                };
                let mut all: Vec<Item> = dir.filter_map(Result::ok).take(MOST).filter_map(item).collect();
                all.sort_by(|a, b| (!a.folder, &a.name).cmp(&(!b.folder, &b.name)));
                all
            })
            .map_err(|e| format!("{}: {e}", self.folder.display()));
    }

    /// Lists the folder of the path that is typed.
    fn follow(&mut self) {
        let typed = PathBuf::from(self.text.trim());
        let folder = if self.text.ends_with('/') { Some(typed.as_path()) } else { typed.parent() };
        if let Some(folder) = folder.filter(|f| f.is_absolute() && **f != self.folder && f.is_dir()) {
            self.folder = folder.to_path_buf();
            self.read();
        }
    }

    /// The last part of the path that is typed, which the names in the list must contain.
    fn part(&self) -> String {
        let typed = Path::new(self.text.trim());
        let name = typed.file_name().filter(|_| !self.text.ends_with('/'));
        name.map(|n| n.to_string_lossy().to_lowercase()).unwrap_or_default()
    }

    /// Completes the path that is typed as far as all names that begin with it agree; whether it became longer.
    fn complete(&mut self) -> bool {
        self.follow();
        let part = self.part();
        let Ok(entries) = &self.entries else { return false };
        let fits: Vec<&Item> = entries
            .iter()
            .filter(|i| i.name.to_lowercase().starts_with(&part) && (i.folder || i.trace || self.all))
            .collect();
        let Some((first, rest)) = fits.split_first() else { return false };
        let mut common = first.name.clone();
        for other in rest {
            let same = common.chars().zip(other.name.chars()).take_while(|(a, b)| a == b).count();
            common = common.chars().take(same).collect();
        }
        if common.chars().count() < part.chars().count() {
            return false;
        }
        let base = self.folder.display().to_string();
        let slash = if rest.is_empty() && first.folder { "/" } else { "" };
        let text = format!("{}/{common}{slash}", base.trim_end_matches('/'));
        let longer = text != self.text;
        self.text = text;
        self.follow();
        longer
    }
}

/// Draws the chooser.
pub(crate) fn show(ui: &mut Ui, t: &Tokens, c: &mut Chooser) -> Answer {
    ui.set_width(600.0);
    ui.heading("Open a trace");
    let id = ui.make_persistent_id("chooser-path");
    // Tab completes while the box is typed into, so it must not go to the next widget.
    let tab =
        ui.memory(|m| m.has_focus(id)) && ui.input_mut(|i| i.consume_key(egui::Modifiers::NONE, Key::Tab));
    if tab && c.complete() {
        let end = egui::text::CCursor::new(c.text.chars().count());
        let mut state = egui::TextEdit::load_state(ui.ctx(), id).unwrap_or_default();
        state.cursor.set_char_range(Some(egui::text::CCursorRange::one(end)));
        state.store(ui.ctx(), id);
    }
    let edit = egui::TextEdit::singleline(&mut c.text).id(id).lock_focus(true);
    let edit = ui.add(edit.desired_width(f32::INFINITY).hint_text("path of a trace; Tab completes it"));
    crate::widgets::name_edit(&edit, "Path", &c.text);
    if !std::mem::replace(&mut c.opened, true) {
        edit.request_focus();
    }
    if edit.changed() {
        c.follow();
    }
    let mut answer = Answer::Stay;
    let mut enter = None;
    if edit.lost_focus() && ui.input(|i| i.key_pressed(Key::Enter)) {
        let typed = PathBuf::from(c.text.trim());
        if typed.is_dir() {
            enter = Some(typed);
        } else {
            answer = Answer::Open(typed);
        }
    }
    if let Some(listed) = list(ui, t, c, &mut enter) {
        answer = Answer::Open(listed);
    }
    if let Some(folder) = enter {
        c.enter(folder);
    }
    ui.horizontal(|ui| {
        if ui.button("Open").clicked() {
            answer = Answer::Open(PathBuf::from(c.text.trim()));
        }
        if ui.button("Cancel").clicked() {
            answer = Answer::Close;
        }
        ui.checkbox(&mut c.all, "all files").on_hover_text(
            "List files whose names are not those of traces, too; what a file is, its content decides",
        );
    });
    answer
}

/// Draws the folder, and gives the file that was chosen.
fn list(ui: &mut Ui, t: &Tokens, c: &Chooser, enter: &mut Option<PathBuf>) -> Option<PathBuf> {
    let part = c.part();
    let mut chosen = None;
    ScrollArea::vertical().max_height(380.0).min_scrolled_height(380.0).auto_shrink(false).show(ui, |ui| {
        if let Some(up) = c.folder.parent()
            && ui.selectable_label(false, "..").on_hover_text("Folder above").clicked()
        {
            *enter = Some(up.to_path_buf());
        }
        let entries = match &c.entries {
            Err(e) => {
                ui.label(RichText::new(e).color(t.bad));
                return;
            }
            Ok(entries) => entries,
        };
        let fits = |i: &&Item| i.name.to_lowercase().contains(&part);
        let (shown, hidden): (Vec<&Item>, Vec<&Item>) =
            entries.iter().filter(fits).partition(|i| c.all || i.folder || i.trace);
        for item in shown {
            ui.horizontal(|ui| {
                let label = if item.folder { format!("{}/", item.name) } else { item.name.clone() };
                if ui.selectable_label(false, label).clicked() {
                    let path = c.folder.join(&item.name);
                    if item.folder {
                        *enter = Some(path);
                    } else {
                        chosen = Some(path);
                    }
                }
                if !item.folder {
                    ui.label(RichText::new(crate::fmt::bytes(item.bytes)).size(11.0).color(t.muted));
                }
            });
        }
        if !hidden.is_empty() {
            let more = crate::fmt::plural(hidden.len() as u64, "other file is", "other files are");
            ui.label(RichText::new(format!("{more} not listed")).size(11.5).color(t.muted));
        }
    });
    chosen
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_traces_are_known() {
        for name in ["trace.dat", "perf.data", "a.TXT.zst", "capture", "kvm.trace.gz", "dmesg.log"] {
            assert!(looks_like_a_trace(name), "{name}");
        }
        for name in ["notes.md", "a.out", "libfoo.so", "picture.png"] {
            assert!(!looks_like_a_trace(name), "{name}");
        }
    }

    #[test]
    fn tab_completes_as_far_as_names_agree() {
        let dir = tempfile::tempdir().expect("a temporary folder");
        std::fs::create_dir(dir.path().join("recordings")).expect("made");
        for name in ["boot-1.dat", "boot-2.dat", "readme.md"] {
            std::fs::write(dir.path().join(name), "").expect("written");
        }
        let mut c = Chooser::new(dir.path());
        let base = format!("{}/", dir.path().display());
        c.text = format!("{base}b");
        assert!(c.complete());
        assert_eq!(c.text, format!("{base}boot-"));
        assert!(!c.complete());
        c.text.push('2');
        assert!(c.complete());
        assert_eq!(c.text, format!("{base}boot-2.dat"));
        // A folder is entered; what is no trace is not offered.
        c.text = format!("{base}re");
        assert!(c.complete());
        assert_eq!(
            (c.text.clone(), c.folder.clone()),
            (format!("{base}recordings/"), dir.path().join("recordings"))
        );
    }
}
