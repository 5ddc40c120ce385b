//! The sections on the recording: its verdicts, what was recorded, how it is read, and how far it can be trusted.

use maud::{Markup, html};

use super::tables::number;
use crate::{
    model::{LayoutPart, Report, VmReport},
    verdict, words,
};

pub(super) fn integrity(report: &Report) -> Markup {
    let r = &report.recording;
    html! {
        section id=(report.id("integrity")) {
            h2 { "How far to trust this" }
            @let (class, verdict) = verdict::lost(r);
            p class=(format!("note {class}")) { (words::sentence(&verdict)) "." @if class == "bad" { " Red bands mark where; what may have changed there is shown as stale until an event proves it." } }
            @if r.lost.per_cpu.len() > 1 || !r.lost.per_event.is_empty() {
                table {
                    caption { b { "Lost events" } }
                    thead { tr { th scope="col" { "where" } th scope="col" class="r" { "events" } } }
                    tbody {
                        @for (cpu, n) in r.lost.per_cpu.iter().take(64) { tr { th scope="row" { "CPU " (cpu) } td class="r" { (number(*n)) } } }
                        @for (event, n) in r.lost.per_event.iter().take(64) { tr { th scope="row" { (words::one_line(event, 80)) } td class="r" { (number(*n)) } } }
                    }
                }
            }
            @for d in r.damage.iter().take(20) { p class="note bad" { (words::one_line(d, 500)) } }
            @if r.damage.len() > 20 { p class="note bad" { "and " (words::counted((r.damage.len() - 20) as u64, "more place", "more places")) " that could not be read" } }
            @for s in &report.snapshots { p class="note" { "Snapshot of KVM's memory: " (s.text) "." } }
            @for u in &report.unrecorded { p class="note" { (u.event) " is " (u.coverage) ": " (u.without) "." } }
            @for n in r.notes.iter().take(40) { p class="note" { (words::one_line(n, 500)) } }
            @if report.evidence.is_empty() {
                @if !report.vms.is_empty() {
                    p class="note good" { "Every old value fits the last new value of its entry, and all views of an entry (change event, set_spte, fast path) agree." }
                }
            } @else {
                div class="wide" { table {
                    caption { b { "What does not fit together" } ": a kernel bug, events that were lost unnoticed, or a mistake of this tool" }
                    thead { tr { th scope="col" { "what" } th scope="col" class="r" { "times" } th scope="col" class="r" { "after a loss" } th scope="col" { "first" } } }
                    tbody {
                        @for e in &report.evidence { tr {
                            th scope="row" { (e.kind) }
                            td class="r" { (number(e.count)) } td class="r" { (number(e.after_loss)) }
                            td class="w" {
                                @for c in e.first.iter().take(3) {
                                    div { (words::at(c.ts)) ", frame " span class="mono" { (words::gfn(c.gfn)) } " (" (words::level_size(c.level)) ")"
                                        @if let Some(x) = c.expected { ", expected " span class="mono" { (words::hex(x)) } }
                                        @if let Some(x) = c.found { ", found " span class="mono" { (words::hex(x)) } }
                                    }
                                }
                            }
                        } }
                    }
                } }
            }
        }
    }
}

pub(super) fn recording(report: &Report) -> Markup {
    let r = &report.recording;
    let several = report.vms.len() > 1;
    html! {
        section id=(report.id("recording")) {
            h2 { "Recording and layout" }
            div class="cols" {
                div {
                    h3 { "Host" }
                    @if r.host.is_empty() { p class="mu" { "The files say nothing about the host." } }
                    dl class="facts" { @for f in &r.host { dt { (words::one_line(&f.name, 60)) } dd { (words::one_line(&f.value, 400)) } } }
                }
                div {
                    h3 { "Recording" }
                    dl class="facts" {
                        @for f in &r.files {
                            dt { "file" }
                            dd { (words::one_line(&f.path, 300)) " " span class="mu" { "(" (f.format) @if f.bytes > 0 { ", " (words::bytes(f.bytes)) } ")" } }
                        }
                        dt { "clock" }
                        dd {
                            @if r.clock.is_empty() { span class="mu" { "not named by the format" } } @else { (words::one_line(&r.clock, 60)) }
                            ", " (r.clock_unit)
                            @if r.resolution_ns > 1 { ", in steps of " (words::duration(u64::from(r.resolution_ns))) }
                        }
                        dt { "length" } dd { (words::duration(r.duration)) ", " (words::counted(r.events, "event", "events"))
                            @if let Some(rate) = words::rate(r.events, r.duration) { " (" (rate) ")" } }
                        dt { "first event" } dd { (words::count(r.first_event_absolute)) " ns on the trace's clock" }
                        @for vm in &report.vms {
                            dt { "VM" @if several { " " (vm.vm) } }
                            dd { (vm.name) @if let Some(pid) = vm.pid { ", pid " (pid) } ", " (words::counted(vm.vcpus.len() as u64, "vCPU", "vCPUs")) ", " (vm.mmu)
                                @if !vm.provenance.is_empty() { " " span class="mu" { "(" (vm.provenance) ")" } } }
                        }
                    }
                }
            }
            @for vm in &report.vms { (layout(vm, several)) }
            @if !r.dialect.is_empty() {
                div class="wide" { (parts("Variants of the tracepoints", "", &r.dialect)) }
            }
            @if !r.params.is_empty() {
                h3 { "Module parameters" }
                dl class="facts" { @for (k, v) in &r.params { dt class="mono" { (words::one_line(k, 80)) } dd class="mono" { (words::one_line(v, 80)) } } }
            }
        }
    }
}

fn layout(vm: &VmReport, several: bool) -> Markup {
    let l = &vm.layout;
    if l.id.is_empty() && l.parts.is_empty() {
        return html! {};
    }
    html! {
        h3 { "SPTE layout " span class="mono" { (l.id) }
            @if !l.confidence.is_empty() || several { small { (l.confidence) @if several { @if !l.confidence.is_empty() { " · " } (vm.label(several)) } } } }
        @for n in &l.notes { p class="note" { (n) } }
        @if !l.parts.is_empty() { div class="wide" { (parts("What the bits mean, and how that is known", &vm.label(several), &l.parts)) } }
        @if !l.alternatives.is_empty() {
            p class="mu" { "Also fits what the trace shows: " (words::list(&l.alternatives)) "." }
        }
    }
}

fn parts(title: &str, of: &str, parts: &[LayoutPart]) -> Markup {
    html! {
        table {
            caption { b { (title) } @if !of.is_empty() { " (" (of) ")" } }
            thead { tr { th scope="col" { "what" } th scope="col" { "value" } th scope="col" { "provenance" } th scope="col" { "from" } } }
            tbody {
                @for p in parts { tr {
                    th scope="row" { (p.name) } td class="mono w" { (p.value) }
                    td { @if !p.provenance.is_empty() { span class=(format!("prov {}", p.provenance)) { (p.provenance) } } }
                    td class="mu w" { (p.why) }
                } }
            }
        }
    }
}
