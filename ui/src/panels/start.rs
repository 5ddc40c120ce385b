//! The pages without a trace: the welcome page, an error, the progress of loading.

use egui::{RichText, Ui, vec2};

use super::recorder;
use crate::fmt;
use crate::load::{Loading, Step};
use crate::theme::Tokens;

/// The user's choice on the welcome page.
pub(crate) enum Choice {
    /// The user wants to browse for a file.
    Browse,
    /// The user chose a recent file.
    Open(std::path::PathBuf),
    /// The user wants to see the built-in example.
    Demo,
    /// The user pasted a value to explain.
    Decode,
    /// The user wants to know whether this host can be recorded.
    Doctor,
    /// The user wants to record this host now.
    Record(recorder::Choice),
}

/// State of the welcome page.
#[derive(Debug, Default)]
pub(crate) struct Start {
    /// The value that was pasted.
    pub(crate) text: String,
    /// What the doctor said.
    pub(crate) doctor: Option<String>,
    /// How to record.
    record: recorder::Choice,
}

/// What the welcome page can offer.
#[derive(Clone, Copy)]
pub(crate) struct Offers<'a> {
    /// Files that were opened before, the newest first.
    pub(crate) recent: &'a [std::path::PathBuf],
    /// Whether the host can be looked at.
    pub(crate) doctor: bool,
    /// The command that records, where the window may run it.
    pub(crate) recorder: Option<&'a [String]>,
}

/// The command that records a running host and shows it live.
const RECORD: &str =
    "sudo mmuscope record -o capture.perf.data --duration 10s && mmuscope view capture.perf.data";
/// The command that shows a host live.
const LIVE: &str = "sudo mmuscope record -o - | mmuscope view -";

/// Draws the welcome page. `error` says why the last trace could not be opened.
pub(crate) fn welcome(
    ui: &mut Ui,
    t: &Tokens,
    start: &mut Start,
    error: Option<&str>,
    offers: Offers<'_>,
) -> Option<Choice> {
    let mut choice = None;
    egui::ScrollArea::vertical().auto_shrink(false).show(ui, |ui| {
        ui.vertical_centered(|ui| {
            ui.add_space((ui.available_height() * 0.08).clamp(8.0, 70.0));
            ui.label(RichText::new("mmuscope").size(30.0).strong());
            ui.label(RichText::new("what KVM's MMU did to every guest page").color(t.muted));
            ui.add_space(14.0);
            if let Some(e) = error {
                could_not_open(ui, t, e);
            }
        });
        let wide = ui.available_width() > 820.0;
        let margin = ((ui.available_width() - 1000.0) / 2.0).max(8.0);
        ui.horizontal_top(|ui| {
            ui.add_space(margin);
            let width = if wide { 470.0 } else { ui.available_width() - margin };
            ui.vertical(|ui| {
                ui.set_width(width);
                traces(ui, t, offers.recent, &mut choice);
                if !wide {
                    ui.add_space(18.0);
                    tools(ui, t, start, offers, &mut choice);
                }
            });
            if wide {
                ui.add_space(30.0);
                ui.vertical(|ui| {
                    ui.set_width(width);
                    tools(ui, t, start, offers, &mut choice);
                });
            }
        });
        ui.add_space(18.0);
        ui.vertical_centered(|ui| {
            ui.label(RichText::new("?  shows all keys      Ctrl+P  finds any command").color(t.muted));
        });
    });
    choice
}

fn could_not_open(ui: &mut Ui, t: &Tokens, e: &str) {
    egui::Frame::group(ui.style()).stroke(egui::Stroke::new(1.0, t.bad)).inner_margin(10.0).show(ui, |ui| {
        ui.set_max_width(640.0);
        ui.label(RichText::new("The trace could not be opened").color(t.bad).strong());
        ui.add(egui::Label::new(e).wrap().selectable(true));
    });
    ui.add_space(12.0);
}

/// Draws the ways to a trace.
fn traces(ui: &mut Ui, t: &Tokens, recent: &[std::path::PathBuf], choice: &mut Option<Choice>) {
    ui.horizontal(|ui| {
        let large =
            |text: &str| egui::Button::new(RichText::new(text).size(15.0)).min_size(vec2(160.0, 34.0));
        if ui.add(large("Open a trace…")).clicked() {
            *choice = Some(Choice::Browse);
        }
        if ui
            .add(large("See an example"))
            .on_hover_text("Open a trace that is built in: a Linux guest that boots")
            .clicked()
        {
            *choice = Some(Choice::Demo);
        }
    });
    ui.add_space(4.0);
    let formats = "or drop files here: perf.data, trace.dat, tracefs text, trace-cmd or perf script text";
    ui.add(egui::Label::new(RichText::new(formats).color(t.muted)).wrap());
    if recent.is_empty() {
        return;
    }
    ui.add_space(14.0);
    ui.label(RichText::new("Recent").strong());
    for path in recent.iter().take(8) {
        let there = path.exists();
        let name = path.display().to_string();
        let link = ui.add_enabled(there, egui::Link::new(&name));
        let tip = if there { "Open this trace" } else { "The file is not there any more" };
        if link.on_hover_text(tip).on_disabled_hover_text(tip).clicked() {
            *choice = Some(Choice::Open(path.clone()));
        }
    }
}

/// Draws what needs no trace: a value to explain, and how to record.
fn tools(ui: &mut Ui, t: &Tokens, start: &mut Start, offers: Offers<'_>, choice: &mut Option<Choice>) {
    ui.label(RichText::new("Decode an SPTE").strong());
    ui.horizontal(|ui| {
        let edit = egui::TextEdit::singleline(&mut start.text)
            .hint_text("0x600000123456b77, a trace line, a dump")
            .desired_width(330.0);
        let edit = ui.add(edit);
        crate::widgets::name_edit(&edit, "SPTE to decode", &start.text);
        let enter = edit.lost_focus() && ui.input(|i| i.key_pressed(egui::Key::Enter));
        if ui.button("Decode").clicked() || enter {
            *choice = Some(Choice::Decode);
        }
    });
    ui.add_space(14.0);
    ui.label(RichText::new("Record this host").strong());
    if let Some(recorder) = offers.recorder {
        if recorder::choose(ui, t, &mut start.record, recorder) {
            *choice = Some(Choice::Record(start.record));
        }
        ui.add_space(4.0);
        ui.label(RichText::new("or in a terminal:").color(t.muted));
    }
    for (what, command) in [("ten seconds into a file", RECORD), ("live", LIVE)] {
        ui.horizontal(|ui| {
            ui.label(RichText::new(what).color(t.muted));
            if ui.small_button("Copy").on_hover_text("Copy the command").clicked() {
                ui.ctx().copy_text(command.to_owned());
            }
        });
        ui.add(egui::Label::new(RichText::new(command).monospace().size(11.5)).wrap().selectable(true));
    }
    if !offers.doctor {
        return;
    }
    ui.add_space(6.0);
    let label = if start.doctor.is_some() { "Look again" } else { "Can this host be recorded?" };
    if ui.button(label).on_hover_text("What `mmuscope doctor` says").clicked() {
        *choice = Some(Choice::Doctor);
    }
    for line in start.doctor.iter().flat_map(|d| d.lines()) {
        let word = line.trim_start();
        let color = match word.split([' ', ':']).next() {
            Some("ok" | "OK") => t.good,
            Some("WARN" | "warn") => t.warn,
            Some("BAD" | "bad") => t.bad,
            _ => t.ink,
        };
        ui.add(
            egui::Label::new(RichText::new(line).monospace().size(11.5).color(color)).wrap().selectable(true),
        );
    }
}

/// Draws the page while a trace is being read. It returns true if the user wants to stop.
pub(crate) fn loading(ui: &mut Ui, t: &Tokens, loading: &Loading) -> bool {
    let mut stop = false;
    ui.vertical_centered(|ui| {
        ui.add_space((ui.available_height() * 0.3).max(20.0));
        let step = match loading.step() {
            Step::Reading => "Reading",
            Step::Replaying => "Replaying",
        };
        ui.label(RichText::new(format!("{step} {}", loading.job.source.name())).size(16.0));
        ui.add_space(10.0);
        let fraction = loading.fraction();
        let bar = match (loading.step(), fraction) {
            (Step::Reading, Some(f)) => egui::ProgressBar::new(f).show_percentage(),
            (Step::Reading, None) => egui::ProgressBar::new(0.0).text("waiting for events"),
            (Step::Replaying, _) => egui::ProgressBar::new(1.0).text("building page tables"),
        };
        ui.add(bar.desired_width(420.0).animate(true));
        ui.add_space(4.0);
        let seconds = loading.since.elapsed().as_secs_f64();
        ui.label(RichText::new(fmt::time((seconds * 10.0).floor() * 1e8)).color(t.muted));
        ui.add_space(8.0);
        stop = ui.button("Stop").on_hover_text("Stop reading and go back (Esc)").clicked();
    });
    stop
}

/// Covers the window while the user holds files over it.
pub(crate) fn drop_hint(ui: &Ui, t: &Tokens, names: &[String]) {
    let rect = ui.ctx().content_rect();
    let layer = egui::LayerId::new(egui::Order::Foreground, egui::Id::unique("drop"));
    let painter = ui.ctx().layer_painter(layer);
    painter.rect_filled(rect, 0.0, t.page.gamma_multiply(0.85));
    painter.rect_stroke(rect.shrink(16.0), 10.0, egui::Stroke::new(2.0, t.accent), egui::StrokeKind::Inside);
    let text = if names.is_empty() {
        "Drop to open".to_owned()
    } else {
        format!("Drop to open {}", names.join(", "))
    };
    painter.text(rect.center(), egui::Align2::CENTER_CENTER, text, egui::FontId::proportional(20.0), t.ink);
}
