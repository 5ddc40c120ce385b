//! The area under the map: number of entries, or bytes of guest memory, per state over time, stacked.

use egui::{Align2, Color32, Mesh, Rect, Sense, Shape, Stroke, StrokeKind, Ui, pos2, vec2};

use super::{Axis, Cx, gutter_text, nav};
use crate::fmt;
use crate::picture::{STACK, amount};
use crate::theme::small;

/// Draws the area.
#[expect(clippy::many_single_char_names, reason = "x, y, t, r, a and b are what a plot is made of")]
pub(super) fn show(ui: &mut Ui, cx: &mut Cx<'_>, rect: Rect, axis: &Axis) {
    let t = cx.tokens;
    let response = ui.interact(rect, ui.scope_id().with("area"), Sense::click_and_drag());
    let memory = cx.doc.shown.memory;
    let what = if memory { "guest memory per state over time" } else { "entries per state over time" };
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Canvas, true, format!("Area: {what}")));
    nav::plot(ui, cx, &response, rect, axis, false);
    let axis = Axis { time: cx.doc.view.time, ..*axis };
    let painter = ui.painter().with_clip_rect(rect);
    painter.rect_filled(rect, 0.0, t.background);
    let number = |v: f64| if memory { fmt::bytes(v as u64) } else { fmt::short(v) };
    if let (Some(picture), Some(texture)) = (&cx.doc.pictures.shown, &cx.doc.pictures.area)
        && let Some(area) = &picture.area
    {
        let w = &picture.wanted;
        let dest = Rect::from_x_y_ranges(axis.x(w.time.start)..=axis.x(w.time.end), rect.y_range());
        let seen = dest.intersect(rect);
        if seen.is_positive() && dest.is_positive() {
            let u = |x: f32| (x - dest.left()) / dest.width();
            let mut mesh = Mesh::with_texture(texture.id());
            let uv = Rect::from_min_max(pos2(u(seen.left()), 0.0), pos2(u(seen.right()), 1.0));
            mesh.add_rect_with_uv(seen, uv, Color32::WHITE);
            painter.add(Shape::mesh(mesh));
        }
        for (part, align) in [(0.5, Align2::RIGHT_CENTER), (1.0, Align2::RIGHT_TOP)] {
            let y = rect.bottom() - rect.height() * part as f32;
            painter.hline(rect.x_range(), y, Stroke::new(1.0, t.grid.gamma_multiply(0.6)));
            gutter_text(ui, pos2(rect.left(), y), align, &number(area.top * part), t.muted);
        }
        if let Some(pos) = response.hover_pos().filter(|_| !response.dragged()) {
            let f = w.time.fraction(axis.t(pos.x));
            let i = (f * area.counts.len() as f64) as usize;
            if let Some(counts) = area.counts.get(i).filter(|_| f >= 0.0) {
                response.clone().on_hover_ui_at_pointer(|ui| {
                    ui.label(
                        egui::RichText::new(format!("at {}", fmt::time_at(axis.t(pos.x), axis.per_point())))
                            .strong(),
                    );
                    for shade in STACK.iter().rev() {
                        let n = counts.total(*shade);
                        ui.horizontal(|ui| {
                            crate::panels::legend::swatch(ui, t, *shade, vec2(14.0, 10.0));
                            ui.label(format!("{}: {}", shade.name(), fmt::plural(n, "entry", "entries")));
                            if *shade != mmuscope_replay::Shade::Removed {
                                ui.label(egui::RichText::new(fmt::bytes(counts.bytes(*shade))).weak());
                            }
                        });
                    }
                    let stale = counts.stale_bytes(None);
                    if stale > 0 {
                        ui.label(format!(
                            "of what is present, {} are only known from stale entries",
                            fmt::bytes(stale)
                        ));
                    }
                    let all: f64 = STACK.iter().map(|s| amount(counts, *s, memory)).sum();
                    ui.label(egui::RichText::new(format!("together {}", number(all))).weak());
                });
            }
        }
    }
    painter.rect_stroke(rect, 0.0, Stroke::new(1.0, t.axis), StrokeKind::Inside);
    gutter_text(ui, pos2(rect.left(), rect.bottom() - 7.0), Align2::RIGHT_CENTER, "0", t.muted);
    let title = if memory { "memory" } else { "entries" };
    let at = pos2(rect.left() - super::GUTTER + 4.0, rect.bottom() - 20.0);
    let place = Rect::from_min_size(at, vec2(58.0, 18.0));
    let switch = egui::Button::new(egui::RichText::new(title).font(small())).small();
    let switch = ui
        .put(place, switch)
        .on_hover_text("What the area counts: entries, or the guest memory they cover. Click to change.");
    if switch.clicked() {
        cx.doc.shown.memory = !memory;
    }
}
