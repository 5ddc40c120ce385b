//! [`VmMap`]: what is known of each VM while the trace is replayed. Whose an event is, [`Attribution`] says; this holds what follows for the VM: its
//! MMU, its roots, whether its making is in the trace, its end. Rules ask by the VM's number; nothing here looks at entries.
//!
//! The rule in five sentences:
//!
//! 1. A VM's life is made of the events of its threads; what a thread of no known VM does is part of none, and shows at most that tables were there
//!    before the trace.
//! 2. A VM is complete, so that all that it maps is in the trace, if the first thing it did was to make its root (with PAE: four tables) and nothing
//!    was lost since.
//! 3. Where threads are in their VMs by what they work on, all VMs are complete or none counts as it, and one that made no root is, if the first
//!    thing in the trace was the making of another's.
//! 4. Which MMU it has is what its events show: a change event is the TDP MMU's, shadow pages are shadow paging's.
//! 5. It ended if all of its vCPU threads ended, and its process where that is known, or if its tables were zapped with a root and nothing of it
//!    followed.

use mmuscope_trace::{Body, Event, Role, StrId, Trace, snapshot};

use crate::attribution::{Attribution, Seen, works_on_tables};
use crate::model::{MmuKind, Vcpu, Vm, VmEnd, VmId};
use crate::moment::{At, NO_VM};
use crate::threads::{NewPage, Thread};

/// What is known of one VM while replaying.
#[derive(Clone, Debug, Default)]
pub(crate) struct VmState {
    pub(crate) kind: MmuKind,
    pub(crate) as_ids: Vec<u8>,
    pub(crate) first: Option<u64>,
    pub(crate) last: u64,
    /// Made by `kvm_mmu_get_page`, not filled yet.
    roots: Vec<NewPage>,
    top: u8,
    /// Everything that made its tables is in the trace: it begins before the first root, and nothing was lost since.
    complete: bool,
    /// It is complete only since a snapshot: what its tables held before is not in the trace.
    since_snapshot: bool,
    /// It did something before.
    acted: bool,
    /// What it did were so many pages of level 2, and nothing else: four are the roots of a guest with three levels of tables.
    pae_roots: u8,
    /// Its vCPU threads that ended, and its process's first.
    ended: Vec<u32>,
    /// When all roots became obsolete, since its tables are in doubt.
    renewed: Option<u32>,
    /// Roots of several roles may be valid at once in one address space.
    several_roots: bool,
    /// vCPU threads, in the order of their appearance: tid, vCPU number, name.
    pub(crate) vcpus: Vec<(u32, Option<u32>, StrId)>,
    /// Thread and number of each vCPU that a snapshot found to have run.
    found: Vec<(u32, u32)>,
    /// Name of the first thread that acted.
    comm: StrId,
    going: Option<Going>,
    /// All of its roots were made obsolete, and nothing was built since: that they are zapped now is no end.
    obsoleted: bool,
    /// Greatest level of any of its page-table pages that an event named.
    tallest: u8,
}

/// Zaps of a VM that does nothing else any more.
#[derive(Clone, Copy, Debug)]
struct Going {
    first: (u32, u64),
    last: (u32, u64),
    tid: u32,
    comm: StrId,
    /// A root was among what was zapped.
    root: bool,
    /// Some of it was zapped by a vCPU that had left the guest and is not known to have returned to user space.
    inside: bool,
}

impl Going {
    /// Whether these zaps were the end of their VM, in a trace whose last event is at `end`.
    fn is_end(&self, end: u64) -> bool {
        self.root && (!self.inside || end.saturating_sub(self.last.1) >= BACK)
    }
}

/// A vCPU that zaps a root which it uses no more is back in its guest after less than this, in nanoseconds.
const BACK: u64 = 100_000_000;

/// The VMs of a trace.
#[derive(Clone, Debug, Default)]
pub(crate) struct VmMap {
    /// Whose the events are. It numbers the VMs.
    pub(crate) attribution: Attribution,
    pub(crate) vms: Vec<VmState>,
    /// The first thing any VM did was to make a root, and nothing was lost since.
    clean: Option<bool>,
    seen: Seen,
    /// Name of the thread whose event is being looked at.
    now: StrId,
}

impl VmMap {
    pub(crate) fn new(trace: &Trace) -> Self {
        Self::default().anew(trace)
    }

    /// The VMs of the same trace grown longer, found as if it had been so long at once.
    pub(crate) fn anew(&mut self, trace: &Trace) -> Self {
        let mut m = Self { seen: std::mem::take(&mut self.seen), ..Self::default() };
        m.update(trace);
        self.seen.clone_from(&m.seen);
        m
    }

    /// Takes over what the trace, grown longer, shows of its VMs. They must be those of before, or more.
    pub(crate) fn update(&mut self, trace: &Trace) {
        let before = std::mem::replace(&mut self.attribution, Attribution::grown(trace, &mut self.seen));
        self.attribution.keep_vcpus(&before);
        if self.vms.len() < self.attribution.vms() {
            self.vms.resize_with(self.attribution.vms(), VmState::default);
        }
    }

    /// The VM that a snapshot describes, by its process and its vCPUs' threads.
    pub(crate) fn of_snapshot(&mut self, v: &snapshot::Vm) -> Option<u16> {
        let id = self.attribution.of_snapshot(v)?;
        if self.vms.len() <= usize::from(id) {
            self.vms.resize_with(usize::from(id) + 1, VmState::default);
        }
        let s = &mut self.vms[usize::from(id)];
        s.first.get_or_insert(v.at);
        s.last = s.last.max(v.at);
        // Slots that are read again come without vCPUs.
        if !v.vcpus.is_empty() {
            s.found = v.vcpus.iter().filter_map(|c| Some((c.tid?, c.number))).collect();
        }
        Some(id)
    }

    /// The numbers of all VMs.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = u16> + use<> {
        (0..self.vms.len()).map(|n| n as u16)
    }

    /// Every table of a VM was read in memory: from now on everything that makes its tables is in the trace.
    pub(crate) fn all_read(&mut self, vm: u16) {
        if let Some(s) = self.vms.get_mut(usize::from(vm)) {
            s.since_snapshot |= !s.complete;
            (s.acted, s.complete) = (true, true);
        }
    }

    /// A root was read in memory; `beside` says that it may live beside another of its address space.
    pub(crate) fn root_read(&mut self, vm: u16, level: u8, beside: bool) {
        if let Some(s) = self.vms.get_mut(usize::from(vm)) {
            s.several_roots |= beside || s.top != 0 && s.top != level;
            s.top = s.top.max(level);
        }
    }

    /// The same threads in the same VMs as another map says.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        self.attribution.agrees(&other.attribution)
    }

    /// Nothing that the other map says would have changed which VM an event is of.
    pub(crate) fn suffices(&self, other: &Self) -> bool {
        self.attribution.suffices(&other.attribution)
    }

    /// The VM of a thread, made if it is the only one.
    pub(crate) fn of_tid(&mut self, tid: u32, pid: Option<u32>) -> Option<u16> {
        let vm = self.attribution.of_thread(tid, pid)?;
        if self.vms.len() <= usize::from(vm) {
            self.vms.resize_with(usize::from(vm) + 1, VmState::default);
        }
        Some(vm)
    }

    /// Of some thread nothing but its number says which VM it works for: then its VM may show tables of another, and that one lack them.
    pub(crate) fn guessed(&self) -> bool {
        self.attribution.guessed()
    }

    /// Whether what a VM does may be another's, or is of no known VM.
    pub(crate) fn may_be_another(&self, vm: u16) -> bool {
        vm == NO_VM || self.attribution.group(vm).is_some_and(|g| g.alone)
    }

    /// There is one VM, so that everything is its.
    pub(crate) fn one(&self) -> bool {
        self.attribution.one()
    }

    /// Threads are in their VMs beyond doubt: there is one, or the recording names the processes.
    pub(crate) fn sure(&self) -> bool {
        self.attribution.sure()
    }

    /// Notes who acted.
    pub(crate) fn touch(&mut self, th: &mut Thread, e: &Event, ts: u64) {
        self.now = e.comm;
        let vcpu = match e.body {
            Body::Exit { vcpu, .. } | Body::PageFault { vcpu, .. } => vcpu,
            Body::Entry { vcpu, .. } | Body::FastPageFault { vcpu, .. } | Body::PmlFull { vcpu } => {
                Some(vcpu)
            }
            _ => None,
        };
        if th.vm.is_none() {
            th.vm = self.of_tid(th.tid, e.pid);
        }
        let Some(vm) = th.vm else { return };
        let s = &mut self.vms[usize::from(vm)];
        if s.first.is_none() {
            s.first = Some(ts);
            s.comm = e.comm;
        }
        s.last = ts;
        if let Some(v) = vcpu
            && th.vcpu != Some(v)
        {
            th.vcpu = Some(v);
            self.attribution.note_vcpu(th.tid, v);
            if let Some(x) = s.vcpus.iter_mut().find(|x| x.0 == th.tid) {
                x.1 = Some(v);
            } else {
                s.vcpus.push((th.tid, Some(v), e.comm));
            }
        }
    }

    pub(crate) fn kind(&mut self, vm: u16, kind: MmuKind) {
        if let Some(s) = self.vms.get_mut(usize::from(vm)) {
            s.kind = match (s.kind, kind) {
                (MmuKind::Unknown, k) => k,
                (a, b) if a == b => a,
                (MmuKind::Tdp, MmuKind::Shadow) | (MmuKind::Shadow, MmuKind::Tdp) | (MmuKind::Mixed, _) => {
                    MmuKind::Mixed
                }
                // Direct pages come with shadow paging too (real mode, split huge guest pages).
                (MmuKind::Shadow, MmuKind::Direct) | (MmuKind::Direct, MmuKind::Shadow) => MmuKind::Shadow,
                (MmuKind::Tdp, _) | (_, MmuKind::Tdp) => MmuKind::Tdp,
                (a, _) => a,
            };
        }
    }

    /// Its MMU, as far as events have shown it.
    pub(crate) fn kind_of(&self, vm: u16) -> MmuKind {
        self.vms.get(usize::from(vm)).map_or(MmuKind::Unknown, |s| s.kind)
    }

    /// Whether its events show the TDP MMU. Of no known VM they do if those of every VM do whose MMU they show.
    pub(crate) fn is_tdp(&self, vm: u16) -> bool {
        let tdp = |s: &VmState| matches!(s.kind, MmuKind::Tdp | MmuKind::Mixed);
        if vm == NO_VM {
            let mut shown = self.vms.iter().filter(|s| s.kind != MmuKind::Unknown).peekable();
            return shown.peek().is_some() && shown.all(tdp);
        }
        self.vms.get(usize::from(vm)).is_some_and(tdp)
    }

    pub(crate) fn as_id(&mut self, vm: u16, as_id: u8) {
        if let Some(s) = self.vms.get_mut(usize::from(vm))
            && !s.as_ids.contains(&as_id)
        {
            s.as_ids.push(as_id);
            s.as_ids.sort_unstable();
        }
    }

    pub(crate) fn new_root(&mut self, vm: u16, np: NewPage, role: &Role) {
        if let Some(s) = self.vms.get_mut(usize::from(vm)) {
            s.several_roots |= np.mirror || role.guest_mode == Some(true) || s.top != 0 && s.top != np.level;
            if s.roots.len() >= 64 {
                s.roots.remove(0);
            }
            s.roots.push(np);
            s.top = s.top.max(np.level);
        }
    }

    /// A page of a mirror tree was made: there is a root for it beside the others, whether its making was seen or not.
    pub(crate) fn has_mirror(&mut self, vm: u16) {
        if let Some(s) = self.vms.get_mut(usize::from(vm)) {
            s.several_roots = true;
        }
    }

    /// A page thought to be a root was linked below another.
    pub(crate) fn linked(&mut self, vm: u16, ev: u32) {
        if let Some(s) = self.vms.get_mut(usize::from(vm)) {
            s.roots.retain(|r| r.ev != ev);
        }
    }

    /// The newest root of this level that no event has filled yet.
    pub(crate) fn take_root(
        &mut self,
        vm: u16,
        level: u8,
        as_id: u8,
        mirror: Option<bool>,
    ) -> Option<NewPage> {
        let s = self.vms.get_mut(usize::from(vm))?;
        let i = s.roots.iter().rposition(|r| {
            r.level == level && r.as_id.is_none_or(|a| a == as_id) && mirror.is_none_or(|m| m == r.mirror)
        })?;
        Some(s.roots.remove(i))
    }

    /// Level of this VM's roots, as far as known.
    pub(crate) fn top_level(&self, vm: u16) -> u8 {
        self.vms.get(usize::from(vm)).map_or(4, |s| if s.top == 0 { 4 } else { s.top })
    }

    /// Whether the trace holds everything that made this VM's tables.
    pub(crate) fn complete(&self, vm: u16) -> bool {
        self.vms.get(usize::from(vm)).is_some_and(|s| s.complete)
    }

    /// The same from the beginning of the trace, so that what no event has shown was empty all the time.
    pub(crate) fn whole(&self, vm: u16) -> bool {
        self.vms.get(usize::from(vm)).is_some_and(|s| s.complete && !s.since_snapshot)
    }

    /// The same of all VMs.
    pub(crate) fn all_complete(&self) -> bool {
        self.clean != Some(false) && self.vms.iter().all(|s| s.complete || !s.acted)
    }

    /// Whether tables may be alive in this VM that the trace has not shown, or gone without an event.
    pub(crate) fn careful(&self, vm: u16) -> bool {
        if self.sure() { !self.complete(vm) } else { !self.all_complete() }
    }

    /// The same of whatever VM an event may be of.
    pub(crate) fn careful_at(&self, at: At) -> bool {
        if at.vm_known { self.careful(at.vm) } else { !self.all_complete() }
    }

    /// Whether several valid roots of one address space may live at once: of a mirror, of guest mode, of another height.
    pub(crate) fn several_roots(&self, vm: u16) -> bool {
        self.vms.get(usize::from(vm)).is_none_or(|s| s.several_roots || s.kind == MmuKind::Mixed)
    }

    /// Notes that a VM is at work. One whose first deed is to make a root had none before
    /// (its memslots may have been moved about before it ran, which makes all roots obsolete that there are not yet).
    pub(crate) fn note_activity(&mut self, vm: u16, body: &Body) {
        let sure = self.sure();
        let Some(s) = self.vms.get_mut(usize::from(vm)) else {
            // Whichever VM it is of had tables before.
            if works_on_tables(body) {
                self.clean.get_or_insert(false);
            }
            return;
        };
        match body {
            Body::GetPage { page, created: true }
                if page.role.level == 2 && (!s.acted || matches!(s.pae_roots, 1..=3)) =>
            {
                s.pae_roots += 1;
                (s.acted, s.complete) = (true, s.pae_roots == 4);
                self.clean.get_or_insert(true);
            }
            _ if s.acted => s.pae_roots = 0,
            Body::GetPage { page, created: true }
                // SMM and nested guests come later than a VM's first root.
                if page.role.level >= 3 && page.role.smm != Some(true) && page.role.guest_mode != Some(true) =>
            {
                (s.acted, s.complete) = (true, true);
                self.clean.get_or_insert(true);
            }
            _ if works_on_tables(body) => {
                // Threads that are in a VM of their own only because nothing shows whose they are: a VM would begin with a root.
                (s.acted, s.complete) = (true, !sure && self.clean == Some(true));
                self.clean.get_or_insert(false);
            }
            _ => {}
        }
    }

    /// Notes that a VM did what one that is being torn down does not.
    pub(crate) fn lives(&mut self, vm: u16, obsoleted: bool) {
        if let Some(s) = self.vms.get_mut(usize::from(vm)) {
            (s.going, s.obsoleted) = (None, obsoleted);
        }
    }

    /// Whether a page-table page is as high up as any of its VM's that an event named.
    pub(crate) fn is_tallest(&mut self, vm: u16, level: u8) -> bool {
        self.vms.get_mut(usize::from(vm)).is_some_and(|s| {
            s.tallest = s.tallest.max(level);
            level >= s.tallest
        })
    }

    /// Notes what only a VM that is not at its end does.
    pub(crate) fn note_life(&mut self, vm: u16, body: &Body) {
        match body {
            Body::ZapAllFast { .. } => self.lives(vm, true),
            Body::Entry { .. }
            | Body::Exit { .. }
            | Body::UserspaceExit { .. }
            | Body::PageFault { .. }
            | Body::SetSpte { .. }
            | Body::SpteRequested { .. }
            | Body::MarkMmioSpte { .. }
            | Body::FastPageFault { .. }
            | Body::GetPage { .. }
            | Body::SyncPage { .. }
            | Body::UnmapHvaRange { .. }
            | Body::AgeHva { .. }
            | Body::TestAgeHva { .. }
            | Body::SetSpteHva { .. } => self.lives(vm, false),
            _ => {}
        }
    }

    /// Notes a zap by a thread, which may be part of a VM's end: not if the thread is on its way back into the guest. `leaving_is_traced` says that
    /// returns to user space are recorded.
    pub(crate) fn note_zap(&mut self, at: At, vm: u16, t: &Thread, leaving_is_traced: bool, root: bool) {
        // A vCPU zaps a root itself, too, when it uses it no more: after its guest changed CR0.WP, for one.
        let inside = t.fault.runs();
        if leaving_is_traced && inside {
            self.lives(vm, false);
        } else {
            self.zapped(at, vm, t.tid, root, inside);
        }
    }

    /// Notes a zap, which may be part of a VM's end.
    fn zapped(&mut self, at: At, vm: u16, tid: u32, root: bool, inside: bool) {
        let comm = self.now;
        let Some(s) = self.vms.get_mut(usize::from(vm)).filter(|s| !s.obsoleted) else { return };
        let here = (at.ev, at.ts);
        let g = s.going.get_or_insert(Going { first: here, last: here, tid, comm, root, inside });
        (g.last, g.tid, g.comm) = (here, tid, comm);
        g.root |= root;
        g.inside |= inside;
    }

    /// A thread ended: the VMs that ended with it.
    pub(crate) fn ended(&mut self, tid: u32) -> Vec<u16> {
        let mut gone = Vec::new();
        for (i, s) in self.vms.iter_mut().enumerate() {
            let pid = self.attribution.group(i as u16).and_then(|g| g.pid);
            let of_it = pid == Some(tid) || s.vcpus.iter().any(|v| v.0 == tid);
            if !of_it || s.ended.contains(&tid) {
                continue;
            }
            s.ended.push(tid);
            let has = |t: u32| s.ended.contains(&t);
            if !s.vcpus.is_empty() && s.vcpus.iter().all(|v| has(v.0)) && pid.is_none_or(has) {
                gone.push(i as u16);
            }
        }
        gone
    }

    /// Events were lost.
    pub(crate) fn lost(&mut self) {
        self.clean = Some(false);
        for s in &mut self.vms {
            (s.going, s.obsoleted) = (None, false);
            (s.acted, s.complete, s.renewed) = (true, false, None);
        }
    }

    /// Tables of a VM may have been made obsolete without an event.
    pub(crate) fn doubt(&mut self, vm: u16) {
        if let Some(s) = self.vms.get_mut(usize::from(vm)) {
            s.complete = false;
        }
    }

    /// All roots of a VM become obsolete with event `ev`; the event with which they did the last time, if its tables are in doubt since before.
    pub(crate) fn all_obsolete_again(&mut self, vm: u16, ev: u32) -> Option<u32> {
        self.vms.get_mut(usize::from(vm))?.renewed.replace(ev)
    }

    /// The VMs; `end` is the time of the last event, and `empty` says of which no page table is left.
    pub(crate) fn finish(&self, trace: &Trace, end: u64, empty: impl Fn(u16) -> bool) -> Vec<Vm> {
        self.vms
            .iter()
            .enumerate()
            .map(|(i, s)| {
                let group = self.attribution.group(i as u16).cloned().unwrap_or_default();
                let mut vcpus: Vec<Vcpu> = s
                    .vcpus
                    .iter()
                    .map(|(tid, id, comm)| Vcpu {
                        tid: *tid,
                        vcpu_id: *id,
                        comm: trace.strings.get(*comm).to_owned(),
                    })
                    .collect();
                let comm = name_of(&group.name, s.comm, &vcpus, trace);
                // Where no event shows a vCPU, a snapshot names them.
                if vcpus.is_empty() {
                    let vcpu = |(tid, id): &(u32, u32)| Vcpu {
                        tid: *tid,
                        vcpu_id: Some(*id),
                        comm: format!("vCPU {id}"),
                    };
                    vcpus.extend(s.found.iter().map(vcpu));
                }
                Vm {
                    id: VmId(i as u16),
                    pid: group.pid,
                    comm,
                    vcpus,
                    as_ids: if s.as_ids.is_empty() { vec![0] } else { s.as_ids.clone() },
                    kind: s.kind,
                    start: s.first.unwrap_or(trace.info.first_ts),
                    end: s.last,
                    provenance: group.provenance,
                    ended: s.going.filter(|g| g.is_end(end) && empty(i as u16)).map(|g| VmEnd {
                        start: g.first.1,
                        end: g.last.1,
                        event: g.first.0,
                        last_event: g.last.0,
                        tid: g.tid,
                        comm: trace.strings.get(g.comm).to_owned(),
                    }),
                }
            })
            .collect()
    }
}

/// Name of a VM: its VMM's, which the worker threads that live in its process are not.
fn name_of(name: &str, first: StrId, vcpus: &[Vcpu], trace: &Trace) -> String {
    if !name.is_empty() && !name.starts_with("kvm-nx") && !name.starts_with("vhost-") {
        return name.to_owned();
    }
    vcpus.first().map_or_else(|| trace.strings.get(first).to_owned(), |v| v.comm.clone())
}
