//! The marks of notes on the time axis.

use egui::{Pos2, Rect, Sense, Shape, Stroke, Ui, pos2, vec2};

use super::{Axis, Cx};
use crate::fmt;
use crate::panels::notes::pick;

/// Draws a mark for each note at the lower end of the time axis, where it covers nothing.
pub(super) fn marks(ui: &Ui, cx: &mut Cx<'_>, ruler: Rect, axis: &Axis) {
    let mut picked = None;
    for (i, n) in cx.doc.notes.list.iter().enumerate() {
        let x = axis.x(n.at as f64);
        if x < ruler.left() - 1.0 || x > ruler.right() + 1.0 {
            continue;
        }
        let tip = pos2(x, ruler.bottom());
        let corners: Vec<Pos2> = vec![tip, tip + vec2(-4.5, -8.0), tip + vec2(4.5, -8.0)];
        let mine = cx.doc.tables.notes.selected == Some(i);
        let stroke = Stroke::new(if mine { 2.0 } else { 1.0 }, cx.tokens.ink);
        ui.painter().add(Shape::convex_polygon(corners, cx.tokens.accent, stroke));
        let place = Rect::from_center_size(tip - vec2(0.0, 4.0), vec2(11.0, 10.0));
        let response = ui.interact(place, ui.scope_id().with(("note", i)), Sense::click());
        let text = fmt::clean(&n.text);
        response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Button, true, format!("Note: {text}")));
        if response.on_hover_text(format!("{}\n{text}", cx.when(n.at))).clicked() {
            picked = Some(i);
        }
    }
    if let Some(i) = picked {
        pick(cx, i);
    }
}
