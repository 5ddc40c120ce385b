//! The findings: the first three in the head of the page, and all of them, with what they rest on, as its first section.

use maud::{Markup, html};
use mmuscope_analysis::findings::{Finding, Severity};

use super::command;
use crate::{model::Report, words};

/// Most findings that the head of the page names.
const FIRST: usize = 3;

/// The weightiest findings, each with a link to its entry in the section.
pub(super) fn first(report: &Report) -> Markup {
    let all = &report.stands_out;
    html! {
        @if !all.is_empty() {
            ul class="standout" {
                @for (n, f) in all.iter().enumerate().take(FIRST) {
                    li { strong { (name(f)) ": " } (f.title) " " a href=(format!("#{}", report.id(format_args!("finding{n}")))) { "why, and what to do" } }
                }
                @if all.len() > FIRST {
                    li { a href=(format!("#{}", report.id("findings"))) { (words::counted((all.len() - FIRST) as u64, "more finding", "more findings")) } }
                }
            }
        }
    }
}

/// All findings.
pub(super) fn section(report: &Report) -> Markup {
    html! {
        @if !report.stands_out.is_empty() {
            section id=(report.id("findings")) {
                h2 { "Findings" }
                p {
                    "The most severe first, and of equal severity those that cost most. "
                    "Each is marked in the figure below by its number. Numbers of events are those of " code { "mmuscope events" } "."
                }
                @for (n, f) in report.stands_out.iter().enumerate() { (one(report, n, f)) }
                (command(report, "check", ""))
            }
        }
    }
}

fn name(f: &Finding) -> String {
    let mut severity = f.severity.name().to_owned();
    if let Some(first) = severity.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    severity
}

fn one(report: &Report, n: usize, f: &Finding) -> Markup {
    // What only helps to read the trace is folded. Browsers unfold it for a link, whose target is in the folded part for that.
    html! {
        details class="finding" open[f.severity > Severity::Info] {
            summary {
                h3 { span class="no" { (n + 1) } " " (name(f)) ": " (f.id) }
                p { (f.title) "." @if let Some((id, what)) = place(report, f) { " " a href=(format!("#{id}")) { (what) } } }
            }
            p class="sub2" id=(report.id(format_args!("finding{n}"))) { (words::when(f.count, f.first, f.last)) " " (words::events(&f.events)) }
            dl {
                dt { "Why" } dd { (prose(&f.why)) "." }
                dt { "What to do" } dd { (prose(&f.remedy)) "." }
                dt { "How sure the cause is" } dd { (f.sure.name()) "; refuted if " (prose(f.refuted)) "." }
            }
        }
    }
}

/// A text of a rule, in which what stands between backquotes is code.
fn prose(text: &str) -> Markup {
    html! {
        @for (i, part) in text.split('`').enumerate() {
            @if i % 2 == 0 { (part) } @else { code { (part) } }
        }
    }
}

/// Where the report shows more of what a finding is about: the section, and what its link says.
fn place(report: &Report, f: &Finding) -> Option<(String, &'static str)> {
    let vm = report.vms.iter().find(|v| Some(v.vm) == f.vm)?;
    let (id, what) = match f.id {
        id if id.contains("mmio") => ("memory", "MMIO and memory"),
        id if id.starts_with("fault") || id.starts_with("retry") || f.cost.is_some() && f.gfn.is_some() => {
            ("faults", "the faults")
        }
        "map-zap" | "shared-page-first" => ("pages", "the pages"),
        _ => ("vm", "memory over time"),
    };
    let there = match id {
        "memory" => super::tables::has_memory(vm),
        "faults" => vm.faults.total > 0,
        "pages" => !vm.top_faults.is_empty() || !vm.top_zaps.is_empty(),
        _ => true,
    };
    there.then(|| (report.id(format_args!("{id}{}", vm.vm)), what))
}
