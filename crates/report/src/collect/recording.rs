//! The report's data on the recording: files, host, clock, losses, event counts.

use std::collections::HashMap;

use mmuscope_analysis::part::Part;
use mmuscope_replay::Attribution;
use mmuscope_trace::{ClockUnit, Compression, Kind, TraceInfo, event_name};

use super::Clock;
use crate::{
    model::{EventCount, Fact, FileReport, LayoutPart, LostTotal, Recording},
    words,
};

pub(super) fn recording(trace: &mmuscope_trace::Trace, clock: &Clock, events: u64) -> Recording {
    let i = &trace.info;
    let line = |s: &str| words::one_line(s, 400);
    Recording {
        files: i
            .files
            .iter()
            .map(|f| FileReport {
                path: line(&f.path.display().to_string()),
                format: format!("{}{}{}", f.kind, compression(f.inside), compression(f.compression)),
                bytes: f.size,
            })
            .collect(),
        format: i.format.to_string(),
        clock: line(&i.clock.name),
        clock_unit: match i.clock.unit {
            ClockUnit::Nanoseconds => "nanoseconds",
            ClockUnit::Cycles => "cycles",
            ClockUnit::Ordinal => "ordinal",
        },
        resolution_ns: i.resolution_ns,
        first_event_absolute: clock.start,
        duration: clock.duration(),
        events,
        partial: i.is_partial(),
        host: host(i),
        params: i.host.params.iter().map(|(k, v)| (line(k), line(v))).collect(),
        lost: LostTotal {
            losses: i.losses(),
            known: i.lost.known,
            events: i.lost.total,
            moments: i.lost.moments,
            per_cpu: i.lost.per_cpu.clone(),
            per_event: i.lost.per_event.iter().map(|(k, v)| (line(k), *v)).collect(),
        },
        damage: i.damage.iter().map(|d| line(&d.to_string())).collect(),
        notes: i.notes.iter().map(|n| line(n)).collect(),
        dialect: dialect(i),
    }
}

fn compression(c: Compression) -> &'static str {
    match c {
        Compression::None => "",
        Compression::Gzip => ", gzip",
        Compression::Zstd => ", zstd",
        Compression::Xz => ", xz",
        Compression::Zlib => ", zlib",
    }
}

fn host(i: &TraceInfo) -> Vec<Fact> {
    let h = &i.host;
    let mut out = Vec::new();
    let mut add = |name: &str, value: Option<String>| {
        if let Some(v) = value.filter(|v| !v.trim().is_empty()) {
            out.push(Fact { name: name.to_owned(), value: words::one_line(&v, 400) });
        }
    };
    add("kernel", h.os_release.clone());
    add("host name", h.hostname.clone());
    add("machine", h.arch.clone());
    let family = h.cpu_family.zip(h.cpu_model).map(|(f, m)| {
        format!(
            "family {f:#x}, model {m:#x}{}",
            h.cpu_stepping.map(|s| format!(", stepping {s}")).unwrap_or_default()
        )
    });
    add(
        "CPU",
        match (&h.cpu_desc, family) {
            (Some(d), Some(f)) => Some(format!("{d} ({f})")),
            (d, f) => d.clone().or(f).or_else(|| h.vendor.map(|v| format!("{v:?}"))),
        },
    );
    add("CPUs online", h.nr_cpus.map(|n| n.to_string()));
    add("recorded by", h.tool.clone());
    add("command", h.cmdline.clone());
    for (k, v) in h.facts.iter().take(60) {
        add(&words::one_line(k, 60), Some(v.clone()));
    }
    for (k, v) in &h.masks {
        add(&words::one_line(k, 60), Some(format!("{v:#x}")));
    }
    out
}

fn dialect(i: &TraceInfo) -> Vec<LayoutPart> {
    let d = &i.dialect;
    let mut out = Vec::new();
    let mut add = |name: &str, value: Option<(String, &str)>| {
        if let Some((value, from)) = value {
            out.push(LayoutPart {
                name: name.to_owned(),
                value,
                provenance: String::new(),
                why: words::one_line(from, 300),
            });
        }
    };
    add("role word", d.role.as_ref().map(|s| (role_words(s.value).to_owned(), s.from.as_str())));
    add(
        "numbers of RET_PF_*",
        d.ret_pf.as_ref().map(|s| {
            (
                format!(
                    "retry {}, emulate {}, invalid {}, fixed {}, spurious {}",
                    s.value.retry, s.value.emulate, s.value.invalid, s.value.fixed, s.value.spurious
                ),
                s.from.as_str(),
            )
        }),
    );
    add("instruction set of exits", d.isa.as_ref().map(|s| (isa(s.value), s.from.as_str())));
    add(
        "error code of kvm_page_fault",
        d.long_page_fault
            .as_ref()
            .map(|s| (if s.value { "64 bits, with vCPU" } else { "32 bits" }.to_owned(), s.from.as_str())),
    );
    out
}

fn role_words(r: mmuscope_trace::RoleWord) -> &'static str {
    use mmuscope_trace::RoleWord;
    match r {
        RoleWord::Cr4Pae => "bit 4 is cr4_pae",
        RoleWord::GpteIs8Bytes => "bit 4 is gpte_is_8_bytes",
        RoleWord::Has4ByteGpte => "bit 4 is has_4_byte_gpte",
        RoleWord::AccessRead => "access has four bits, from R up",
    }
}

fn isa(i: mmuscope_trace::Isa) -> String {
    use mmuscope_trace::Isa;
    match i {
        Isa::Vmx => "VMX".to_owned(),
        Isa::Svm => "SVM".to_owned(),
        Isa::Other(n) => format!("number {n}"),
    }
}

/// Number of events of a part of the trace by name, the most frequent first.
pub(super) fn events(trace: &mmuscope_trace::Trace, whose: &Attribution, part: &Part) -> Vec<EventCount> {
    let (filter, all) = (part.events(), part.is_all());
    let mut counts: HashMap<&str, u64> = HashMap::new();
    // Nearly all events have a kind of their own, for which a number is found faster than a name.
    let mut typed = [(0u64, ""); 256];
    for e in &trace.events {
        if e.body.is_event() && (all || filter.passes(&e, &trace.strings, whose)) {
            match e.body.kind() {
                Kind::Other => *counts.entry(event_name(&e.body, &trace.strings)).or_default() += 1,
                kind => {
                    let t = &mut typed[usize::from(kind as u8)];
                    if t.0 == 0 {
                        t.1 = event_name(&e.body, &trace.strings);
                    }
                    t.0 += 1;
                }
            }
        }
    }
    let typed = typed.into_iter().filter(|t| t.0 > 0).map(|(n, name)| (name, n));
    let mut out: Vec<EventCount> = counts
        .into_iter()
        .chain(typed)
        .map(|(name, count)| EventCount { event: words::one_line(name, 120), count })
        .collect();
    out.sort_by(|a, b| b.count.cmp(&a.count).then_with(|| a.event.cmp(&b.event)));
    out
}
