//! Small pieces that several panels use.

pub(crate) mod bits;
pub(crate) mod rows;

/// Tells what a box to type into is called; a hint alone goes away with the first letter.
pub(crate) fn name_edit(response: &egui::Response, name: &str, text: &str) {
    response.widget_info(|| {
        let mut info = egui::WidgetInfo::text_edit(true, text, text, name);
        info.label = Some(name.to_owned());
        info
    });
}
