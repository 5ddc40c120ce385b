//! Where things come from: each part of the layout, and what is known about the recording.

use egui::{RichText, ScrollArea, Ui, vec2};
use mmuscope_replay::MmioRange;

use super::Cx;
use crate::fmt;

/// The layout of the VM that is shown, part by part.
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
        egui::Grid::new("layout-parts").num_columns(4).striped(true).spacing(vec2(16.0, 3.0)).show(
            ui,
            |ui| {
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
            },
        );
        for note in &info.resolved.notes {
            ui.label(RichText::new(format!("• {note}")).color(t.muted));
        }
    });
}

/// Host, files, losses and notes.
pub(crate) fn recording(ui: &mut Ui, cx: &mut Cx<'_>) {
    let t = cx.tokens;
    let info = &cx.cap.trace.info;
    let mut jump: Option<MmioRange> = None;
    ScrollArea::vertical().id_salt("recording").auto_shrink(false).show(ui, |ui| {
        ui.columns(2, |columns| {
            let ui = &mut columns[0];
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
            heading(ui, "Host");
            grid(ui, "host-facts", |line| {
                let h = &info.host;
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
                    line("", "this file does not say anything about its host".to_owned());
                }
            });
            let ui = &mut columns[1];
            heading(ui, "Lost and damaged");
            let lost = &info.lost;
            let words = match (lost.known, lost.total, lost.moments) {
                (_, Some(n), _) if n > 0 => format!(
                    "{} lost, at {}",
                    fmt::plural(n, "event", "events"),
                    fmt::plural(lost.moments, "place", "places")
                ),
                (_, _, m) if m > 0 => format!(
                    "events were lost at {}; how many is not recorded",
                    fmt::plural(m, "place", "places")
                ),
                (true, ..) => "nothing was lost".to_owned(),
                (false, ..) => "the recording does not say whether events were lost".to_owned(),
            };
            let bad = info.is_partial();
            ui.label(RichText::new(words).color(if bad { t.bad } else { t.ink }));
            for d in &info.damage {
                ui.add(egui::Label::new(RichText::new(fmt::clean(&d.to_string())).color(t.bad)).wrap());
            }
            for n in &info.notes {
                ui.add(egui::Label::new(RichText::new(format!("• {}", fmt::clean(n))).color(t.muted)).wrap());
            }
            heading(ui, "VMs");
            for vm in cx.cap.timeline.vms() {
                let vcpus = vm.vcpus.iter().map(|c| {
                    c.vcpu_id
                        .map_or_else(|| format!("tid {}", c.tid), |i| format!("vCPU {i} (tid {})", c.tid))
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
            heading(ui, "MMIO ranges");
            let ranges = cx.cap.timeline.mmio_ranges();
            if ranges.is_empty() {
                ui.label(RichText::new("no MMIO access in this trace").color(t.muted));
            }
            for r in ranges.iter().copied() {
                let last = fmt::gpa(r.gfn_end).trim_start_matches("0x").to_owned();
                let text = format!(
                    "{} … 0x{last}: {}",
                    fmt::gpa(r.gfn_start),
                    r.accesses.map_or_else(
                        || format!(
                            "{}, accesses not recorded",
                            fmt::plural(r.faults, "MMIO fault", "MMIO faults")
                        ),
                        |n| fmt::plural(n, "access", "accesses")
                    )
                );
                if ui.link(RichText::new(text).monospace()).on_hover_text("Show it in the map").clicked() {
                    jump = Some(r);
                }
            }
        });
    });
    if let Some(r) = jump {
        cx.doc.leave();
        cx.doc.select_at(cx.cap, r.gfn_start, r.first, None);
        cx.doc.reveal(cx.cap, Some(r.gfn_start));
    }
}

fn heading(ui: &mut Ui, text: &str) {
    ui.add_space(4.0);
    ui.label(RichText::new(text).strong());
}

fn grid(ui: &mut Ui, id: &str, fill: impl FnOnce(&mut dyn FnMut(&str, String))) {
    egui::Grid::new(id).num_columns(2).spacing(vec2(12.0, 2.0)).show(ui, |ui| {
        let muted = ui.visuals().weak_text_color();
        let mut line = |name: &str, value: String| {
            ui.label(RichText::new(name).color(muted));
            ui.label(value);
            ui.end_row();
        };
        fill(&mut line);
    });
}
