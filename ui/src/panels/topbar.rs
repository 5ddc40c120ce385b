//! The bar at the top of the window: menus, the chooser of the address space, the go-to box.

use egui::{RichText, Ui};

use super::Cx;
use crate::command::{Command, Group};
use crate::commands::TABLE;
use crate::goto;
use crate::keys::keys_text;

/// Draws the menus; every command is in one of them.
pub(crate) fn menus(ui: &mut Ui, has_trace: bool, out: &mut Vec<Command>) {
    for group in Group::ALL {
        ui.menu_button(group.title(), |ui| {
            ui.set_min_width(250.0);
            for spec in TABLE.iter().filter(|s| s.group == group) {
                let button = egui::Button::new(spec.name).shortcut_text(keys_text(spec));
                let there = has_trace || !spec.needs_trace;
                if ui.add_enabled(there, button).on_hover_text(spec.help).clicked() {
                    out.push(spec.command);
                    ui.close();
                }
            }
        });
    }
}

/// State of the go-to box.
#[derive(Debug, Default)]
pub(crate) struct GoTo {
    pub(crate) text: String,
    pub(crate) error: Option<String>,
    /// Whether to focus the box in the next frame.
    pub(crate) focus: bool,
}

/// Draws Back and Forward, the chooser of the address space and the go-to box.
pub(crate) fn tools(ui: &mut Ui, cx: &mut Cx<'_>, goto_box: &mut GoTo) {
    let t = cx.tokens;
    for (command, sign, there) in [
        (Command::Back, "‹", cx.doc.history.can_back()),
        (Command::Forward, "›", cx.doc.history.can_forward()),
    ] {
        let spec = command.spec();
        let response = ui.add_enabled(
            there,
            egui::Button::new(RichText::new(sign).size(16.0)).min_size(egui::vec2(24.0, 20.0)),
        );
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, there, spec.name));
        if response.on_hover_text(format!("{} ({})", spec.help, keys_text(spec))).clicked() {
            cx.out.push(command);
        }
    }
    let spaces = cx.cap.spaces();
    let now = spaces.iter().find(|s| (s.vm, s.as_id) == (cx.doc.view.vm, cx.doc.view.as_id));
    let label = now.map_or_else(|| "no VM in this trace".to_owned(), |s| s.label.clone());
    let mut enter = None;
    let combo = egui::ComboBox::from_id_salt("space").selected_text(&label).width(220.0).show_ui(ui, |ui| {
        for s in &spaces {
            if ui.selectable_label(Some(s) == now, &s.label).clicked() {
                enter = Some((s.vm, s.as_id));
            }
        }
    });
    combo.response.widget_info(|| {
        egui::WidgetInfo::labeled(egui::Role::ComboBox, true, format!("VM and address space: {label}"))
    });
    combo.response.on_hover_text("VM and address space (V: next)");
    if let Some((vm, as_id)) = enter {
        cx.doc.enter_space(cx.cap, vm, as_id);
    }
    let edit = egui::TextEdit::singleline(&mut goto_box.text)
        .hint_text("go to  1.5s · gfn 0x1a2b · #123")
        .desired_width(230.0)
        .align(egui::Align2::LEFT_CENTER);
    let mut output = edit.show(ui);
    let response = output.response.response.clone();
    crate::widgets::name_edit(&response, "Go to", &goto_box.text);
    let asked = std::mem::take(&mut goto_box.focus);
    if asked {
        response.request_focus();
    }
    if asked || response.gained_focus() {
        // What was typed last is selected, so that typing replaces it.
        let all = egui::text::CCursorRange::two(
            egui::text::CCursor::new(0),
            egui::text::CCursor::new(goto_box.text.chars().count()),
        );
        output.state.cursor.set_char_range(Some(all));
        output.state.store(ui.ctx(), response.id);
    }
    if response.lost_focus() && ui.input(|i| i.key_pressed(egui::Key::Escape)) {
        goto_box.error = None;
    }
    if response.changed() {
        goto_box.error = None;
    }
    if response.lost_focus() && ui.input(|i| i.key_pressed(egui::Key::Enter)) {
        match goto::parse(&goto_box.text) {
            Ok(place) => match go(cx, place) {
                Ok(()) => goto_box.error = None,
                Err(e) => goto_box.error = Some(e),
            },
            Err(e) => goto_box.error = Some(e),
        }
    }
    if let Some(e) = &goto_box.error {
        ui.label(RichText::new(e).color(t.bad).size(11.5));
    }
}

/// Shows a place. The error says why it cannot be shown.
pub(crate) fn go(cx: &mut Cx<'_>, place: goto::Place) -> Result<(), String> {
    let full = cx.cap.full_time();
    match place {
        goto::Place::Time(_) | goto::Place::Start | goto::Place::End => {
            let at = match place {
                goto::Place::Time(t) => t,
                goto::Place::End => full.end - 1.0,
                _ => 0.0,
            };
            if at > full.end {
                return Err(format!("the trace ends at {}", cx.when(full.end as u64)));
            }
            cx.doc.leave();
            let gfn = cx.doc.selection.map(|s| s.gfn);
            let entry = cx.doc.selection.and_then(|s| s.entry);
            if let Some(gfn) = gfn {
                cx.doc.select_at(cx.cap, gfn, cx.cap.abs(at), entry);
            } else {
                let ix = cx.cap.trace.events.first_at_or_after(cx.cap.abs(at));
                cx.doc.tables.show_event(ix as u32);
            }
            let half = cx.doc.view.time.span() / 2.0;
            cx.doc.show(cx.cap, crate::view::Range::new(at - half, at + half), cx.doc.view.rows);
        }
        goto::Place::Times(from, to) => {
            if from > full.end {
                return Err(format!("the trace ends at {}", cx.when(full.end as u64)));
            }
            cx.doc.leave();
            cx.doc.show(cx.cap, crate::view::Range::new(from, to.min(full.end)), cx.doc.view.rows);
        }
        goto::Place::Gfns(first, last) => {
            let rows = cx.cap.rows_of(cx.doc.view.vm, cx.doc.view.as_id, first, last.saturating_add(1));
            let Some(rows) = rows else {
                let (a, b) = (crate::fmt::gfn(first), crate::fmt::gfn(last));
                return Err(format!("no event is about a guest frame of {a} to {b}"));
            };
            cx.doc.leave();
            cx.doc.show(cx.cap, cx.doc.view.time, rows);
        }
        goto::Place::Gfn(gfn) => {
            let (vm, as_id) = (cx.doc.view.vm, cx.doc.view.as_id);
            let Some(row) = cx.cap.row_of(vm, as_id, gfn) else {
                return Err(format!("no event is about guest frame {}", crate::fmt::gfn(gfn)));
            };
            cx.doc.leave();
            // Where nothing is known of the page at that time, its first present or MMIO span is shown.
            let now = cx.doc.selection.map(|s| s.time);
            let mid = cx.cap.abs(cx.doc.view.time.centre());
            let mut time = now.unwrap_or(mid);
            let known = cx
                .cap
                .pick(vm, as_id, gfn, time)
                .is_some_and(|(_, s)| s.state != mmuscope_replay::State::Unknown);
            if !known {
                let first = cx
                    .cap
                    .timeline
                    .entries_at(vm, as_id, gfn)
                    .into_iter()
                    .flat_map(|e| cx.cap.timeline.spans(e).collect::<Vec<_>>())
                    .filter(|s| {
                        matches!(s.state, mmuscope_replay::State::Present | mmuscope_replay::State::Mmio)
                    })
                    .map(|s| s.start)
                    .min();
                time = first.unwrap_or(time);
            }
            cx.doc.select_at(cx.cap, gfn, time, None);
            let rows = cx.doc.view.rows.reveal(row);
            let at = cx.doc.view.time.reveal(cx.cap.rel(time));
            cx.doc.show(cx.cap, at, rows);
        }
        goto::Place::Event(n) => {
            let n = u32::try_from(n).ok().filter(|n| (*n as usize) < cx.cap.trace.events.len());
            let Some(ix) = n else {
                return Err(format!("the last event is #{}", cx.cap.trace.events.len().saturating_sub(1)));
            };
            cx.doc.leave();
            cx.doc.select_event(cx.cap, ix);
        }
    }
    Ok(())
}
