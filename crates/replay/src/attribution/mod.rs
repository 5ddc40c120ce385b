//! [`Attribution`]: which VM, vCPU and address space an event belongs to, how that is known, and how sure it is. No event says whose it is;
//! threads, processes and page tables do. Whoever wants to know asks here: the replay for each event, the table of events, its filter, the
//! summary and the viewer, so that a VM has the same number everywhere. It can be made from a trace in memory ([`Attribution::of`]) or while
//! events pass ([`VmSearch`]); nothing here looks at entries.
//!
//! The rule in five sentences:
//!
//! 1. A thread is of the VM of its process where the recording names processes and that one has a single VM, and otherwise of the VM whose page
//!    tables it works on, as [`grouping`] finds. A thread of a process with several VMs that no table places is taken for the first one's, as
//!    assumed; the vCPU threads and the process that a snapshot names count as the recording's.
//! 2. With a single VM in the trace, every event that can be a VM's is its (a marker or the name of a task only if its thread is); with several,
//!    what is done by a thread that nothing puts into one of them, and whose process has none, is of no known VM.
//! 3. VMs are numbered from 0, in the order of the first events that show what their threads work on, or as the reader lists them where there is
//!    nothing to find out.
//! 4. The vCPU is the one that the event itself names, and otherwise that of its thread, unless the thread ran more than one.
//! 5. The address space is what the event names (`kvm_tdp_mmu_spte_changed` its number, a page-table page whether it is SMM's), and otherwise
//!    not known.

mod grouping;
mod union;

use mmuscope_trace::{Body, Event, Strings, Trace, TraceInfo, snapshot};
use rustc_hash::FxHashMap;

use crate::model::{Certainty, VmId};

pub(crate) use grouping::{Group, Seen, works_on_tables};

/// How it is known which VM an event belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnerReason {
    /// It concerns the host: a loss, or a marker, the name of a task or an event of another system, by a thread that no VM has.
    Host,
    /// The recording names the process of its thread, and that process has one VM.
    Process,
    /// There is one VM in the trace.
    OnlyVm,
    /// Its thread works on page tables of that VM.
    Tables,
    /// Nothing but the numbers of its thread and vCPU puts it there.
    Number,
    /// There are several VMs, and nothing shows which of them its thread works for.
    Unknown,
}

impl OwnerReason {
    /// The reason in words, to follow "because".
    pub const fn words(self) -> &'static str {
        match self {
            Self::Host => "it concerns the host and no VM",
            Self::Process => "the recording names the process of its thread",
            Self::OnlyVm => "there is one VM in the trace",
            Self::Tables => "its thread works on page tables of that VM",
            Self::Number => "nothing but the number of its vCPU or of its thread speaks for another",
            Self::Unknown => "there are several VMs, and nothing shows which of them its thread works for",
        }
    }

    /// How sure that is; `None` where no VM is named.
    pub const fn certainty(self) -> Option<Certainty> {
        match self {
            Self::Process | Self::OnlyVm => Some(Certainty::Observed),
            Self::Tables => Some(Certainty::Implied),
            Self::Number => Some(Certainty::Assumed),
            Self::Host | Self::Unknown => None,
        }
    }
}

/// What an event belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its VM, where one is known.
    pub vm: Option<VmId>,
    /// KVM's number of its vCPU, where one is known.
    pub vcpu: Option<u32>,
    /// Its address space (0 is the normal one, 1 is SMM), where the event names one.
    pub as_id: Option<u8>,
    /// How its VM is known, or why not.
    pub reason: OwnerReason,
}

/// The VMs of a trace and their threads. The page of its module has the rule.
#[derive(Clone, Debug, Default)]
pub struct Attribution {
    /// By number.
    vms: Vec<Group>,
    by_tid: FxHashMap<u32, u16>,
    by_pid: FxHashMap<u32, u16>,
    /// The vCPU of each thread that runs one; `None` where it ran several.
    vcpus: FxHashMap<u32, Option<u32>>,
}

/// Finds the VMs of a trace while its events pass by: for those who do not hold the events.
///
/// Memory grows with the threads and page tables of the trace, not with its events.
#[derive(Clone, Debug, Default)]
pub struct VmSearch(grouping::Pass);

impl VmSearch {
    /// Takes an event into account. All of the trace's must pass, in their order.
    pub fn event(&mut self, e: &Event, strings: &Strings) {
        self.0.event(e, strings);
    }

    /// What the events that passed belong to; `info` is what the reader says at the end.
    pub fn finish(self, info: &TraceInfo) -> Attribution {
        Attribution::new(self.0.into_groups(info), info)
    }
}

impl Attribution {
    /// What the events of a trace in memory belong to.
    pub fn of(trace: &Trace) -> Self {
        Self::grown(trace, &mut Seen::default())
    }

    /// The same of a trace that may have grown since `seen` was left.
    pub(crate) fn grown(trace: &Trace, seen: &mut Seen) -> Self {
        Self::new(grouping::groups(trace, seen), &trace.info)
    }

    fn new(mut vms: Vec<Group>, info: &TraceInfo) -> Self {
        add_read(&mut vms, info);
        vms.truncate(usize::from(u16::MAX) - 1);
        let mut a = Self::default();
        for (n, vm) in vms.iter().enumerate() {
            let n = n as u16;
            a.by_tid.extend(vm.tids.iter().map(|t| (*t, n)));
            if let Some(pid) = vm.pid {
                // Of several VMs in one process the first is the process's.
                a.by_pid.entry(pid).or_insert(n);
            }
        }
        for t in &info.tasks {
            if let Some(vm) = t.pid.and_then(|p| a.by_pid.get(&p)).copied() {
                a.by_tid.entry(t.tid).or_insert(vm);
            }
            if let Some(v) = t.vcpu_id {
                a.vcpus.insert(t.tid, (!t.several_vcpus).then_some(v));
            }
        }
        for (tid, vcpu) in info.vm_hints.iter().flat_map(|vm| &vm.vcpus) {
            a.vcpus.entry(*tid).or_insert(Some(*vcpu));
        }
        a.vms = vms;
        a
    }

    /// The number of VMs. They are numbered from 0.
    pub fn vms(&self) -> usize {
        self.vms.len()
    }

    /// Everything about an event.
    pub fn owner(&self, e: &Event) -> Owner {
        let vm = self.vm(e);
        let reason = match (vm, e.tid) {
            (Some(vm), Some(tid)) => self.reason(vm, tid),
            _ if can_be_a_vms(&e.body) => OwnerReason::Unknown,
            _ => OwnerReason::Host,
        };
        Owner { vm, vcpu: self.vcpu(e), as_id: self.as_id(e), reason }
    }

    /// The VM of an event: that of its thread, or the only one there is. A marker or the name of a task is a VM's only if its thread is.
    pub fn vm(&self, e: &Event) -> Option<VmId> {
        let tid = e.tid?;
        let known = self.put(tid, e.pid);
        known.or_else(|| (self.one() && can_be_a_vms(&e.body)).then_some(0)).map(VmId)
    }

    /// The address space that an event names.
    pub fn as_id(&self, e: &Event) -> Option<u8> {
        as_id(&e.body)
    }

    fn reason(&self, VmId(vm): VmId, tid: u32) -> OwnerReason {
        let Some(group) = self.vms.get(usize::from(vm)).filter(|_| !self.one()) else {
            return OwnerReason::OnlyVm;
        };
        if group.pid.is_some_and(|p| self.vms.iter().filter(|g| g.pid == Some(p)).count() == 1) {
            OwnerReason::Process
        } else if group.alone || group.guesses.contains(&tid) || !group.tids.contains(&tid) {
            OwnerReason::Number
        } else {
            OwnerReason::Tables
        }
    }

    /// The vCPU of an event: the number in the event itself, else the one of its thread.
    pub fn vcpu(&self, e: &Event) -> Option<u32> {
        own_vcpu(&e.body).or_else(|| e.tid.and_then(|t| self.vcpu_of(t)))
    }

    /// The vCPU that a thread runs; `None` where it runs none or several.
    pub fn vcpu_of(&self, tid: u32) -> Option<u32> {
        self.vcpus.get(&tid).copied().flatten()
    }

    /// Notes that a thread ran a vCPU, where the reader could not.
    pub(crate) fn note_vcpu(&mut self, tid: u32, vcpu: u32) {
        let known = self.vcpus.entry(tid).or_insert(Some(vcpu));
        if *known != Some(vcpu) {
            *known = None;
        }
    }

    /// Takes over the vCPUs that another noted.
    pub(crate) fn keep_vcpus(&mut self, other: &Self) {
        for (tid, vcpu) in &other.vcpus {
            self.vcpus.entry(*tid).or_insert(*vcpu);
        }
    }

    /// The VM that a thread, of a process where that is known, works for.
    pub(crate) fn of_thread(&self, tid: u32, pid: Option<u32>) -> Option<u16> {
        self.put(tid, pid).or_else(|| self.one().then_some(0))
    }

    /// The VM that a thread itself, or its process, was put into.
    fn put(&self, tid: u32, pid: Option<u32>) -> Option<u16> {
        let by_pid = || pid.and_then(|p| self.by_pid.get(&p));
        self.by_tid.get(&tid).or_else(by_pid).copied()
    }

    /// The VM that a snapshot of KVM's memory describes, by its vCPUs' threads or its process.
    pub(crate) fn of_snapshot(&self, v: &snapshot::Vm) -> Option<u16> {
        let by_tid = v.vcpus.iter().filter_map(|c| c.tid).find_map(|t| self.by_tid.get(&t));
        by_tid.or_else(|| self.by_pid.get(&v.pid).filter(|_| v.pid != 0)).copied()
    }

    /// The number of the VM that a snapshot of KVM's memory describes; `None` where the trace has more VMs than can be numbered.
    pub fn vm_of_snapshot(&self, v: &snapshot::Vm) -> Option<VmId> {
        self.of_snapshot(v).map(VmId)
    }

    /// The VM of a number, with its threads.
    pub(crate) fn group(&self, vm: u16) -> Option<&Group> {
        self.vms.get(usize::from(vm))
    }

    /// Whether there is one VM at most, so that everything is its.
    pub(crate) fn one(&self) -> bool {
        self.vms.len() < 2
    }

    /// Whether threads are in their VMs beyond doubt: there is one, or the recording names their processes, which have one each.
    pub(crate) fn sure(&self) -> bool {
        let own =
            |g: &Group| g.pid.is_some_and(|p| self.vms.iter().filter(|x| x.pid == Some(p)).count() == 1);
        self.one() || self.vms.iter().all(own)
    }

    /// Whether there are several VMs, and of some thread nothing but a number says which of them it works for: then its VM may show tables of
    /// another, and that one lack them.
    pub(crate) fn guessed(&self) -> bool {
        !self.one() && self.vms.iter().any(|g| !g.guesses.is_empty())
    }

    /// Whether the other puts the same threads into the same VMs. It may have more of either, but not a second VM beside an only one: then
    /// threads may be its that were taken for the only one's.
    pub(crate) fn agrees(&self, other: &Self) -> bool {
        self.one() >= other.one()
            && (self.one() == other.one())
            && self.guessed() == other.guessed()
            && self.by_tid.iter().all(|(t, v)| other.by_tid.get(t) == Some(v))
    }

    /// Whether nothing that the other says would have changed which VM an event is of.
    pub(crate) fn suffices(&self, other: &Self) -> bool {
        other.one() || self.vms.len() == other.vms.len() && self.by_tid == other.by_tid
    }
}

/// Adds what snapshots of KVM's memory say of VMs: their processes and vCPU threads, and VMs that no event shows.
fn add_read(vms: &mut Vec<Group>, info: &TraceInfo) {
    let read = info.snapshots.iter().filter_map(|p| match &**p {
        snapshot::Piece::Vm(v) => Some(v),
        _ => None,
    });
    for v in read {
        // The one that stands for all where nothing names a VM.
        if let [only] = &vms[..]
            && only.tids.is_empty()
            && only.pid.is_none()
        {
            vms.clear();
        }
        let tids = || v.vcpus.iter().filter_map(|c| c.tid);
        let pid = (v.pid != 0).then_some(v.pid);
        let known = vms
            .iter()
            .position(|g| tids().any(|t| g.tids.contains(&t)))
            .or_else(|| vms.iter().position(|g| pid.is_some() && g.pid == pid));
        let at = known.unwrap_or_else(|| {
            vms.push(Group { provenance: "read in KVM's own memory".to_owned(), ..Group::default() });
            vms.len() - 1
        });
        let g = &mut vms[at];
        g.pid = g.pid.or(pid);
        // The name of the process, where others have that of one of its threads.
        if !v.name.is_empty() {
            g.name.clone_from(&v.name);
        }
        for t in tids() {
            if !g.tids.contains(&t) {
                g.tids.push(t);
            }
        }
    }
}

/// Whether an event can belong to a VM. Markers, task names, losses and events of other systems concern the host.
pub(crate) fn can_be_a_vms(body: &Body) -> bool {
    !matches!(
        body,
        Body::Marker { .. }
            | Body::Lost { .. }
            | Body::Damage { .. }
            | Body::Snapshot { .. }
            | Body::Task { .. }
            | Body::Other { .. }
    )
}

/// The vCPU that an event itself names.
fn own_vcpu(body: &Body) -> Option<u32> {
    match *body {
        Body::FastPageFault { vcpu, .. }
        | Body::Entry { vcpu, .. }
        | Body::PmlFull { vcpu }
        | Body::DirtyRingExit { vcpu }
        | Body::RmpFault { vcpu, .. }
        | Body::SmmTransition { vcpu, .. } => Some(vcpu),
        Body::PageFault { vcpu, .. } | Body::Exit { vcpu, .. } | Body::NestedVmexit { vcpu, .. } => vcpu,
        _ => None,
    }
}

/// The address space that an event itself names.
fn as_id(body: &Body) -> Option<u8> {
    match body.as_traced() {
        Body::TdpSpteChanged { as_id, .. } => Some(as_id),
        Body::GetPage { page, .. }
        | Body::SyncPage { page }
        | Body::UnsyncPage { page }
        | Body::PrepareZapPage { page } => page.role.smm.map(u8::from),
        _ => None,
    }
}
