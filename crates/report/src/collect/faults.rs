//! The report's data on faults: by outcome, access and vCPU, with their times.

use std::collections::{BTreeMap, HashMap, HashSet};

use mmuscope_replay::{Fault, Outcome, Vm};
use mmuscope_trace::Trace;

use super::{NAME, thread_name};
use crate::{
    model::{FaultClass, FaultReport, HistogramBin, Latency, VcpuReport},
    words,
};

/// The times of faults as a report has them. `durations` are in nanoseconds.
pub(crate) fn latency(durations: Vec<u64>) -> Latency {
    let l = mmuscope_analysis::latency::Latency::of(durations);
    Latency { measured: l.measured, p50: l.p50, p90: l.p90, p99: l.p99, max: l.max, total: l.total }
}

pub(super) fn faults(faults: &[&Fault], timed: bool) -> FaultReport {
    let outcomes = classes(faults, |f| (f.outcome as u8, f.outcome.name(), about(f.outcome)));
    let accesses = classes(faults, |f| {
        let name = f.access.name();
        (u8::from(f.access.fetch) * 3 + u8::from(f.access.write) * 2 + u8::from(f.access.read), name, "")
    });
    let histogram = histogram(faults, &outcomes);
    FaultReport {
        total: faults.len() as u64,
        frames: faults.iter().filter_map(|f| f.gfn.map(|g| (f.as_id, g))).collect::<HashSet<_>>().len()
            as u64,
        timed,
        latency: latency(faults.iter().filter_map(|f| f.duration()).collect()),
        outcomes,
        accesses,
        histogram,
    }
}

fn classes(faults: &[&Fault], class: impl Fn(&Fault) -> (u8, &'static str, &'static str)) -> Vec<FaultClass> {
    let mut by: BTreeMap<&'static str, (u8, &'static str, u64, Vec<u64>)> = BTreeMap::new();
    for f in faults {
        let (order, name, about) = class(f);
        let c = by.entry(name).or_insert((order, about, 0, Vec::new()));
        c.2 += 1;
        c.3.extend(f.duration());
    }
    let mut out: Vec<_> = by.into_iter().collect();
    out.sort_by_key(|(_, c)| (std::cmp::Reverse(c.2), c.0));
    out.into_iter()
        .map(|(name, (_, about, count, durations))| FaultClass {
            name: name.to_owned(),
            about,
            count,
            latency: latency(durations),
        })
        .collect()
}

/// No fault is handled in fewer nanoseconds. A shorter time (from a coarse clock, or one time stamp for two events) goes into the first bin.
const SHORTEST: u64 = 256;

/// Adjacent bins, each 2^(1/4) times as wide as the one before.
fn histogram(faults: &[&Fault], outcomes: &[FaultClass]) -> Vec<HistogramBin> {
    let index: HashMap<&str, usize> =
        outcomes.iter().enumerate().map(|(i, o)| (o.name.as_str(), i)).collect();
    let mut bins: BTreeMap<u32, Vec<u64>> = BTreeMap::new();
    for f in faults {
        if let (Some(d), Some(i)) = (f.duration(), index.get(f.outcome.name())) {
            bins.entry(bucket(d.max(SHORTEST))).or_insert_with(|| vec![0; outcomes.len()])[*i] += 1;
        }
    }
    let (Some(first), Some(last)) = (bins.keys().next().copied(), bins.keys().next_back().copied()) else {
        return Vec::new();
    };
    (first..=last)
        .map(|b| HistogramBin {
            from: edge(b),
            to: edge(b + 1),
            counts: bins.remove(&b).unwrap_or_else(|| vec![0; outcomes.len()]),
        })
        .collect()
}

fn bucket(ns: u64) -> u32 {
    let mut b = (((ns.max(1) as f64).log2() * 4.0) as u32).min(255);
    // The edges are whole nanoseconds; rounding must not put a value outside of its bin.
    while b > 0 && ns < edge(b) {
        b -= 1;
    }
    while ns >= edge(b + 1) && b < 255 {
        b += 1;
    }
    b
}

fn edge(b: u32) -> u64 {
    (f64::from(b) / 4.0).exp2().ceil() as u64
}

pub(super) fn vcpus(trace: &Trace, vm: &Vm, faults: &[&Fault]) -> Vec<VcpuReport> {
    let mut by: HashMap<u32, (u64, Vec<u64>)> = HashMap::new();
    for f in faults {
        let v = by.entry(f.tid).or_default();
        v.0 += 1;
        v.1.extend(f.duration());
    }
    let mut out: Vec<VcpuReport> = vm
        .vcpus
        .iter()
        .map(|v| {
            let (faults, durations) = by.remove(&v.tid).unwrap_or_default();
            let l = latency(durations);
            VcpuReport {
                vcpu: v.vcpu_id,
                tid: v.tid,
                name: words::one_line(&v.comm, NAME),
                faults,
                p50: l.p50,
                p99: l.p99,
                total: l.total,
            }
        })
        .collect();
    // Threads that faulted and that no event shows to be a vCPU come last.
    for (tid, (faults, durations)) in by {
        let l = latency(durations);
        let name = thread_name(trace, tid);
        out.push(VcpuReport { vcpu: None, tid, name, faults, p50: l.p50, p99: l.p99, total: l.total });
    }
    out.sort_by_key(|v| (v.vcpu.unwrap_or(u32::MAX), v.tid));
    out
}

fn about(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Fixed => "an entry was installed or changed",
        Outcome::FixedFast => "fixed by the lockless fast path",
        Outcome::Spurious => {
            "the entry already allowed the access: another vCPU may have been faster; if this repeats at one address, the CPU keeps faulting on an entry that allows the access"
        }
        Outcome::Retry => "nothing was done, the guest tries again",
        Outcome::Async => "an asynchronous page fault was queued",
        Outcome::Emulated => "the instruction was emulated",
        Outcome::MmioInstalled => "an MMIO SPTE was installed and the access emulated",
        Outcome::MmioHit => "an MMIO SPTE was hit and the access emulated",
        Outcome::Guest => {
            "the guest's own page tables did not allow the access: the fault was handed on to the guest"
        }
        Outcome::Error => "KVM_RUN returned an error",
        Outcome::MemoryFault => "KVM_RUN returned KVM_EXIT_MEMORY_FAULT",
        Outcome::InternalError => "KVM_RUN returned KVM_EXIT_INTERNAL_ERROR",
        Outcome::Unfinished => "the trace ends, or events were lost, before the fault ends",
        Outcome::Untold => "not recorded: the trace has no event that shows what faults install",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_in_its_bucket() {
        for ns in [0, 1, 2, 3, 4, 5, 19, 999, 1024, 65_535, 65_536, 1 << 40, u64::MAX] {
            let b = bucket(ns);
            assert!(
                ns.max(1) >= edge(b) && (ns < edge(b + 1) || b == 255),
                "{ns}: {} .. {}",
                edge(b),
                edge(b + 1)
            );
        }
    }
}
