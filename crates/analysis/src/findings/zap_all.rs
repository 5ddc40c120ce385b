//! The rule `zap-all`: all page tables of a VM were thrown away, because its memory slots changed.

use super::cause::{Cause, What};
use super::moment::{At, Change};
use super::words::by_cost;
use super::{Finding, Rule, Seen, Severity, Sure, counted, share, task};
use mmuscope_replay::{Fault, Timeline};
use mmuscope_spte::State;
use mmuscope_trace::Body;
use mmuscope_units::duration;
use rustc_hash::FxHashMap as HashMap;

/// Fewer than this are how a VM is set up.
const MANY: usize = 3;

pub(super) static RULE: Rule = Rule {
    id: "zap-all",
    severity: Severity::Warning,
    seen: "`kvm_mmu_zap_all_fast` came three times or more. It is a warning where the faults that they cost took a hundredth of the time of all \
           faults and a thousandth of the trace's, or (where times were not recorded) were a tenth of all faults; else an info. A fault counts as one that a zap-all cost if it maps what was mapped by an entry of the same \
           place before the zap-all and was not zapped on its own; where the MMU does not trace its changes, none are counted",
    why: "deleting or moving a memory slot, and some changes of attributes, make all page tables of the VM obsolete: every page that the guest \
          uses is faulted in again. Firmware does it while it maps ROMs, VGA memory and the BARs of devices, later ballooning, hotplug of \
          memory and a guest that moves BARs",
    remedy: "let the VMM change memory slots less often and all at once. Since 6.12, KVM zaps only the slot's own pages if the VMM switches the \
             quirk KVM_X86_QUIRK_SLOT_ZAP_ALL off (KVM_CAP_DISABLE_QUIRKS2; nothing switches it off by itself)",
    refuted: "the VMM's KVM_SET_USER_MEMORY_REGION ioctls (`perf trace -e ioctl`) do not coincide with the events",
    find,
};

#[derive(Clone, Debug)]
struct ZapAll {
    event: u32,
    ts: u64,
    tid: u32,
    comm: String,
    vm: u16,
    /// Time and number of the thread's last zap before it went on to something else.
    last: (u64, u32),
    zapped: u64,
}

/// What zap-alls there were, and what was mapped again after each.
#[derive(Debug, Default)]
pub(super) struct Churn {
    all: Vec<ZapAll>,
    /// The zap-all that a thread has begun and not left.
    open: HashMap<u32, usize>,
    /// How many zap-alls a VM has had.
    had: HashMap<u16, u32>,
    /// The trace has no zap-all, so that no install need be remembered: there may be millions.
    none: bool,
    /// How many zap-alls its VM had had when a leaf was installed.
    mapped: HashMap<(u16, u8, u8, u64), u32>,
    /// VM, thread and event of an install that a zap-all made necessary.
    again: Vec<(u16, u32, u32, u64)>,
}

impl Churn {
    /// Of a trace.
    pub(super) fn of(timeline: &Timeline) -> Self {
        let none = !["kvm_mmu_zap_all_fast", "kvm_mmu_invalidate_zap_all_pages"]
            .iter()
            .any(|e| timeline.has_events(e));
        Self { none, ..Self::default() }
    }

    pub(super) fn event(&mut self, at: &At<'_>, body: &Body) {
        if let Body::ZapAllFast { .. } = body {
            *self.had.entry(at.vm).or_default() += 1;
            let comm = at.comm.to_owned();
            self.open.insert(at.tid, self.all.len());
            let last = (at.ts, at.event);
            self.all.push(ZapAll {
                event: at.event,
                ts: at.ts,
                tid: at.tid,
                comm,
                vm: at.vm,
                last,
                zapped: 0,
            });
        } else if let Body::PrepareZapPage { .. } | Body::ProbeSpteClear { .. } = body
            && let Some(i) = self.open.get(&at.tid)
        {
            self.all[*i].last = (at.ts, at.event);
        }
    }

    /// Notes that a thread went on to something else.
    pub(super) fn close(&mut self, tid: u32) {
        self.open.remove(&tid);
    }

    /// Every zap-all.
    pub(super) fn causes(&self) -> impl Iterator<Item = Cause> + '_ {
        self.all.iter().map(|z| Cause {
            end: Some(z.last.0),
            last_event: z.last.1,
            ..Cause::new(z.tid, (z.ts, z.event), What::ZapAll { zapped: z.zapped })
        })
    }

    pub(super) fn change(&mut self, c: &Change) {
        if self.none {
            return;
        }
        if c.old.state == State::Present
            && c.new.state != State::Present
            && let Some(i) = self.open.get(&c.tid)
        {
            let z = &mut self.all[*i];
            z.last = (c.ts, c.event);
            z.zapped += 1;
        }
        let had = self.had.get(&c.vm).copied().unwrap_or(0);
        let key = (c.vm, c.as_id, c.level, c.gfn);
        if c.new.state == State::Present {
            let before = self.mapped.insert(key, had);
            if c.old.state != State::Present && before.is_some_and(|b| b < had) {
                self.again.push((c.vm, c.tid, c.event, c.ts));
            }
        } else if c.old.state == State::Present && self.mapped.get(&key) == Some(&had) {
            self.mapped.remove(&key);
        }
    }
}

fn find(seen: &Seen<'_>) -> Vec<Finding> {
    seen.vms().filter_map(|vm| one(seen, vm)).collect()
}

fn one(seen: &Seen<'_>, vm: u16) -> Option<Finding> {
    let churn = &seen.noted.churn;
    let all: Vec<&ZapAll> = churn.all.iter().filter(|z| z.vm == vm && !seen.torn_down(vm, z.ts)).collect();
    let (first, last) = (all.first()?, all.last()?);
    if all.len() < MANY {
        return None;
    }
    let mut out = Finding::new(&RULE, String::new());
    out.see_all(all.iter().map(|z| (z.ts, z.event)));
    let mut again: Vec<&Fault> = (churn.again.iter().filter(|a| a.0 == vm))
        .filter_map(|(_, tid, event, ts)| seen.fault_of(*tid, *event, *ts))
        .collect();
    again.dedup_by_key(|f| f.event);
    for f in &again {
        out.pay(f);
    }
    let apart = (last.ts - first.ts) / (all.len() as u64 - 1);
    let faults = seen.faults.iter().filter(|f| f.vm.0 == vm).count();
    if seen.timed {
        out.severity = by_cost(seen, vm, out.cost, 1);
    } else if again.len() * 10 < faults.max(1) {
        out.severity = Severity::Info;
    }
    let generations =
        seen.timeline.mmio_ranges().iter().filter(|r| r.vm.0 == vm).filter_map(|r| r.generations);
    let generations = generations.reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))).filter(|(a, b)| a < b);
    let generations = generations
        .map_or_else(String::new, |(a, b)| format!("; MMIO SPTEs have generations from {a} to {b}"));
    let mut by: Vec<String> = all.iter().map(|z| task(&z.comm, z.tid)).collect();
    by.sort();
    by.dedup();
    let by = if by.len() > 2 { counted(by.len() as u64, "thread") } else { by.join(" and ") };
    let cost = match again.len() {
        _ if !seen.traces.changes => {
            "; how much was mapped again is not known, as this MMU does not trace its changes".into()
        }
        0 => String::new(),
        n => format!(
            "; at least {} only mapped again what was mapped before{}",
            counted(n as u64, "fault"),
            share(seen, vm, out.cost)
        ),
    };
    out.title = format!(
        "all page tables{} were made obsolete {} times by {by}, one every {} on average{generations}{cost}",
        seen.of_vm(vm),
        all.len(),
        duration(apart),
    );
    (out.vm, out.sure) = (Some(vm), Sure::Likely);
    Some(out)
}
