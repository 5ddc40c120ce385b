//! Recording from the window: on the start page the choice and the command that will run, under a trace what the recorder says.

use egui::{RichText, Ui};

use crate::recorder::{Recorder, Rights, words};
use crate::theme::Tokens;

/// What the user chose on the start page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Choice {
    pub(crate) rights: Rights,
    pub(crate) seconds: u32,
}

impl Default for Choice {
    fn default() -> Self {
        Self { rights: Rights::default(), seconds: 10 }
    }
}

/// Draws the choice. It returns true once the user asks to run the command.
pub(crate) fn choose(ui: &mut Ui, t: &Tokens, choice: &mut Choice, recorder: &[String]) -> bool {
    ui.horizontal_wrapped(|ui| {
        for r in Rights::ALL {
            ui.selectable_value(&mut choice.rights, r, r.name()).on_hover_text(r.about());
        }
        ui.label("for");
        ui.add(egui::DragValue::new(&mut choice.seconds).range(1..=3600).suffix(" s"))
            .on_hover_text("The recorder ends by itself after this time");
    });
    let text = words(recorder, choice.rights, choice.seconds)
        .iter()
        .map(|w| mmuscope_units::shell_word(w))
        .collect::<Vec<_>>()
        .join(" ");
    ui.add(egui::Label::new(RichText::new(text).monospace().size(11.5)).wrap().selectable(true));
    let tip = "Run this command; its output goes to a file in the folder that mmuscope was started in, and is shown as it grows";
    let clicked = ui.button("Record now").on_hover_text(tip).clicked();
    ui.label(RichText::new(choice.rights.about()).size(11.5).color(t.muted));
    clicked
}

/// Draws what the recorder says, in one line. It returns true once the line is not wanted any more.
pub(crate) fn line(ui: &mut Ui, t: &Tokens, recorder: &mut Recorder) -> bool {
    let outcome = recorder.outcome();
    let said = recorder.said();
    let mut done = false;
    ui.horizontal(|ui| {
        let (text, color) = match &outcome {
            None => ("recording".to_owned(), t.accent),
            Some(Ok(())) => ("recorded".to_owned(), t.good),
            Some(Err(e)) => (e.clone(), t.bad),
        };
        ui.label(RichText::new(text).size(11.5).strong().color(color));
        ui.label(RichText::new(recorder.file.display().to_string()).size(11.5).color(t.muted));
        let tip =
            "Ask the recorder to complete the capture and end, with the rights that it was started with";
        if recorder.runs() && ui.small_button("Stop recording").on_hover_text(tip).clicked() {
            let ctx = ui.ctx().clone();
            recorder.stop(move || ctx.request_repaint());
        }
        if outcome.is_some() && ui.small_button("×").on_hover_text("Hide this line").clicked() {
            done = true;
        }
        let last = said.iter().rev().find(|l| !l.is_empty()).cloned().unwrap_or_default();
        ui.add(egui::Label::new(RichText::new(last).monospace().size(11.0)).truncate())
            .on_hover_text(said.join("\n"));
    });
    done
}
