//! [`Tokens`]: colours and sizes of the window, derived from the visual language that the report uses too. No other module names a colour.

use egui::{
    Color32, CornerRadius, FontFamily, FontId, Margin, Shadow, Stroke, TextStyle, Theme as EguiTheme, Vec2,
    Visuals,
};
use mmuscope_analysis::visual::{Color, Theme, Visual};
use mmuscope_replay::Shade;

/// The colours of one theme as egui needs them; see [`ThemeColors`](mmuscope_analysis::visual::ThemeColors) for what each is for.
#[derive(Clone, Debug)]
pub(crate) struct Tokens {
    /// Theme that the colours are of.
    pub(crate) theme: Theme,
    pub(crate) background: Color32,
    pub(crate) page: Color32,
    pub(crate) ink: Color32,
    pub(crate) muted: Color32,
    pub(crate) faint: Color32,
    pub(crate) grid: Color32,
    pub(crate) axis: Color32,
    pub(crate) fold: Color32,
    pub(crate) fold_fill: Color32,
    pub(crate) lost: Color32,
    pub(crate) accent: Color32,
    pub(crate) good: Color32,
    pub(crate) warn: Color32,
    pub(crate) bad: Color32,
    pub(crate) series: Vec<Color32>,
    pub(crate) phase: [Color32; 2],
    /// Opacity of the band over lost events.
    pub(crate) lost_opacity: f32,
}

fn c(color: Color) -> Color32 {
    let [r, g, b] = color.0;
    Color32::from_rgb(r, g, b)
}

impl Tokens {
    /// The colours of a theme.
    pub(crate) fn of(theme: Theme) -> Self {
        let v = Visual::builtin();
        let t = v.theme(theme);
        Self {
            theme,
            background: c(t.background),
            page: c(t.page),
            ink: c(t.ink),
            muted: c(t.muted),
            faint: c(t.faint),
            grid: c(t.grid),
            axis: c(t.axis),
            fold: c(t.fold),
            fold_fill: c(t.fold_fill),
            lost: c(t.lost),
            accent: c(t.accent),
            good: c(t.good),
            warn: c(t.warn),
            bad: c(t.bad),
            series: t.series.iter().map(|s| c(*s)).collect(),
            phase: t.phase.map(c),
            lost_opacity: v.overlay.lost_opacity,
        }
    }

    /// The colours of the theme that the context shows.
    pub(crate) fn current(ctx: &egui::Context) -> Self {
        Self::of(theme_of(ctx.theme()))
    }

    /// Colour of a state, for text and small squares.
    pub(crate) fn shade(&self, shade: Shade) -> Color32 {
        let style = Visual::builtin().shade_style(shade);
        c(match shade {
            // These states are drawn as background with marks, so that their own colour cannot be seen in a small square.
            Shade::Nonpresent => Visual::builtin().theme(self.theme).axis,
            Shade::Unknown | Shade::AccessTracked => style.mark(self.theme),
            _ => style.fill(self.theme),
        })
    }
}

/// The theme of the visual language for one of egui's.
pub(crate) fn theme_of(theme: EguiTheme) -> Theme {
    match theme {
        EguiTheme::Dark => Theme::Dark,
        EguiTheme::Light => Theme::Light,
    }
}

/// Font of tables and values, monospaced.
pub(crate) fn mono(size: f32) -> FontId {
    FontId::new(size, FontFamily::Monospace)
}

/// Font of the labels of axes.
pub(crate) fn small() -> FontId {
    FontId::new(11.0, FontFamily::Proportional)
}

/// Sets the colours and sizes of both of egui's themes.
pub(crate) fn install(ctx: &egui::Context) {
    // The font of labels has no arrows; that of tables has.
    let mut fonts = egui::FontDefinitions::default();
    let more = fonts.families.get(&FontFamily::Monospace).cloned().unwrap_or_default();
    let labels = fonts.families.entry(FontFamily::Proportional).or_default();
    for name in more {
        if !labels.contains(&name) {
            labels.push(name);
        }
    }
    ctx.set_fonts(fonts);
    for theme in [EguiTheme::Dark, EguiTheme::Light] {
        let t = Tokens::of(theme_of(theme));
        ctx.set_visuals_of(theme, visuals(theme, &t));
    }
    ctx.all_styles_mut(|style| {
        let font = |size| FontId::new(size, FontFamily::Proportional);
        style.text_styles = [
            (TextStyle::Small, font(11.0)),
            (TextStyle::Body, font(13.0)),
            (TextStyle::Button, font(13.0)),
            (TextStyle::Heading, font(16.0)),
            (TextStyle::Monospace, mono(12.0)),
        ]
        .into();
        style.spacing.item_spacing = Vec2::new(6.0, 4.0);
        style.spacing.button_padding = Vec2::new(7.0, 3.0);
        style.spacing.menu_margin = Margin::same(6);
        style.spacing.interact_size.y = 22.0;
        style.spacing.tooltip_width = 420.0;
        style.interaction.tooltip_delay = 0.25;
        style.animation_time = 0.08;
    });
}

fn visuals(theme: EguiTheme, t: &Tokens) -> Visuals {
    let dark = theme == EguiTheme::Dark;
    let mut v = if dark { Visuals::dark() } else { Visuals::light() };
    let mix = |a: Color32, b: Color32, k: f32| a.lerp_to_gamma(b, k);
    v.panel_fill = t.page;
    v.window_fill = if dark { mix(t.page, t.ink, 0.05) } else { t.background };
    v.window_stroke = Stroke::new(1.0, t.grid);
    v.extreme_bg_color = t.background;
    v.faint_bg_color = mix(t.page, t.ink, 0.035);
    v.code_bg_color = mix(t.page, t.ink, 0.06);
    v.hyperlink_color = t.accent;
    v.warn_fg_color = t.warn;
    v.error_fg_color = t.bad;
    v.weak_text_color = Some(t.muted);
    v.selection.bg_fill = mix(t.background, t.accent, if dark { 0.42 } else { 0.25 });
    v.selection.stroke = Stroke::new(1.0, t.ink);
    v.window_corner_radius = CornerRadius::same(8);
    v.menu_corner_radius = CornerRadius::same(6);
    let shadow = Shadow {
        offset: [0, 6],
        blur: 18,
        spread: 0,
        color: Color32::from_black_alpha(if dark { 110 } else { 40 }),
    };
    v.window_shadow = shadow;
    v.popup_shadow = shadow;
    let w = &mut v.widgets;
    w.noninteractive.fg_stroke = Stroke::new(1.0, t.ink);
    w.noninteractive.bg_stroke = Stroke::new(1.0, t.grid);
    w.noninteractive.bg_fill = t.page;
    let fills = [(&mut w.inactive, 0.07), (&mut w.hovered, 0.13), (&mut w.active, 0.20), (&mut w.open, 0.10)];
    for (widget, k) in fills {
        widget.weak_bg_fill = mix(t.page, t.ink, k);
        widget.bg_fill = mix(t.page, t.ink, k + 0.03);
        widget.fg_stroke = Stroke::new(1.0, t.ink);
        widget.bg_stroke = Stroke::NONE;
        widget.corner_radius = CornerRadius::same(4);
        widget.expansion = 0.0;
    }
    w.hovered.bg_stroke = Stroke::new(1.0, t.axis);
    w.noninteractive.corner_radius = CornerRadius::same(4);
    v
}

#[cfg(test)]
mod tests {
    use super::*;

    /// WCAG asks for 4.5 for text and 3 for large signs; tested where text lies on our own backgrounds.
    #[test]
    fn text_is_legible_in_both_themes() {
        for theme in [Theme::Light, Theme::Dark] {
            let t = Visual::builtin().theme(theme);
            for back in [t.background, t.page] {
                for (name, color, want) in [
                    ("ink", t.ink, 7.0),
                    ("muted", t.muted, 4.5),
                    ("accent", t.accent, 4.5),
                    ("bad", t.bad, 4.5),
                    ("warn", t.warn, 4.5),
                ] {
                    assert!(color.contrast(back) >= want, "{theme} {name}: {}", color.contrast(back));
                }
            }
        }
    }
}
