//! The last step of every reader: it completes what depends on earlier events. That is the encoding of error codes, the role words of
//! texts, which thread runs which vCPU, and what was lost.
//!
//! The main type is [`Assembler`]; the loaders give it every event in order. It never reads input and never drops an event.

use rustc_hash::FxHashMap;

use crate::event::{Body, ErrorEncoding, Event, Isa, StrId, TaskKind};
use crate::info::{RoleWord, Sourced, TaskInfo, TraceInfo, Vendor, VmHint};
use crate::role;
use crate::store::Who;
use crate::strings::Strings;

/// What is known about a thread.
#[derive(Clone, Debug, Default)]
struct Task {
    tid: u32,
    pid: Option<u32>,
    comm: StrId,
    vcpu: Option<u32>,
    /// Whether events of more than one vCPU id were seen on this thread.
    vcpus: bool,
    /// The vCPU id that its page faults name.
    faults: Option<u32>,
    /// The last exit since the last entry: its instruction set and its reason.
    exit: Option<(Option<Isa>, Option<u32>)>,
    pid_from: Option<&'static str>,
}

/// The part of an event that matters to later events.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Fact {
    Entry {
        vcpu: u32,
    },
    Exit {
        vcpu: Option<u32>,
        reason: Option<u32>,
        isa: Option<Isa>,
    },
    /// A `fast_page_fault`.
    Faults {
        vcpu: u32,
    },
    /// A `kvm_page_fault`; `wide` means that its error code field has 64 bits.
    Fault {
        vcpu: Option<u32>,
        code: u64,
        wide: bool,
    },
    /// A `kvm_mmu_set_spte` that prints no user letter.
    NoUser,
    Lost {
        count: Option<u64>,
        event: Option<StrId>,
    },
    Task {
        kind: TaskKind,
        tid: u32,
        pid: Option<u32>,
        comm: StrId,
    },
}

impl Fact {
    /// The fact in a record. Losses and tasks are not records; they are applied when they are handed out to be packed.
    #[inline]
    pub(crate) fn of_record(body: &Body) -> Option<Self> {
        if matches!(body, Body::Lost { .. } | Body::Task { .. }) { None } else { Self::of(body) }
    }

    #[inline]
    pub(crate) fn of(body: &Body) -> Option<Self> {
        Some(match *body {
            Body::Entry { vcpu, .. } => Self::Entry { vcpu },
            Body::Exit { vcpu, reason, isa, .. } => Self::Exit { vcpu, reason, isa },
            Body::FastPageFault { vcpu, .. } => Self::Faults { vcpu },
            Body::PageFault { error_code, rip, vcpu, .. } => {
                Self::Fault { vcpu, code: error_code, wide: rip.is_some() }
            }
            Body::SetSpte { u: None, .. } => Self::NoUser,
            Body::Lost { count, event } => Self::Lost { count, event },
            Body::Task { kind, tid, pid, comm } => Self::Task { kind, tid, pid, comm },
            _ => return None,
        })
    }
}

/// The state of the assembler.
#[derive(Clone, Debug, Default)]
pub(crate) struct Assembler {
    tasks: Vec<Task>,
    by_tid: FxHashMap<u32, u32>,
    /// The task that was last seen on each CPU.
    on_cpu: Vec<u32>,
    events: u64,
    first_ts: u64,
    last_ts: u64,
    /// The number of events whose time was before that of an earlier event.
    unordered: u64,
    /// Events are passed on in the order of the file, and nothing sorts them by time.
    as_they_come: bool,
    lost_moments: u64,
    lost_total: u64,
    lost_uncounted: bool,
    lost_cpu: FxHashMap<u16, u64>,
    lost_event: FxHashMap<StrId, u64>,
    isa: Option<Isa>,
    vendor: Option<Vendor>,
    /// Role words come from text, without the kernel's format.
    from_text: bool,
    role: Option<(RoleWord, &'static str)>,
    undecided: u64,
    user_none: bool,
}

impl Assembler {
    /// Makes an assembler; with `from_text`, role words come without the kernel's layout of them.
    pub(crate) fn new(from_text: bool) -> Self {
        Self { from_text, ..Self::default() }
    }

    /// Declares that events are passed on in the order in which they come.
    pub(crate) fn unsorted(mut self) -> Self {
        self.as_they_come = true;
        self
    }

    pub(crate) fn set_vendor(&mut self, vendor: Option<Vendor>) {
        self.vendor = self.vendor.or(vendor);
    }

    /// Whether the time of some event was before that of an earlier one.
    pub(crate) fn is_unordered(&self) -> bool {
        self.unordered > 0
    }

    /// Completes one event.
    #[inline]
    pub(crate) fn event(&mut self, e: &mut Event) {
        let who = Who::of(e);
        let task = self.arrives(e.ts, &who);
        if let Some(fact) = Fact::of(&e.body)
            && let Some(found) = self.learn(task, e.cpu, &fact)
            && let Body::PageFault { encoding, .. } = &mut e.body
        {
            *encoding = found;
        }
        if self.from_text {
            match &mut e.body {
                Body::GetPage { page, created } => self.role_of_text(&mut page.role, *created),
                Body::PrepareZapPage { page } | Body::SyncPage { page } | Body::UnsyncPage { page } => {
                    self.role_of_text(&mut page.role, false);
                }
                Body::SpteRequested { access: Some(_), .. } => {
                    self.role = Some((RoleWord::AccessRead, "kvm_mmu_spte_requested prints access"));
                }
                _ => {}
            }
        }
    }

    /// Notes the CPU and task of an event, and returns its task.
    #[inline]
    pub(crate) fn arrives(&mut self, ts: u64, who: &Who) -> Option<u32> {
        self.clock(ts);
        self.task(who)
    }

    /// Notes an event of the same CPU and task as the event before it.
    #[inline]
    pub(crate) fn clock(&mut self, ts: u64) {
        if self.events == 0 {
            self.first_ts = ts;
        } else if ts < self.last_ts {
            self.unordered += 1;
            self.first_ts = self.first_ts.min(ts);
        }
        self.last_ts = self.last_ts.max(ts);
        self.events += 1;
    }

    /// Learns from an event, and returns the encoding of a page fault's error code. It must be called in the order of the events.
    pub(crate) fn learn(&mut self, task: Option<u32>, cpu: u16, fact: &Fact) -> Option<ErrorEncoding> {
        let task = task.map(|t| t as usize);
        match *fact {
            Fact::Entry { vcpu } => {
                if let Some(t) = task {
                    let t = &mut self.tasks[t];
                    t.exit = None;
                    t.runs(vcpu);
                }
            }
            Fact::Exit { vcpu, reason, isa } => {
                self.isa = isa.or(self.isa);
                if let Some(t) = task {
                    let t = &mut self.tasks[t];
                    t.exit = Some((isa, reason));
                    if let Some(v) = vcpu {
                        t.runs(v);
                    }
                }
            }
            Fact::Faults { vcpu } => {
                if let Some(t) = task {
                    self.tasks[t].faults.get_or_insert(vcpu);
                }
            }
            Fact::Fault { vcpu, code, wide } => {
                if let (Some(t), Some(v)) = (task, vcpu) {
                    self.tasks[t].faults.get_or_insert(v);
                }
                let exit = task.and_then(|t| self.tasks[t].exit);
                return Some(self.encoding(exit, code, wide));
            }
            Fact::NoUser => self.user_none = true,
            Fact::Lost { count, event } => self.lost(cpu, count, event),
            Fact::Task { kind, tid, pid, comm } => {
                let i = self.task_of(tid);
                let t = &mut self.tasks[i];
                if pid.is_some() {
                    t.pid = pid;
                    t.pid_from = Some("task records");
                }
                if comm != StrId::default() && kind != TaskKind::Exit {
                    t.comm = comm;
                }
            }
        }
        None
    }

    fn lost(&mut self, cpu: u16, count: Option<u64>, event: Option<StrId>) {
        self.lost_moments += 1;
        let Some(n) = count else {
            self.lost_uncounted = true;
            return;
        };
        self.lost_total = self.lost_total.saturating_add(n);
        let c = self.lost_cpu.entry(cpu).or_default();
        *c = c.saturating_add(n);
        if let Some(ev) = event {
            let c = self.lost_event.entry(ev).or_default();
            *c = c.saturating_add(n);
        }
    }

    /// The task to which an event belongs.
    #[inline]
    fn task(&mut self, who: &Who) -> Option<u32> {
        let tid = who.tid?;
        let cpu = who.cpu as usize;
        let i = match self.on_cpu.get(cpu) {
            Some(&i) if self.tasks.get(i as usize).is_some_and(|t| t.tid == tid) => i as usize,
            _ => {
                let i = self.task_of(tid);
                if cpu >= self.on_cpu.len() {
                    self.on_cpu.resize(cpu + 1, u32::MAX);
                }
                self.on_cpu[cpu] = i as u32;
                i
            }
        };
        let t = &mut self.tasks[i];
        if who.comm != StrId::default() {
            t.comm = who.comm;
        }
        if let Some(pid) = who.pid
            && t.pid != Some(pid)
        {
            t.pid = Some(pid);
            t.pid_from = Some("recorded with its events");
        }
        Some(i as u32)
    }

    fn task_of(&mut self, tid: u32) -> usize {
        if let Some(&i) = self.by_tid.get(&tid) {
            return i as usize;
        }
        let i = self.tasks.len();
        self.tasks.push(Task { tid, ..Task::default() });
        self.by_tid.insert(tid, i as u32);
        i
    }

    /// The encoding of `kvm_page_fault.error_code`: by the exit that led to it, else by bits that only one encoding has, else by vendor.
    fn encoding(&mut self, exit: Option<(Option<Isa>, Option<u32>)>, code: u64, wide: bool) -> ErrorEncoding {
        if let Some((isa, Some(reason))) = exit {
            match (isa, reason & 0xffff) {
                (Some(Isa::Vmx), 48) => return ErrorEncoding::EptQualification,
                (Some(Isa::Vmx), 0) => return ErrorEncoding::PageFault,
                (Some(Isa::Svm), _) if reason == 0x400 => return ErrorEncoding::NestedPageFault,
                (Some(Isa::Svm), _) if reason == 0x4e => return ErrorEncoding::PageFault,
                _ => {}
            }
        }
        // A PFERR code has no bits 7 and 8, and an EPT qualification has nothing above bit 16.
        if code & 0x180 != 0 && code >> 32 == 0 {
            return ErrorEncoding::EptQualification;
        }
        if code >> 32 & 3 != 0 {
            return ErrorEncoding::NestedPageFault;
        }
        let vendor = match self.isa {
            Some(Isa::Vmx) => Some(Vendor::Intel),
            Some(Isa::Svm) => Some(Vendor::Amd),
            _ => self.vendor,
        };
        // A nested page fault of SVM always has bit 32 or 33 set, and the wide field holds them.
        if vendor == Some(Vendor::Amd) && wide {
            return ErrorEncoding::PageFault;
        }
        self.undecided += 1;
        ErrorEncoding::Ambiguous
    }

    /// Interprets a role word that was printed as a number without the kernel's layout: a direct page has 8-byte entries, whatever the kernel
    /// calls bit 4, and a page that is being made is not invalid.
    fn role_of_text(&mut self, r: &mut crate::event::Role, created: bool) {
        let Some(word) = r.raw else { return };
        let (layout, _) = *self.role.get_or_insert({
            if created && word >> 11 & 1 != 0 {
                (
                    RoleWord::AccessRead,
                    "a new page whose bit 11 is set: that is X of four access bits, not invalid",
                )
            } else if word >> 7 & 1 == 0 {
                (
                    RoleWord::Has4ByteGpte,
                    "the layout of 5.17 to 7.1 is assumed, because no direct page shows it",
                )
            } else if word >> 4 & 1 != 0 {
                (RoleWord::GpteIs8Bytes, "bit 4 of a direct page is set")
            } else {
                (RoleWord::Has4ByteGpte, "bit 4 of a direct page is clear")
            }
        });
        *r = role::decode(word, layout);
    }

    /// Writes everything that was learned into the info.
    pub(crate) fn describe(&self, info: &mut TraceInfo, strings: &mut Strings) {
        info.events = self.events;
        info.first_ts = self.first_ts;
        info.last_ts = self.last_ts;
        let lost = &mut info.lost;
        lost.moments = self.lost_moments;
        for (cpu, n) in &self.lost_cpu {
            let c = lost.per_cpu.entry(*cpu).or_default();
            *c = (*c).max(*n);
        }
        for (ev, n) in &self.lost_event {
            let c = lost.per_event.entry(strings.get(*ev).to_owned()).or_default();
            *c = (*c).max(*n);
        }
        // The recorder's totals count the same losses as the notes in the stream, so the larger number is the more complete one.
        let add = |sum: u64, n: &u64| sum.saturating_add(*n);
        let counted = lost.per_cpu.values().fold(0, add).max(lost.per_event.values().fold(0, add));
        lost.known |= self.lost_moments > 0;
        lost.total = if self.lost_uncounted && counted == 0 {
            None
        } else {
            lost.known.then_some(counted.max(self.lost_total))
        };
        if let Some((value, from)) = self.role {
            info.dialect.role.get_or_insert_with(|| Sourced { value, from: format!("inferred: {from}") });
        }
        if let Some(value) = self.isa {
            info.dialect.isa = Some(Sourced { value, from: "kvm_exit".to_owned() });
        }
        if self.undecided > 0 {
            info.notes.push(format!(
                "The encoding of {} kvm_page_fault error code{} is ambiguous: record kvm:kvm_exit too, which shows the encoding",
                self.undecided,
                if self.undecided == 1 { "" } else { "s" }
            ));
        }
        if self.unordered > 0 {
            info.notes.push(format!(
                "{} after an event with a later time: the order {}",
                mmuscope_units::counted(self.unordered, "event came", "events came"),
                if self.as_they_come { "is that of the file" } else { "is by time" }
            ));
        }
        self.people(info, strings);
    }

    fn people(&self, info: &mut TraceInfo, strings: &mut Strings) {
        // A file may name the processes of threads (the recorder's task list) that events do not name.
        let known: FxHashMap<u32, TaskInfo> = info.tasks.drain(..).map(|t| (t.tid, t)).collect();
        let mut tasks: Vec<TaskInfo> = self
            .tasks
            .iter()
            .map(|t| {
                let k = known.get(&t.tid);
                let pid = t.pid.or(k.and_then(|k| k.pid));
                let mut how = Vec::new();
                if let Some(from) = t.pid_from {
                    how.push(format!("process {from}"));
                } else if let Some(k) = k.filter(|k| k.pid.is_some()) {
                    how.push(k.provenance.clone());
                }
                if t.vcpu.is_some() {
                    how.push("vCPU by its kvm_entry and kvm_exit".to_owned());
                }
                if t.vcpu.is_none() && t.faults.is_some() {
                    how.push("vCPU by its page faults".to_owned());
                }
                if t.vcpus {
                    how.push("it ran more than one vCPU; the first is named".to_owned());
                }
                let vcpu_id = t.vcpu.or(t.faults).or(k.and_then(|k| k.vcpu_id));
                if t.vcpu.is_none() && t.faults.is_none() && vcpu_id.is_some() {
                    how.push(k.map(|k| k.provenance.clone()).unwrap_or_default());
                }
                let comm = if t.comm == StrId::default() { k.map_or(t.comm, |k| k.comm) } else { t.comm };
                let provenance = how.join("; ");
                TaskInfo { tid: t.tid, pid, comm, vcpu_id, several_vcpus: t.vcpus, provenance }
            })
            .collect();
        let seen: rustc_hash::FxHashSet<u32> = tasks.iter().map(|t| t.tid).collect();
        tasks.extend(known.into_values().filter(|k| !seen.contains(&k.tid) && k.vcpu_id.is_some()));
        tasks.sort_by_key(|t| t.tid);
        info.vm_hints = vms(&tasks, strings);
        info.tasks = tasks;
    }
}

impl Task {
    #[inline]
    fn runs(&mut self, vcpu: u32) {
        match self.vcpu {
            None => self.vcpu = Some(vcpu),
            Some(v) if v != vcpu => self.vcpus = true,
            _ => {}
        }
    }
}

/// Hints at which vCPU threads belong together: by process where it is known, else by thread id, where a repeated vCPU id begins a new VM.
fn vms(tasks: &[TaskInfo], strings: &Strings) -> Vec<VmHint> {
    let mut vms: Vec<VmHint> = Vec::new();
    for t in tasks.iter().filter(|t| t.vcpu_id.is_some()) {
        let vcpu = t.vcpu_id.unwrap_or(0);
        let i = match t.pid {
            Some(pid) => {
                vms.iter().position(|v| v.pid == Some(pid) && v.vcpus.iter().all(|(_, id)| *id != vcpu))
            }
            None => vms
                .iter()
                .rposition(|v| v.pid.is_none())
                .filter(|i| vms[*i].vcpus.iter().all(|(_, id)| *id != vcpu)),
        };
        let i = i.unwrap_or_else(|| {
            let again = t.pid.is_some() && vms.iter().any(|v| v.pid == t.pid);
            vms.push(VmHint {
                pid: t.pid,
                name: String::new(),
                tids: Vec::new(),
                vcpus: Vec::new(),
                provenance: match (t.pid, again) {
                    (Some(_), false) => "vCPU threads of one process".to_owned(),
                    (Some(_), true) => "another thread of the process with a vCPU id that it already has".to_owned(),
                    (None, _) => "vCPU threads with ids next to each other and no vCPU id twice; the trace does not record processes \
                                  (trace-cmd and tracefs: option record-tgid)"
                        .to_owned(),
                },
            });
            vms.len() - 1
        });
        vms[i].vcpus.push((t.tid, vcpu));
        vms[i].tids.push(t.tid);
    }
    for vm in &mut vms {
        if let Some(pid) = vm.pid {
            let others = tasks.iter().filter(|t| t.pid == Some(pid) && t.vcpu_id.is_none());
            vm.tids.extend(others.map(|t| t.tid));
            vm.tids.sort_unstable();
        }
        let leader = vm.pid.or(vm.tids.first().copied());
        let name = tasks
            .iter()
            .find(|t| Some(t.tid) == leader)
            .or_else(|| tasks.iter().find(|t| vm.tids.contains(&t.tid)));
        vm.name = name.map_or(String::new(), |t| strings.get(t.comm).to_owned());
    }
    vms
}
