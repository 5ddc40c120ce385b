//! The session file beside a trace: notes, and what the window shows. Nothing is written before the user has named the file, or opened a trace
//! that has one beside it.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use mmuscope_analysis::session::Session;
use mmuscope_analysis::visual::ColourBy;
use mmuscope_replay::VmId;

use crate::Place;
use crate::capture::Capture;
use crate::doc::Doc;
use crate::panels::tables::Tab;
use crate::scope::{Frames, Scope};

/// Changes are written after this time at the earliest.
const PAUSE: Duration = Duration::from_secs(1);

/// What is written to the file of an open trace.
pub(crate) fn session(doc: &Doc) -> Session {
    let mut view: Vec<(String, String)> = Vec::new();
    let mut line = |name: &str, value: String| view.push((name.to_owned(), value));
    let v = doc.view;
    line("vm", v.vm.0.to_string());
    line("as-id", v.as_id.to_string());
    line("time", format!("{} {}", v.time.start.max(0.0) as u64, v.time.end.ceil().max(0.0) as u64));
    line("rows", format!("{} {}", v.rows.start, v.rows.end));
    for (name, at) in ["cursor-a", "cursor-b"].iter().zip(doc.cursors) {
        if let Some(at) = at {
            line(name, (at.max(0.0) as u64).to_string());
        }
    }
    if !doc.tables.events.filter().is_empty() {
        line("where", doc.tables.events.filter().to_owned());
    }
    line("tab", doc.tables.tab.word().to_owned());
    line("colour", doc.colour.name().to_owned());
    if doc.absolute {
        line("clock", "absolute".to_owned());
    }
    for s in doc.scopes.steps() {
        line("scope", scope_words(*s));
    }
    Session { notes: doc.notes.list.clone(), view }
}

/// Takes over a session that was read: the notes always, what is shown unless the command line named something else.
pub(crate) fn restore(doc: &mut Doc, cap: &Capture, read: Session, file: PathBuf, with_view: bool) {
    doc.notes.list.clone_from(&read.notes);
    doc.notes.file = Some(file);
    if with_view {
        for (name, value) in &read.view {
            take(doc, cap, name, value);
        }
    }
    doc.notes.saved = read;
}

/// Two numbers with a sign between them.
fn two<T: std::str::FromStr>(text: &str, sign: char) -> Option<(T, T)> {
    let (a, b) = text.split_once(sign)?;
    Some((a.parse().ok()?, b.parse().ok()?))
}

/// Takes over one line. What the trace does not have, or what another version wrote, is left out.
fn take(doc: &mut Doc, cap: &Capture, name: &str, value: &str) -> Option<()> {
    let (vm, as_id) = (doc.view.vm, doc.view.as_id);
    let enter = |doc: &mut Doc, vm: VmId, as_id: u8| {
        if cap.spaces().iter().any(|s| (s.vm, s.as_id) == (vm, as_id)) {
            doc.enter_space(cap, vm, as_id);
        }
    };
    match name {
        "vm" => enter(doc, VmId(value.parse().ok()?), as_id),
        "as-id" => enter(doc, vm, value.parse().ok()?),
        "time" => {
            let (a, b) = two::<u64>(value, ' ')?;
            doc.show(cap, crate::view::Range::new(a as f64, b as f64), doc.view.rows);
        }
        "rows" => {
            let (a, b) = two::<f64>(value, ' ')?;
            doc.show(cap, doc.view.time, crate::view::Range::new(a, b));
        }
        "cursor-a" | "cursor-b" => {
            let at = value.parse::<u64>().ok()? as f64;
            doc.cursors[usize::from(name == "cursor-b")] = Some(at.min(cap.full_time().end));
        }
        "where" => doc.tables.events.set_filter(value),
        "tab" => doc.tables.tab = Tab::named(value)?,
        "colour" => doc.colour = ColourBy::ALL.into_iter().find(|c| c.name() == value)?,
        "clock" => doc.absolute = value == "absolute",
        "scope" => doc.scopes.narrow(scope(value)?),
        _ => {}
    }
    Some(())
}

/// A scope in the words of the file, which a copied link has, too.
pub(crate) fn scope_words(s: Scope) -> String {
    let mut words = Vec::new();
    if let Some((a, b)) = s.time {
        words.push(format!("time={a}-{b}"));
    }
    if let Some(f) = s.frames {
        words.push(format!("frames={}/{}/{:#x}-{:#x}", f.vm.0, f.as_id, f.first, f.last));
    }
    if let Some(tid) = s.tid {
        words.push(format!("tid={tid}"));
    }
    words.join(" ")
}

/// The scope that [`scope_words`] wrote; `None` where the text is something else.
pub(crate) fn scope(text: &str) -> Option<Scope> {
    let mut out = Scope::default();
    for word in text.split(' ') {
        match word.split_once('=')? {
            ("time", v) => out.time = Some(two(v, '-')?),
            ("tid", v) => out.tid = Some(v.parse().ok()?),
            ("frames", v) => {
                let mut parts = v.split('/');
                let (vm, as_id) = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
                let (a, b) = parts.next()?.split_once('-')?;
                let hex = |s: &str| u64::from_str_radix(s.strip_prefix("0x")?, 16).ok();
                out.frames = Some(Frames { vm: VmId(vm), as_id, first: hex(a)?, last: hex(b)? });
            }
            _ => {}
        }
    }
    Some(out)
}

/// The session beside the first file of a trace, if there is one. The error says why it cannot be read.
pub(crate) fn find(cap: &Capture) -> Option<(PathBuf, Result<Session, String>)> {
    let file = mmuscope_analysis::session::beside(cap.paths.first()?);
    file.is_file().then(|| (file.clone(), Session::read(&file)))
}

/// Whether the command line asks for no place of its own.
pub(crate) fn no_place(at: Option<u64>, gfn: Option<u64>, place: &Place) -> bool {
    at.is_none() && gfn.is_none() && *place == Place::default()
}

/// Writes the session where something has changed since. The error says why that failed; then the file is not written again.
pub(crate) fn autosave(doc: &mut Doc, now: bool) -> Result<(), String> {
    let Some(file) = doc.notes.file.clone() else { return Ok(()) };
    if !now && doc.notes.looked.is_some_and(|at| at.elapsed() < PAUSE) {
        return Ok(());
    }
    doc.notes.looked = Some(Instant::now());
    let session = session(doc);
    if session == doc.notes.saved {
        return Ok(());
    }
    match session.write(&file) {
        Ok(()) => {
            doc.notes.saved = session;
            Ok(())
        }
        Err(e) => {
            doc.notes.file = None;
            Err(format!("{}: {e}; the notes are not saved any more", file.display()))
        }
    }
}
