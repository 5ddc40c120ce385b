//! [`Contained`]: a panel that panics shows an error box in its place, and the rest of the window keeps working.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use egui::Ui;

/// The panels that failed, with their panic messages.
#[derive(Debug, Default)]
pub(crate) struct Contained {
    failed: BTreeMap<&'static str, String>,
}

impl Contained {
    /// Draws a panel, or an error box if it failed.
    pub(crate) fn show(&mut self, ui: &mut Ui, panel: &'static str, draw: impl FnOnce(&mut Ui)) {
        if let Some(message) = self.failed.get(panel) {
            if error_box(ui, panel, message) {
                self.failed.remove(panel);
            }
            return;
        }
        // A panic can leave only the panel's own state inconsistent, because panels do not write to the trace.
        if let Err(payload) = catch_unwind(AssertUnwindSafe(|| draw(ui))) {
            let message = payload
                .downcast_ref::<&str>()
                .map(|s| (*s).to_owned())
                .or_else(|| payload.downcast_ref::<String>().cloned())
                .unwrap_or_else(|| "no message".to_owned());
            self.failed.insert(panel, message);
            ui.ctx().request_repaint();
        }
    }

    /// Whether a panel failed.
    #[cfg(test)]
    pub(crate) fn has_failed(&self, panel: &str) -> bool {
        self.failed.contains_key(panel)
    }
}

fn error_box(ui: &mut Ui, panel: &str, message: &str) -> bool {
    let mut again = false;
    egui::Frame::group(ui.style()).show(ui, |ui| {
        ui.colored_label(
            ui.visuals().error_fg_color,
            format!("{panel} cannot be shown: this is a bug in mmuscope"),
        );
        ui.add(egui::Label::new(message).wrap());
        again = ui.button(format!("Try {panel} again")).clicked();
    });
    again
}
