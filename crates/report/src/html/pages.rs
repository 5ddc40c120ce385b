//! The pages with the most faults and zaps, each with its story.

use maud::{Markup, html};
use mmuscope_analysis::visual::Visual;
use mmuscope_replay::Certainty;

use super::tables::{of_vm, only};
use super::{command, swatch};
use crate::{
    model::{PageReport, Report, VmReport},
    words,
};

pub(super) fn pages(report: &Report, vm: &VmReport) -> Markup {
    let several = report.vms.len() > 1;
    if vm.top_faults.is_empty() && vm.top_zaps.is_empty() {
        return html! {};
    }
    html! {
        section id=(report.id(format_args!("pages{}", vm.vm))) {
            h2 { "Pages" (of_vm(vm, several)) }
            p { "The busiest pages. Open a line to read the life of the page." }
            (list("Most faults", "fault", "faults", &vm.top_faults))
            (list("Most zaps", "zap", "zaps", &vm.top_zaps))
            @if let Some(p) = vm.top_faults.first().or(vm.top_zaps.first()) {
                (command(report, "page", format!("{} {}", words::gfn(p.gfn), only(report, vm)).trim_end()))
            }
        }
    }
}

fn list(title: &str, one: &str, many: &str, pages: &[PageReport]) -> Markup {
    html! {
        @if !pages.is_empty() {
            h3 { (title) }
            @for p in pages { (page(p, one, many)) }
        }
    }
}

fn page(p: &PageReport, one: &str, many: &str) -> Markup {
    let visual = Visual::builtin();
    html! {
        details class="page" {
            summary {
                span class="n" { span class="mono" { (words::gfn(p.gfn)) } " " span class="fa" { (words::level_size(p.level)) @if p.as_id != 0 { " " (words::space_name(p.as_id)) } } }
                span class="n" { (words::counted(p.count, one, many)) }
                span { (p.headline) }
                span class="when" {
                    @if p.last > p.first { (words::moments(&[p.first, p.last]).join(" – ")) } @else { (words::at(p.first)) }
                }
            }
            @if !p.story.is_empty() {
                @let times = words::moments(&p.story.iter().map(|l| l.ts).collect::<Vec<_>>());
                ol {
                    @for (i, l) in p.story.iter().enumerate() {
                        @if p.omitted > 0 && i as u64 == p.omitted_after {
                            li { time {} span {} span {} span class="mu" { "… " (words::counted(p.omitted, "more line", "more lines")) " …" } }
                        }
                        li {
                            time { (times[i]) }
                            @match l.shade { Some(s) => (small(visual, s)), None => span {} }
                            span class="who" { (words::one_line(&l.who, 60)) }
                            span {
                                (words::one_line(&l.text, 400))
                                @if let Some(c) = l.certainty.filter(|c| *c > Certainty::Observed) { " " span class=(format!("prov {}", c.name())) { (c.name()) } }
                            }
                        }
                    }
                }
            }
            @for n in &p.notes { p { (n) } }
        }
    }
}

fn small(visual: &Visual, shade: mmuscope_replay::Shade) -> Markup {
    let s = visual.shade_style(shade);
    html! { span title=(s.name) { (swatch(s)) } }
}
