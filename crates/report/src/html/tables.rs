//! The tables of the page: phases, faults, MMIO and memory, events.

use maud::{Markup, html};
use mmuscope_analysis::visual::Visual;

use super::{command, swatch};
use crate::{
    model::{FaultClass, Latency, Report, SpaceReport, VmReport},
    svg::histogram::{histogram, outcome_class},
    words,
};

/// Most rows of a table; the last row then says how many are left out.
const ROWS: usize = 40;

pub(super) fn of_vm(vm: &VmReport, several: bool) -> Markup {
    html! { @if several { small { (vm.label(true)) @if let Some(pid) = vm.pid { " · pid " (pid) } } } }
}

/// The option that keeps to one VM, where there are several.
pub(super) fn only(report: &Report, vm: &VmReport) -> String {
    if report.vms.len() > 1 { format!("--vm {}", vm.vm) } else { String::new() }
}

pub(super) fn phases(report: &Report) -> Markup {
    if report.phases.is_empty() {
        return html! {};
    }
    html! {
        section id=(report.id("phases")) {
            h2 { "Phases" }
            p { "What was written to trace_marker while recording. A phase lasts until the next one of the same process begins." }
            @for (of, phases) in report.phase_lists() {
            @let timed = phases.iter().any(|p| p.fault_time.is_some());
            @let protected = phases.iter().any(|p| p.write_protected + p.made_writable > 0);
            div class="wide" { table {
                caption { b { "Phases of the workload" @if !of.is_empty() { ": " (words::one_line(&of, 80)) } } ", in time order" }
                thead { tr {
                    th scope="col" { "phase" }
                    th scope="col" class="r" { "begins" } th scope="col" class="r" { "lasts" }
                    th scope="col" class="r" { "faults" }
                    @if timed { th scope="col" class="r" { "time in faults" } }
                    th scope="col" class="r" { "leaves installed" } th scope="col" class="r" { "leaves zapped" }
                    @if protected { th scope="col" class="r" { "made read-only" } th scope="col" class="r" { "made writable" } }
                    th scope="col" class="r" { "present at its end" }
                } }
                tbody {
                    @let begins = words::moments(&phases.iter().map(|p| p.start).collect::<Vec<_>>());
                    @for (p, begins) in phases.iter().zip(begins).take(ROWS * 5) { tr {
                        th scope="row" { (words::one_line(&p.text, 120)) }
                        td class="r" { (begins) } td class="r" { (words::duration(p.end.saturating_sub(p.start))) }
                        td class="r" { (number(p.faults)) }
                        @if timed { td class="r" { (time(p.fault_time.filter(|t| *t > 0))) } }
                        td class="r" { (number(p.installs)) } td class="r" { (number(p.zaps)) }
                        @if protected { td class="r" { (number(p.write_protected)) } td class="r" { (number(p.made_writable)) } }
                        td class="r" { @match p.present_bytes { Some(b) => (words::bytes(b)), None => span class="fa" { "–" } } }
                    } }
                    (more(phases.len(), ROWS * 5, 7 + usize::from(timed) + 2 * usize::from(protected), "phase", "phases"))
                }
            } }
            }
        }
    }
}

pub(super) fn faults(report: &Report, vm: &VmReport) -> Markup {
    let several = report.vms.len() > 1;
    let f = &vm.faults;
    if f.total == 0 {
        return html! {};
    }
    html! {
        section id=(report.id(format_args!("faults{}", vm.vm))) {
            h2 { "Faults" (of_vm(vm, several)) }
            p {
                (words::counted(f.total, "fault", "faults")) " on " (words::counted(f.frames, "frame", "frames"))
                @if f.timed { ". A fault's time runs from the exit (or the fault itself, where exits were not recorded) to the next entry into the guest"
                @if f.latency.measured < f.total { "; it is known for " (words::count(f.latency.measured)) " of them" } }
                "."
            }
            @if !f.timed { p class="note" { "How long faults took is not known: entries into the guest (" code { "kvm_entry" } ") were not recorded." } }
            div class="wide" { (classes("How they ended", "outcome", &f.outcomes, &f.latency, f.total, true)) }
            @if let Some(chart) = histogram(f, &report.id(format_args!("hist{}", vm.vm))) {
                figure class="figure" {
                    (chart)
                    figcaption { "How long faults took, stacked in the order and colours of the table above. Each bar is 19 % wider in time than the one before it; point at one for its numbers." }
                }
            }
            div class="cols" {
                div { div class="wide" { (classes("What they were for", "access", &f.accesses, &f.latency, f.total, false)) } }
                div { div class="wide" { (vcpus(vm)) } }
            }
            (command(report, "faults", &only(report, vm)))
        }
    }
}

fn classes(title: &str, head: &str, rows: &[FaultClass], all: &Latency, total: u64, keys: bool) -> Markup {
    let timed = rows.iter().any(|r| r.latency.measured > 0);
    html! {
        table {
            caption { b { (title) } }
            thead { tr {
                th scope="col" { (head) } th scope="col" class="r" { "faults" } th scope="col" class="r" { "share" }
                @if timed {
                    th scope="col" class="r" { "median" }
                    @if keys { th scope="col" class="r" { "90 %" } }
                    th scope="col" class="r" { "99 %" } th scope="col" class="r" { "longest" }
                    @if keys { th scope="col" class="r" { "all together" } }
                }
                @if keys { th scope="col" { "meaning" } }
            } }
            tbody {
                @for (i, r) in rows.iter().enumerate() { tr {
                    th scope="row" class="t" {
                        @if keys { svg class="sw" viewBox="0 0 22 14" width="16" height="10" aria-hidden="true" { rect width="22" height="14" rx="2" class=(outcome_class(i)) {} } " " }
                        (r.name)
                    }
                    td class="r" { (number(r.count)) } td class="r" { (words::percent(r.count, total)) }
                    @if timed { (latency(&r.latency, keys)) }
                    @if keys { td class="mu" { (r.about) } }
                } }
                @if rows.len() > 1 { tr class="sum" {
                    th scope="row" { "all" } td class="r" { (number(total)) } td class="r" {}
                    @if timed { (latency(all, keys)) }
                    @if keys { td {} }
                } }
            }
        }
    }
}

fn latency(l: &Latency, full: bool) -> Markup {
    html! {
        td class="r" { (time(l.p50)) }
        @if full { td class="r" { (time(l.p90)) } }
        td class="r" { (time(l.p99)) } td class="r" { (time(l.max)) }
        @if full { td class="r" { (time((l.measured > 0).then_some(l.total))) } }
    }
}

fn vcpus(vm: &VmReport) -> Markup {
    html! {
        table {
            caption { b { "Who faulted" } ": " (vm.provenance) }
            thead { tr {
                th scope="col" { "vCPU" } th scope="col" { "thread" } th scope="col" class="r" { "faults" }
                @if vm.faults.timed { th scope="col" class="r" { "median" } th scope="col" class="r" { "99 %" } th scope="col" class="r" { "all together" } }
            } }
            tbody {
                @for v in vm.vcpus.iter().take(ROWS) { tr {
                    th scope="row" { @match v.vcpu { Some(n) => (n), None => span class="fa" { "?" } } }
                    td class="w" { (words::one_line(&v.name, 40)) " " span class="fa" { (v.tid) } }
                    td class="r" { (number(v.faults)) }
                    @if vm.faults.timed {
                        td class="r" { (time(v.p50)) } td class="r" { (time(v.p99)) } td class="r" { (time(v.p50.map(|_| v.total))) }
                    }
                } }
                (more(vm.vcpus.len(), ROWS, 6, "vCPU", "vCPUs"))
            }
        }
    }
}

/// Exits, zaps and huge pages by cause.
pub(super) fn counted(report: &Report, vm: &VmReport) -> Markup {
    if vm.counted.is_empty() {
        return html! {};
    }
    html! {
        section id=(report.id(format_args!("causes{}", vm.vm))) {
            h2 { "Exits, zaps and huge pages by cause" (of_vm(vm, report.vms.len() > 1)) }
            (crate::counted::tables(&vm.counted))
            (command(report, "stat", &only(report, vm)))
        }
    }
}

pub(super) fn has_memory(vm: &VmReport) -> bool {
    !vm.mmio.is_empty() || vm.spaces.iter().any(|s| !s.memory.is_empty() || !s.slots.is_empty())
}

pub(super) fn memory(report: &Report, vm: &VmReport) -> Markup {
    let several = report.vms.len() > 1;
    if !has_memory(vm) {
        return html! {};
    }
    html! {
        section id=(report.id(format_args!("memory{}", vm.vm))) {
            h2 { "MMIO and memory" (of_vm(vm, several)) }
            @if !vm.mmio.is_empty() { div class="wide" { (mmio(vm)) } }
            @for s in vm.spaces.iter().filter(|s| !s.slots.is_empty()) { div class="wide" { (crate::slots::table(&s.slots, vm.outside_slots.as_ref())) } }
            @for s in vm.spaces.iter().filter(|s| !s.memory.is_empty()) {
                @if s.as_id != 0 { h3 { (words::space_name(s.as_id)) } }
                div class="wide" { (ranges(s)) }
            }
            (command(report, "memory", &only(report, vm)))
        }
    }
}

fn mmio(vm: &VmReport) -> Markup {
    let most = vm.mmio.iter().filter_map(|m| m.accesses).max().unwrap_or(1).max(1);
    let part = |n: Option<u64>| n.unwrap_or(0) as f64 * 100.0 / most as f64;
    html! {
        table {
            caption { b { "MMIO" } ": where accesses were emulated" @if vm.mmio.iter().any(|m| m.accesses.is_none()) { " (kvm_mmio was not recorded, so how many is not known)" } ". What usually lies there is a guess from the address alone." }
            thead { tr {
                th scope="col" { "frames" } th scope="col" { "address" } th scope="col" class="r" { "size" } th scope="col" { "usually" }
                th scope="col" class="r" { "accesses" } th scope="col" { span class="fa" { "of the busiest" } }
                th scope="col" class="r" { "MMIO faults" } th scope="col" class="r" { "SPTEs installed" } th scope="col" class="r" { "first" } th scope="col" class="r" { "last" }
                th scope="col" class="r" { "generation" }
            } }
            tbody {
                @for m in vm.mmio.iter().take(ROWS) { tr {
                    td class="t mono" { (m.frames.text()) } td class="t mono" { (words::gpa(m.frames.gfn_start)) } td class="r" { (words::bytes(m.frames.bytes)) }
                    td { (m.usually.as_deref().unwrap_or("")) }
                    td class="r" { @match m.accesses { Some(n) => (number(n)), None => span class="fa" { "–" } } }
                    td class="barcell" { span class="bar" style=(format!("width:{:.1}%", part(m.accesses))) {} }
                    td class="r" { (number(m.faults)) }
                    td class="r" { (number(m.installs)) } @for t in words::moments(&[m.first, m.last]) { td class="r" { (t) } }
                    td class="r" { @match m.generations { Some((a, b)) if a == b => (a), Some((a, b)) => { (a) "–" (b) }, None => span class="fa" { "–" } } }
                } }
                (more(vm.mmio.len(), ROWS, 11, "range", "ranges"))
            }
        }
    }
}

fn ranges(space: &SpaceReport) -> Markup {
    let visual = Visual::builtin();
    let memory = &space.memory;
    let slots = memory.iter().any(|m| m.slot.is_some());
    html! {
        table {
            caption {
                @match space.memory_at {
                    None => { b { "Guest frames at the end of the trace" } ", as ranges of the same state." }
                    Some(t) => { b { "Guest frames at " (words::at(t)) } ", when most memory was present (at the end, none is), as ranges of the same state." }
                }
                @if slots { " Memslots are a guess: MMIO and long untouched stretches separate them." }
            }
            thead { tr {
                th scope="col" { "frames" } th scope="col" { "address" } th scope="col" class="r" { "size" } th scope="col" { "what" } th scope="col" { "state" }
                th scope="col" class="r" { "page size" } th scope="col" class="r" { "entries" } @if slots { th scope="col" class="r" { "slot" } } th scope="col" { "certainty" }
            } }
            tbody {
                @for m in memory.iter().take(ROWS) { tr {
                    td class="t mono" { (m.frames.text()) } td class="t mono" { (words::gpa(m.frames.gfn_start)) } td class="r" { (words::bytes(m.frames.bytes)) }
                    td { (words::kind(m.kind)) }
                    td class="t" { (swatch(visual.shade_style(m.shade))) " " (m.shade.name()) }
                    td class="r" { (words::page_size(m.level)) } td class="r" { (number(m.entries)) } @if slots { td class="r" { @if let Some(slot) = m.slot { (slot) } } }
                    td { span class=(format!("prov {}", m.certainty.name())) { (m.certainty.name()) } }
                } }
                (more(memory.len(), ROWS, if slots { 9 } else { 8 }, "range", "ranges"))
            }
        }
    }
}

pub(super) fn events(report: &Report) -> Markup {
    if report.events.is_empty() {
        return html! {};
    }
    let most = report.events.first().map_or(1, |e| e.count).max(1);
    html! {
        section id=(report.id("events")) {
            h2 { "Events" }
            div class="wide" { table {
                caption { b { "What was recorded" } ", by tracepoint" }
                thead { tr { th scope="col" { "event" } th scope="col" class="r" { "count" } th scope="col" class="r" { "share" } th scope="col" class="r" { "rate" } th scope="col" {} } }
                tbody {
                    @for e in report.events.iter().take(ROWS * 2) { tr {
                        th scope="row" class="mono w" { (words::one_line(&e.event, 80)) }
                        td class="r" { (number(e.count)) } td class="r" { (words::percent(e.count, report.event_count())) }
                        td class="r" { (words::rate(e.count, report.length()).unwrap_or_default()) }
                        td class="barcell" { span class="bar" style=(format!("width:{:.1}%", e.count as f64 * 100.0 / most as f64)) {} }
                    } }
                    (more(report.events.len(), ROWS * 2, 5, "event", "events"))
                }
            } }
            (command(report, if report.part.is_some() { "events" } else { "summary --no-replay" }, ""))
        }
    }
}

/// A number with separators; zero is faint, so that other numbers stand out.
pub(super) fn number(n: u64) -> Markup {
    html! { @if n == 0 { span class="fa" { "0" } } @else { (words::count(n)) } }
}

fn time(t: Option<u64>) -> Markup {
    html! { @match t { Some(t) => (words::duration(t)), None => span class="fa" { "–" } } }
}

fn more(len: usize, shown: usize, columns: usize, one: &str, many: &str) -> Markup {
    html! {
        @if len > shown {
            tr { td colspan=(columns) class="mu" { "and " (words::counted((len - shown) as u64, one, many)) " more (all of them in the JSON report)" } }
        }
    }
}
