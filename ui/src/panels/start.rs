//! The pages without a trace: the welcome page, an error, the progress of loading.

use egui::{RichText, Ui, vec2};

use crate::fmt;
use crate::load::{Loading, Step};
use crate::theme::Tokens;

/// The user's choice on the welcome page.
pub(crate) enum Choice {
    /// The user wants to browse for a file.
    Browse,
    /// The user chose a recent file.
    Open(std::path::PathBuf),
}

/// Draws the welcome page. `error` says why the last trace could not be opened.
pub(crate) fn welcome(
    ui: &mut Ui,
    t: &Tokens,
    error: Option<&str>,
    recent: &[std::path::PathBuf],
) -> Option<Choice> {
    let mut choice = None;
    ui.vertical_centered(|ui| {
        ui.add_space((ui.available_height() * 0.2).max(20.0));
        ui.label(RichText::new("mmuscope").size(30.0).strong());
        ui.label(RichText::new("what KVM's MMU did to every guest page").color(t.muted));
        ui.add_space(16.0);
        if let Some(e) = error {
            egui::Frame::group(ui.style()).stroke(egui::Stroke::new(1.0, t.bad)).inner_margin(10.0).show(
                ui,
                |ui| {
                    ui.set_max_width(640.0);
                    ui.label(RichText::new("The trace could not be opened").color(t.bad).strong());
                    ui.add(egui::Label::new(e).wrap().selectable(true));
                },
            );
            ui.add_space(12.0);
        }
        if ui
            .add(egui::Button::new(RichText::new("Open a trace…").size(15.0)).min_size(vec2(180.0, 34.0)))
            .clicked()
        {
            choice = Some(Choice::Browse);
        }
        ui.add_space(6.0);
        ui.label(
            RichText::new(
                "or drop files here: perf.data, trace.dat, tracefs text, trace-cmd or perf script text",
            )
            .color(t.muted),
        );
        if !recent.is_empty() {
            ui.add_space(18.0);
            ui.label(RichText::new("Recent").strong());
            for path in recent.iter().take(8) {
                if ui.link(path.display().to_string()).clicked() {
                    choice = Some(Choice::Open(path.clone()));
                }
            }
        }
        ui.add_space(18.0);
        ui.label(RichText::new("?  shows all keys      Ctrl+P  finds any command").color(t.muted));
    });
    choice
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
