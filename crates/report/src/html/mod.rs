//! [`page`]: the report as one HTML file, which never loads or runs anything.

mod figure;
mod findings;
mod notes;
mod pages;
mod recording;
mod style;
mod tables;

use maud::{DOCTYPE, Markup, html};
use mmuscope_analysis::visual::{ShadeStyle, Visual};

use crate::{
    model::{MapPicture, Report, SpaceReport, VmReport},
    story::tiles,
    svg::overview::overview,
    verdict, words,
};

pub(crate) use figure::file as figure;

/// Writes the page.
pub(crate) fn page(report: &Report, visual: &Visual) -> String {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            (head(&report.generator, &format!("{} · mmuscope", words::one_line(&report.title, 160)), visual))
            body {
                (style::patterns(visual))
                (header(report))
                (contents(report))
                main { (body(report, visual)) }
                (footer(&report.generator))
            }
        }
    };
    page.into_string()
}

/// Writes a page of several reports: a table that puts them side by side, then each with its sections.
pub(crate) fn several(reports: &mut [Report], visual: &Visual) -> String {
    for (n, r) in reports.iter_mut().enumerate() {
        r.anchor = format!("t{}-", n + 1);
    }
    let names = crate::several::names(reports);
    let title = words::counted(reports.len() as u64, "trace", "traces");
    let generator = reports.first().map_or("mmuscope", |r| r.generator.as_str());
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            (head(generator, &format!("{title} · mmuscope"), visual))
            body {
                (style::patterns(visual))
                header {
                    p class="over" { "mmuscope report" }
                    h1 { (title) }
                    div class="wide" { table {
                        caption { b { "Side by side" } ": whether a difference is more than chance, " code { "mmuscope diff" } " says" }
                        thead { tr {
                            th scope="col" {}
                            @for (r, name) in reports.iter().zip(&names) { th scope="col" class="r" { a href=(format!("#{}", r.id("top"))) { (name) } } }
                        } }
                        tbody { @for (name, values) in crate::several::rows(reports) { tr {
                            th scope="row" { (name) } @for v in values { td class="r" { (v) } }
                        } } }
                    } }
                }
                main { @for (r, name) in reports.iter().zip(&names) {
                    article id=(r.id("top")) aria-label=(name) { (header(r)) (contents(r)) (body(r, visual)) }
                } }
                (footer(generator))
            }
        }
    };
    page.into_string()
}

/// The list of a report's sections.
fn contents(report: &Report) -> Markup {
    html! {
        nav aria-label="Contents" {
            ul { @for (id, name) in sections(report) { li { a href=(format!("#{}", report.id(id))) { (name) } } } }
        }
    }
}

/// The sections of a report.
fn body(report: &Report, visual: &Visual) -> Markup {
    html! {
        (notes::section(report))
        (findings::section(report))
        @if report.vms.is_empty() { (nothing(report)) }
        @for vm in &report.vms { (vm_section(report, vm, visual, report.vms.len() > 1)) }
        (tables::phases(report))
        @for vm in &report.vms {
            (tables::faults(report, vm))
            (tables::counted(report, vm))
            (pages::pages(report, vm))
            (tables::memory(report, vm))
        }
        (recording::integrity(report))
        (recording::recording(report))
        (tables::events(report))
    }
}

fn footer(generator: &str) -> Markup {
    html! {
        footer {
            div {
                (generator) " · times are since the first event; sizes are binary (1 MiB = 1,048,576 bytes); frames are guest frames of 4 KiB. "
                "“Unknown” means that no event has shown an entry yet, which is not the same as nonpresent."
            }
        }
    }
}

/// The head of a page that never loads or runs anything.
pub(crate) fn head(generator: &str, title: &str, visual: &Visual) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="generator" content=(generator);
            meta name="color-scheme" content="light dark";
            // The policy forbids loading and running anything, whatever a name in a trace looks like.
            meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'";
            title { (title) }
            (style::style(visual))
        }
    }
}

fn sections(report: &Report) -> Vec<(String, String)> {
    let several = report.vms.len() > 1;
    let named = |what: &str, vm: &VmReport| {
        if several { format!("{what}: {}", words::one_line(&vm.label(true), 32)) } else { what.to_owned() }
    };
    let mut out: Vec<(String, String)> = Vec::new();
    if !report.notes.is_empty() {
        out.push(("notes".into(), "Notes".into()));
    }
    if !report.stands_out.is_empty() {
        out.push(("findings".into(), "Findings".into()));
    }
    for vm in &report.vms {
        out.push((format!("vm{}", vm.vm), named("Memory over time", vm)));
    }
    if !report.phases.is_empty() {
        out.push(("phases".into(), "Phases".into()));
    }
    for vm in &report.vms {
        if vm.faults.total > 0 {
            out.push((format!("faults{}", vm.vm), named("Faults", vm)));
        }
        if !vm.counted.is_empty() {
            out.push((format!("causes{}", vm.vm), named("By cause", vm)));
        }
        if !vm.top_faults.is_empty() || !vm.top_zaps.is_empty() {
            out.push((format!("pages{}", vm.vm), named("Pages", vm)));
        }
        if tables::has_memory(vm) {
            out.push((format!("memory{}", vm.vm), named("MMIO and memory", vm)));
        }
    }
    out.push(("integrity".into(), "How far to trust this".into()));
    out.push(("recording".into(), "Recording and layout".into()));
    if !report.events.is_empty() {
        out.push(("events".into(), "Events".into()));
    }
    out
}

fn header(report: &Report) -> Markup {
    let r = &report.recording;
    let files: Vec<String> = r.files.iter().map(|f| words::one_line(&f.path, 160)).collect();
    html! {
        header {
            p class="over" { "mmuscope report" }
            h1 { (words::one_line(&report.title, 160)) }
            p class="sub" {
                @if files.is_empty() { (r.format) } @else { (words::list(&files)) }
                @if let Some(p) = &report.part { " · " strong { "part of the trace: " (p.text) } " · " (words::counted(p.events, "event", "events")) " of " (words::count(r.events)) }
                @else {
                    @if r.duration > 0 { " · " (words::duration(r.duration)) }
                    " · " (words::counted(r.events, "event", "events"))
                }
            }
            ul class="badges" {
                @for (class, text) in verdict::verdicts(report) { li class=(format!("badge {class}")) { (text) } }
            }
            (findings::first(report))
            div class="story" { @for p in &report.story { p { (p) } } }
            @let tiles = tiles(report);
            @if !tiles.is_empty() {
                dl class="tiles" {
                    @for t in tiles {
                        div class="tile" {
                            dt { (t.name) }
                            dd { (t.value) }
                            @if !t.more.is_empty() { dd class="sub2" { (t.more) } }
                        }
                    }
                }
            }
        }
    }
}

fn nothing(report: &Report) -> Markup {
    html! {
        section {
            h2 { "Nothing to draw" }
            p {
                @if report.event_count() == 0 { "The trace holds no events." }
                @else { "The trace holds " (words::counted(report.event_count(), "event", "events")) ", but none that names a VM, a vCPU or a page-table entry." }
                " Were the tracepoints of the groups " code { "kvmmmu" } " and " code { "kvm" } " enabled while a guest ran?"
            }
        }
    }
}

fn vm_section(report: &Report, vm: &VmReport, visual: &Visual, several: bool) -> Markup {
    html! {
        section id=(report.id(format_args!("vm{}", vm.vm))) {
            h2 {
                "Memory over time"
                @if several { small { (vm.label(true)) @if let Some(pid) = vm.pid { " · pid " (pid) } } }
            }
            p {
                "Time runs left to right, guest frames bottom to top. Stretches of the guest's address space in which nothing happened are folded. "
                "All plots share one time axis."
            }
            @if vm.spaces.is_empty() {
                p class="note" { "No event shows a page-table entry of this VM." }
            }
            @for space in &vm.spaces {
                @if vm.spaces.len() > 1 || space.as_id != 0 {
                    h3 { (words::space_name(space.as_id)) small { "as_id " (space.as_id) } }
                }
                figure class="figure" {
                    (overview(report, vm, space, &report.id(format_args!("map{}-{}", vm.vm, space.as_id))))
                    @if let Some(map) = &space.map { (legend(visual, map, !report.lost.is_empty())) }
                    figcaption { (caption(space)) }
                    (command(report, "view", ""))
                }
            }
        }
    }
}

/// The command that gives the numbers of a section: `mmuscope NAME FILES MORE`.
fn command(report: &Report, name: &str, more: &str) -> Markup {
    let mut line = format!("mmuscope {name}");
    for f in &report.recording.files {
        line.push(' ');
        line.push_str(&mmuscope_units::shell_word(&words::one_line(&f.path, 160)));
    }
    let part = report.part.as_ref().map(|p| p.options_of(name)).unwrap_or_default();
    for options in [more, &part].into_iter().filter(|o| !o.is_empty()) {
        line.push(' ');
        line.push_str(options);
    }
    html! { p class="cmd" { "The same on the command line: " code { (line) } } }
}

fn caption(space: &SpaceReport) -> String {
    let mut s = String::new();
    if let Some(map) = &space.map {
        s = format!(
            "A column of the map is {} wide, so what one pixel shows can stand for several entries and changes (up to {} entries here); \
             a rare state is shown at the expense of a common one, never the other way round.",
            words::duration(map.column),
            words::count(u64::from(map.merged))
        );
        if map.stale {
            s.push_str(" What is faded may have changed without an event.");
        }
        if map.assumed {
            s.push_str(" A dashed edge marks what follows from a rule rather than from an event of its own.");
        }
    }
    s
}

fn legend(visual: &Visual, map: &MapPicture, lost: bool) -> Markup {
    // The background states are always explained, because they are easily mistaken for each other.
    let shown: Vec<&ShadeStyle> = visual
        .legend()
        .filter(|s| {
            map.shades.contains(&s.shade)
                || matches!(s.shade, mmuscope_replay::Shade::Nonpresent | mmuscope_replay::Shade::Unknown)
        })
        .collect();
    html! {
        ul class="legend" aria-label="Legend" {
            @for s in shown {
                li title=(s.about) { (swatch(s)) span { (s.name) } }
                @if s.shade == mmuscope_replay::Shade::Writable && map.large {
                    li title="a leaf of 2 MiB or 1 GiB" {
                        svg class="sw" viewBox="0 0 22 14" width="22" height="14" aria-hidden="true" {
                            rect x="0.5" y="0.5" width="21" height="13" style="fill:var(--writable-large);stroke:var(--edge)" {}
                        }
                        span { "2 MiB and larger: darker, with an edge line" }
                    }
                }
            }
            @if map.stale {
                li { svg class="sw" viewBox="0 0 22 14" width="22" height="14" aria-hidden="true" {
                    rect class="s-writable" width="11" height="14" {}
                    rect class="s-writable" x="11" width="11" height="14" fill-opacity=(visual.overlay.stale_opacity) {}
                } span { "faded: stale" } }
            }
            @if map.assumed {
                li { svg class="sw" viewBox="0 0 22 14" width="22" height="14" aria-hidden="true" {
                    rect x="0.5" y="0.5" width="21" height="13" style="fill:none;stroke:var(--ink);stroke-dasharray:3 3" {}
                } span { "dashed edge: assumed or implied" } }
            }
            @if lost {
                li { svg class="sw" viewBox="0 0 22 14" width="22" height="14" aria-hidden="true" { rect class="lost" x="6" width="10" height="14" {} }
                    span { "events were lost" } }
            }
        }
    }
}

/// A patch in the colour and pattern of a state.
pub(crate) fn swatch(s: &ShadeStyle) -> Markup {
    html! {
        svg class="sw" viewBox="0 0 22 14" width="22" height="14" aria-hidden="true" {
            rect x="0.5" y="0.5" width="21" height="13" class=(format!("key s-{}", s.id)) {}
        }
    }
}

#[cfg(test)]
mod tests {
    use mmuscope_analysis::visual::{Theme, Visual};

    #[test]
    fn links_are_legible() {
        let v = Visual::builtin();
        for theme in [Theme::Light, Theme::Dark] {
            assert!(v.theme(theme).accent.contrast(v.theme(theme).page) >= 4.5, "{theme}");
        }
    }
}
