//! The rule `async-fault-late`: asynchronous page faults whose page did not come.

use super::moment::At;
use super::{Finding, Rule, Seen, Severity, Sure, counted};
use mmuscope_trace::Body;
use mmuscope_units::duration;
use rustc_hash::FxHashMap as HashMap;

/// A page that took longer than this many nanoseconds is late.
const LATE: u64 = 1_000_000_000;

pub(super) static RULE: Rule = Rule {
    id: "async-fault-late",
    severity: Severity::Warning,
    seen: "`kvm_async_pf_not_present` without a `kvm_async_pf_ready` of the same token within a second",
    why: "the host reads the page from swap, from a file or from another host (userfaultfd), and that takes long; the guest's task waits for it",
    remedy: "the host's storage and memory pressure (`perf trace -F all`, PSI), and the handler of userfaultfd where one is used",
    refuted: "the guest has no async page faults on (it then halts instead): `kvm_async_pf_completed` shows the same page earlier",
    find,
};

/// Tokens that wait.
#[derive(Debug, Default)]
pub(super) struct AsyncFaults {
    waiting: HashMap<(u16, u64), (u64, u32)>,
    /// Some event shows that a page came, so that these events were recorded.
    ends: bool,
    /// VM, time and event of the fault, and how long it took.
    late: Vec<(u16, u64, u32, Option<u64>)>,
}

impl AsyncFaults {
    pub(super) fn event(&mut self, at: &At<'_>, body: &Body) {
        let Body::AsyncPf { token, ready, .. } = *body else { return };
        let key = (at.vm, token);
        self.ends |= ready;
        // The token of all ones wakes every task that waits.
        if ready && token == u64::from(u32::MAX) {
            self.waiting.retain(|k, _| k.0 != at.vm);
        } else if !ready {
            self.waiting.insert(key, (at.ts, at.event));
        } else if let Some((ts, event)) = self.waiting.remove(&key) {
            let took = at.ts.saturating_sub(ts);
            if took > LATE {
                self.late.push((at.vm, ts, event, Some(took)));
            }
        }
    }
}

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    let noted = &seen.noted.async_faults;
    let end = seen.timeline.range().1;
    // Where events were lost, the event that ends one may be among them.
    let never = noted
        .waiting
        .iter()
        .filter(|(k, (ts, _))| end.saturating_sub(*ts) > LATE && !seen.torn_down(k.0, ts + LATE))
        .filter(|_| seen.timeline.lost().is_empty() && noted.ends)
        .map(|(k, (ts, event))| (k.0, *ts, *event, None));
    let mut all: Vec<_> = noted.late.iter().copied().chain(never).collect();
    all.sort_by_key(|l| l.2);
    let one = |vm: u16| {
        let of: Vec<_> = all.iter().filter(|l| l.0 == vm).collect();
        if of.is_empty() {
            return None;
        }
        let longest = of.iter().filter_map(|l| l.3).max();
        let longest =
            longest.map_or_else(String::new, |d| format!(", the slowest that ended {}", duration(d)));
        let open = of.iter().filter(|l| l.3.is_none()).count() as u64;
        let open =
            if open == 0 { String::new() } else { format!(", {open} of them to the end of the trace") };
        let title = format!(
            "{} waited longer than a second for {} page{longest}{open}",
            counted(of.len() as u64, "asynchronous page fault"),
            if of.len() == 1 { "its" } else { "their" },
        );
        let mut out = Finding::new(&RULE, title);
        out.see_all(of.iter().map(|l| (l.1, l.2)));
        (out.vm, out.sure) = (Some(vm), Sure::Likely);
        Some(out)
    };
    seen.vms().filter_map(one).collect()
}
