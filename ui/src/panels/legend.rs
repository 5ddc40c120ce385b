//! The legend: what the colours, patterns and marks of the map mean.

use egui::{Color32, ColorImage, Id, Rect, Sense, TextureHandle, TextureOptions, Ui, Vec2, vec2};
use mmuscope_analysis::visual::{self, ColourBy, Theme, Visual};
use mmuscope_replay::Shade;

use super::Cx;
use crate::theme::Tokens;

/// Width and height in pixels of the picture of a swatch. It is drawn once per theme and cut to the size that is needed.
const SIZE: [u32; 2] = [96, 48];

/// Draws a patch in the colour and pattern of a state.
pub(crate) fn swatch(ui: &mut Ui, t: &Tokens, shade: Shade, size: Vec2) {
    let (rect, _) = ui.allocate_exact_size(size, Sense::hover());
    paint(ui, t, shade, rect);
}

fn paint(ui: &Ui, t: &Tokens, shade: Shade, rect: Rect) {
    let texture = texture(ui, t.theme, shade);
    let ppp = ui.ctx().pixels_per_point();
    let r = Rect::from_min_max(
        (rect.min.to_vec2() * ppp).round().to_pos2() / ppp,
        (rect.max.to_vec2() * ppp).round().to_pos2() / ppp,
    );
    let scale = ppp.round().max(1.0);
    let uv = vec2(r.width() * ppp / scale / SIZE[0] as f32, r.height() * ppp / scale / SIZE[1] as f32);
    ui.painter().image(
        texture.id(),
        r,
        Rect::from_min_size(egui::Pos2::ZERO, uv.min(Vec2::splat(1.0))),
        Color32::WHITE,
    );
    ui.painter().rect_stroke(r, 0.0, egui::Stroke::new(1.0, t.axis), egui::StrokeKind::Inside);
}

fn texture(ui: &Ui, theme: Theme, shade: Shade) -> TextureHandle {
    let id = Id::unique(("swatch", theme as u8, shade as u8));
    if let Some(t) = ui.data(|d| d.get_temp::<TextureHandle>(id)) {
        return t;
    }
    let p = visual::swatch(Visual::builtin(), shade, theme, false, SIZE[0], SIZE[1]);
    let image = ColorImage::from_rgba_unmultiplied([p.width as usize, p.height as usize], &p.rgba);
    let texture = ui.ctx().load_texture("swatch", image, TextureOptions::NEAREST);
    ui.data_mut(|d| d.insert_temp(id, texture.clone()));
    texture
}

/// Draws one line (or more, where the window is narrow) with all states and the marks that are drawn over them.
pub(crate) fn show(ui: &mut Ui, cx: &mut Cx<'_>) {
    let t = cx.tokens;
    ui.horizontal_wrapped(|ui| {
        ui.spacing_mut().item_spacing = vec2(4.0, 2.0);
        chooser(ui, cx);
        if cx.doc.colour != ColourBy::State {
            classes(ui, t, cx.doc.colour);
            return;
        }
        for style in Visual::builtin().legend().filter(|s| s.shade != Shade::Table) {
            item(ui, &style.name, &style.about, |ui| swatch(ui, t, style.shade, vec2(22.0, 12.0)));
        }
        for (mark, name, about) in [
            (Mark::Large, "2M, 1G: darker", "a page of 2 MiB or 1 GiB is darker, with a line at its edge"),
            (
                Mark::Part,
                "pale: part",
                "only part of the frames in a pixel hold this: the tooltip says how many, and zooming in shows which",
            ),
            (
                Mark::Stale,
                "faded: stale",
                "the entry may have changed since without an event: this kernel does not trace all changes",
            ),
            (Mark::Assumed, "dashed: assumed", "known from a rule about this kernel, not from an event"),
            (Mark::Fold, "folded", "a stretch of the GFN space in which nothing happened is left out"),
            (Mark::Lost, "lost events", "the recorder lost events here"),
        ] {
            item(ui, name, about, |ui| draw_mark(ui, t, mark));
        }
    });
}

/// Draws the chooser of what gives the map its colours.
fn chooser(ui: &mut Ui, cx: &mut Cx<'_>) {
    let name = cx.doc.colour.name();
    let font = egui::FontId::proportional(11.5);
    let combo = egui::ComboBox::from_id_salt("colour-by")
        .selected_text(egui::RichText::new(format!("by {name}")).font(font))
        .width(112.0)
        .show_ui(ui, |ui| {
            for by in ColourBy::ALL {
                ui.selectable_value(&mut cx.doc.colour, by, by.name());
            }
        });
    let label = format!("Colour by: {name}");
    combo.response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::ComboBox, true, &label));
    combo.response.on_hover_text("What gives the map its colours (C: next)");
    ui.add_space(4.0);
}

/// Draws the classes of a map that is not coloured by state.
fn classes(ui: &mut Ui, t: &Tokens, by: ColourBy) {
    let about = match by {
        ColourBy::Faults => "faults in a pixel; what is mapped is drawn faintly",
        ColourBy::Zaps => "zaps in a pixel; what is mapped is drawn faintly",
        ColourBy::Age => "how long before the moment of the pixel its entry changed",
        _ => "of one entry in the pixel: the tooltip names it",
    };
    for (name, color) in by.legend(Visual::builtin(), t.theme) {
        item(ui, name, about, |ui| {
            let (r, _) = ui.allocate_exact_size(vec2(22.0, 12.0), Sense::hover());
            ui.painter().rect_filled(r, 0.0, Color32::from_rgb(color.0[0], color.0[1], color.0[2]));
            ui.painter().rect_stroke(r, 0.0, egui::Stroke::new(1.0, t.axis), egui::StrokeKind::Inside);
        });
    }
    ui.label(egui::RichText::new(about).font(egui::FontId::proportional(11.5)).color(t.muted));
}

/// Draws a sign and its name, on the next line if both do not fit on this one.
fn item(ui: &mut Ui, name: &str, about: &str, sign: impl FnOnce(&mut Ui)) {
    let font = egui::FontId::proportional(11.5);
    let width =
        ui.painter().layout_no_wrap(name.to_owned(), font.clone(), Color32::WHITE).size().x + 22.0 + 10.0;
    if ui.available_size_before_wrap().x < width {
        ui.end_row();
    }
    sign(ui);
    ui.label(egui::RichText::new(name).font(font)).on_hover_text(about);
    ui.add_space(6.0);
}

#[derive(Clone, Copy)]
enum Mark {
    Large,
    Part,
    Stale,
    Assumed,
    Fold,
    Lost,
}

fn draw_mark(ui: &mut Ui, t: &Tokens, mark: Mark) {
    let (r, _) = ui.allocate_exact_size(vec2(22.0, 12.0), Sense::hover());
    let p = ui.painter();
    p.rect_filled(r, 0.0, t.background);
    let blue = t.shade(Shade::Writable);
    match mark {
        Mark::Large => {
            let c = Visual::builtin().shade_style(Shade::Writable).large(t.theme).0;
            p.rect_filled(r, 0.0, Color32::from_rgb(c[0], c[1], c[2]));
            p.hline(r.x_range(), r.bottom() - 3.0, egui::Stroke::new(1.0, t.ink));
        }
        Mark::Part => {
            p.rect_filled(r, 0.0, blue.gamma_multiply(Visual::builtin().overlay.least_cover));
            p.rect_filled(r.with_max_x(r.center().x), 0.0, blue);
        }
        Mark::Stale => {
            p.rect_filled(r, 0.0, blue.gamma_multiply(Visual::builtin().overlay.stale_opacity));
        }
        Mark::Assumed => {
            p.rect_filled(r, 0.0, blue);
            let corners = [r.left_top(), r.right_top(), r.right_bottom(), r.left_bottom(), r.left_top()];
            p.extend(egui::Shape::dashed_line(&corners, egui::Stroke::new(1.5, t.ink), 3.0, 3.0));
            return;
        }
        Mark::Fold => {
            p.rect_filled(r, 0.0, t.fold_fill);
            let y = r.center().y;
            let points = (0..=5)
                .map(|i| egui::pos2(r.left() + i as f32 * 4.4, y + if i % 2 == 0 { -1.5 } else { 1.5 }))
                .collect();
            p.line(points, egui::Stroke::new(1.0, t.fold));
        }
        Mark::Lost => {
            p.rect_filled(r, 0.0, t.lost.gamma_multiply(t.lost_opacity));
            p.vline(r.right() - 4.0, r.y_range(), egui::Stroke::new(1.0, t.lost));
        }
    }
    p.rect_stroke(r, 0.0, egui::Stroke::new(1.0, t.axis), egui::StrokeKind::Inside);
}
