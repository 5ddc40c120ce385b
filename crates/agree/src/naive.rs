//! The second counter: it counts what the events of a trace state outright, by rules taken from the descriptions of the tracepoints.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use anyhow::{Context, Result};
use mmuscope_trace::{Body, ClockUnit, ErrorEncoding, Event, Isa, ReadOptions, TaskKind, Trace, event_name};

use crate::faces::{Seen, of};
use crate::numbers::{Numbers, busiest};
use crate::tables::Tables;

const RAW: &str = "raw events";
/// RSVD in the error code of a #PF or a nested page fault.
const RSVD: u64 = 1 << 3;
/// VMX exit reason EPT_MISCONFIG.
const MISCONFIG: u32 = 49;

/// Counts the events of a trace a second time, and adds the counts to `said`.
///
/// # Errors
/// If it cannot be read.
pub fn count(file: &Path, seen: &Seen, said: &mut Numbers) -> Result<()> {
    let trace = Trace::load(&[file.to_path_buf()], &ReadOptions::default())
        .with_context(|| file.display().to_string())?;
    let mut by: BTreeMap<&str, u64> = BTreeMap::new();
    for e in &trace.events {
        if !matches!(
            e.body,
            Body::Lost { .. } | Body::Damage { .. } | Body::Snapshot { .. } | Body::Task { .. }
        ) {
            *by.entry(event_name(&e.body, &trace.strings)).or_default() += 1;
        }
    }
    said.say("events", RAW, by.values().sum::<u64>());
    for (name, n) in &by {
        said.say(format!("events {name}"), RAW, n);
    }
    accesses(&trace, seen, said);
    exits(&trace, said);
    faults(&trace, seen, said);
    if changes_are_traced(&trace) {
        tables(&trace, seen, said);
    }
    Ok(())
}

/// Where a vCPU's thread was at its last exit, entry or return to the VMM.
enum Last {
    Exit(u64, String),
    Returned(Option<(u64, String)>),
    Entry(u64),
}

/// An exit ends with the next entry of its thread, if no other exit comes first; the guest runs from an entry to the next exit.
fn exits(trace: &Trace, said: &mut Numbers) {
    let timed = trace.info.clock.unit == ClockUnit::Nanoseconds;
    let mut sums: BTreeMap<String, u64> = BTreeMap::new();
    let mut last: HashMap<u32, Last> = HashMap::new();
    for e in &trace.events {
        if matches!(e.body, Body::Lost { .. } | Body::Damage { .. }) {
            last.clear();
        }
        let Some(tid) = e.tid else { continue };
        let mut add = |what: String, by: u64| *sums.entry(what).or_default() += by;
        match e.body {
            Body::Exit { reason, isa, .. } => {
                let isa = match isa {
                    Some(Isa::Vmx) => "vmx".to_owned(),
                    Some(Isa::Svm) => "svm".to_owned(),
                    Some(Isa::Other(n)) => n.to_string(),
                    None => String::new(),
                };
                // Flags of VMX between the basic reason and bit 31 do not make another reason.
                let reason = reason.map(|r| if isa == "vmx" { r & 0x8000_ffff } else { r });
                let why = format!("{isa} {}", reason.map_or(String::new(), |r| r.to_string()));
                add(format!("exits {why}"), 1);
                if let Some(Last::Entry(since)) = last.insert(tid, Last::Exit(e.ts, why))
                    && timed
                {
                    add("nanoseconds in the guest".to_owned(), e.ts - since);
                }
            }
            Body::UserspaceExit { .. } => {
                add("returns to the VMM".to_owned(), 1);
                let exit = match last.remove(&tid) {
                    Some(Last::Exit(ts, why)) => Some((ts, why)),
                    Some(Last::Returned(exit)) => exit,
                    _ => None,
                };
                last.insert(tid, Last::Returned(exit));
            }
            Body::Entry { .. } => {
                if let Some(Last::Exit(ts, why) | Last::Returned(Some((ts, why)))) =
                    last.insert(tid, Last::Entry(e.ts))
                    && timed
                {
                    add(format!("exits {why}: that end"), 1);
                    add(format!("exits {why}: nanoseconds"), e.ts - ts);
                }
            }
            Body::Task { kind: TaskKind::Exit, .. } => {
                last.remove(&tid);
            }
            _ => {}
        }
    }
    for (what, n) in sums {
        said.say(what, RAW, n);
    }
}

/// Every read and every write is one `kvm_mmio`; a read that user space answers is traced once more before that. Where the second event is
/// missing because the trace ends or another access comes first, the first one stands for both.
fn accesses(trace: &Trace, seen: &Seen, said: &mut Numbers) {
    let mut pages: BTreeMap<(u64, u64, u64), u64> = BTreeMap::new();
    let mut of_thread: HashMap<u32, Vec<(u32, u64)>> = HashMap::new();
    let mut recorded = false;
    for e in &trace.events {
        let tid = e.tid.unwrap_or(0);
        match e.body {
            Body::Mmio { kind, gpa, .. } => {
                of_thread.entry(tid).or_default().push((kind, gpa));
                recorded = true;
            }
            Body::FastMmio { gpa } => {
                *pages.entry((vm(seen, &e), 0, gpa >> 12)).or_default() += 1;
                recorded = true;
            }
            _ => {}
        }
    }
    for (tid, list) in of_thread {
        let vm = seen.vm_of.get(&tid).copied().unwrap_or(0);
        for (i, (kind, gpa)) in list.iter().enumerate() {
            let answered = *kind == 0 && list.get(i + 1) == Some(&(1, *gpa));
            if !answered {
                *pages.entry((vm, 0, gpa >> 12)).or_default() += 1;
            }
        }
    }
    if recorded {
        said.say("MMIO accesses", RAW, pages.values().sum::<u64>());
        said.say("frames with the most MMIO", RAW, busiest(&pages, 5));
    }
}

fn vm(seen: &Seen, e: &Event) -> u64 {
    e.tid.and_then(|t| seen.vm_of.get(&t)).copied().unwrap_or(0)
}

/// A fault that a thread is handling.
struct Open {
    event: u64,
    mmio: bool,
    gfn: Option<u64>,
}

/// A fault is a `kvm_page_fault`, or else an exit whose reason or error code says that an MMIO SPTE was hit. It is MMIO if the CPU says so,
/// or if the thread makes an MMIO SPTE for it or emulates an access before its next exit or its next entry into the guest.
fn faults(trace: &Trace, seen: &Seen, said: &mut Numbers) {
    let mut open: HashMap<u32, Open> = HashMap::new();
    let mut exit: HashMap<u32, u64> = HashMap::new();
    let mut all: Vec<(u64, bool)> = Vec::new();
    let mut reserved = Vec::new();
    let mut exits_are_recorded = false;
    let mut other = false;
    for (i, e) in (&trace.events).into_iter().enumerate() {
        let i = i as u64;
        let Some(tid) = e.tid else {
            if matches!(e.body, Body::Lost { .. } | Body::Damage { .. }) {
                all.extend(open.drain().map(|(_, o)| (o.event, o.mmio)));
                exit.clear();
            }
            continue;
        };
        let ends = matches!(
            e.body,
            Body::PageFault { .. } | Body::Exit { .. } | Body::Entry { .. } | Body::UserspaceExit { .. }
        );
        if let Body::UserspaceExit { reason: 6, errno } = e.body
            && errno >= 0
            && let Some(o) = open.get_mut(&tid)
        {
            o.mmio = true;
        }
        if ends {
            all.extend(open.remove(&tid).map(|o| (o.event, o.mmio)));
        }
        match e.body {
            Body::Exit { reason, isa, info1, .. } => {
                exits_are_recorded = true;
                let svm =
                    isa == Some(Isa::Svm) && reason == Some(0x400) && info1.is_some_and(|c| c & RSVD != 0);
                if svm || isa == Some(Isa::Vmx) && reason == Some(MISCONFIG) {
                    exit.insert(tid, i);
                } else {
                    exit.remove(&tid);
                }
            }
            Body::PageFault { error_code, encoding, address, .. } => {
                exit.remove(&tid);
                let pferr = matches!(encoding, ErrorEncoding::NestedPageFault | ErrorEncoding::PageFault);
                let mmio = pferr && error_code & RSVD != 0;
                if mmio {
                    reserved.push(i);
                }
                let gfn = (encoding != ErrorEncoding::PageFault).then_some(address >> 12);
                open.insert(tid, Open { event: i, mmio, gfn });
            }
            Body::Entry { .. } | Body::UserspaceExit { .. } => {
                all.extend(exit.remove(&tid).map(|event| (event, true)));
            }
            Body::SpteRequested { gfn, .. } => {
                if let Some(o) = open.get_mut(&tid) {
                    o.gfn = Some(gfn);
                }
            }
            Body::MarkMmioSpte { gfn, .. }
                if open.get(&tid).is_some_and(|o| o.gfn.is_some_and(|g| g != gfn)) => {}
            Body::MarkMmioSpte { .. }
            | Body::HandleMmioPageFault { .. }
            | Body::FastMmio { .. }
            | Body::Mmio { .. }
            | Body::VcpuMatchMmio { .. } => {
                exit.remove(&tid);
                match open.get_mut(&tid) {
                    Some(o) => o.mmio = true,
                    None => other = true,
                }
            }
            _ => {}
        }
    }
    all.extend(open.into_values().map(|o| (o.event, o.mmio)));
    // Without exits, an EPT misconfiguration is recognised only by the events that follow it, if there are any.
    compare(trace, seen, said, (&all, &reserved, exits_are_recorded || !other));
}

/// Adds the counts of faults, of those with reserved bits, and, where the trace shows all of them, of MMIO faults.
fn compare(
    trace: &Trace,
    seen: &Seen,
    said: &mut Numbers,
    (all, reserved, complete): (&[(u64, bool)], &[u64], bool),
) {
    let page_faults =
        all.iter().filter(|f| matches!(trace.events.get(f.0 as usize).body, Body::PageFault { .. }));
    let of_face = seen.faults.iter().filter(|f| {
        let ev = *f.0 as usize;
        ev < trace.events.len() && matches!(trace.events.get(ev).body, Body::PageFault { .. })
    });
    said.say("faults with a kvm_page_fault", RAW, page_faults.count());
    said.say("faults with a kvm_page_fault", "faults", of_face.count());
    let hit = |i: &&u64| seen.faults.get(i).is_some_and(|f| f.0 && f.1 != "emulated");
    said.say("faults with reserved bits", RAW, reserved.len());
    said.say(
        "faults with reserved bits",
        "faults, MMIO and not emulated without an entry",
        reserved.iter().filter(hit).count(),
    );
    if complete && !all.is_empty() {
        let mmio_page_faults =
            |i: u64, mmio: bool| mmio && matches!(trace.events.get(i as usize).body, Body::PageFault { .. });
        let n = all.iter().filter(|(i, mmio)| mmio_page_faults(*i, *mmio)).count();
        said.say("MMIO faults with a kvm_page_fault", RAW, n);
        let n = seen.faults.iter().filter(|(i, f)| mmio_page_faults(**i, f.0)).count();
        said.say("MMIO faults with a kvm_page_fault", "faults", n);
    }
}

/// The TDP MMU of 5.11 and later traces every change of its entries, so that nothing has to be inferred.
fn changes_are_traced(trace: &Trace) -> bool {
    let (mut tdp, mut shadow) = (false, false);
    for e in &trace.events {
        match e.body {
            Body::TdpSpteChanged { .. } => tdp = true,
            Body::GetPage { page, .. } => shadow |= !page.role.direct,
            Body::Lost { .. } | Body::Damage { .. } | Body::Snapshot { .. } => return false,
            _ => {}
        }
    }
    tdp && !shadow
}

fn tables(trace: &Trace, seen: &Seen, said: &mut Numbers) {
    let release = trace.info.host.os_release.as_deref().unwrap_or("");
    let mut tables = Tables::new(release.starts_with("5.11") || release.starts_with("5.12"));
    for e in &trace.events {
        let known = e.tid.and_then(|t| seen.vm_of.get(&t)).copied();
        tables.event(&e, known.or((seen.vms == 1).then_some(0)));
    }
    said.say("zaps", RAW, tables.zaps);
    for ((vm, as_id), [present, mmio]) in tables.frames() {
        said.say(of(vm, as_id, "bytes present at the end"), RAW, present * 4096);
        said.say(of(vm, as_id, "bytes of MMIO at the end"), RAW, mmio * 4096);
    }
}
