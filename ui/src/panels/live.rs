//! The line above the status line of a trace that is followed: whether it is live, paused or over and why, how fast events come, what the
//! recorder says about itself, and the buttons that go with it.

use egui::{RichText, Ui};
use mmuscope_trace::Stage;

use super::Cx;
use crate::command::Command;
use crate::fmt;
use crate::follow::Live;
use crate::keys::keys_text;

/// The stretches of time that can be held in view, with the command for each.
const WINDOWS: [(Option<f64>, Command); 4] = [
    (None, Command::WindowAll),
    (Some(1e9), Command::WindowSecond),
    (Some(1e10), Command::WindowTen),
    (Some(6e10), Command::WindowMinute),
];

/// Draws the line.
pub(crate) fn show(ui: &mut Ui, cx: &mut Cx<'_>) {
    let Some(live) = cx.doc.live.clone() else { return };
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing.x = 10.0;
        if live.goes_on() || live.paused {
            let name = if live.paused { "Go on" } else { "Pause" };
            command_button(ui, cx, Command::Pause, name);
            let mut follow = cx.doc.follow;
            let tip = Command::Follow.spec();
            let tip = format!("{} ({})", tip.help, keys_text(tip));
            if ui.checkbox(&mut follow, "follow the end").on_hover_text(tip).changed() {
                cx.out.push(Command::Follow);
            }
            windows(ui, cx);
        } else if let Some(why) = &cx.doc.only_once {
            ui.add_enabled(false, egui::Button::new("Reconnect")).on_disabled_hover_text(why);
        } else {
            command_button(ui, cx, Command::Reconnect, "Reconnect");
        }
        let t = cx.tokens;
        let color = match &live.stage {
            _ if live.failed => t.bad,
            _ if live.paused => t.warn,
            Stage::Growing => t.good,
            Stage::Ended(_) => t.ink,
            _ => t.warn,
        };
        ui.label(RichText::new(format!("• {}", state(&live))).size(11.5).color(color));
        let color = if live.recorder.is_some_and(|r| r.lost > 0) { t.bad } else { t.muted };
        let shown = cx.cap.timeline.event_count();
        ui.label(RichText::new(numbers(&live, shown)).size(11.5).color(color));
    });
}

fn command_button(ui: &mut Ui, cx: &mut Cx<'_>, command: Command, name: &str) {
    let spec = command.spec();
    let keys = keys_text(spec);
    let tip = if keys.is_empty() { spec.help.to_owned() } else { format!("{} ({keys})", spec.help) };
    if ui.button(name).on_hover_text(tip).clicked() {
        cx.out.push(command);
    }
}

fn windows(ui: &mut Ui, cx: &mut Cx<'_>) {
    let now = WINDOWS.iter().find(|w| w.0 == cx.doc.window).map_or(Command::WindowAll, |w| w.1);
    let whole = cx.doc.window.is_some() || cx.doc.view.time.start <= 0.0;
    let name = if whole { now.spec().name } else { "as zoomed" };
    let combo = egui::ComboBox::from_id_salt("window").selected_text(name).width(120.0).show_ui(ui, |ui| {
        for (_, command) in WINDOWS {
            if ui.selectable_label(whole && command == now, command.spec().name).clicked() {
                cx.out.push(command);
            }
        }
    });
    combo.response.widget_info(|| {
        egui::WidgetInfo::labeled(egui::Role::ComboBox, true, format!("Time in view: {name}"))
    });
    combo.response.on_hover_text("How much time before the end is held in view");
}

/// What the input does, in words.
fn state(live: &Live) -> String {
    let state = match &live.stage {
        Stage::Waiting(what) => format!("waiting: {}", fmt::clean(what)),
        Stage::Growing => "live".to_owned(),
        Stage::Collecting => {
            "this form can only be read as a whole: it is put aside until the pipe ends".to_owned()
        }
        Stage::Watching(why) => fmt::clean(why),
        Stage::Ended(why) => format!("ended: {}", fmt::clean(why)),
    };
    let waiting = live.read.saturating_sub(live.shown);
    match (live.paused, waiting) {
        (true, 0) => format!("paused; {state}"),
        (true, n) => format!("paused, {} wait; {state}", fmt::plural(n, "event", "events")),
        (false, n) if live.goes_on() && n > 0 => {
            format!("{state}, {} to be shown", fmt::plural(n, "event", "events"))
        }
        _ => state,
    }
}

/// How much came, how fast, and what the recorder says of itself.
fn numbers(live: &Live, shown: u64) -> String {
    let mut parts = vec![fmt::plural(shown, "event", "events"), fmt::bytes(live.bytes)];
    if live.goes_on() {
        parts.push(format!("{}/s", fmt::count(live.rate as u64)));
    }
    if let Some(r) = live.recorder {
        let lost = if r.lost == 0 { "nothing".to_owned() } else { fmt::plural(r.lost, "event", "events") };
        parts.push(format!("recorder: ring {:.0} % full, {:.1} % CPU, lost {lost}", r.ring, r.cpu));
    }
    parts.join(" · ")
}
