//! [`story`]: a recording in a few sentences, and [`tiles`], its most important numbers. Both are made from the numbers of the tables; neither
//! looks at the trace.

use std::fmt::Write;

use crate::{
    model::{FaultReport, OverTime, PhaseReport, Report, VmReport},
    words,
};

/// Appends formatted text; writing to a string cannot fail.
macro_rules! say {
    ($s:ident, $($text:tt)*) => {
        let _ = write!($s, $($text)*);
    };
}

/// A number that the top of the page shows in large type.
pub(crate) struct Tile {
    pub(crate) name: &'static str,
    pub(crate) value: String,
    pub(crate) more: String,
}

/// The story, one string per paragraph. All other parts of the report must be filled in already.
pub(crate) fn story(r: &Report) -> Vec<String> {
    let mut out: Vec<String> = r.part.iter().map(crate::part::PartReport::words).collect();
    if r.vms.is_empty() {
        out.push(if r.event_count() == 0 {
            "The trace holds no events.".to_owned()
        } else {
            format!(
                "In {} the trace holds {}, but none of a VM.",
                words::duration(r.length()),
                words::counted(r.event_count(), "event", "events")
            )
        });
    }
    for vm in &r.vms {
        out.push(faults(r, vm));
        out.extend(memory(r, vm));
    }
    out.extend(trust(r));
    out
}

/// What restricts the most that was present, where it is of a part of a trace.
fn sampled(o: &OverTime) -> String {
    if o.peak_sampled { format!(" (looked at every {})", words::duration(o.step)) } else { String::new() }
}

fn faults(r: &Report, vm: &VmReport) -> String {
    let f = &vm.faults;
    let name = vm.label(r.vms.len() > 1);
    let who = match vm.vcpus.len() {
        0 => name.clone(),
        n => format!("{} of {name}", words::counted(n as u64, "vCPU thread", "vCPU threads")),
    };
    let mut s = format!("In {}, {who} ", words::duration(r.length()));
    if f.total == 0 {
        // Where no VM has any fault, faults probably were not recorded.
        return if r.vms.iter().any(|v| v.faults.total > 0) {
            format!("{s}took no page fault.")
        } else {
            format!(
                "In {}, the trace holds no kvm_page_fault of {name}: page faults were not recorded, or there were none.",
                words::duration(r.length())
            )
        };
    }
    say!(
        s,
        "faulted {} on {}. ",
        words::counted(f.total, "time", "times"),
        words::counted(f.frames, "guest frame", "different guest frames")
    );
    s.push_str(&outcomes(f));
    if let (Some(p50), Some(p99)) = (f.latency.p50, f.latency.p99) {
        say!(
            s,
            " Half of the faults took at most {}, 99 % at most {}; all together they cost {} of vCPU time.",
            words::duration(p50),
            words::duration(p99),
            words::duration(f.latency.total)
        );
    }
    s
}

fn outcomes(f: &FaultReport) -> String {
    let group = |names: &[&str]| {
        f.outcomes.iter().filter(|o| names.contains(&o.name.as_str())).map(|o| o.count).sum::<u64>()
    };
    let mut parts = Vec::new();
    for (names, one, many) in [
        (&["fixed", "fixed-fast"][..], "ended with a page mapped", "ended with a page mapped"),
        (&["mmio-hit", "mmio-installed", "emulated"], "was emulated", "were emulated"),
        (&["spurious"], "found its entry already in place", "found their entries already in place"),
        (&["guest-fault"], "was handed on to the guest", "were handed on to the guest"),
        (&["error", "memory-fault", "internal-error"], "failed", "failed"),
    ] {
        let n = group(names);
        if n > 0 {
            parts.push(format!("{} {}", words::count(n), if n == 1 { one } else { many }));
        }
    }
    if parts.is_empty() {
        return "How they ended is not known.".to_owned();
    }
    format!("Of these, {}.", words::list(&parts))
}

fn memory(r: &Report, vm: &VmReport) -> Option<String> {
    let mut s = String::new();
    if let Some(o) = vm.spaces.first().map(|s| &s.over_time).filter(|o| o.peak_bytes > 0) {
        let sizes: Vec<String> = o
            .present_bytes
            .iter()
            .rev()
            .filter_map(|l| {
                l.bytes
                    .last()
                    .copied()
                    .filter(|b| *b > 0)
                    .map(|b| format!("{} in {} pages", words::bytes(b), words::level_size(l.level)))
            })
            .collect();
        if o.end_bytes == 0 {
            say!(
                s,
                "At most {}{} of guest memory was present, {} into the trace; at the end all of it is gone",
                words::bytes(o.peak_bytes),
                sampled(o),
                words::duration(o.peak_at)
            );
            if let Some(t) = &vm.torn_down {
                say!(s, ": the VM was torn down after {}, by {}", words::duration(t.start), t.by);
            }
        } else if o.end_bytes >= o.peak_bytes {
            let end = words::bytes(o.end_bytes);
            let sampled = sampled(o);
            say!(s, "At the end {end} of guest memory is present, and no earlier moment{sampled} shows more");
        } else {
            let (peak, end) = (words::bytes(o.peak_bytes), words::bytes(o.end_bytes));
            let (at, sampled) = (words::duration(o.peak_at), sampled(o));
            say!(
                s,
                "At most {peak}{sampled} of guest memory was present, {at} into the trace; at the end it is {end}"
            );
        }
        if sizes.is_empty() {
            s.push_str(". ");
        } else {
            say!(s, " ({}). ", words::list(&sizes));
        }
        if o.end_stale_bytes > 0 && o.end_stale_bytes >= o.end_bytes {
            s.push_str("All of that may have changed since without an event. ");
        } else if o.end_stale_bytes > 0 {
            say!(s, "{} of that may have changed since without an event. ", words::bytes(o.end_stale_bytes));
        }
    }
    s.push_str(&zaps(r, vm));
    let accesses: u64 = vm.mmio.iter().filter_map(|m| m.accesses).sum();
    let faults: u64 = vm.mmio.iter().map(|m| m.faults).sum();
    if let Some(top) = vm.mmio.iter().max_by_key(|m| (m.accesses, m.faults)).filter(|_| accesses + faults > 0)
    {
        let what = if top.accesses.is_some() {
            words::counted(accesses, "access went", "accesses went")
        } else {
            words::counted(faults, "fault was", "faults were")
        };
        say!(
            s,
            "{what} to MMIO in {}, most of them at {}{}{}. ",
            words::counted(vm.mmio.len() as u64, "range", "ranges"),
            words::gpa(top.frames.gfn_start),
            top.usually.as_ref().map(|u| format!(" (by its address: {u})")).unwrap_or_default(),
            if top.accesses.is_some() { "" } else { "; how many accesses that were was not recorded" }
        );
    }
    // With several VMs only phases that this VM's process marked count; the numbers of other phases refer to all VMs.
    let own = |p: &&PhaseReport| p.vm == Some(vm.vm) || r.vms.len() == 1 && p.vm.is_none();
    let phases = r.phases.iter().filter(own).count();
    if let Some(p) =
        r.phases.iter().filter(own).max_by_key(|p| p.faults).filter(|p| p.faults > 0 && phases > 1)
    {
        say!(
            s,
            "The busiest of the {} is “{}” with {} in {}. ",
            words::counted(phases as u64, "phase", "phases"),
            words::one_line(&p.text, 60),
            words::counted(p.faults, "fault", "faults"),
            words::duration(p.end.saturating_sub(p.start))
        );
    }
    let s = s.trim_end().to_owned();
    if s.is_empty() {
        return None;
    }
    Some(if r.vms.len() > 1 { format!("{}: {s}", vm.label(true)) } else { s })
}

/// How many leaves of a VM were zapped, in a sentence; empty where none was.
fn zaps(r: &Report, vm: &VmReport) -> String {
    let mut s = String::new();
    if let Some(o) = vm.spaces.first().map(|s| &s.over_time) {
        // Zaps of all address spaces are counted.
        let of = |o: &OverTime| o.zaps.iter().sum::<u64>();
        let zaps: u64 = vm.spaces.iter().map(|s| of(&s.over_time)).sum();
        if zaps > 0 {
            say!(s, "{} zapped", words::counted(zaps, "leaf was", "leaves were"));
            let smm: u64 = vm.spaces.iter().filter(|s| s.as_id == 1).map(|s| of(&s.over_time)).sum();
            if smm > 0 && vm.spaces.len() > 1 {
                say!(s, " ({} of them in SMM's address space)", words::count(smm));
            }
            let mut all = vec![0; o.zaps.len()];
            for s in &vm.spaces {
                all.iter_mut().zip(&s.over_time.zaps).for_each(|(sum, n)| *sum += n);
            }
            if let Some(text) = burst(&all, o.step, r.axis().0) {
                s.push_str(&text);
            }
            s.push_str(". ");
        }
    }
    s
}

/// A clause on the shortest stretch that holds half of all values, if it is less than a fifth of the time.
fn burst(values: &[u64], step: u64, start: u64) -> Option<String> {
    let total: u64 = values.iter().sum();
    let mut best: Option<(usize, usize)> = None;
    let mut from = 0;
    let mut sum = 0;
    for (to, v) in values.iter().enumerate() {
        sum += v;
        while from < to && sum - values[from] >= total.div_ceil(2) {
            sum -= values[from];
            from += 1;
        }
        if sum >= total.div_ceil(2) && best.is_none_or(|(a, b)| to - from < b - a) {
            best = Some((from, to));
        }
    }
    let (a, b) = best?;
    if (b - a + 1) * 5 > values.len() || total < 10 {
        return None;
    }
    let (t0, t1) = (step.saturating_mul(a as u64), step.saturating_mul(b as u64 + 1));
    Some(format!(
        ", half of them within {} around {}",
        words::duration(t1 - t0),
        words::duration(start + u64::midpoint(t0, t1))
    ))
}

fn trust(r: &Report) -> Option<String> {
    let l = &r.recording.lost;
    let mut s = String::new();
    match l.events {
        Some(n) if n > 0 => {
            say!(
                s,
                "{} lost: what is drawn after a red band is known only as far as later events prove it. ",
                words::counted(n, "event was", "events were")
            );
        }
        _ if l.moments > 0 => {
            say!(
                s,
                "Events were lost at {}: what is drawn after a red band is known only as far as later events prove it. ",
                words::counted(l.moments, "moment", "moments")
            );
        }
        _ => {}
    }
    if !r.recording.damage.is_empty() {
        say!(
            s,
            "{} of the input could not be read, so everything here is partial. ",
            words::counted(r.recording.damage.len() as u64, "place", "places")
        );
    }
    (!s.is_empty()).then(|| s.trim_end().to_owned())
}

/// The numbers at the top of the page.
pub(crate) fn tiles(r: &Report) -> Vec<Tile> {
    let mut out = Vec::new();
    let faults: u64 = r.vms.iter().map(|v| v.faults.total).sum();
    if faults > 0 {
        let one = r.vms.iter().filter(|v| v.faults.total > 0).count() == 1;
        let latency = r.vms.iter().find(|v| v.faults.total > 0).map(|v| &v.faults.latency).filter(|_| one);
        out.push(Tile {
            name: "page faults",
            value: words::count(faults),
            more: words::rate(faults, r.length()).map(|r| format!("{r} on average")).unwrap_or_default(),
        });
        if let Some((p50, p99)) = latency.and_then(|l| l.p50.zip(l.p99)) {
            out.push(Tile {
                name: "median fault",
                value: words::duration(p50),
                more: format!("99 % within {}", words::duration(p99)),
            });
        }
    }
    let spaces = || r.vms.iter().filter_map(|v| v.spaces.first()).map(|s| &s.over_time);
    let peak: u64 = spaces().map(|o| o.peak_bytes).sum();
    if peak > 0 {
        let end: u64 = spaces().map(|o| o.end_bytes).sum();
        let stale: u64 = spaces().map(|o| o.end_stale_bytes).sum();
        out.push(Tile {
            name: if r.vms.len() > 1 { "present at most, summed" } else { "present at most" },
            value: words::bytes(peak),
            more: match (end, stale) {
                (0, _) => "all gone at the end".to_owned(),
                (_, 0) => format!("{} at the end", words::bytes(end)),
                (e, s) if s >= e => format!("{} at the end, all of it stale", words::bytes(e)),
                (e, s) => format!("{} at the end, {} of it stale", words::bytes(e), words::bytes(s)),
            },
        });
    }
    // Zaps of all address spaces are counted, SMM's too.
    let spaces = || r.vms.iter().flat_map(|v| &v.spaces).map(|s| &s.over_time);
    let zaps: u64 = spaces().map(|o| o.zaps.iter().sum::<u64>()).sum();
    if zaps > 0 {
        let installs: u64 =
            spaces().flat_map(|o| o.entries.iter()).map(|e| e.counts.last().copied().unwrap_or(0)).sum();
        out.push(Tile {
            name: "leaves zapped",
            value: words::count(zaps),
            more: format!("{} live at the end", words::count(installs)),
        });
    }
    let mmio: u64 = r.vms.iter().flat_map(|v| &v.mmio).filter_map(|m| m.accesses).sum();
    if mmio > 0 {
        let ranges = r.vms.iter().map(|v| v.mmio.len() as u64).sum();
        out.push(Tile {
            name: "MMIO accesses",
            value: words::count(mmio),
            more: format!("in {}", words::counted(ranges, "range", "ranges")),
        });
    }
    if let Some(n) = r.recording.lost.events.filter(|n| *n > 0) {
        out.push(Tile {
            name: "events lost",
            value: words::count(n),
            more: format!("at {}", words::counted(r.recording.lost.moments, "moment", "moments")),
        });
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_told_only_when_there_is_one() {
        assert_eq!(burst(&[1; 100], 10, 0), None, "spread evenly");
        let mut v = vec![0; 100];
        v[40] = 30;
        v[41] = 40;
        v[90] = 10;
        assert_eq!(burst(&v, 1_000_000, 0).as_deref(), Some(", half of them within 1 ms around 41.5 ms"));
        let later = burst(&v, 1_000_000, 1_000_000_000);
        assert_eq!(later.as_deref(), Some(", half of them within 1 ms around 1.04 s"));
        assert_eq!(burst(&[0, 9, 0, 0, 0, 0, 0, 0], 10, 0), None, "too few to be a pattern");
        assert_eq!(burst(&[], 10, 0), None);
    }
}
