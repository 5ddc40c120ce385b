//! Widgets that several panels use.

pub(crate) mod bits;
pub(crate) mod rows;

/// Names a text box for screen readers, because its hint vanishes with the first letter.
pub(crate) fn name_edit(response: &egui::Response, name: &str, text: &str) {
    response.widget_info(|| {
        let mut info = egui::WidgetInfo::text_edit(true, text, text, name);
        info.label = Some(name.to_owned());
        info
    });
}
