//! The line over the tables that says which part of the trace they are about. Each narrowing is a button that goes back to it.

use egui::{RichText, Ui};

use super::Cx;
use crate::command::Command;
use crate::keys::keys_text;
use crate::scope::{Frames, Scope, thread_words};

/// The commands that narrow.
const NARROW: [Command; 4] =
    [Command::ScopeView, Command::ScopeCursors, Command::ScopePage, Command::ScopeVcpu];

/// Draws the line.
pub(crate) fn show(ui: &mut Ui, cx: &mut Cx<'_>) {
    let t = cx.tokens;
    let words = cx.doc.scopes.words(cx.cap);
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing.x = 4.0;
        let small = |s: &str| RichText::new(s).size(11.5);
        ui.label(small("tables:").color(t.muted));
        let last = words.len();
        let mut to = None;
        for (i, word) in std::iter::once("whole trace").chain(words.iter().map(String::as_str)).enumerate() {
            if i > 0 {
                ui.label(small("›").color(t.muted));
            }
            let tip = if i == last { "What all tables are about" } else { "Widen all tables to this" };
            let text = if i == last { small(word).strong() } else { small(word) };
            if ui.selectable_label(i == last && i > 0, text).on_hover_text(tip).clicked() {
                to = Some(i);
            }
        }
        if last > 0 {
            let spec = Command::ScopeWiden.spec();
            let tip = format!("{} ({})", spec.help, keys_text(spec));
            if ui.small_button("×").on_hover_text(tip).clicked() {
                to = Some(last - 1);
            }
        }
        if let Some(steps) = to {
            cx.doc.scopes.back_to(steps);
        }
        ui.menu_button(small("narrow to…"), |ui| {
            for command in NARROW {
                let spec = command.spec();
                let there = by(cx, command).is_ok();
                let button = egui::Button::new(spec.name).shortcut_text(keys_text(spec));
                if ui.add_enabled(there, button).on_hover_text(spec.help).clicked() {
                    cx.out.push(command);
                    ui.close();
                }
            }
            for vm in cx.cap.timeline.vms().iter().filter(|v| v.id == cx.doc.view.vm) {
                for c in &vm.vcpus {
                    if ui.button(thread_words(cx.cap, c.tid)).clicked() {
                        cx.doc.scopes.narrow(Scope { tid: Some(c.tid), ..Scope::default() });
                        ui.close();
                    }
                }
            }
        })
        .response
        .on_hover_text("Limit all tables to a part of the trace");
    });
}

/// What a command narrows by. The error says why it cannot.
fn by(cx: &Cx<'_>, command: Command) -> Result<Scope, &'static str> {
    let (cap, doc) = (cx.cap, &*cx.doc);
    let view = doc.view;
    let ns = |t: f64| t.max(0.0) as u64;
    let frames = |first, last| Some(Frames { vm: view.vm, as_id: view.as_id, first, last });
    match command {
        Command::ScopeView => {
            let time = (view.time != cap.full_time())
                .then(|| (ns(view.time.start.ceil()), ns(view.time.end.floor())));
            let all = cap.full_rows(view.vm, view.as_id);
            let seen = (view.rows != all).then(|| cap.frames_of(view.vm, view.as_id, view.rows)).flatten();
            let frames = seen.and_then(|(a, b)| frames(a, b));
            if time.is_none() && frames.is_none() {
                return Err("zoom in first: the whole trace is in view");
            }
            Ok(Scope { time, frames, tid: None })
        }
        Command::ScopeCursors => match doc.cursors {
            [Some(a), Some(b)] => Ok(Scope { time: Some((ns(a.min(b)), ns(a.max(b)))), ..Scope::default() }),
            _ => Err("set the cursors A and B first (keys 1 and 2)"),
        },
        Command::ScopePage => {
            let s = doc.selection.ok_or("select a page first")?;
            let page = s
                .entry
                .filter(|e| cap.timeline.span_at(*e, s.time).is_some_and(|span| crate::probe::is_page(&span)))
                .map(|e| cap.timeline.entry(e));
            let (first, last) = page.map_or((s.gfn, s.gfn), |e| (e.gfn, e.gfn.saturating_add(e.pages() - 1)));
            Ok(Scope { frames: frames(first, last), ..Scope::default() })
        }
        Command::ScopeVcpu => {
            let tid = doc.selection.and_then(|s| cap.event(s.event?)?.tid);
            Ok(Scope { tid: Some(tid.ok_or("select an event first")?), ..Scope::default() })
        }
        _ => Err("this narrows nothing"),
    }
}

/// Runs a command that narrows or widens. The text says why it cannot be run.
pub(crate) fn run(cx: &mut Cx<'_>, command: Command) -> Option<String> {
    match command {
        Command::ScopeWiden => {
            let steps = cx.doc.scopes.len();
            if steps == 0 {
                return Some("the tables are about the whole trace already".to_owned());
            }
            cx.doc.scopes.back_to(steps - 1);
        }
        Command::ScopeAll => cx.doc.scopes.back_to(0),
        _ => match by(cx, command) {
            Ok(scope) => {
                cx.doc.scopes.narrow(scope);
                cx.doc.shown.tables = true;
            }
            Err(why) => return Some(why.to_owned()),
        },
    }
    None
}
