//! `mmuscope summary`: the most important facts of a trace on one screen.

mod json;

use super::input::{Events, HELD, InputArgs, no_kvm_event};
use super::page::TextOrJson;
use crate::Outcome;
use crate::layout_args::LayoutArgs;
use crate::output::Output;
use crate::room;
use anyhow::Result;
use mmuscope_analysis::findings::{self, Finding};
use mmuscope_analysis::slots::{Band, bands, outside};
use mmuscope_analysis::snapshots::{difference, sentence};
use mmuscope_analysis::summary::EventCounts;
use mmuscope_analysis::words::{bytes, count, counted, duration, printable};
use mmuscope_replay::{
    Certainty, Counts, Phase, Reason, Shade, State, StateFilter, Timeline, TopPage, Unrecorded, Vm, VmId,
    pages_of,
};
use mmuscope_trace::{Losses, Trace, TraceInfo};
use mmuscope_units::{level_size, moment};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::Write;
use std::ops::ControlFlow;
use std::path::PathBuf;

/// One screen of text: the findings that matter most, what was recorded, what the memory of each VM looks like at the end, what happened most often
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(flatten)]
    input: InputArgs,
    /// Output format: text or json; without this option the ending of the output file decides, else it is text
    #[arg(long, short, value_enum)]
    format: Option<TextOrJson>,
    /// Write to a file instead of standard output; its ending decides the format: .txt .json
    #[arg(long, short, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Count events without a replay, so that input of any size needs little memory
    #[arg(long)]
    no_replay: bool,
    #[command(flatten)]
    layout: LayoutArgs,
}

/// Most elements of a list.
const TOP: usize = 5;
/// Most findings that a summary begins with.
const FIRST: usize = 3;

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let options = a.layout.replay_options()?;
    let format = TextOrJson::of(a.format, a.output.as_deref())?;
    // Where the available memory is not known, a large trace is streamed, which needs little.
    let room = if a.no_replay { HELD } else { room::available().unwrap_or(HELD) };
    let events = match a.input.events(room) {
        Ok(events) => events,
        Err(error) => return values(a, format, error),
    };
    let whose = events.whose();
    let mut counts = EventCounts::default();
    events.each(|e, strings| {
        counts.add(e, strings, &whose);
        ControlFlow::Continue(())
    })?;
    let again;
    let replayed = match &events {
        _ if a.no_replay => None,
        Events::Held(trace) => Some((&**trace, super::input::replay(trace, options)?)),
        // The number of events is known now, so that the memory of a replay can be estimated.
        Events::Streamed(_) => match events.replay(options, room)? {
            Some((trace, timeline)) => {
                again = trace;
                Some((&again, timeline))
            }
            None => None,
        },
    };
    let stands_out = replayed.as_ref().map_or_else(Vec::new, |(trace, t)| findings::find(trace, t));
    let mut file = Output::text(a.output.as_deref())?;
    let out = &mut file;
    if format == TextOrJson::Json {
        let too_large_for = (replayed.is_none() && !a.no_replay).then_some(room);
        let timeline = replayed.as_ref().map(|(_, t)| t);
        serde_json::to_writer_pretty(
            &mut *out,
            &json::value(events.info(), &counts, timeline, &stands_out, too_large_for),
        )?;
        writeln!(out)?;
        file.done()?;
        return Ok(Outcome::Fine);
    }
    write!(out, "{}", first(&stands_out))?;
    write!(out, "{}", recording(events.info(), &counts))?;
    match &replayed {
        Some((trace, timeline)) => {
            write!(out, "{}", snapshots(trace, timeline))?;
            write!(out, "{}", memory(trace, timeline))?;
        }
        None if a.no_replay => {}
        None => writeln!(out, "\n{}", not_replayed(counts.events, room))?,
    }
    write!(out, "{}", busiest(&counts, replayed.as_ref().map(|(_, t)| t), whose.vms()))?;
    file.done()?;
    Ok(Outcome::Fine)
}

/// What `decode` says of a text that has no trace event that can be replayed but values of SPTEs; for every other input, the error.
fn values(a: &Args, format: TextOrJson, error: anyhow::Error) -> Result<Outcome> {
    use mmuscope_trace::Error::{Headless, OnlyValues};
    let found = match error.downcast_ref() {
        Some(OnlyValues { .. }) => "This text has no whole line of a trace event.".to_owned(),
        Some(Headless { events, values: true, .. }) => {
            format!("This text has {events} without task, CPU and time, so that it cannot be replayed.")
        }
        _ => return Err(error),
    };
    match a.input.files.as_slice() {
        [file] if format == TextOrJson::Text && a.output.is_none() && file.is_file() => {
            writeln!(std::io::stdout().lock(), "{found} What its SPTE values mean (mmuscope decode):\n")?;
            super::decode::file(file, &a.layout)
        }
        _ => Err(error),
    }
}

/// The message that the trace was not replayed because that needs too much memory.
fn not_replayed(events: u64, room: u64) -> String {
    format!(
        "Not replayed: {} events would need about {} of memory, and {} are available. Events are only counted here; `state`, `spans` and `report` need that memory as well.",
        count(events),
        bytes(room::of_events(events)),
        bytes(room)
    )
}

/// Adds a line of the summary, with its name in the first column.
fn line(out: &mut String, name: &str, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(out, "{name:<10} {}", printable(text));
}

/// The findings that matter most, and how many more there are.
fn first(stands_out: &[Finding]) -> String {
    let mut out = String::new();
    for f in stands_out.iter().take(FIRST) {
        line(&mut out, f.severity.name(), &format!("{}: {}", f.id, f.title));
    }
    let more = stands_out.len().saturating_sub(FIRST) as u64;
    if more > 0 {
        line(
            &mut out,
            "",
            &format!("and {}: mmuscope check FILE", counted(more, "more finding", "more findings")),
        );
    }
    out
}

fn recording(info: &TraceInfo, counts: &EventCounts) -> String {
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
    for d in info.damage_lines().iter().take(TOP) {
        line(&mut out, "damaged", d);
    }
    for n in notes(info, counts).iter().take(TOP) {
        line(&mut out, "note", n);
    }
    out
}

/// Remarks of the file's reader, preceded by one that the trace has no KVM event where that is so.
fn notes(info: &TraceInfo, counts: &EventCounts) -> Vec<String> {
    let of_kvm = |n: &str| n.rsplit(':').next().is_some_and(|n| n.starts_with("kvm"));
    let mut notes = info.notes.clone();
    if info.snapshots.is_empty() && !counts.names().iter().any(|(n, _)| of_kvm(n)) {
        notes.insert(0, no_kvm_event(info, counts.events));
    }
    notes
}

/// What the snapshots of KVM's own memory showed.
fn snapshots(trace: &Trace, timeline: &Timeline) -> String {
    let mut out = String::new();
    for s in timeline.snapshots() {
        let at = moment(s.start.saturating_sub(trace.info.first_ts));
        line(&mut out, "snapshot", &format!("at {at}: {}", sentence(&s)));
        for d in s.differences.iter().take(TOP) {
            line(&mut out, "", &difference(d));
        }
        for n in &s.notes {
            line(&mut out, "note", n);
        }
    }
    out
}

fn human_size(n: u64) -> String {
    if n == 0 { "a stream".into() } else { bytes(n) }
}

fn lost(info: &TraceInfo) -> String {
    match info.losses() {
        Losses::None => "nothing".into(),
        Losses::Counted { events, moments } => {
            let (events, moments) =
                (counted(events, "event", "events"), counted(moments, "moment", "moments"));
            format!("{events}, at {moments}: what comes after a loss is partial")
        }
        Losses::Uncounted { moments } => format!(
            "events at {}, not counted: what comes after a loss is partial",
            counted(moments, "moment", "moments")
        ),
        unknown => format!("not known: {}", unknown.unknown().unwrap_or_default()),
    }
}

/// How many of the entries that map something at a time are known.
#[derive(Default)]
struct Known {
    /// Number of entries that map something (present or MMIO).
    all: u64,
    /// Number of those that are facts: an event stated the value, or the kernel read it again.
    facts: u64,
    /// Number of those that are known except for whether they are still writable.
    writable: u64,
    /// Number of those that follow from other events or from a rule.
    implied: u64,
    /// Number of those that are stale: they may have changed without an event.
    stale: u64,
    /// Number of stale entries by reason.
    why: BTreeMap<Reason, u64>,
}

fn known(timeline: &Timeline, at: u64) -> Known {
    let mut k = Known::default();
    for (_, s) in timeline.at(at, &StateFilter::default()).iter() {
        if !matches!(s.state, State::Present | State::Mmio) {
            continue;
        }
        k.all += 1;
        match s.certainty {
            Certainty::Exact | Certainty::Observed => k.facts += 1,
            Certainty::Stale => {
                k.stale += 1;
                *k.why.entry(s.reason).or_default() += 1;
            }
            _ if s.reason == Reason::MaybeProtected => k.writable += 1,
            _ => k.implied += 1,
        }
    }
    k
}

/// [`known`] in words, with the most frequent reason of stale entries; empty where all entries are facts.
fn known_words(timeline: &Timeline, at: u64) -> String {
    let Known { all, facts, writable, implied, stale, why } = known(timeline, at);
    if facts == all {
        return String::new();
    }
    let mut out = format!("  known: {} of {} entries that map something", count(facts), count(all));
    if writable > 0 {
        let _ = write!(out, ", {} known except for whether they are still writable", count(writable));
    }
    if implied > 0 {
        let _ = write!(out, ", {} implied or assumed", count(implied));
    }
    out.push('\n');
    if let Some((reason, n)) = why.into_iter().max_by_key(|(_, n)| *n) {
        let most = if n == stale { "" } else { "most " };
        let _ = writeln!(out, "  stale: {}, {most}because {}", count(stale), reason.words());
    }
    out
}

/// Name of the kernel era whose layout is used, where it is known.
fn layout_era(timeline: &Timeline, vm: VmId) -> Option<String> {
    timeline.layout(vm).resolved.era.as_ref().map(|e| e.value.to_string())
}

fn memory(trace: &Trace, timeline: &Timeline) -> String {
    let mut out = String::new();
    let (_, end) = timeline.range();
    let only = timeline.vms().len() == 1;
    for vm in timeline.vms() {
        let layout = timeline.layout(vm.id);
        if only || vm.id == VmId(0) {
            let era = layout_era(timeline, vm.id).map_or(String::new(), |e| format!("{e}, "));
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
        let vcpus = match vm.vcpu_count() {
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
    let mut any = false;
    for vm in timeline.vms() {
        for as_id in timeline.address_spaces(vm.id) {
            let whose = if only { String::new() } else { format!(" of VM {}", vm.id.0) };
            let text = space(trace, timeline, vm, as_id, &whose);
            any |= !text.is_empty();
            out.push_str(&text);
        }
    }
    for vm in timeline.vms() {
        let whose = if only { String::new() } else { format!(" of VM {}", vm.id.0) };
        out.push_str(&slots_words(timeline, vm, &whose));
    }
    if !any {
        let _ = writeln!(out, "\nNo event shows a present or MMIO entry.");
    }
    out.push_str(&known_words(timeline, end));
    for (_, text) in Unrecorded::badges(&timeline.unrecorded()) {
        let _ = writeln!(out, "  {text}");
    }
    if timeline.left_out() > 0 {
        let _ = writeln!(
            out,
            "  left out: the last {} events, which are more than a replay can hold",
            count(timeline.left_out())
        );
    }
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

/// The memory slots of a VM at the end in one line, and how many faults hit none; empty where the trace does not show slots.
fn slots_words(timeline: &Timeline, vm: &Vm, whose: &str) -> String {
    const NAMES: usize = 6;
    let end = vm.ended.as_ref().map_or(timeline.range().1, |e| e.start);
    let slots: Vec<Band> = timeline
        .address_spaces(vm.id)
        .into_iter()
        .flat_map(|as_id| bands(timeline, vm.id, as_id, end))
        .filter(|b| !b.is_hole())
        .collect();
    if slots.is_empty() {
        return String::new();
    }
    let size = |b: &Band| bytes((b.end - b.first).saturating_mul(4096));
    let mut names: Vec<String> =
        slots.iter().take(NAMES).map(|b| format!("{} {}", b.name, size(b))).collect();
    if slots.len() > NAMES {
        names.push(format!("{} more", slots.len() - NAMES));
    }
    let mut out =
        format!("\nmemory slots{whose}: {} (by place and size: {})\n", slots.len(), names.join(", "));
    if let Some(o) = outside(timeline, vm.id).filter(|o| o.faults > 0) {
        let first =
            o.frames.first().map_or_else(String::new, |f| format!(", most on {:#x} ({})", f.0, count(f.1)));
        let frames = match o.frames.len() {
            1 => "1 frame".to_owned(),
            n => format!("{} frames", count(n as u64)),
        };
        let _ = writeln!(
            out,
            "faults outside of any slot{whose}: {} of {}, on {frames}{first}",
            count(o.faults),
            count(o.known)
        );
    }
    out
}

/// Phases in lists: one for each VM whose process marked some, and one for those that other processes marked.
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

/// The text on one address space at the end, or at its peak where nothing is mapped at the end; empty where nothing was ever mapped.
fn space(trace: &Trace, timeline: &Timeline, vm: &Vm, as_id: u8, whose: &str) -> String {
    let mut out = String::new();
    let counts = timeline.counts_of(vm.id, as_id, timeline.range().1);
    let name = match as_id {
        0 => whose.to_owned(),
        1 => format!("{whose}, in SMM's address space (as_id 1)"),
        n => format!("{whose}, in address space {n}"),
    };
    let peak = timeline.peak(vm.id, as_id);
    let after = |at: u64| duration(at.saturating_sub(trace.info.first_ts));
    if counts.state(State::Present) + counts.state(State::Mmio) > 0 {
        let _ = if name.is_empty() {
            writeln!(out, "\nat the end        {}", states(&counts))
        } else {
            writeln!(out, "\nat the end{name}:\n{:18}{}", "", states(&counts))
        };
        let again = mapped_again(&counts);
        if again > 0 {
            let _ = writeln!(
                out,
                "  memory counts each guest frame once; {} of it is mapped by further entries as well",
                bytes(again)
            );
        }
        if let Some((at, most)) = peak {
            let _ = writeln!(out, "  at most {} present, after {}", bytes(most), after(at));
        }
    } else if let Some((at, most)) = peak {
        let _ = writeln!(
            out,
            "\nNothing is mapped at the end{name}{}. At most {} present, after {}:\n{:18}{}",
            if vm.ended.is_some() { ": the VM was torn down" } else { "" },
            bytes(most),
            after(at),
            "",
            states(&timeline.counts_of(vm.id, as_id, at))
        );
    }
    out
}

/// Bytes that entries map beyond the first entry of each frame.
fn mapped_again(counts: &Counts) -> u64 {
    let entries: u64 = (1..=5u8)
        .flat_map(|l| Shade::ALL.map(|s| (s, l)))
        .filter(|(s, _)| matches!(s.state(), State::Present | State::Mmio))
        .map(|(s, l)| counts.at(s, l).saturating_mul(pages_of(l)))
        .sum();
    let frames: u64 = counts.frames.iter().flatten().sum();
    entries.saturating_sub(frames).saturating_mul(4096)
}

/// Name of a state that fits into a column of the summary.
fn shade_word(shade: Shade) -> &'static str {
    match shade {
        Shade::Writable => "writable",
        Shade::ReadOnly => "read-only",
        s => s.name(),
    }
}

/// Whether the table of states lists this state: unknown and nonpresent entries are left out.
fn is_shown(shade: Shade) -> bool {
    !matches!(shade, Shade::Unknown | Shade::Nonpresent)
}

/// Number of entries by state and page size as a table, with the memory that they map.
fn states(counts: &Counts) -> String {
    let levels: Vec<u8> =
        (1..=5).filter(|l| Shade::ALL.iter().any(|s| is_shown(*s) && counts.at(*s, *l) > 0)).collect();
    let mut out = String::new();
    for (n, l) in levels.iter().enumerate() {
        let width = if n == 0 { 6 } else { 10 };
        let _ = write!(out, "{:>width$}", level_size(*l));
    }
    let _ = write!(out, "{:>12}", "memory");
    for shade in Shade::ALL {
        if !is_shown(shade) || counts.total(shade) == 0 {
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

/// Busiest guest frames: VM, where it is known, address space, frame, number of occurrences.
type Tops = Vec<(Option<u32>, u8, u64, u64)>;

/// The guest frames with the most faults, the most zaps (`None` without a replay, which alone knows them) and the most MMIO accesses.
fn tops(counts: &EventCounts, timeline: Option<&Timeline>, n: usize) -> (Tops, Option<Tops>, Tops) {
    let one = |p: &TopPage| (Some(u32::from(p.vm.0)), p.as_id, p.gfn, p.count);
    let list = |top: Vec<TopPage>| top.iter().map(one).collect::<Tops>();
    // Events alone do not name the address space; they are listed under 0.
    let bare =
        |top: Vec<(Option<u32>, u64, u64)>| top.into_iter().map(|(vm, gfn, n)| (vm, 0, gfn, n)).collect();
    let faults = timeline.map_or_else(|| bare(counts.top_faults(n)), |t| list(t.top_faults(n)));
    let mmio = timeline.map_or_else(|| bare(counts.top_mmio(n)), |t| list(t.top_mmio(n)));
    (faults, timeline.map(|t| list(t.top_zaps(n))), mmio)
}

/// Number of zaps that were traced, and of zaps that are only implied by later events.
fn zaps_by_evidence(t: &Timeline) -> (u64, u64) {
    let (mut traced, mut implied) = (0, 0);
    for (cause, n) in t.zap_causes() {
        *(if cause.implied() { &mut implied } else { &mut traced }) += n;
    }
    (traced, implied)
}

fn busiest(counts: &EventCounts, timeline: Option<&Timeline>, vms: usize) -> String {
    let mut out = String::new();
    let events: Vec<String> =
        counts.names().iter().take(8).map(|(n, c)| format!("{} {}", count(*c), printable(n))).collect();
    if !events.is_empty() {
        let _ = writeln!(out, "\nmost frequent: {}", events.join(", "));
    }
    let pages = |list: &Tops| {
        let one = |(vm, as_id, gfn, n): &(Option<u32>, u8, u64, u64)| {
            let vm = match vm {
                _ if vms < 2 => String::new(),
                Some(vm) => format!("VM {vm} "),
                None => "unknown VM ".to_owned(),
            };
            let space = match as_id {
                0 => String::new(),
                1 => "SMM ".to_owned(),
                n => format!("as_id {n} "),
            };
            format!("{vm}{space}{gfn:#x} ({})", count(*n))
        };
        list.iter().map(one).collect::<Vec<_>>().join(", ")
    };
    if let Some((traced, implied)) = timeline.map(zaps_by_evidence).filter(|(a, b)| a + b > 0) {
        let implied = match implied {
            0 => String::new(),
            n => format!(" + {} implied by later events", count(n)),
        };
        let _ = writeln!(out, "zaps: {} traced{implied}", count(traced));
    }
    let (faults, zaps, mmio) = tops(counts, timeline, TOP);
    for (what, list) in [("faults", faults), ("zaps", zaps.unwrap_or_default()), ("MMIO", mmio)] {
        if !list.is_empty() {
            let _ = writeln!(out, "most {what} at frame: {}", pages(&list));
        }
    }
    out
}
