//! What `mmuscope stat` prints for people.

use mmuscope_analysis::stat::{Kind, Row, Stat, Whose, time_words};
use mmuscope_analysis::words::{count, counted, duration, printable};
use mmuscope_replay::{Timeline, VmId, ZapCause};
use mmuscope_units::{bytes, percent};
use std::fmt::Write as _;

/// Most rows of a list, unless `-n` says otherwise.
pub(super) const SHOWN: usize = 12;

/// Everything. `end` is the time of the last event, `length` that of what was asked for.
pub(super) fn text(stat: &Stat, timeline: &Timeline, end: u64, length: u64, limit: usize) -> String {
    let mut out = String::new();
    for whose in stat.whose() {
        if !out.is_empty() {
            out.push('\n');
        }
        // Writing to a string cannot fail.
        let _ = writeln!(out, "{}: {}", name(whose, timeline), duration(length));
        for kind in Kind::ALL {
            let rows = stat.of(whose, kind);
            if !rows.is_empty() {
                out.push_str(&list(kind, rows, limit));
            }
        }
    }
    if out.is_empty() {
        out.push_str("Nothing was counted: no exit, fault, zap or MMIO access is in what was asked for.\n");
    }
    let mut notes: Vec<String> = stat
        .stays
        .iter()
        .map(|s| {
            format!(
                "{} left the guest {} before the end of the trace ({}) and does not enter it again: no exit before took as long",
                name(s.whose, timeline),
                duration(end.saturating_sub(s.since)),
                s.reason
            )
        })
        .collect();
    notes.extend(stat.missing.iter().cloned());
    if !notes.is_empty() {
        out.push('\n');
    }
    for n in notes {
        let _ = writeln!(out, "note: {}", printable(&n));
    }
    out
}

/// `VM 0 (load)`, with the vCPU or how many there are.
fn name(whose: Whose, timeline: &Timeline) -> String {
    let vm = whose.vm.and_then(|id| timeline.vms().iter().find(|v| v.id == VmId(id)));
    let mut out = match (whose.vm, vm) {
        (None, _) => "of no known VM".to_owned(),
        (Some(id), Some(vm)) if !vm.comm.is_empty() => format!("VM {id} ({})", printable(&vm.comm)),
        (Some(id), _) => format!("VM {id}"),
    };
    // Writing to a string cannot fail.
    let _ = match (whose.vcpu, whose.tid, vm) {
        (Some(vcpu), _, _) => write!(out, ", vCPU {vcpu}"),
        (None, Some(tid), _) => write!(out, ", thread {tid}"),
        (None, None, Some(vm)) if !vm.vcpus.is_empty() => {
            write!(out, ", {}", counted(vm.vcpu_count() as u64, "vCPU", "vCPUs"))
        }
        _ => Ok(()),
    };
    out
}

/// The head of the first column of a list, and what its rows are called where they have no name.
const fn head(kind: Kind) -> &'static str {
    match kind {
        Kind::Time => "time of the vCPUs",
        Kind::Exit => "exits",
        Kind::Vmm => "returns to the VMM",
        Kind::Fault => "faults by outcome",
        Kind::Install => "faults that mapped",
        Kind::Zap => "zaps by how they are known",
        Kind::ZapFor => "zaps by what for",
        Kind::Huge => "huge pages by cause",
        Kind::Mmio => "MMIO faults",
    }
}

fn label(kind: Kind, row: &Row) -> String {
    match kind {
        Kind::Time => time_words(&row.name).to_owned(),
        Kind::Mmio => match row.gfn {
            Some(gfn) if row.name.is_empty() => format!("{gfn:#x}"),
            Some(gfn) => format!("{gfn:#x} {}", row.name),
            None => row.name.to_string(),
        },
        Kind::Zap => match ZapCause::ALL.into_iter().find(|c| c.name() == row.name) {
            Some(c) if c.implied() => format!("implied: {}", c.words()),
            Some(c) => c.words().to_owned(),
            None => row.name.to_string(),
        },
        _ => printable(&row.name).into_owned(),
    }
}

/// Whether a list may be long, so that only its first rows are printed.
const fn is_long(kind: Kind) -> bool {
    matches!(kind, Kind::Exit | Kind::Vmm | Kind::Mmio)
}

/// One list: a head line and its rows, those with most time first.
fn list(kind: Kind, rows: &[Row], limit: usize) -> String {
    let limit = if is_long(kind) { limit } else { usize::MAX };
    let all: u64 = rows.iter().map(|r| r.count).sum();
    let time = rows.iter().fold(0u64, |a, r| a.saturating_add(r.times.total));
    let timed = rows.iter().any(|r| r.times.measured > 0);
    let vmm = kind == Kind::Exit && rows.iter().any(|r| r.vmm.is_some_and(|v| v > 0));
    let accesses = kind == Kind::Mmio && rows.iter().any(|r| r.accesses.is_some());
    let sizes = rows.iter().any(|r| r.bytes.is_some());
    let mut head: Vec<String> = vec![head(kind).to_owned(), "count".into(), "share".into()];
    if accesses {
        head.push("accesses".into());
    }
    if sizes {
        head.push("size".into());
    }
    if timed {
        head.extend(["time", "share", "min", "mean", "p50", "p90", "p99", "max"].map(str::to_owned));
    }
    if vmm {
        head.push("VMM".into());
    }
    let mut lines = vec![head];
    for r in rows.iter().take(limit) {
        let shown = |t: Option<u64>| t.map_or_else(|| "-".to_owned(), duration);
        let mut line = vec![label(kind, r), count(r.count), percent(r.count, all)];
        if accesses {
            line.push(r.accesses.map_or_else(|| "-".to_owned(), count));
        }
        if sizes {
            line.push(r.bytes.map_or_else(|| "-".to_owned(), bytes));
        }
        if timed {
            let t = &r.times;
            let share = if t.measured > 0 { percent(t.total, time) } else { "-".to_owned() };
            line.extend([shown((t.measured > 0).then_some(t.total)), share]);
            line.extend([t.min, t.mean(), t.p50, t.p90, t.p99, t.max].map(shown));
        }
        if vmm {
            line.push(r.vmm.map_or_else(|| "-".to_owned(), duration));
        }
        lines.push(line);
    }
    let mut out = String::from("\n");
    let width = |n: usize| lines.iter().map(|l| l[n].chars().count()).max().unwrap_or(0);
    let widths: Vec<usize> = (0..lines[0].len()).map(width).collect();
    for (row, line) in lines.iter().enumerate() {
        let mut text = String::new();
        for (n, cell) in line.iter().enumerate() {
            let pad = " ".repeat(widths[n] - cell.chars().count());
            // Names to the left, numbers to the right.
            let _ = match (row, n) {
                (0, 0) => write!(text, "{cell}{pad}  "),
                (_, 0) => write!(text, "  {cell}{pad}"),
                _ => write!(text, "  {pad}{cell}"),
            };
        }
        let _ = writeln!(out, "{}", text.trim_end());
    }
    if rows.len() > limit {
        let rest = &rows[limit..];
        let more: u64 = rest.iter().map(|r| r.count).sum();
        let _ = writeln!(out, "  and {} more, counted {}", rest.len(), counted(more, "time", "times"));
    }
    out
}
