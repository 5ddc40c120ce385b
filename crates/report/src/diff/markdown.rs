//! The comparison as Markdown.

use super::said::{
    LISTS, cost, counts, files, in_all, name, place, point_head, point_label, ratio, runs, side, verdict,
    where_found,
};
use crate::{markdown::escape, words};
use mmuscope_analysis::diff::{Diff, Measure, Verdict};
use std::fmt::Write as _;

pub(super) fn document(diff: &Diff) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "# {}\n", verdict(diff));
    let _ = writeln!(out, "| side | runs | files |\n| --- | --- | --- |");
    for (letter, side) in [("A", &diff.a), ("B", &diff.b)] {
        let files: Vec<String> = files(side).iter().map(|f| escape(f)).collect();
        let _ = writeln!(out, "| {letter} | {} | {} |", escape(&runs(side)), files.join(", "));
    }
    out.push('\n');
    for u in &diff.unlike {
        let _ = writeln!(
            out,
            "- {}: {} in A, {} in B",
            escape(&u.name),
            escape(&u.a.join(", ")),
            escape(&u.b.join(", "))
        );
    }
    measures(&mut out, "In all", &in_all(diff));
    for (verdict, title) in LISTS {
        measures(&mut out, title, &diff.of(verdict).collect::<Vec<_>>());
    }
    for (title, places) in [("Faults by range", &diff.ranges), ("Faults by frame", &diff.frames)] {
        if !places.is_empty() {
            let _ =
                writeln!(out, "\n## {title}\n\n| frames | A | B | verdict |\n| --- | ---: | ---: | --- |");
        }
        for p in places {
            let _ = writeln!(
                out,
                "| {} | {} | {} | {} |",
                place(p),
                counts(&p.a),
                counts(&p.b),
                p.verdict.name()
            );
        }
    }
    if !diff.findings.is_empty() {
        let _ = writeln!(
            out,
            "\n## Findings that not all runs have\n\n| finding | in | verdict | |\n| --- | --- | --- | --- |"
        );
    }
    for f in &diff.findings {
        let title = escape(&words::one_line(&f.title, 400));
        let _ = writeln!(
            out,
            "| {} {} | {} | {} | {title} |",
            f.severity.name(),
            f.id,
            where_found(f, diff),
            f.verdict.name()
        );
    }
    if !diff.course.is_empty() {
        let head = point_head(diff.align);
        let _ = writeln!(
            out,
            "\n## Memory present\n\n| {head} | A | of it huge | B | of it huge |\n| --- | ---: | ---: | ---: | ---: |"
        );
    }
    for p in &diff.course {
        let label = escape(&point_label(diff.align, &p.label));
        let [a, b] = p.present.map(words::bytes);
        let [x, y] = p.huge.map(words::bytes);
        let _ = writeln!(out, "| {label} | {a} | {x} | {b} | {y} |");
    }
    measures(
        &mut out,
        "The same, or no more apart than by chance",
        &diff.of(Verdict::Same).collect::<Vec<_>>(),
    );
    let _ = writeln!(out, "\nRule: {}.", diff.rule);
    for n in &diff.notes {
        let _ = writeln!(out, "\nNote: {}.", escape(n));
    }
    out
}

fn measures(out: &mut String, title: &str, list: &[&Measure]) {
    if list.is_empty() {
        return;
    }
    let mut title = title.to_owned();
    title[..1].make_ascii_uppercase();
    let _ = writeln!(
        out,
        "\n## {title}\n\n| | A | B | B / A | | verdict |\n| --- | ---: | ---: | ---: | ---: | --- |"
    );
    for m in list {
        let (a, b) = (side(m.what, &m.a), side(m.what, &m.b));
        let _ = writeln!(
            out,
            "| {} | {a} | {b} | {} | {} | {} |",
            escape(&name(m)),
            ratio(m),
            cost(m),
            m.verdict.name()
        );
    }
}
