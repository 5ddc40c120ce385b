//! The comparison for a terminal.

use super::said::{
    LISTS, cost, counts, files, in_all, name, place, point_head, point_label, ratio, runs, side, verdict,
    where_found,
};
use crate::words;
use mmuscope_analysis::diff::{Align, Diff, Measure, Place, Verdict};
use std::fmt::Write as _;

/// Most rows of a list that is not of changes.
const SHOWN: usize = 10;
/// Points of the course that are printed: every so many.
const EVERY: usize = 8;

pub(super) fn document(diff: &Diff, all: bool) -> String {
    let mut out = String::new();
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{}", verdict(diff));
    for (letter, side) in [("A", &diff.a), ("B", &diff.b)] {
        let _ = writeln!(out, "{letter}  {}", runs(side));
        for f in files(side) {
            let _ = writeln!(out, "   {f}");
        }
    }
    for u in &diff.unlike {
        let _ = writeln!(out, "   {}: {} in A, {} in B", u.name, u.a.join(", "), u.b.join(", "));
    }
    let total: Vec<Vec<String>> = in_all(diff).into_iter().map(|m| row(m, true)).collect();
    list(&mut out, "in all", ["A", "B", "B / A"], &total, usize::MAX);
    for (verdict, title) in LISTS {
        let rows: Vec<Vec<String>> = diff.of(verdict).map(|m| row(m, false)).collect();
        let limit = if all || verdict == Verdict::Change { usize::MAX } else { SHOWN };
        list(&mut out, title, ["A", "B", "B / A"], &rows, limit);
    }
    let same: Vec<Vec<String>> = diff.of(Verdict::Same).map(|m| row(m, false)).collect();
    if all {
        list(&mut out, "the same, or no more apart than by chance", ["A", "B", "B / A"], &same, usize::MAX);
    }
    for (title, places) in [("faults by range", &diff.ranges), ("faults by frame", &diff.frames)] {
        let of = |p: &&Place| all || p.verdict == Verdict::Change;
        let rows: Vec<Vec<String>> = places
            .iter()
            .filter(of)
            .map(|p| vec![place(p), counts(&p.a), counts(&p.b), p.verdict.name().to_owned()])
            .collect();
        list(&mut out, title, ["A", "B", "verdict"], &rows, SHOWN);
    }
    if !diff.findings.is_empty() {
        let _ = writeln!(out, "\nfindings that not all runs have");
        for f in &diff.findings {
            let _ = writeln!(
                out,
                "  {:<7}  {}  only in {} ({}): {}",
                f.severity.name(),
                f.id,
                where_found(f, diff),
                f.verdict.name(),
                words::one_line(&f.title, 400)
            );
        }
    }
    course(&mut out, diff, all);
    let _ = writeln!(
        out,
        "\n{}{}\nrule: {}",
        unchanged(same.len() as u64),
        if all { "" } else { " (--all lists them)" },
        diff.rule
    );
    for n in &diff.notes {
        let _ = writeln!(out, "note: {n}");
    }
    out
}

fn unchanged(n: u64) -> String {
    format!("{} the same, or no more apart than by chance", words::counted(n, "number is", "numbers are"))
}

/// Name, both sides, and how they compare.
fn row(m: &Measure, said: bool) -> Vec<String> {
    let mut last = ratio(m);
    let cost = cost(m);
    if !cost.is_empty() {
        last = format!("{last} ({cost})");
    }
    if said {
        last = format!("{last}  {}", m.verdict.name());
    }
    vec![name(m), side(m.what, &m.a), side(m.what, &m.b), last]
}

/// A heading and aligned rows; nothing where there are none.
fn list(out: &mut String, title: &str, heads: [&str; 3], rows: &[Vec<String>], limit: usize) {
    if rows.is_empty() {
        return;
    }
    let shown = &rows[..rows.len().min(limit)];
    let heads = ["", heads[0], heads[1], heads[2]].map(str::to_owned).to_vec();
    let width = |n: usize| shown.iter().chain([&heads]).map(|r| r[n].chars().count()).max().unwrap_or(0);
    let [first, b, c] = [0, 1, 2].map(width);
    // The heads of the columns stand on the line of the title where there is room.
    let beside = title.chars().count() <= first + 2;
    let line = |indent: usize, name: &str, r: &[String]| {
        let first = first + 2 - indent;
        let text = format!("{:indent$}{name:<first$}  {:>b$}  {:>c$}  {}", "", r[1], r[2], r[3]);
        text.trim_end().to_owned()
    };
    let head = if beside { line(0, title, &heads) } else { format!("{title}\n{}", line(0, "", &heads)) };
    let _ = writeln!(out, "\n{head}");
    for r in shown {
        let _ = writeln!(out, "{}", line(2, &r[0], r));
    }
    if rows.len() > limit {
        let _ = writeln!(out, "  and {} more (--all)", words::count((rows.len() - limit) as u64));
    }
}

fn course(out: &mut String, diff: &Diff, all: bool) {
    let every = if all || diff.align == Align::Marker { 1 } else { EVERY };
    let rows: Vec<Vec<String>> = diff
        .course
        .iter()
        .enumerate()
        .filter(|(n, _)| (n + 1) % every == 0 || n + 1 == diff.course.len())
        .map(|(_, p)| {
            let of = |i: usize| {
                format!(
                    "{} ({} huge), {} faults, {}",
                    words::bytes(p.present[i]),
                    words::bytes(p.huge[i]),
                    words::count(p.faults[i]),
                    words::duration(p.at[i])
                )
            };
            vec![point_label(diff.align, &p.label), of(0), of(1), String::new()]
        })
        .collect();
    let title = format!("memory present {}", point_head(diff.align));
    list(out, &title, ["A", "B", ""], &rows, usize::MAX);
}
