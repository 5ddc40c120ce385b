//! A 64-bit value as bits ([`diagram`]) and as fields ([`list`]). Pointing at one highlights the other.

use egui::{Align2, Color32, Rect, Sense, Stroke, StrokeKind, Ui, Vec2, pos2, vec2};

use crate::theme::{Tokens, mono};

/// One field of a value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct FieldRow {
    /// Mask of the bits of the field.
    pub(crate) mask: u64,
    /// Name of the field, the kernel's where it has one.
    pub(crate) name: String,
    /// Value of the field.
    pub(crate) value: String,
    /// What the value means.
    pub(crate) meaning: String,
    /// Whether the value of the field is wrong, such as a reserved bit that is set.
    pub(crate) bad: bool,
}

/// The bits of a mask as text: `63`, `51:12`, `11,9:8`.
pub(crate) fn bit_text(mask: u64) -> String {
    let mut out = Vec::new();
    let mut bit = 64u32;
    while bit > 0 {
        bit -= 1;
        if mask >> bit & 1 == 0 {
            continue;
        }
        let high = bit;
        while bit > 0 && mask >> (bit - 1) & 1 == 1 {
            bit -= 1;
        }
        out.push(if high == bit { format!("{high}") } else { format!("{high}:{bit}") });
    }
    out.join(",")
}

/// Colour of the n-th field; neighbours differ.
fn tint(t: &Tokens, n: usize) -> Color32 {
    t.series[n % t.series.len()]
}

/// Draws two rows of 32 bits. `lit` is the mask of bits to highlight, from the frame before; the new mask is returned if the pointer is over a
/// bit. `before` is the value to compare with: bits that differ are framed.
pub(crate) fn diagram(
    ui: &mut Ui,
    t: &Tokens,
    raw: u64,
    before: Option<u64>,
    fields: &[FieldRow],
    lit: u64,
) -> Option<u64> {
    let width = ui.available_width().clamp(260.0, 620.0);
    let cell = (width / 32.0).floor();
    let line = 34.0;
    let (rect, response) = ui.allocate_exact_size(Vec2::new(cell * 32.0, line * 2.0 + 4.0), Sense::hover());
    let set: Vec<&str> = fields.iter().filter(|f| raw & f.mask != 0).map(|f| f.name.as_str()).collect();
    let label = format!("64-bit diagram of 0x{raw:016x}; not zero: {}", set.join(", "));
    response.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Image, true, label.clone()));
    let painter = ui.painter_at(rect.expand(2.0));
    let changed = before.map_or(0, |b| b ^ raw);
    let mut hovered = None;
    for bit in (0..64u32).rev() {
        let row = if bit >= 32 { 0.0 } else { 1.0 };
        let col = (31 - bit % 32) as f32;
        let cell_rect =
            Rect::from_min_size(rect.min + vec2(col * cell, row * (line + 4.0) + 11.0), vec2(cell, 17.0));
        let mask = 1u64 << bit;
        let field = fields.iter().position(|f| f.mask & mask != 0);
        let on = raw & mask != 0;
        let is_lit = lit & mask != 0;
        let base = field.map_or(t.grid, |n| tint(t, n));
        let fill = if is_lit {
            t.accent
        } else if on {
            t.background.lerp_to_gamma(base, 0.45)
        } else {
            t.background
        };
        painter.rect_filled(cell_rect.shrink2(vec2(0.5, 0.0)), 1.0, fill);
        let ink = if is_lit {
            t.background
        } else if on {
            t.ink
        } else {
            t.faint
        };
        painter.text(cell_rect.center(), Align2::CENTER_CENTER, if on { "1" } else { "0" }, mono(11.0), ink);
        if field.is_some() {
            let band = Rect::from_min_size(cell_rect.left_bottom() + vec2(0.0, 1.0), vec2(cell, 3.0));
            painter.rect_filled(band, 0.0, base);
        }
        if changed & mask != 0 {
            painter.rect_stroke(cell_rect.shrink(0.5), 1.0, Stroke::new(1.5, t.warn), StrokeKind::Inside);
        }
        // Every fourth bit has a number, which is enough to count from.
        if bit % 4 == 3 || bit % 32 == 0 {
            let at = pos2(cell_rect.center().x, cell_rect.top() - 1.0);
            painter.text(
                at,
                Align2::CENTER_BOTTOM,
                bit.to_string(),
                egui::FontId::proportional(8.5),
                t.faint,
            );
        }
        if bit % 4 == 0 && bit % 32 != 0 {
            painter.vline(cell_rect.right(), cell_rect.y_range(), Stroke::new(1.0, t.grid));
        }
        if response.hover_pos().is_some_and(|p| cell_rect.expand2(vec2(0.0, 6.0)).contains(p)) {
            hovered = Some((field, mask));
        }
    }
    let (field, mask) = hovered?;
    let field = field.and_then(|n| fields.get(n));
    let text = field.map_or_else(
        || format!("bit {}: no meaning in this layout", bit_text(mask)),
        |f| format!("{} (bits {}): {}\n{}", f.name, bit_text(f.mask), f.value, f.meaning),
    );
    response.on_hover_text_at_pointer(text);
    Some(field.map_or(mask, |f| f.mask))
}

/// Draws the fields as a list and returns the bits of the one under the pointer.
pub(crate) fn list(ui: &mut Ui, t: &Tokens, fields: &[FieldRow], lit: u64) -> Option<u64> {
    let mut hovered = None;
    let width = ui.available_width();
    for (n, f) in fields.iter().enumerate() {
        let is_lit = lit & f.mask != 0;
        let frame = egui::Frame::new().inner_margin(egui::Margin::symmetric(4, 1)).corner_radius(3.0);
        let frame = if is_lit { frame.fill(t.background.lerp_to_gamma(t.accent, 0.18)) } else { frame };
        let inner = frame.show(ui, |ui| {
            ui.set_width(width - 8.0);
            ui.horizontal_top(|ui| {
                ui.spacing_mut().item_spacing.x = 6.0;
                let (mark, _) = ui.allocate_exact_size(vec2(4.0, 13.0), Sense::hover());
                ui.painter().rect_filled(mark, 1.0, tint(t, n));
                cell(ui, 50.0, egui::RichText::new(bit_text(f.mask)).monospace().size(10.5).color(t.muted));
                let color = if f.bad { t.bad } else { t.ink };
                cell(ui, 108.0, egui::RichText::new(&f.name).size(12.0).color(color));
                ui.vertical(|ui| {
                    ui.spacing_mut().item_spacing.y = 0.0;
                    if !f.value.is_empty() {
                        ui.add(
                            egui::Label::new(
                                egui::RichText::new(&f.value).monospace().size(11.5).color(color),
                            )
                            .wrap(),
                        );
                    }
                    if !f.meaning.is_empty() {
                        ui.add(
                            egui::Label::new(egui::RichText::new(&f.meaning).size(11.0).color(t.muted))
                                .wrap(),
                        );
                    }
                });
            });
        });
        let response = ui.interact(inner.response.rect, ui.scope_id().with(("field", n)), Sense::hover());
        response.widget_info(|| {
            egui::WidgetInfo::labeled(
                egui::Role::ListItem,
                true,
                format!("{} = {}: {}", f.name, f.value, f.meaning),
            )
        });
        if response.hovered() {
            hovered = Some(f.mask);
        }
    }
    hovered
}

fn cell(ui: &mut Ui, width: f32, text: egui::RichText) {
    let layout = egui::Layout::top_down(egui::Align::Min);
    ui.allocate_ui_with_layout(vec2(width, 14.0), layout, |ui| {
        ui.set_width(width);
        ui.add(egui::Label::new(text).wrap());
    });
}

#[cfg(test)]
mod tests {
    use super::bit_text;

    #[test]
    fn bits_are_written_high_to_low() {
        assert_eq!(bit_text(1 << 63), "63");
        assert_eq!(bit_text(0x000f_ffff_ffff_f000), "51:12");
        assert_eq!(bit_text(0b1011_0001), "7,5:4,0");
        assert_eq!(bit_text(u64::MAX), "63:0");
        assert_eq!(bit_text(0), "");
    }
}
