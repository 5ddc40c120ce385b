//! Words that several rules share.

use super::{Seen, Severity};
use crate::places::usually_in;
use crate::words::{count, duration, printable};
use mmuscope_replay::Fault;
use mmuscope_units::{gfn_range, percent};
use std::cmp::Reverse;

/// `vCPU 1`, `vCPUs 4 and 7`, or nothing where no event names a vCPU.
pub(super) fn vcpus(mut ids: Vec<u32>) -> String {
    ids.sort_unstable();
    ids.dedup();
    let words: Vec<String> = ids.iter().map(ToString::to_string).collect();
    match words.as_slice() {
        [] => String::new(),
        [one] => format!("vCPU {one}"),
        [many @ .., last] => format!("vCPUs {} and {last}", many.join(", ")),
    }
}

/// The kind of a fault in words: `read fault`, `write fault`, `fetch fault`.
pub(super) fn kind(f: &Fault) -> String {
    match f.access.name() {
        "unknown" => "fault".into(),
        name => format!("{name} fault"),
    }
}

/// The place of a fault: its guest frame, or the address where no frame is known.
pub(super) fn place(f: &Fault) -> String {
    match (f.gfn, f.gva, f.gpa) {
        (Some(gfn), ..) => format!("gfn {gfn:#x}"),
        (None, Some(gva), _) => format!("gva {gva:#x}"),
        (None, None, Some(gpa)) => format!("gpa {gpa:#x}"),
        _ => "an unknown page".into(),
    }
}

/// `0x10–0x13, 0x20, 0x30, and 4 more ranges`: frames in ascending order as ranges, of which the three longest are named.
pub(super) fn ranges(frames: impl IntoIterator<Item = u64>) -> String {
    let mut all: Vec<(u64, u64)> = Vec::new();
    for gfn in frames {
        match all.last_mut() {
            Some(r) if r.1 == gfn => r.1 = r.1.saturating_add(1),
            _ => all.push((gfn, gfn.saturating_add(1))),
        }
    }
    if all.len() > 3 {
        all.sort_by_key(|r| (Reverse(r.1 - r.0), r.0));
    }
    let words: Vec<String> = all.iter().take(3).map(|r| gfn_range(r.0, r.1)).collect();
    let more = match all.len() {
        ..=3 => String::new(),
        4 => ", and 1 more range".into(),
        n => format!(", and {} more ranges", n - 3),
    };
    format!("{}{more}", words.join(", "))
}

/// `1 fault`, `2 faults`: a number and a noun whose plural ends in s.
pub(super) fn counted(n: u64, one: &str) -> String {
    format!("{} {one}{}", count(n), if n == 1 { "" } else { "s" })
}

/// `qemu-174`, or `thread 174` where its name was not recorded.
pub(super) fn task(comm: &str, tid: u32) -> String {
    if comm.is_empty() { format!("thread {tid}") } else { format!("{}-{tid}", printable(comm)) }
}

/// `: 12.5 ms, 43 % of the time of all faults`, to end a title; empty where no end of these faults is in the trace.
pub(super) fn share(seen: &Seen<'_>, vm: u16, cost: Option<u64>) -> String {
    let Some(cost) = cost.filter(|_| seen.timed) else { return String::new() };
    let all = seen.fault_time(vm);
    format!(": {}, {} of the time of all faults{}", duration(cost), percent(cost, all), seen.of_vm(vm))
}

/// A warning where faults take at least this percentage of the time of all faults of a VM, and a thousandth of the trace's, else an info.
pub(super) fn by_cost(seen: &Seen<'_>, vm: u16, cost: Option<u64>, percent: u64) -> Severity {
    let (start, end) = seen.timeline.range();
    let took = cost.unwrap_or(0);
    let matters = took.saturating_mul(100) >= seen.fault_time(vm).saturating_mul(percent)
        && took.saturating_mul(1000) >= end.saturating_sub(start);
    if seen.timed && cost.is_some() && matters { Severity::Warning } else { Severity::Info }
}

/// `, usually the I/O APIC`: what most PCs have at a frame, to follow it; empty where nothing usual is.
pub(super) fn device(gfn: u64) -> String {
    usually_in(gfn, gfn.saturating_add(1)).map_or_else(String::new, |what| format!(", usually {what}"))
}
