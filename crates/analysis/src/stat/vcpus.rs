//! Exits, returns to the VMM, and where the time of vCPUs went: [`gather`] follows each vCPU's thread from `kvm_entry` to `kvm_exit` and back. It
//! never decides how a fault ended: it asks the replay's faults which exit was one.

use super::{Kind, Seen, Stays, Sums, Whose};
use mmuscope_trace::{Body, Event, Isa, StrId, TaskKind, exit_name, is_halt, vmm_exit_name};
use rustc_hash::FxHashMap as HashMap;
use std::borrow::Cow;

/// An exit that has not ended.
#[derive(Clone, Debug)]
struct Exit {
    ts: u64,
    event: u32,
    name: Cow<'static, str>,
    reason: Option<u32>,
    isa: Option<Isa>,
    rip: u64,
}

/// Where a thread is, and since when.
#[derive(Clone, Debug, Default)]
enum Where {
    /// No event has shown it.
    #[default]
    Unseen,
    Guest(u64),
    Kvm(Exit),
    /// In the VMM, which was returned to for this reason.
    Vmm(Option<Exit>, u64, Cow<'static, str>),
    /// Events were lost, or one is missing.
    Gap(u64),
}

#[derive(Debug, Default)]
struct Thread {
    whose: Option<Whose>,
    at: Where,
    /// The longest time outside of the guest so far.
    longest: u64,
}

struct Vcpus<'a, 's> {
    seen: &'a Seen<'a>,
    sums: &'s mut Sums,
    threads: HashMap<u32, Thread>,
    /// The numbers of each thread's faults, in the order of their events.
    faults: HashMap<u32, Vec<usize>>,
    /// Whether returns to the VMM were recorded.
    returns: bool,
}

/// Follows all vCPUs; gives those that do not enter the guest again.
pub(super) fn gather(seen: &Seen<'_>, sums: &mut Sums) -> Vec<Stays> {
    let mut faults: HashMap<u32, Vec<usize>> = HashMap::default();
    for (n, f) in seen.faults.iter().enumerate() {
        faults.entry(f.tid).or_default().push(n);
    }
    let returns = seen.has("kvm_userspace_exit");
    let mut all = Vcpus { seen, sums, threads: HashMap::default(), faults, returns };
    for (n, e) in seen.trace.events.iter().enumerate() {
        all.event(n as u32, &e);
    }
    all.stays()
}

impl Vcpus<'_, '_> {
    fn event(&mut self, n: u32, e: &Event) {
        match e.body {
            Body::Exit { .. } | Body::Entry { .. } | Body::UserspaceExit { .. } => {}
            Body::Lost { .. } | Body::Damage { .. } => {
                for t in self.threads.values_mut() {
                    let since = match &t.at {
                        Where::Unseen => continue,
                        Where::Guest(s) | Where::Vmm(_, s, _) | Where::Gap(s) => *s,
                        Where::Kvm(x) => x.ts,
                    };
                    t.at = Where::Gap(since);
                }
                return;
            }
            Body::Task { kind: TaskKind::Exit, .. } => {
                if let Some(tid) = e.tid {
                    self.threads.remove(&tid);
                }
                return;
            }
            _ => return,
        }
        let Some(tid) = e.tid else { return };
        let owner = self.seen.whose_are();
        let mut t = self.threads.remove(&tid).unwrap_or_default();
        t.whose = self.seen.whose(owner.vm(e), owner.vcpu(e), Some(tid));
        if let Some(whose) = t.whose {
            match e.body {
                Body::Exit { reason, isa, reason_name, rip, .. } => {
                    self.exits(&mut t, whose, (tid, e.ts, n, rip), (reason, isa, reason_name));
                }
                Body::Entry { .. } => self.enters(&mut t, whose, tid, e.ts, n),
                Body::UserspaceExit { reason, errno } => {
                    self.returns(&mut t, whose, tid, e.ts, n, returned(reason, errno));
                }
                _ => {}
            }
        }
        self.threads.insert(tid, t);
    }

    /// Adds a stretch of time.
    fn stretch(&mut self, whose: Whose, name: &'static str, start: u64, end: u64) {
        if let Some(part) = self.seen.q.part(start, end).filter(|_| self.seen.timed) {
            let g = self.sums.of(whose, Kind::Time, name, 0);
            g.count += 1;
            g.durations.push(part);
        }
    }

    /// What a vCPU was in before an event that cannot follow it directly: events between are missing.
    fn lacks(&mut self, t: &mut Thread, whose: Whose, ts: u64) {
        let since = match std::mem::take(&mut t.at) {
            Where::Unseen => return,
            Where::Guest(s) | Where::Vmm(_, s, _) | Where::Gap(s) => s,
            Where::Kvm(x) => x.ts,
        };
        self.stretch(whose, "unknown", since, ts);
    }

    fn exits(
        &mut self,
        t: &mut Thread,
        whose: Whose,
        (tid, ts, event, rip): (u32, u64, u32, u64),
        why: (Option<u32>, Option<Isa>, StrId),
    ) {
        if let Where::Guest(since) = t.at {
            self.stretch(whose, "guest", since, ts);
        } else {
            self.lacks(t, whose, ts);
        }
        let (reason, isa, said) = why;
        let reason = if isa == Some(Isa::Vmx) { reason.map(|r| r & 0x8000_ffff) } else { reason };
        let name = self.name(reason, isa, said);
        let exit = Exit { ts, event, name, reason, isa, rip };
        if self.seen.q.holds(ts) {
            let vmm = self.returns.then_some(0);
            let g = self.exit_row(whose, &exit);
            g.hit(tid, exit.rip);
            g.vmm = g.vmm.or(vmm);
            g.reason = exit.reason.map(|r| (r, exit.isa));
        }
        t.at = Where::Kvm(exit);
    }

    fn exit_row(&mut self, whose: Whose, x: &Exit) -> &mut super::Gathered {
        let isa = match x.isa {
            None => 0,
            Some(Isa::Vmx) => 1,
            Some(Isa::Svm) => 2,
            Some(Isa::Other(n)) => u64::from(n),
        };
        let number = isa << 32 | x.reason.map_or(0, u64::from);
        self.sums.of(whose, Kind::Exit, x.name.clone(), number)
    }

    fn name(&self, reason: Option<u32>, isa: Option<Isa>, said: StrId) -> Cow<'static, str> {
        let named = reason.zip(isa).and_then(|(r, isa)| exit_name(isa, r).map(|n| (r, isa, n)));
        match (named, reason) {
            // Bit 31: the entry failed, and the guest did not run.
            (Some((r, Isa::Vmx, n)), _) if r >> 31 == 1 => format!("{n} (entry failed)").into(),
            (Some((_, _, n)), _) => n.into(),
            (None, _) if said != StrId::default() => self.seen.trace.strings.get(said).to_owned().into(),
            (None, Some(r)) => format!("reason {r:#x}").into(),
            (None, None) => "reason not known".into(),
        }
    }

    /// The time from an exit to a return to the VMM or to an entry.
    fn in_kvm(&mut self, whose: Whose, tid: u32, x: &Exit, (event, ts): (u32, u64)) {
        let own = self.faults.get(&tid).map_or(&[][..], Vec::as_slice);
        let faults = &self.seen.faults;
        let from = own.partition_point(|f| faults[*f].event < x.event);
        // The last fault of an exit is the one whose end is known.
        let fault = own[from..]
            .iter()
            .map(|f| &faults[*f])
            .take_while(|f| f.event < event)
            .filter(|f| f.exit_ts == Some(x.ts) && f.duration().is_some())
            .last();
        let halted = x.isa.zip(x.reason).is_some_and(|(isa, r)| is_halt(isa, r));
        let name = match fault {
            Some(f) if f.mmio => "mmio",
            Some(_) => "fault",
            None if halted => "halt",
            None => "kvm",
        };
        self.stretch(whose, name, x.ts, ts);
    }

    fn enters(&mut self, t: &mut Thread, whose: Whose, tid: u32, ts: u64, event: u32) {
        let out = match std::mem::take(&mut t.at) {
            Where::Kvm(x) => {
                self.in_kvm(whose, tid, &x, (event, ts));
                Some((x, 0))
            }
            Where::Vmm(x, since, why) => {
                self.vmm(whose, (tid, x.as_ref().map_or(0, |x| x.rip)), (since, ts), why);
                x.map(|x| (x, ts.saturating_sub(since)))
            }
            other => {
                t.at = other;
                self.lacks(t, whose, ts);
                None
            }
        };
        if let Some((x, vmm)) = out {
            let length = ts.saturating_sub(x.ts);
            t.longest = t.longest.max(length);
            if self.seen.q.holds(x.ts) && self.seen.timed {
                let g = self.exit_row(whose, &x);
                g.durations.push(length);
                g.vmm = g.vmm.map(|v| v + vmm);
            }
        }
        t.at = Where::Guest(ts);
    }

    fn returns(
        &mut self,
        t: &mut Thread,
        whose: Whose,
        tid: u32,
        ts: u64,
        event: u32,
        why: Cow<'static, str>,
    ) {
        let exit = match std::mem::take(&mut t.at) {
            Where::Kvm(x) => {
                self.in_kvm(whose, tid, &x, (event, ts));
                Some(x)
            }
            // KVM_RUN came back without entering the guest. The exit ends with the next entry.
            Where::Vmm(x, since, before) => {
                self.vmm(whose, (tid, x.as_ref().map_or(0, |x| x.rip)), (since, ts), before);
                t.at = Where::Vmm(x, ts, why);
                return;
            }
            other => {
                t.at = other;
                self.lacks(t, whose, ts);
                None
            }
        };
        t.at = Where::Vmm(exit, ts, why);
    }

    /// A stay in the VMM is over.
    fn vmm(&mut self, whose: Whose, (tid, rip): (u32, u64), (since, ts): (u64, u64), why: Cow<'static, str>) {
        self.stretch(whose, "vmm", since, ts);
        if self.seen.q.holds(since) {
            let g = self.sums.of(whose, Kind::Vmm, why, 0);
            g.hit(tid, rip);
            if self.seen.timed {
                g.durations.push(ts.saturating_sub(since));
            }
        }
    }

    /// Ends all vCPUs where the trace does.
    fn stays(mut self) -> Vec<Stays> {
        let mut out = Vec::new();
        let end = self.seen.trace.info.last_ts;
        let mut threads: Vec<(u32, Thread)> = self.threads.drain().collect();
        threads.sort_by_key(|t| t.0);
        for (tid, t) in threads {
            let Some(whose) = t.whose else { continue };
            match t.at {
                Where::Vmm(x, since, why) if self.seen.q.holds(since) => {
                    self.sums.of(whose, Kind::Vmm, why, 0).hit(tid, x.map_or(0, |x| x.rip));
                }
                Where::Kvm(x)
                    if self.seen.timed
                        && self.seen.q.to.is_none()
                        && !self.gone(whose)
                        && end.saturating_sub(x.ts) > t.longest =>
                {
                    out.push(Stays { whose, reason: x.name, since: x.ts });
                }
                _ => {}
            }
        }
        out
    }

    /// Whether a VM was torn down.
    fn gone(&self, whose: Whose) -> bool {
        self.seen.timeline.vms().iter().any(|v| Some(v.id.0) == whose.vm && v.ended.is_some())
    }
}

/// Why KVM_RUN returned, in the kernel's words.
fn returned(reason: u32, errno: i32) -> Cow<'static, str> {
    match (errno, vmm_exit_name(reason)) {
        (-4, _) => "EINTR".into(),
        (e, _) if e < 0 => format!("error {}", e.unsigned_abs()).into(),
        (_, Some(name)) => name.into(),
        _ => format!("reason {reason}").into(),
    }
}
