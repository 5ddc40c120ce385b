//! `mmuscope summary`.

use super::input::{Events, InputArgs};
use crate::Outcome;
use crate::layout_args::LayoutArgs;
use anyhow::Result;
use mmuscope_analysis::events::Who;
use mmuscope_analysis::standout::{self, StandOut};
use mmuscope_analysis::summary::EventCounts;
use mmuscope_analysis::words::{bytes, count, duration, printable};
use mmuscope_replay::{
    Certainty, Counts, Phase, Reason, Shade, State, StateFilter, Timeline, VmId, level_size,
};
use mmuscope_trace::{Trace, TraceInfo};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::Write;
use std::ops::ControlFlow;

/// The terminal's one-screen answer: what was recorded, what the memory of each VM looks like at the end, what happened most
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// text or json
    #[arg(long, short, default_value = "text", value_parser = ["text", "json"])]
    format: String,
    /// Only count events: no replay, so that input of any size needs little memory
    #[arg(long)]
    no_replay: bool,
    #[command(flatten)]
    layout: LayoutArgs,
}

/// Lists are this long.
const TOP: usize = 5;

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let options = a.layout.replay_options()?;
    let events = a.input.events()?;
    let who = Who::new(events.info());
    let mut counts = EventCounts::default();
    events.each(|e, strings| {
        counts.add(e, strings, &who);
        ControlFlow::Continue(())
    })?;
    // What was too large to hold as events is not held as a replay either.
    let replayed = match &events {
        Events::Held(trace) if !a.no_replay => Some((trace, super::input::replay(trace, options)?)),
        _ => None,
    };
    let stands_out = replayed.as_ref().map_or_else(Vec::new, |(trace, t)| standout::find(trace, t));
    let out = &mut std::io::stdout().lock();
    if a.format == "json" {
        serde_json::to_writer_pretty(
            &mut *out,
            &as_json(events.info(), &counts, replayed.as_ref().map(|(_, t)| t), &stands_out),
        )?;
        writeln!(out)?;
        return Ok(Outcome::Fine);
    }
    write!(out, "{}", recording(events.info(), &counts, &stands_out))?;
    match &replayed {
        Some((trace, timeline)) => write!(out, "{}", memory(trace, timeline))?,
        None if a.no_replay => {}
        None => writeln!(
            out,
            "\nThe trace is too large to replay at once; `state`, `spans` and `report` need memory for all of its events."
        )?,
    }
    write!(out, "{}", busiest(&counts, replayed.as_ref().map(|(_, t)| t)))?;
    Ok(Outcome::Fine)
}

/// A line of the summary: its name in a column of its own.
fn line(out: &mut String, name: &str, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{name:<10} {}", printable(text));
}

fn recording(info: &TraceInfo, counts: &EventCounts, stands_out: &[StandOut]) -> String {
    let mut out = String::new();
    let files: Vec<String> = info
        .files
        .iter()
        .map(|f| format!("{} ({}, {})", f.path.display(), f.kind, human_size(f.size)))
        .collect();
    line(&mut out, "trace", &files.join(", "));
    let host = &info.host;
    let facts: Vec<String> = [
        host.os_release.as_ref().map(|r| format!("Linux {r}")),
        host.cpu_desc.clone(),
        host.nr_cpus.map(|n| if n == 1 { "1 CPU".to_string() } else { format!("{n} CPUs") }),
        host.hostname.as_ref().map(|h| format!("host {h}")),
    ]
    .into_iter()
    .flatten()
    .collect();
    if !facts.is_empty() {
        line(&mut out, "host", &facts.join(", "));
    }
    let length = info.last_ts.saturating_sub(info.first_ts);
    let clock =
        if info.clock.name.is_empty() { String::new() } else { format!(", clock {}", info.clock.name) };
    line(&mut out, "events", &format!("{} in {}{clock}", count(counts.events), duration(length)));
    line(&mut out, "lost", &lost(info));
    for fact in stands_out {
        line(&mut out, "stands out", &fact.title);
    }
    for d in info.damage_lines().iter().take(TOP) {
        line(&mut out, "damaged", d);
    }
    for n in info.notes.iter().take(TOP) {
        line(&mut out, "note", n);
    }
    out
}

fn human_size(n: u64) -> String {
    if n == 0 { "a stream".into() } else { format!("{}B", bytes(n)).replace("BB", "B") }
}

fn lost(info: &TraceInfo) -> String {
    match (info.lost.total, info.lost.moments) {
        (Some(0), 0) if info.lost.known => "nothing".into(),
        (None | Some(0), 0) => "not known: the recording does not say whether events were lost".into(),
        (Some(n), m) => format!("{} events, at {} moments: what follows is partial", count(n), count(m)),
        (None, m) => format!("events at {} moments, not counted: what follows is partial", count(m)),
    }
}

/// How much of what maps something at a time is known, where that is not all of it, and why the rest is not.
fn known(timeline: &Timeline, at: u64) -> String {
    let (mut all, mut known, mut writable, mut implied, mut stale) = (0, 0, 0, 0, 0);
    let mut why: BTreeMap<Reason, u64> = BTreeMap::new();
    for (_, s) in timeline.at(at, &StateFilter::default()).iter() {
        if !matches!(s.state, State::Present | State::Mmio) {
            continue;
        }
        all += 1;
        match s.certainty {
            Certainty::Exact | Certainty::Observed => known += 1,
            Certainty::Stale => {
                stale += 1;
                *why.entry(s.reason).or_default() += 1;
            }
            _ if s.reason == Reason::MaybeProtected => writable += 1,
            _ => implied += 1,
        }
    }
    if known == all {
        return String::new();
    }
    let mut out = format!("  known: {} of {} entries that map something", count(known), count(all));
    if writable > 0 {
        let _ = write!(out, ", {} more but for whether they still are writable", count(writable));
    }
    if implied > 0 {
        let _ = write!(out, ", {} more follow from what was told", count(implied));
    }
    out.push('\n');
    if let Some((reason, n)) = why.into_iter().max_by_key(|(_, n)| *n) {
        let most = if n == stale { "" } else { "most " };
        let _ = writeln!(out, "  stale: {}, {most}because {}", count(stale), reason.words());
    }
    out
}

fn memory(trace: &Trace, timeline: &Timeline) -> String {
    let mut out = String::new();
    let (_, end) = timeline.range();
    let only = timeline.vms().len() == 1;
    for vm in timeline.vms() {
        let layout = timeline.layout(vm.id);
        if only || vm.id == VmId(0) {
            let era = layout.resolved.era.map_or(String::new(), |e| format!("{}, ", e.value));
            let from: Vec<String> = layout
                .parts
                .iter()
                .take(3)
                .map(|p| format!("{} {} ({})", p.what, p.value, p.from.name()))
                .collect();
            line(&mut out, "layout", &format!("{era}{}", from.join("; ")));
        }
        let name = if vm.comm.is_empty() { String::new() } else { format!("{}, ", vm.comm) };
        let pid = vm.pid.map_or(String::new(), |p| format!("process {p}, "));
        // A vCPU may have run on several threads.
        let ids: BTreeSet<Option<u32>> = vm.vcpus.iter().map(|v| v.vcpu_id).collect();
        let vcpus = match ids.len() {
            0 => String::new(),
            1 => "1 vCPU, ".to_string(),
            n => format!("{n} vCPUs, "),
        };
        line(&mut out, &format!("VM {}", vm.id.0), &format!("{name}{pid}{vcpus}{}", vm.kind.name()));
        if let Some(end) = &vm.ended {
            let at = duration(end.start.saturating_sub(trace.info.first_ts));
            line(&mut out, "", &format!("torn down after {at}, by {}", end.by()));
        }
    }
    let counts = timeline.counts_at(end);
    let shown = |c: &Counts| c.state(State::Present) + c.state(State::Mmio) > 0;
    if shown(&counts) {
        let _ = writeln!(out, "\nat the end        {}", states(&counts));
    } else if let Some((at, peak)) = peak(timeline) {
        let at = duration(at.saturating_sub(trace.info.first_ts));
        let why = match timeline.vms() {
            [one] if one.ended.is_some() => ": the VM was torn down",
            vms if !vms.is_empty() && vms.iter().all(|v| v.ended.is_some()) => ": the VMs were torn down",
            _ => "",
        };
        let _ = writeln!(
            out,
            "\nNothing is mapped at the end{why}. At its peak, after {at}:\n{:18}{}",
            "",
            states(&peak)
        );
    } else {
        let _ = writeln!(out, "\nNo event shows a present or MMIO entry.");
    }
    out.push_str(&known(timeline, end));
    for list in by_writer(timeline.phases()) {
        let names: Vec<String> = list
            .iter()
            .take(24)
            .map(|p| format!("{} {}", printable(&p.text), duration(p.end.saturating_sub(p.start))))
            .collect();
        let more = if list.len() > 24 { format!(", and {} more", list.len() - 24) } else { String::new() };
        let of = match list[0].vm {
            _ if only => String::new(),
            Some(v) => format!(" of VM {}", v.0),
            None => " of no VM's process".to_owned(),
        };
        let _ = writeln!(out, "\nphases{of}: {}{more}", names.join(", "));
    }
    out
}

/// Phases in one list for each VM whose process marked them, and one for those that other processes marked.
fn by_writer(phases: &[Phase]) -> Vec<Vec<&Phase>> {
    let mut out: Vec<Vec<&Phase>> = Vec::new();
    for p in phases {
        match out.iter_mut().find(|l| l[0].vm == p.vm) {
            Some(l) => l.push(p),
            None => out.push(vec![p]),
        }
    }
    out.sort_by_key(|l| (l[0].vm.is_none(), l[0].vm));
    out
}

/// The moment (of a few hundred) with the most memory mapped.
fn peak(timeline: &Timeline) -> Option<(u64, Counts)> {
    const MOMENTS: usize = 256;
    let (start, end) = timeline.range();
    let mapped = |c: &Counts| {
        Shade::ALL.iter().filter(|s| s.state() == State::Present).map(|s| c.bytes(*s)).sum::<u64>()
    };
    let step = end.saturating_sub(start) / MOMENTS as u64;
    let over = timeline.counts_over(start, end, MOMENTS);
    let best = over.iter().enumerate().max_by_key(|(_, c)| mapped(c))?;
    (mapped(best.1) > 0).then(|| (start + step * (best.0 as u64 + 1), *best.1))
}

/// As short as a column of the summary is wide.
fn shade_word(shade: Shade) -> &'static str {
    match shade {
        Shade::Writable => "writable",
        Shade::ReadOnly => "read-only",
        s => s.name(),
    }
}

/// A table of states and levels.
fn states(counts: &Counts) -> String {
    let levels: Vec<u8> = (1..=5)
        .filter(|l| {
            Shade::ALL
                .iter()
                .any(|s| *s != Shade::Unknown && *s != Shade::Nonpresent && counts.at(*s, *l) > 0)
        })
        .collect();
    let mut out = String::new();
    for (n, l) in levels.iter().enumerate() {
        let width = if n == 0 { 6 } else { 10 };
        let _ = write!(out, "{:>width$}", level_size(*l));
    }
    let _ = write!(out, "{:>12}", "memory");
    for shade in Shade::ALL {
        if matches!(shade, Shade::Unknown | Shade::Nonpresent) || counts.total(shade) == 0 {
            continue;
        }
        let _ = write!(out, "\n  {:<16}", shade_word(shade));
        for (n, l) in levels.iter().enumerate() {
            let width = if n == 0 { 6 } else { 10 };
            let _ = write!(out, "{:>width$}", count(counts.at(shade, *l)));
        }
        if shade != Shade::Table {
            let _ = write!(out, "{:>12}", bytes(counts.bytes(shade)));
        }
    }
    out
}

fn busiest(counts: &EventCounts, timeline: Option<&Timeline>) -> String {
    let mut out = String::new();
    let events: Vec<String> =
        counts.names().iter().take(8).map(|(n, c)| format!("{} {}", count(*c), printable(n))).collect();
    let _ = writeln!(out, "\nmost frequent: {}", events.join(", "));
    let pages = |list: &[(u32, u64, u64)]| {
        list.iter().map(|(_, gfn, n)| format!("{gfn:#x} ({})", count(*n))).collect::<Vec<_>>().join(", ")
    };
    let faults = match timeline {
        Some(t) => t.top_faults(TOP).iter().map(|p| (u32::from(p.vm.0), p.gfn, p.count)).collect(),
        None => counts.top_faults(TOP),
    };
    if !faults.is_empty() {
        let _ = writeln!(out, "most faults at frame: {}", pages(&faults));
    }
    if let Some(t) = timeline {
        let zaps: Vec<_> = t.top_zaps(TOP).iter().map(|p| (u32::from(p.vm.0), p.gfn, p.count)).collect();
        if !zaps.is_empty() {
            let _ = writeln!(out, "most zaps at frame: {}", pages(&zaps));
        }
    }
    let mmio = counts.top_mmio(TOP);
    if !mmio.is_empty() {
        let _ = writeln!(out, "most MMIO at frame: {}", pages(&mmio));
    }
    out
}

fn as_json(
    info: &TraceInfo,
    counts: &EventCounts,
    timeline: Option<&Timeline>,
    stands_out: &[StandOut],
) -> Value {
    let names: serde_json::Map<String, Value> =
        counts.names().into_iter().map(|(n, c)| (n.to_string(), c.into())).collect();
    let files: Vec<Value> = info
        .files
        .iter()
        .map(|f| json!({"path": f.path.to_string_lossy(), "format": f.kind.to_string(), "bytes": f.size}))
        .collect();
    let mut v = json!({
        "files": files,
        "host": {"release": info.host.os_release, "cpu": info.host.cpu_desc, "cpus": info.host.nr_cpus, "hostname": info.host.hostname},
        "events": counts.events,
        "duration": info.last_ts.saturating_sub(info.first_ts),
        "first": info.first_ts,
        "last": info.last_ts,
        "clock": info.clock.name,
        "lost": {"known": info.lost.known, "total": info.lost.total, "moments": info.lost.moments},
        "damage": info.damage.iter().map(ToString::to_string).collect::<Vec<_>>(),
        "partial": info.is_partial(),
        "notes": info.notes,
        "by_event": names,
    });
    if let Some(t) = timeline {
        let (_, end) = t.range();
        let c = t.counts_at(end);
        let states: serde_json::Map<String, Value> =
            [State::Present, State::Mmio, State::Removed, State::Table]
                .into_iter()
                .map(|s| (s.name().to_string(), c.state(s).into()))
                .collect();
        let vms: Vec<Value> = t
            .vms()
            .iter()
            .map(|vm| {
                let vcpus: Vec<Value> = vm.vcpus.iter().map(|v| json!({"tid": v.tid, "vcpu": v.vcpu_id, "comm": v.comm})).collect();
                let layout: Vec<Value> = t
                    .layout(vm.id)
                    .parts
                    .iter()
                    .map(|p| json!({"what": p.what, "value": p.value, "from": p.from.name(), "why": p.why}))
                    .collect();
                json!({"vm": vm.id.0, "pid": vm.pid, "comm": vm.comm, "mmu": vm.kind.name(), "vcpus": vcpus, "layout": layout, "provenance": vm.provenance,
                    "torn_down": vm.ended.as_ref().map(|e| json!({"start": e.start, "end": e.end, "event": e.event, "tid": e.tid, "comm": e.comm}))})
            })
            .collect();
        v["at_end"] = Value::Object(states);
        v["vms"] = Value::Array(vms);
        v["stands_out"] = json!(stands_out);
        v["faults"] = t.fault_count().into();
        v["evidence"] = t.evidence().len().into();
    }
    v
}
