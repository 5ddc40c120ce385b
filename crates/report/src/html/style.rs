//! The style sheet of the page and its SVG patterns, made from the visual language. No other file of this crate names a colour.

use std::fmt::Write;

use maud::{Markup, PreEscaped, html};
use mmuscope_analysis::visual::{Pattern, ShadeStyle, Theme, Visual};

/// The whole style sheet.
pub(crate) fn sheet(visual: &Visual) -> String {
    let mut css = String::new();
    let _ = write!(css, ":root{{color-scheme:light dark;{}}}", variables(visual, Theme::Light));
    for s in visual.legend() {
        let fill =
            if s.pattern.is_plain() { format!("var(--{}-fill)", s.id) } else { format!("url(#p-{})", s.id) };
        let _ = write!(
            css,
            ".s-{id}{{fill:{fill}}}.pf-{id}{{fill:var(--{id}-fill)}}.pm-{id}{{fill:var(--{id}-mark)}}",
            id = s.id
        );
    }
    for i in 0..visual.theme(Theme::Light).series.len() {
        let _ = write!(css, ".series-{i}{{fill:var(--series-{i})}}");
    }
    css.push_str(include_str!("style.css"));
    // Dark colours are for screens only; a printed page stays white.
    let _ = write!(
        css,
        "@media screen and (prefers-color-scheme:dark){{:root{{{}}}.only-light{{display:none}}.only-dark{{display:inline}}}}",
        variables(visual, Theme::Dark)
    );
    css
}

fn variables(visual: &Visual, theme: Theme) -> String {
    let t = visual.theme(theme);
    let mut out = String::new();
    for (name, c) in [
        ("bg", t.background),
        ("page", t.page),
        ("ink", t.ink),
        ("muted", t.muted),
        ("faint", t.faint),
        ("grid", t.grid),
        ("axis", t.axis),
        ("fold", t.fold),
        ("fold-fill", t.fold_fill),
        ("lost", t.lost),
        ("edge", t.edge),
        ("accent", t.accent),
        ("good", t.good),
        ("warn", t.warn),
        ("bad", t.bad),
        ("phase-a", t.phase[0]),
        ("phase-b", t.phase[1]),
    ] {
        let _ = write!(out, "--{name}:{};", c.css());
    }
    for (i, c) in t.series.iter().enumerate() {
        let _ = write!(out, "--series-{i}:{};", c.css());
    }
    for s in visual.legend() {
        let _ = write!(
            out,
            "--{0}-fill:{1};--{0}-mark:{2};--{0}-large:{3};",
            s.id,
            s.fill(theme).css(),
            s.mark(theme).css(),
            s.large(theme).css()
        );
    }
    out
}

/// The rules of figures with the colours of one theme in place of variables.
pub(super) fn plain(visual: &Visual, theme: Theme) -> String {
    let sheet = sheet(visual);
    let rules = sheet.find("@media").map_or(&sheet[..], |at| &sheet[..at]);
    let rules = &rules[rules.find('}').map_or(0, |at| at + 1)..];
    // What is for the page around the figure may mean nothing in a file of its own.
    let mut css: String = rules
        .split_inclusive('}')
        .filter(|r| {
            let r = r.trim_start();
            ["svg", ".s-", ".pf-", ".pm-", ".series-", ".only-dark"].iter().any(|p| r.starts_with(p))
        })
        .collect();
    for v in variables(visual, theme).split(';') {
        if let Some((name, value)) = v.split_once(':') {
            css = css.replace(&format!("var({name})"), value);
        }
    }
    css
}

/// SVG patterns of all states that have one, from the bitmaps that maps are drawn with.
pub(crate) fn patterns(visual: &Visual) -> Markup {
    html! {
        svg class="defs" xmlns="http://www.w3.org/2000/svg" width="0" height="0" aria-hidden="true" focusable="false" {
            defs {
                (pattern_list(visual))
            }
        }
    }
}

/// The patterns, one element each.
pub(super) fn pattern_list(visual: &Visual) -> Markup {
    html! { @for s in visual.legend().filter(|s| !s.pattern.is_plain()) { (pattern(s)) } }
}

fn pattern(s: &ShadeStyle) -> Markup {
    let (w, h) = s.pattern.size();
    html! {
        pattern id=(format!("p-{}", s.id)) width=(w) height=(h) patternUnits="userSpaceOnUse" {
            rect width=(w) height=(h) class=(format!("pf-{}", s.id)) {}
            path d=(marks(&s.pattern)) class=(format!("pm-{}", s.id)) shape-rendering="crispEdges" {}
        }
    }
}

/// The marks of a bitmap as an SVG path of runs of pixels.
fn marks(pattern: &Pattern) -> String {
    let (width, height) = pattern.size();
    let mut path = String::new();
    for y in 0..height {
        let mut x = 0;
        while x < width {
            let run = (x..width).take_while(|x| pattern.marks(*x, y)).count() as u32;
            if run > 0 {
                let _ = write!(path, "M{x} {y}h{run}v1h-{run}z");
            }
            x += run.max(1);
        }
    }
    path
}

/// The style element.
pub(crate) fn style(visual: &Visual) -> Markup {
    // The sheet holds nothing from a trace, so it need not be escaped.
    html! { style { (PreEscaped(sheet(visual))) } }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn svg_patterns_are_the_bitmaps() {
        let v = Visual::builtin();
        let lines = v.legend().find(|s| s.pattern.id() == "lines").expect("lines");
        assert_eq!(marks(&lines.pattern), "M0 2h1v1h-1z");
        let dots = v.legend().find(|s| s.pattern.id() == "dots").expect("dots");
        assert_eq!(marks(&dots.pattern), "M1 0h2v1h-2zM1 1h2v1h-2zM4 3h2v1h-2zM4 4h2v1h-2z");
    }
}
