//! [`EventFilter`]: conditions on events, as the options of `mmuscope events` state them.

use mmuscope_replay::Attribution;
use mmuscope_trace::{Event, Strings, event_name};
use std::collections::BTreeSet;

/// Conditions on events. A condition that is empty or `None` lets every event pass; an event must pass all of them.
#[derive(Clone, Debug, Default)]
pub struct EventFilter {
    /// Earliest time, in nanoseconds on the trace's clock.
    pub from: Option<u64>,
    /// Latest time, included, in nanoseconds on the trace's clock.
    pub to: Option<u64>,
    /// Numbers of the CPUs that recorded the event.
    pub cpus: BTreeSet<u16>,
    /// Ids of the threads that were running.
    pub tids: BTreeSet<u32>,
    /// Numbers of the VMs, as [`Attribution`] counts them.
    pub vms: BTreeSet<u32>,
    /// Ranges of guest frames, each the first and one past the last. An event that names no frame does not match.
    pub gfns: Vec<(u64, u64)>,
    /// Patterns of event names, as [`name_fits`] reads them.
    pub names: Vec<String>,
}

impl EventFilter {
    /// Whether the event passes all conditions.
    pub fn passes(&self, e: &Event, strings: &Strings, whose: &Attribution) -> bool {
        self.from.is_none_or(|t| e.ts >= t)
            && self.to.is_none_or(|t| e.ts <= t)
            && (self.cpus.is_empty() || self.cpus.contains(&e.cpu))
            && (self.tids.is_empty() || e.tid.is_some_and(|t| self.tids.contains(&t)))
            && (self.vms.is_empty() || whose.vm(e).is_some_and(|v| self.vms.contains(&v.0.into())))
            && (self.gfns.is_empty()
                || e.body.covers().is_some_and(|(a, b)| self.gfns.iter().any(|(c, d)| a < *d && *c < b)))
            && (self.names.is_empty()
                || self.names.iter().any(|n| name_fits(event_name(&e.body, strings), n)))
    }

    /// Whether no event at `ts` or later can pass, so that the rest of the trace need not be read.
    pub fn is_past(&self, ts: u64) -> bool {
        self.to.is_some_and(|t| ts > t)
    }
}

/// Whether an event's name matches a pattern with `*` and `?`. The system before a colon (`kvm:`, `kvmmmu:`) may be left out on either side.
pub fn name_fits(name: &str, pattern: &str) -> bool {
    let bare = |s: &'_ str| s.split_once(':').map_or(s.len(), |(_, rest)| rest.len());
    let (n, p) = (&name[name.len() - bare(name)..], &pattern[pattern.len() - bare(pattern)..]);
    mmuscope_units::like(name, pattern) || mmuscope_units::like(n, p)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_match_with_and_without_their_system() {
        for (name, pattern, fits) in [
            ("kvm_mmu_set_spte", "kvm_mmu_*", true),
            ("kvm_mmu_set_spte", "kvmmmu:kvm_mmu_set_spte", true),
            ("sched:sched_switch", "sched_switch", true),
            ("kvm_exit", "kvm_mmu_*", false),
            ("kvm_exit", "kvm_e?it", true),
            ("kvm_exit", "kvm_exi", false),
        ] {
            assert_eq!(name_fits(name, pattern), fits, "{name} {pattern}");
        }
    }
}
