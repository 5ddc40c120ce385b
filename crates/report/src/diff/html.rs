//! The comparison as one HTML file, in the style of the report. It never loads or runs anything.

use super::said::{
    LISTS, cost, counts, files, in_all, name, place, point_head, point_label, ratio, runs, side, verdict,
    where_found,
};
use crate::{html::head, words};
use maud::{DOCTYPE, Markup, html};
use mmuscope_analysis::diff::{Diff, Measure, Place, Verdict};
use mmuscope_analysis::visual::Visual;

pub(super) fn page(diff: &Diff, visual: &Visual) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            (head(&diff.generator, &format!("{} · mmuscope diff", verdict(diff)), visual))
            body {
                (header(diff))
                main {
                    (measures("In all", &in_all(diff)))
                    @for (verdict, title) in LISTS { (measures(title, &diff.of(verdict).collect::<Vec<_>>())) }
                    (findings(diff))
                    (course(diff))
                    (places("Faults by range of 2 MiB", &diff.ranges))
                    (places("Faults by frame", &diff.frames))
                    (measures("The same, or no more apart than by chance", &diff.of(Verdict::Same).collect::<Vec<_>>()))
                    section {
                        h2 { "How far to trust this" }
                        p { "Rule: " (diff.rule) "." }
                        @for n in &diff.notes { p class="note warn" { (n) "." } }
                    }
                }
                footer { div { (diff.generator) " · of several runs: the mean (the lowest to the highest); of one run: a quantile with the interval that holds it with 99 % confidence" } }
            }
        }
    };
    page.into_string()
}

fn header(diff: &Diff) -> Markup {
    html! {
        header {
            p class="over" { "mmuscope diff" }
            h1 { (verdict(diff)) }
            dl class="facts" {
                @for (letter, side) in [("A", &diff.a), ("B", &diff.b)] {
                    dt { (letter) }
                    dd {
                        (runs(side))
                        @for f in files(side) { br; span class="mu" { (f) } }
                    }
                }
                @for u in &diff.unlike {
                    dt { (u.name) }
                    dd { (u.a.join(", ")) " in A, " (u.b.join(", ")) " in B" }
                }
            }
        }
    }
}

fn measures(title: &str, list: &[&Measure]) -> Markup {
    let mut title = title.to_owned();
    title[..1].make_ascii_uppercase();
    html! {
        @if !list.is_empty() {
            section {
                h2 { (title) }
                div class="wide" { table {
                    thead { tr {
                        th scope="col" { "what" } th scope="col" class="r" { "A" } th scope="col" class="r" { "B" }
                        th scope="col" class="r" { "B / A" } th scope="col" class="r" { "B − A" } th scope="col" { "verdict" }
                    } }
                    tbody { @for m in list { tr {
                        th scope="row" { (name(m)) } td class="r" { (side(m.what, &m.a)) } td class="r" { (side(m.what, &m.b)) }
                        td class="r" { (ratio(m)) } td class="r" { (cost(m)) } td { (m.verdict.name()) }
                    } } }
                } }
            }
        }
    }
}

fn findings(diff: &Diff) -> Markup {
    html! {
        @if !diff.findings.is_empty() {
            section {
                h2 { "Findings that not all runs have" }
                div class="wide" { table {
                    thead { tr { th scope="col" { "finding" } th scope="col" { "only in" } th scope="col" { "verdict" } th scope="col" { "what was seen" } } }
                    tbody { @for f in &diff.findings { tr {
                        th scope="row" class="t" { (f.severity.name()) " " (f.id) } td class="t" { (where_found(f, diff)) }
                        td { (f.verdict.name()) } td class="w" { (words::one_line(&f.title, 400)) }
                    } } }
                } }
            }
        }
    }
}

fn places(title: &str, list: &[Place]) -> Markup {
    html! {
        @if !list.is_empty() {
            section {
                h2 { (title) }
                p { "The largest differences." }
                div class="wide" { table {
                    thead { tr { th scope="col" { "guest frames" } th scope="col" class="r" { "A" } th scope="col" class="r" { "B" } th scope="col" { "verdict" } } }
                    tbody { @for p in list { tr {
                        th scope="row" class="mono" { (place(p)) } td class="r" { (counts(&p.a)) } td class="r" { (counts(&p.b)) } td { (p.verdict.name()) }
                    } } }
                } }
            }
        }
    }
}

/// Width and height of the plot, and what is left free around it.
const PLOT: (f64, f64) = (860.0, 220.0);
const LEFT: f64 = 90.0;
const BELOW: f64 = 24.0;

/// Guest memory present over the course of both sides.
fn course(diff: &Diff) -> Markup {
    let points = &diff.course;
    let most = points.iter().flat_map(|p| p.present).max().unwrap_or(0);
    if most == 0 {
        return html! {};
    }
    let (width, height) = PLOT;
    let x = |n: usize| LEFT + (width - LEFT - 10.0) * (n as f64 + 1.0) / points.len() as f64;
    let y = |bytes: u64| 10.0 + (height - BELOW - 10.0) * (1.0 - bytes as f64 / most as f64);
    let line = |of: &dyn Fn(usize) -> u64| {
        let at = |n: usize| format!("{:.1},{:.1}", x(n), y(of(n)));
        (0..points.len()).map(at).collect::<Vec<_>>().join(" ")
    };
    let last = points.last().map_or_else(String::new, |p| point_label(diff.align, &p.label));
    html! {
        section {
            h2 { "Memory present" }
            p { "Guest memory that is mapped, each frame once: all of it (solid) and what is mapped by 2 MiB or more (dashed), " (point_head(diff.align)) "." }
            figure class="figure" {
                svg viewBox=(format!("0 0 {width} {height}")) role="img" aria-label="Guest memory present on both sides" {
                    line class="axis" x1=(LEFT) y1=(y(0)) x2=(width - 10.0) y2=(y(0)) {}
                    line class="grid" x1=(LEFT) y1=(y(most)) x2=(width - 10.0) y2=(y(most)) {}
                    text class="e u" x=(LEFT - 8.0) y=(y(0) + 4.0) { "0" }
                    text class="e u" x=(LEFT - 8.0) y=(y(most) + 4.0) { (words::bytes(most)) }
                    text class="e u" x=(width - 10.0) y=(height - 6.0) { (last) }
                    @for i in 0..2 {
                        polyline points=(line(&|n| points[n].present[i])) style=(format!("fill:none;stroke:var(--series-{i});stroke-width:2")) {}
                        polyline points=(line(&|n| points[n].huge[i])) style=(format!("fill:none;stroke:var(--series-{i});stroke-width:1.5;stroke-dasharray:5 4")) {}
                    }
                }
                ul class="legend" {
                    @for (i, side) in ["A", "B"].into_iter().enumerate() {
                        li { svg class="sw" viewBox="0 0 22 14" width="22" height="14" aria-hidden="true" { rect class=(format!("series-{i}")) y="5" width="22" height="4" {} } span { (side) } }
                    }
                }
            }
        }
    }
}
