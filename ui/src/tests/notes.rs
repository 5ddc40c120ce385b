//! Tests of notes, of the session file beside a trace, and of what is saved from tables.

use std::path::{Path, PathBuf};

use egui::{Key, Modifiers};
use egui_kittest::kittest::Queryable;
use mmuscope_analysis::session::{Note, Session, beside};

use super::{Window, command, doc, labels, open, select, small};
use crate::ThemeChoice;
use crate::capture::Capture;
use crate::command::Command;
use crate::panels::tables::Tab;
use crate::scope::Scope;

/// The small trace, as if it were read from a file of a folder.
fn at(path: &Path) -> Capture {
    Capture { paths: vec![path.to_owned()], ..small() }
}

fn in_folder() -> (tempfile::TempDir, PathBuf) {
    let dir = tempfile::tempdir().expect("a temporary folder");
    let trace = dir.path().join("trace.txt");
    std::fs::write(&trace, super::TEXT).expect("written");
    (dir, trace)
}

fn write_note(h: &mut Window, text: &str) {
    h.key_press(Key::M);
    h.run_ok();
    h.get_by_label("Note").type_text(text);
    h.run_ok();
    h.key_press(Key::Enter);
    h.run_ok();
}

/// Nothing is written before the user names a file; from then on, the file follows notes and view; opened again, both are there.
#[test]
fn notes_and_view_are_kept_beside_the_trace_once_the_user_says_so() {
    let (dir, trace) = in_folder();
    let before = std::fs::read(&trace).expect("there");
    let mut h = open(at(&trace), ThemeChoice::Dark);
    h.key_press(Key::M);
    h.run_ok();
    assert!(labels(&h, "point at a moment, or select a page first"));
    select(&mut h, 0x100, 200_000);
    write_note(&mut h, "mapped here");
    assert_eq!(
        doc(&mut h).notes.list,
        [Note { at: 200_000, vm: 0, gfn: Some(0x100), text: "mapped here".into() }]
    );
    assert!(labels(&h, "Note: mapped here"), "it has a mark on the time axis");
    h.key_press_modifiers(Modifiers::ALT, Key::Num0);
    h.run_ok();
    assert!(labels(&h, "Notes: 1 rows") && labels(&h, "not saved yet"));
    let files = || std::fs::read_dir(dir.path()).expect("a folder").count();
    assert_eq!(files(), 1, "nothing was written");
    command(&mut h, Command::SaveSession);
    assert!(labels(&h, "Keep notes and view in a file"));
    h.get_by_label("Save").click();
    h.run_ok();
    let file = beside(&trace);
    let read = Session::read(&file).expect("a session");
    assert_eq!(read.notes.len(), 1);
    assert!(labels(&h, "kept in "));
    // What is changed from then on is written by itself.
    doc(&mut h).scopes.narrow(Scope { time: Some((100, 900_000)), ..Scope::default() });
    doc(&mut h).tables.events.set_filter("gfn == 0x100");
    write_note(&mut h, "and again");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    h.run_ok();
    let read = Session::read(&file).expect("a session");
    assert_eq!(read.notes.len(), 2, "{read:?}");
    assert_eq!(std::fs::read(&trace).expect("there"), before, "the trace is as it was");
    drop(h);
    let mut h = open(at(&trace), ThemeChoice::Dark);
    let d = doc(&mut h);
    assert_eq!(d.notes.list, read.notes);
    assert_eq!(d.tables.tab, Tab::Notes);
    assert_eq!(d.tables.events.filter(), "gfn == 0x100");
    assert_eq!(d.scopes.now().time, Some((100, 900_000)));
    // A click on a mark selects its note and its page.
    doc(&mut h).selection = None;
    h.get_by_label("Note: mapped here").click();
    h.run_ok();
    assert_eq!(doc(&mut h).selection.map(|s| s.gfn), Some(0x100));
    h.get_by_label("Delete").click();
    h.run_ok();
    assert_eq!(doc(&mut h).notes.list.len(), 1);
    h.check_accessibility();
}

/// A file of that name which is something else is left alone, and the window says so.
#[test]
fn a_file_that_is_no_session_is_never_written_to() {
    let (_dir, trace) = in_folder();
    std::fs::write(beside(&trace), "my own file").expect("written");
    let mut h = open(at(&trace), ThemeChoice::Dark);
    assert!(labels(&h, "this is no session of mmuscope"));
    select(&mut h, 0x100, 200_000);
    write_note(&mut h, "x");
    std::thread::sleep(std::time::Duration::from_millis(1100));
    h.run_ok();
    assert_eq!(std::fs::read_to_string(beside(&trace)).expect("there"), "my own file");
}

/// The rows of a table are saved as they are shown, with texts that hold commas in quotes.
#[test]
fn a_table_is_saved_as_csv() {
    let (dir, trace) = in_folder();
    let mut h = open(at(&trace), ThemeChoice::Dark);
    select(&mut h, 0x100, 200_000);
    command(&mut h, Command::TabChanges);
    command(&mut h, Command::SaveTable);
    h.run_ok();
    let file = dir.path().join("spans.csv");
    h.get_by_label("File to write").focus();
    h.run_ok();
    h.key_press_modifiers(Modifiers::COMMAND, Key::A);
    h.get_by_label("File to write").type_text(&file.display().to_string());
    h.run_ok();
    h.get_by_label("Save").click();
    h.run_ok();
    let text = std::fs::read_to_string(&file).expect("written");
    let mut lines = text.lines();
    assert_eq!(lines.next(), Some("since,for,level,state,SPTE,certainty,why"));
    assert!(
        lines
            .any(|l| l.starts_with("0.000180000 s,320 µs,4K,\"present, writable\",0x00000000036d6e67,exact")),
        "{text}"
    );
    // A tab without a table says so.
    command(&mut h, Command::TabLayout);
    command(&mut h, Command::SaveTable);
    h.run_ok();
    assert!(labels(&h, "this tab has no table"));
}

/// Played, the selected moment moves to the end of the view, and what is shown moves with it.
#[test]
fn the_state_is_played_over_the_time_in_view() {
    let mut h = open(small(), ThemeChoice::Dark);
    select(&mut h, 0x100, 100_000);
    h.key_press(Key::Space);
    h.step();
    let play = doc(&mut h).play.as_mut().expect("it plays");
    // The whole trace in a tenth of a second.
    play.speed = 1e7;
    assert!(labels(&h, "playing: a second is "));
    for _ in 0..50 {
        std::thread::sleep(std::time::Duration::from_millis(5));
        h.step();
    }
    let d = doc(&mut h);
    assert!(d.play.is_none(), "it halts at the end of the view");
    let s = d.selection.expect("a moment");
    assert_eq!(s.gfn, 0x100);
    let start = super::with_capture(&mut h, Capture::start);
    assert_eq!(s.time - start, 1_000_000, "the last event");
    assert!(labels(&h, "not present") || labels(&h, "nonpresent"), "the page was zapped by then");
    h.key_press_modifiers(Modifiers::SHIFT, Key::Space);
    h.step();
    assert!(doc(&mut h).play.is_some(), "and begins again from its start");
    h.get_by_label("halt").click();
    h.step();
    h.step();
    assert!(doc(&mut h).play.is_none());
}

/// The clock of the trace is that of its text.
#[test]
fn moments_are_shown_on_the_clock_of_the_trace_where_that_is_wanted() {
    let mut h = open(small(), ThemeChoice::Dark);
    assert!(labels(&h, "0.000160000 s, 0, load-111"));
    command(&mut h, Command::ToggleClock);
    assert!(labels(&h, "10.000160000 s, 0, load-111"));
}
