//! What the commands of [`crate::commands::TABLE`] do, and which of them the keys of a frame ask for.

use std::fmt::Write as _;
use std::sync::Arc;

use egui::{Context, ThemePreference, ViewportCommand};
use mmuscope_analysis::visual::ColourBy;

use super::pictures::PictureFor;
use super::{Page, Viewer};
use crate::beside;
use crate::capture::{self, Capture};
use crate::command::Command;
use crate::doc::Doc;
use crate::fmt;
use crate::follow::{self, Following};
use crate::load::{Job, Source};
use crate::other;
use crate::panels::decode::Decode;
use crate::panels::dialogs::{Dialog, Palette};
use crate::panels::save::Saving;
use crate::panels::{Cx, crumbs, tables, timeline};
use crate::theme::Tokens;
use crate::view::Range;

impl Viewer {
    /// The commands whose keys were pressed in this frame, as far as they can be run now.
    pub(super) fn shortcuts(&mut self, ctx: &Context) -> Vec<Command> {
        let typing = ctx.egui_wants_keyboard_input();
        let has_trace = matches!(self.page, Page::Open(_));
        let mut pressed = Vec::new();
        // An open menu closes with Esc; that is for the menu, and not for what is below it.
        let menu = egui::Popup::is_any_open(ctx);
        let escape = |e: &egui::Event| matches!(e, egui::Event::Key { key: egui::Key::Escape, .. });
        ctx.input_mut(|i| {
            let theirs: Vec<egui::Event> = if menu { i.events.extract_if(.., |e| escape(e)).collect() } else { Vec::new() };
            if typing {
                // Plain keys belong to the text. A key with Ctrl or Alt that is no editing key is still a command.
                let keep: Vec<egui::Event> = std::mem::take(&mut i.events);
                let (mine, theirs): (Vec<_>, Vec<_>) = keep.into_iter().partition(|e| {
                    matches!(e, egui::Event::Key { key, modifiers, .. }
                        if (modifiers.command || modifiers.ctrl || (modifiers.alt && key.name().chars().all(|c| c.is_ascii_digit())))
                            && !matches!(key, egui::Key::A | egui::Key::C | egui::Key::V | egui::Key::X | egui::Key::Z | egui::Key::Y
                                | egui::Key::ArrowLeft | egui::Key::ArrowRight | egui::Key::Backspace | egui::Key::Delete))
                });
                i.events = mine;
                pressed = crate::keys::pressed(i);
                i.events.extend(theirs);
            } else {
                pressed = crate::keys::pressed(i);
            }
            i.events.extend(theirs);
        });
        if self.dialog.is_some() {
            pressed.retain(|c| matches!(c, Command::Quit | Command::Deselect));
            if pressed.contains(&Command::Deselect) {
                self.dialog = None;
                pressed.clear();
            }
        }
        pressed.retain(|c| has_trace || !c.spec().needs_trace || *c == Command::Deselect);
        pressed
    }

    /// Explains the selected value, under the layout of the trace; without a trace, what will be pasted.
    fn decode(&mut self) {
        let mut text = String::new();
        let decode = if let Page::Open(doc) = &self.page {
            let cap = capture::read(&doc.capture);
            let held = doc.selection.and_then(|s| cap.timeline.span_at(s.entry?, s.time)?.spte);
            if let Some(raw) = held {
                text = fmt::spte(raw);
            }
            Decode::new(text, Some(&cap.timeline.layout(doc.view.vm).resolved))
        } else {
            Decode::new(text, None)
        };
        self.dialog = Some(Dialog::Decode(Box::new(decode)));
    }

    /// Follows the input of the open trace once more from its beginning.
    fn reconnect(&mut self, ctx: &Context) {
        let Some(job) = self.job.clone() else { return };
        if self.following.as_ref().is_some_and(|f| f.live().goes_on()) {
            self.toast("it is still being followed", false);
            return;
        }
        match follow::again(&job.source) {
            Ok(source) => self.open(ctx, Job { source, follow: true, ..job }),
            Err(e) => self.toast(e, true),
        }
    }

    /// Runs a command.
    pub(super) fn run_command(&mut self, ctx: &Context, tokens: &Tokens, command: Command) {
        match command {
            Command::Open => self.dialog = Some(Dialog::Open(self.chooser())),
            Command::OpenBeside => self.dialog = Some(Dialog::Beside(self.chooser())),
            Command::SwapTraces => self.swap_traces(),
            Command::Quit => ctx.send_viewport_cmd(ViewportCommand::Close),
            Command::Reload => {
                if let Some(job) = self.job.clone() {
                    if job.source == Source::Stdin {
                        self.toast("standard input can be read only once", true);
                    } else {
                        self.open(ctx, job);
                    }
                }
            }
            Command::Reconnect => self.reconnect(ctx),
            Command::Pause => match (&self.following, self.following.as_ref().map(Following::live)) {
                (Some(f), Some(live)) if live.goes_on() || live.paused => f.pause(!live.paused),
                _ => self.trace_command(ctx, tokens, Command::Play),
            },
            Command::Decode => self.decode(),
            Command::Palette => self.dialog = Some(Dialog::Palette(Palette::default())),
            Command::Help => self.dialog = Some(Dialog::Help),
            Command::GoTo => self.goto_box.focus = true,
            Command::ThemeSystem => ctx.set_theme(ThemePreference::System),
            Command::ThemeDark => ctx.set_theme(ThemePreference::Dark),
            Command::ThemeLight => ctx.set_theme(ThemePreference::Light),
            Command::Larger => egui::gui_zoom::zoom_in(ctx),
            Command::Smaller => egui::gui_zoom::zoom_out(ctx),
            Command::SavePicture => self.ask_where(Saving::Picture),
            Command::SaveChanges => self.save_changes(),
            Command::SaveTable => self.save_table(ctx),
            Command::SaveSvg => self.ask_where(Saving::Figure),
            Command::SaveSession => self.ask_where(Saving::Session),
            Command::AddNote => self.write_note(tokens),
            Command::CopyImage => self.take_picture(ctx, PictureFor::Clipboard),
            _ => self.trace_command(ctx, tokens, command),
        }
    }

    /// Makes the trace beside the open one the open one.
    fn swap_traces(&mut self) {
        let Page::Open(doc) = &mut self.page else { return };
        if doc.other.is_none() {
            self.toast("no other trace is open: File, Open beside…", false);
        } else if doc.reading.is_some() || self.following.as_ref().is_some_and(|f| f.live().goes_on()) {
            self.toast("the open trace still grows: the other one can be opened after its end", false);
        } else {
            // What followed it belongs to the trace that is put aside.
            self.following = None;
            other::swap(doc);
            std::mem::swap(&mut self.job, &mut self.other_job);
        }
    }

    /// Runs a command that needs an open trace.
    fn trace_command(&mut self, ctx: &Context, tokens: &Tokens, command: Command) {
        let Page::Open(doc) = &mut self.page else { return };
        let shared = Arc::clone(&doc.capture);
        let cap = capture::read(&shared);
        let message = match command {
            Command::Fit => {
                doc.leave();
                let rows = cap.full_rows(doc.view.vm, doc.view.as_id);
                doc.show(&cap, doc.whole(&cap), rows);
                None
            }
            Command::FitSelection => {
                doc.fit_selection(&cap);
                None
            }
            Command::Back | Command::Forward => {
                doc.travel(command == Command::Back);
                None
            }
            Command::NextChange | Command::PrevChange => {
                step_change(&cap, doc, command == Command::NextChange)
            }
            Command::NextEvent | Command::PrevEvent => {
                let from = doc.selection.and_then(|s| s.event);
                if let Some(ix) = doc.tables.events.step(&cap, from, command == Command::NextEvent) {
                    doc.select_event(&cap, ix);
                }
                None
            }
            Command::FindNext | Command::FindPrev => {
                let from = doc.selection.and_then(|s| s.event);
                match doc.tables.events.find(from, command == Command::FindNext) {
                    Some(ix) => {
                        doc.select_event(&cap, ix);
                        None
                    }
                    None if doc.tables.events.filter().is_empty() => {
                        Some("type a filter first (/)".to_owned())
                    }
                    None => Some("no further event passes the filter".to_owned()),
                }
            }
            Command::NextPhase | Command::PrevPhase => step_phase(&cap, doc, command == Command::NextPhase),
            Command::ScopeView
            | Command::ScopeCursors
            | Command::ScopePage
            | Command::ScopeVcpu
            | Command::ScopeWiden
            | Command::ScopeAll => {
                let mut out = Vec::new();
                crumbs::run(&mut Cx { cap: &cap, doc, tokens, out: &mut out }, command)
            }
            Command::CursorA | Command::CursorB => set_cursor(&cap, doc, command == Command::CursorB),
            Command::ShiftEarlier
            | Command::ShiftLater
            | Command::AlignCursors
            | Command::AlignStarts
            | Command::CloseOther => align(&cap, doc, command),
            Command::SecondMap if doc.other.is_some() => {
                Some("another trace is in its place: close that first".to_owned())
            }
            Command::SecondMap if doc.second.take().is_some() => None,
            Command::SecondMap => {
                doc.second = timeline::second::new(doc, &cap, ctx, self.inline);
                let none = doc.second.is_none();
                none.then(|| "there is only one address space in this trace".to_owned())
            }
            Command::Play => {
                doc.play = match doc.play {
                    Some(_) => None,
                    None => Some(crate::play::begin(&cap, doc)),
                };
                None
            }
            Command::CopyValue => Some(copy_value(ctx, &cap, doc)),
            Command::CopyLink => {
                let link = link(&cap, doc);
                ctx.copy_text(link.clone());
                Some(format!("copied: {link}"))
            }
            command if command.is_movement() => {
                let mut out = Vec::new();
                timeline::nav::by_command(&mut Cx { cap: &cap, doc, tokens, out: &mut out }, command);
                None
            }
            _ => {
                look_command(&cap, doc, command);
                None
            }
        };
        self.session.shown = doc.shown;
        drop(cap);
        if let Some(text) = message {
            self.toast(text, false);
        }
    }
}

/// Selects the next or previous change of the selected entry. The text says why that is not possible.
fn step_change(cap: &Capture, doc: &mut Doc, next: bool) -> Option<String> {
    if doc.selection.is_none() {
        Some("select a page first".to_owned())
    } else if !doc.step_change(cap, next) {
        Some(format!("the entry has no {} change", if next { "later" } else { "earlier" }))
    } else {
        None
    }
}

/// Shows the next or previous phase. The text says that there is no phase.
fn step_phase(cap: &Capture, doc: &mut Doc, next: bool) -> Option<String> {
    let phases = cap.timeline.phases_of(doc.view.vm);
    let here = doc.view.time.centre();
    let at = phases.iter().rposition(|p| cap.rel(p.start) <= here);
    let whole = doc.view.time.span() >= cap.full_time().span() * 0.99;
    let to = match (next, at) {
        (true, _) if whole => Some(0),
        (true, Some(i)) => Some(i + 1),
        (true, None) => Some(0),
        (false, i) => i.and_then(|i| i.checked_sub(1)),
    };
    if let Some(p) = to.and_then(|i| phases.get(i)) {
        doc.leave();
        let time = Range::new(cap.rel(p.start), cap.rel(p.end)).padded(0.02);
        doc.show(cap, time, doc.view.rows);
        return None;
    }
    phases
        .is_empty()
        .then(|| "no phase is marked in this trace (write to trace_marker to mark one)".to_owned())
}

/// Moves the trace beside the open one against it, or closes it. The text says why that is not possible.
fn align(cap: &Capture, doc: &mut Doc, command: Command) -> Option<String> {
    let Some(o) = &doc.other else { return Some("no other trace is open: File, Open beside…".to_owned()) };
    let step = doc.view.time.span() / 50.0;
    let by = match (command, doc.cursors) {
        (Command::ShiftEarlier, _) => -step,
        (Command::ShiftLater, _) => step,
        (Command::AlignStarts, _) => o.shift,
        (Command::AlignCursors, [Some(a), Some(b)]) => a - b,
        (Command::AlignCursors, _) => {
            return Some(
                "put cursor A at a moment of this trace, and B at the same moment of the other".to_owned(),
            );
        }
        _ => {
            other::close(doc, cap);
            return None;
        }
    };
    other::move_by(doc, cap, by.round());
    None
}

/// Puts cursor A or B at the pointer, else at the selection. The text says that there is neither.
fn set_cursor(cap: &Capture, doc: &mut Doc, b: bool) -> Option<String> {
    let at = doc.hover.time.or_else(|| doc.selection.map(|s| cap.rel(s.time)));
    let Some(at) = at else { return Some("point at a moment, or select one".to_owned()) };
    let whole = doc.whole(cap);
    doc.cursors[usize::from(b)] = Some(at.clamp(whole.start, whole.end));
    None
}

/// Copies the value of the selected entry. The text says what was copied.
fn copy_value(ctx: &Context, cap: &Capture, doc: &Doc) -> String {
    let raw = doc.selection.and_then(|s| cap.timeline.span_at(s.entry?, s.time)?.spte);
    match raw {
        Some(raw) => {
            ctx.copy_text(fmt::spte(raw));
            format!("copied {}", fmt::spte(raw))
        }
        None => "nothing with a known value is selected".to_owned(),
    }
}

/// Runs a command that changes what is shown and has nothing to report: panels, tabs, address spaces, following, the selection.
fn look_command(cap: &Capture, doc: &mut Doc, command: Command) {
    match command {
        Command::Filter => {
            doc.shown.tables = true;
            doc.tables.tab = tables::Tab::Events;
            doc.tables.events.focus = true;
        }
        Command::Deselect => {
            if doc.rubber.take().is_none() {
                if doc.selection.is_some() {
                    doc.selection = None;
                } else {
                    doc.cursors = [None; 2];
                }
            }
        }
        Command::ToggleClock => doc.absolute = !doc.absolute,
        Command::ClearCursors => doc.cursors = [None; 2],
        Command::NextSpace => {
            let spaces = cap.spaces();
            let here =
                spaces.iter().position(|s| (s.vm, s.as_id) == (doc.view.vm, doc.view.as_id)).unwrap_or(0);
            if let Some(s) = spaces.get((here + 1) % spaces.len().max(1)) {
                doc.enter_space(cap, s.vm, s.as_id);
            }
        }
        Command::Follow => {
            doc.follow = cap.growing && !doc.follow;
            let (end, span) = (cap.full_time().end, doc.view.time.span());
            doc.show(cap, Range::new(end - span, end), doc.view.rows);
        }
        Command::WindowAll => doc.hold(cap, None),
        Command::WindowSecond => doc.hold(cap, Some(1e9)),
        Command::WindowTen => doc.hold(cap, Some(1e10)),
        Command::WindowMinute => doc.hold(cap, Some(6e10)),
        Command::NextColour => {
            let here = ColourBy::ALL.iter().position(|c| *c == doc.colour).unwrap_or(0);
            doc.colour = ColourBy::ALL[(here + 1) % ColourBy::ALL.len()];
        }
        Command::ToggleDetails => doc.shown.details = !doc.shown.details,
        Command::ToggleTables => doc.shown.tables = !doc.shown.tables,
        Command::ToggleArea => doc.shown.area = !doc.shown.area,
        Command::ToggleFaults => doc.shown.faults = !doc.shown.faults,
        Command::ToggleCauses => doc.shown.causes = !doc.shown.causes,
        Command::ToggleLegend => doc.shown.legend = !doc.shown.legend,
        _ => {
            if let Some(tab) = tables::Tab::of(command) {
                doc.shown.tables = true;
                doc.tables.tab = tab;
            }
        }
    }
}

/// The command line that opens this view again. Writing to a string cannot fail.
fn link(cap: &Capture, doc: &Doc) -> String {
    let mut out = format!("mmuscope view {}", cap.shell_words());
    let view = doc.view;
    let whole = (doc.whole(cap), cap.full_rows(view.vm, view.as_id));
    let first = cap.spaces().first().map(|s| (s.vm, s.as_id));
    if first != Some((view.vm, view.as_id)) {
        let _ = write!(out, " --vm {}", view.vm.0);
        if view.as_id != 0 {
            let _ = write!(out, " --as-id {}", view.as_id);
        }
    }
    if view.time != whole.0 {
        let _ = write!(
            out,
            " --from {}ns --to {}ns",
            view.time.start.max(0.0) as u64,
            view.time.end.ceil() as u64
        );
    }
    // In a fold at the edge of the view there is no frame; then the frames are left to the selection.
    let edges = (
        cap.gfn_at(view.vm, view.as_id, view.rows.start),
        cap.gfn_at(view.vm, view.as_id, view.rows.end - 1e-6),
    );
    if view.rows != whole.1
        && let (Some(a), Some(b)) = edges
    {
        let _ = write!(out, " --frames {a:#x}-{b:#x}");
    }
    if let Some(s) = doc.selection {
        let _ = write!(out, " --at {}ns --gfn {:#x}", cap.rel(s.time) as u64, s.gfn);
    }
    for at in doc.cursors.into_iter().map_while(|c| c) {
        let _ = write!(out, " --cursor {}ns", at as u64);
    }
    for scope in doc.scopes.steps() {
        out.push_str(" --scope ");
        out.push_str(&mmuscope_units::shell_word(&beside::scope_words(*scope)));
    }
    if let Some(o) = &doc.other {
        let _ = write!(out, " --beside {}", capture::read(&o.doc.capture).shell_words());
        if o.shift != 0.0 {
            let _ = write!(out, " --shift={}ns", o.shift as i64);
        }
    }
    if !doc.tables.events.filter().is_empty() {
        out.push_str(" --where ");
        out.push_str(&mmuscope_units::shell_word(doc.tables.events.filter()));
    }
    if doc.tables.tab != tables::Tab::default() {
        let _ = write!(out, " --tab {}", doc.tables.tab.word());
    }
    out
}
