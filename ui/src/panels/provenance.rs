//! The tabs Layout and Recording: where each part of the layout comes from, and what is known about the recording.

use egui::{RichText, ScrollArea, Ui, vec2};
use mmuscope_replay::MmioRange;
use mmuscope_trace::Losses;

use super::Cx;
use crate::fmt;

/// Draws the layout of the VM that is shown, part by part.
pub(crate) fn layout(ui: &mut Ui, cx: &mut Cx<'_>) {
    let t = cx.tokens;
    let info = cx.cap.timeline.layout(cx.doc.view.vm);
    ui.horizontal_wrapped(|ui| {
        ui.label(RichText::new(info.layout.id()).monospace().strong().size(14.0));
        let sure = (info.confidence * 100.0).round().clamp(0.0, 100.0);
        ui.label(RichText::new(format!("supported by the trace to {sure:.0} %")).color(t.muted));
        if !info.alternatives.is_empty() {
            ui.label(RichText::new(format!("not ruled out: {}", info.alternatives.join(", "))).color(t.warn));
        }
    });
    ScrollArea::vertical().id_salt("layout").auto_shrink(false).show(ui, |ui| {
        // What is left of the line beside the three short columns is the reason's, in as many lines as it needs.
        let reason = (ui.available_width() - 420.0).max(200.0);
        let grid = egui::Grid::new("layout-parts").num_columns(4).striped(true).spacing(vec2(16.0, 3.0));
        grid.max_col_width(reason).show(ui, |ui| {
            for head in ["part", "value", "from", "why"] {
                ui.label(RichText::new(head).size(11.0).color(t.muted));
            }
            ui.end_row();
            for part in &info.parts {
                ui.label(&part.what);
                ui.label(RichText::new(fmt::clean(&part.value)).monospace());
                let word = part.from.name();
                let color = match word {
                    "measured" | "given" => t.good,
                    "assumed" => t.warn,
                    _ => t.ink,
                };
                ui.label(RichText::new(word).color(color).strong());
                ui.label(RichText::new(fmt::clean(&part.why)).color(t.muted));
                ui.end_row();
            }
        });
        for note in &info.resolved.notes {
            ui.label(RichText::new(format!("• {note}")).color(t.muted));
        }
    });
}

/// Draws host, files, losses and notes of the recording.
pub(crate) fn recording(ui: &mut Ui, cx: &mut Cx<'_>) {
    let mut jump: Option<MmioRange> = None;
    ScrollArea::vertical().id_salt("recording").auto_shrink(false).show(ui, |ui| {
        ui.columns(2, |columns| {
            facts(&mut columns[0], cx);
            host(&mut columns[0], cx);
            losses(&mut columns[1], cx);
            vms(&mut columns[1], cx);
            jump = mmio_ranges(&mut columns[1], cx);
        });
    });
    if let Some(r) = jump {
        cx.doc.leave();
        cx.doc.select_at(cx.cap, r.gfn_start, r.first, None);
        cx.doc.reveal(cx.cap, Some(r.gfn_start));
    }
}

fn facts(ui: &mut Ui, cx: &Cx<'_>) {
    let info = &cx.cap.trace.info;
    heading(ui, "Recording");
    grid(ui, "recording-facts", |line| {
        for f in &info.files {
            line("file", format!("{} ({}, {})", f.path.display(), f.kind, fmt::bytes(f.size)));
        }
        line("events", fmt::count(cx.cap.timeline.event_count()));
        line("length", fmt::time(cx.cap.full_time().end));
        let clock = if info.clock.name.is_empty() { "not named" } else { &info.clock.name };
        line("clock", format!("{clock}, steps of {} ns", info.resolution_ns));
        for u in cx.cap.timeline.unrecorded() {
            line(u.coverage.name(), format!("{}: {}", u.event, u.without));
        }
        line("read and replayed in", fmt::time(cx.cap.took.as_nanos() as f64));
        line("memory of the events", fmt::bytes(cx.cap.trace.events.heap_bytes() as u64));
    });
}

fn host(ui: &mut Ui, cx: &Cx<'_>) {
    heading(ui, "Host");
    grid(ui, "host-facts", |line| {
        let h = &cx.cap.trace.info.host;
        let facts = [
            ("kernel", &h.os_release),
            ("host", &h.hostname),
            ("machine", &h.arch),
            ("CPU", &h.cpu_desc),
            ("recorded by", &h.tool),
            ("command", &h.cmdline),
        ];
        let mut any = false;
        for (name, value) in facts {
            if let Some(v) = value {
                line(name, fmt::clean(v));
                any = true;
            }
        }
        if let Some(n) = h.nr_cpus {
            line("CPUs", n.to_string());
        }
        for (k, v) in h.params.iter().chain(h.facts.iter().map(|(k, v)| (k, v))) {
            line(k, fmt::clean(v));
            any = true;
        }
        if !any {
            line("", "the trace contains no facts about its host".to_owned());
        }
    });
}

fn losses(ui: &mut Ui, cx: &Cx<'_>) {
    let t = cx.tokens;
    let info = &cx.cap.trace.info;
    heading(ui, "Lost and damaged");
    let words = match info.losses() {
        Losses::Counted { events, moments } => format!(
            "{} lost, at {}",
            fmt::plural(events, "event", "events"),
            fmt::plural(moments, "moment", "moments")
        ),
        Losses::Uncounted { moments } => format!(
            "events were lost at {}; how many is not recorded",
            fmt::plural(moments, "moment", "moments")
        ),
        other => other.unknown().unwrap_or("nothing was lost").to_owned(),
    };
    let bad = info.is_partial();
    ui.label(RichText::new(words).color(if bad { t.bad } else { t.ink }));
    for d in &info.damage {
        ui.add(egui::Label::new(RichText::new(fmt::clean(&d.to_string())).color(t.bad)).wrap());
    }
    for n in &info.notes {
        ui.add(egui::Label::new(RichText::new(format!("• {}", fmt::clean(n))).color(t.muted)).wrap());
    }
}

fn vms(ui: &mut Ui, cx: &Cx<'_>) {
    let t = cx.tokens;
    heading(ui, "VMs");
    for vm in cx.cap.timeline.vms() {
        let vcpus = vm.vcpus.iter().map(|c| {
            c.vcpu_id.map_or_else(|| format!("tid {}", c.tid), |i| format!("vCPU {i} (tid {})", c.tid))
        });
        ui.label(format!(
            "VM {}: {} pid {}, {}",
            vm.id.0,
            fmt::clean(&vm.comm),
            vm.pid.map_or_else(|| "not known".to_owned(), |p| p.to_string()),
            vm.kind.name()
        ));
        ui.label(RichText::new(vcpus.collect::<Vec<_>>().join(", ")).color(t.muted));
        ui.label(RichText::new(format!("grouped: {}", vm.provenance)).color(t.muted));
    }
}

/// Draws the MMIO ranges and returns the one that was clicked.
fn mmio_ranges(ui: &mut Ui, cx: &Cx<'_>) -> Option<MmioRange> {
    let t = cx.tokens;
    let mut clicked = None;
    heading(ui, "MMIO ranges");
    let ranges = cx.cap.timeline.mmio_ranges();
    if ranges.is_empty() {
        ui.label(RichText::new("no MMIO access in this trace").color(t.muted));
    }
    for r in ranges.iter().copied() {
        let text = format!(
            "{}: {}",
            fmt::gpa_range(r.gfn_start, r.gfn_end),
            r.accesses.map_or_else(
                || format!("{}, accesses not recorded", fmt::plural(r.faults, "MMIO fault", "MMIO faults")),
                |n| fmt::plural(n, "access", "accesses")
            )
        );
        if ui.link(RichText::new(text).monospace()).on_hover_text("Show it in the map").clicked() {
            clicked = Some(r);
        }
    }
    clicked
}

fn heading(ui: &mut Ui, text: &str) {
    ui.add_space(4.0);
    ui.label(RichText::new(text).strong());
}

fn grid(ui: &mut Ui, id: &str, fill: impl FnOnce(&mut dyn FnMut(&str, String))) {
    // A path may be longer than the column: it wraps, because another column is beside it.
    let value = (ui.available_width() - 220.0).max(120.0);
    egui::Grid::new(id).num_columns(2).max_col_width(value).spacing(vec2(12.0, 2.0)).show(ui, |ui| {
        let muted = ui.visuals().weak_text_color();
        let mut line = |name: &str, value: String| {
            ui.label(RichText::new(name).color(muted));
            ui.label(value);
            ui.end_row();
        };
        fill(&mut line);
    });
}
