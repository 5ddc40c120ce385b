//! The table `events`: one row per event, one column per field.
//!
//! [`push`] adds an event to a table and [`EventFilter`] selects events; `mmuscope events` and the viewer's event table call both. Nothing
//! here looks at a replay: an event is shown with what its own record holds, plus the VM and vCPU that [`Who`] finds for its thread.

mod filter;

pub use filter::{EventFilter, name_fits};

use crate::table::{Rows, table};
use mmuscope_replay::{VmSearch, VmThreads};
use mmuscope_trace::{
    Body, ErrorEncoding, Event, FastPfResult, Isa, Page, Role, Strings, TaskKind, Trace, TraceInfo,
    event_name, exit_name,
};
use std::collections::BTreeMap;

table! {
    /// Events, in time order. A cell is null where the event has no such field or the format did not carry it.
    pub C / EVENTS = "events", lead 7, "An event of the trace." {
        ts: Time, "time at which the event was recorded";
        cpu: Number, "CPU that recorded the event";
        tid: Number, "thread that was running";
        comm: Text, "name of the thread";
        vm: Number, "VM that the thread belongs to, numbered as in every other table; null where that is not known";
        vcpu: Number, "vCPU, from the event or from its thread";
        event: Text, "name of the tracepoint; lost, damage, tracing_mark_write, fork, comm and exit for records that are no tracepoint";
        pid: Number, "process (thread group) of the thread";
        as_id: Number, "address space: 0 is the normal one, 1 is SMM";
        level: Number, "level of the entry or table: 1 is 4K, 2 is 2M, 3 is 1G";
        gfn: Hex, "guest frame number, in pages of 4 KiB";
        old_spte: Hex, "value of the entry before the change";
        new_spte: Hex, "value of the entry after the change";
        spte: Hex, "value of the entry, where the event has only one";
        sptep: Hex, "address of the entry: host-physical in kvm_mmu_set_spte, kernel-virtual elsewhere";
        pfn: Hex, "host frame number, in pages of 4 KiB";
        error_code: Hex, "error code of a fault or a page walk, in the encoding that `encoding` names";
        encoding: Text, "encoding of the error code: ept (exit qualification), npf, pf (#PF), or ambiguous";
        gpa: Hex, "guest-physical address";
        gva: Hex, "guest-virtual address";
        address: Hex, "address of a fault, a walk, a host page or SMRAM; virtual or physical as the event has it";
        rip: Hex, "guest instruction pointer";
        reason: Number, "exit reason";
        reason_name: Text, "name of the exit reason";
        isa: Text, "instruction set of the exit reason: vmx or svm";
        info1: Hex, "exit_info1 (SVM) or exit qualification (VMX)";
        info2: Hex, "exit_info2 (SVM) or IDT-vectoring information (VMX)";
        intr_info: Hex, "interrupt or exception: at an exit, the one that caused it (VMX) or whose delivery it interrupted (SVM); at an entry, the one that is injected";
        requests: Hex, "pending requests of the vCPU, one bit each";
        result: Text, "how the lockless fast path ended: invalid, fixed, spurious, retry, emulate, or the number of another result";
        errno: Signed, "error number, negative; 0 is success";
        access: Number, "ACC bits: 1 exec, 2 write, 4 user; since 7.2: 1 read, 2 write, 4 user, 8 exec";
        r: Flag, "whether the entry allows reads";
        w: Flag, "whether the entry allows writes";
        x: Flag, "whether the entry allows instruction fetches";
        u: Flag, "whether the entry allows user-mode accesses";
        generation: Number, "MMIO generation in the entry";
        kvm_generation: Number, "generation of the memslots";
        valid: Flag, "whether both MMIO generations agree";
        role: Text, "role of the shadow page: direct, guest_mode, smm, invalid …";
        role_word: Hex, "role of the shadow page as the kernel stores it";
        created: Flag, "whether the shadow page was created; false: an existing one was used";
        unsync: Flag, "whether the shadow page may be out of sync with the guest's table";
        root_count: Signed, "how many vCPUs use the page as a root; for a root of the TDP MMU, its reference count";
        mmu_valid_gen: Count, "generation of the MMU's pages";
        used_pages: Number, "page-table pages in use";
        kind: Text, "MMIO: read, write or unsatisfied-read; tasks: fork, comm, exec or exit";
        length: Number, "bytes accessed";
        value: Hex, "data of an MMIO access, or a guest page-table entry";
        start: Hex, "first address or frame of a range";
        end: Hex, "one past the last address or frame of a range";
        flag: Flag, "the event's yes or no: young (aging), failed (emulation), entering (SMM), repeated (asynchronous fault), GPA matched, immediate exit";
        token: Hex, "token of an asynchronous page fault";
        nested_rip: Hex, "instruction pointer of L2";
        nested_pgd: Hex, "L1's EPT or NPT pointer";
        slot: Number, "memslot";
        index: Signed, "index in the dirty ring";
        offset: Hex, "page within the memslot, from 0";
        attributes: Hex, "memory attributes: bit 3 is private";
        count: Count, "how many events were lost";
        text: Text, "text of a marker, new name of a task, or the fields of an event that has no columns of its own";
        event_id: Number, "number of the event in the trace, from 0: `event` in faults and `opened_event` in spans refer to it";
    }
}

/// The VM and the vCPU of each thread. VMs have the numbers that a replay gives them, so that `events` and every other table agree.
#[derive(Clone, Debug, Default)]
pub struct Who {
    vm: BTreeMap<u32, u32>,
    vm_of_pid: BTreeMap<u32, u32>,
    vcpu: BTreeMap<u32, u32>,
    only: Option<u32>,
    vms: u32,
}

impl Who {
    /// Finds the VMs and vCPUs of a trace in memory.
    pub fn of(trace: &Trace) -> Self {
        Self::new(&trace.info, &VmSearch::of(trace))
    }

    /// Takes the vCPUs from the reader's `info`, and the VMs that a search found; a VM's place in `vms` is its number.
    pub fn new(info: &TraceInfo, vms: &[VmThreads]) -> Self {
        let only = (vms.len() == 1).then_some(0);
        let mut who = Self { only, vms: vms.len() as u32, ..Self::default() };
        for (n, vm) in vms.iter().enumerate() {
            let n = n as u32;
            who.vm.extend(vm.tids.iter().map(|tid| (*tid, n)));
            if let Some(pid) = vm.pid {
                // Of several VMs in one process the first is the process's.
                who.vm_of_pid.entry(pid).or_insert(n);
            }
        }
        who.vcpu.extend(info.vms.iter().flat_map(|vm| &vm.vcpus).copied());
        who
    }

    /// Number of VMs in the trace.
    pub fn vms(&self) -> u32 {
        self.vms
    }

    /// The VM of an event's thread: by thread, else by process, else the only VM there is.
    pub fn vm(&self, e: &Event) -> Option<u32> {
        let by_tid = e.tid.and_then(|t| self.vm.get(&t));
        let by_pid = || e.pid.and_then(|p| self.vm_of_pid.get(&p));
        by_tid.or_else(by_pid).copied().or_else(|| self.only.filter(|_| can_belong_to_a_vm(&e.body)))
    }

    /// The vCPU of an event: the number in the event itself, else the one of its thread.
    pub fn vcpu(&self, e: &Event) -> Option<u32> {
        own_vcpu(&e.body).or_else(|| e.tid.and_then(|t| self.vcpu.get(&t)).copied())
    }
}

/// Whether an event can belong to a VM. Markers, task names, losses and events of other systems concern the host.
fn can_belong_to_a_vm(body: &Body) -> bool {
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

/// The guest frame number that an event names, or that its guest-physical address lies in.
pub fn gfn_of(body: &Body) -> Option<u64> {
    match *body {
        Body::GetPage { page, .. }
        | Body::SyncPage { page }
        | Body::UnsyncPage { page }
        | Body::PrepareZapPage { page } => page.gfn,
        Body::MarkMmioSpte { gfn, .. }
        | Body::HandleMmioPageFault { gfn, .. }
        | Body::SetSpte { gfn, .. }
        | Body::SpteRequested { gfn, .. }
        | Body::TdpSpteChanged { gfn, .. }
        | Body::SplitHugePage { gfn, .. }
        | Body::AgePage { gfn, .. }
        | Body::TryAsyncGetPage { gfn, .. } => Some(gfn),
        Body::Mmio { gpa, .. }
        | Body::VcpuMatchMmio { gpa, .. }
        | Body::FastMmio { gpa }
        | Body::RmpFault { gpa, .. } => Some(gpa >> 12),
        Body::PageFault {
            address,
            encoding: ErrorEncoding::EptQualification | ErrorEncoding::NestedPageFault,
            ..
        } => Some(address >> 12),
        _ => None,
    }
}

/// The guest frames that an event covers: the first and one past the last. An entry of level 2 covers 512 frames.
pub fn gfns_of(body: &Body) -> Option<(u64, u64)> {
    let level = match *body {
        Body::SetSpte { level, .. }
        | Body::SpteRequested { level, .. }
        | Body::TdpSpteChanged { level, .. }
        | Body::SplitHugePage { level, .. } => level,
        Body::GetPage { page, .. }
        | Body::SyncPage { page }
        | Body::UnsyncPage { page }
        | Body::PrepareZapPage { page } => page.role.level + 1,
        Body::SetMemAttributes { start, end, .. } => return Some((start, end)),
        _ => 1,
    };
    let gfn = gfn_of(body)?;
    let pages = 1u64.checked_shl(9 * u32::from(level.saturating_sub(1))).unwrap_or(u64::MAX);
    Some((gfn, gfn.saturating_add(pages)))
}

/// Adds an event as a row. `id` is its number in the trace, from 0; `base` is the time on the trace's clock that `ts` counts from.
pub fn push(rows: &mut Rows, id: u64, e: &Event, strings: &Strings, who: &Who, base: u64) {
    rows.row();
    rows.set(C::ts, e.ts.saturating_sub(base));
    rows.set(C::cpu, e.cpu);
    rows.set(C::tid, e.tid);
    rows.set(C::pid, e.pid);
    let comm = strings.get(e.comm);
    if !comm.is_empty() {
        rows.set(C::comm, comm);
    }
    rows.set(C::vm, who.vm(e));
    rows.set(C::vcpu, who.vcpu(e));
    rows.set(C::event, event_name(&e.body, strings));
    rows.set(C::gfn, gfn_of(&e.body));
    rows.set(C::event_id, id);
    fields(rows, &e.body, strings);
}

/// Sets the cells of an event's own fields. Tracepoints of the MMU are here, the others in the functions that this one ends in.
fn fields(rows: &mut Rows, body: &Body, strings: &Strings) {
    match *body {
        Body::PagetableWalk { addr, pferr } => {
            rows.set(C::address, addr);
            rows.set(C::error_code, pferr);
            rows.set(C::encoding, "pf");
        }
        Body::PagingElement { pte, level } => {
            rows.set(C::value, pte);
            rows.set(C::level, level);
        }
        Body::SetAccessedBit { gpa } | Body::SetDirtyBit { gpa } | Body::FastMmio { gpa } => {
            rows.set(C::gpa, gpa);
        }
        Body::WalkerError { pferr } => {
            rows.set(C::error_code, pferr);
            rows.set(C::encoding, "pf");
        }
        Body::GetPage { page: p, created } => {
            page(rows, &p);
            rows.set(C::created, created);
        }
        Body::SyncPage { page: p } | Body::UnsyncPage { page: p } | Body::PrepareZapPage { page: p } => {
            page(rows, &p);
        }
        Body::MarkMmioSpte { sptep, gfn: _, access, generation } => {
            rows.set(C::sptep, sptep);
            rows.set(C::access, access);
            rows.set(C::generation, generation);
        }
        Body::HandleMmioPageFault { addr, gfn: _, access } => {
            rows.set(C::address, addr);
            rows.set(C::access, access);
        }
        Body::CheckMmioSpte { spte, kvm_gen, spte_gen } => {
            rows.set(C::spte, spte);
            rows.set(C::kvm_generation, kvm_gen);
            rows.set(C::generation, spte_gen);
            rows.set(C::valid, kvm_gen == spte_gen);
        }
        Body::FastPageFault { vcpu: _, cr2_or_gpa, error_code, sptep, old_spte, new_spte, result } => {
            rows.set(C::address, cr2_or_gpa);
            rows.set(C::error_code, error_code);
            rows.set(C::sptep, sptep);
            rows.set(C::old_spte, old_spte);
            rows.set(C::new_spte, new_spte);
            match result {
                FastPfResult::Other(n) => rows.set(C::result, &n.to_string()),
                known => rows.set(C::result, fast_result(known)),
            }
        }
        Body::ZapAllFast { mmu_valid_gen, mmu_used_pages } => {
            rows.set(C::mmu_valid_gen, mmu_valid_gen);
            rows.set(C::used_pages, mmu_used_pages);
        }
        Body::SetSpte { gfn: _, spte, sptep, level, r, w, x, u } => {
            rows.set(C::spte, spte);
            rows.set(C::sptep, sptep);
            rows.set(C::level, level);
            rows.set(C::r, r);
            rows.set(C::w, w);
            rows.set(C::x, x);
            rows.set(C::u, u);
        }
        Body::SpteRequested { gfn: _, pfn, level, access } => {
            rows.set(C::pfn, pfn);
            rows.set(C::level, level);
            rows.set(C::access, access);
        }
        Body::TdpSpteChanged { as_id, gfn: _, level, old_spte, new_spte } => {
            rows.set(C::as_id, as_id);
            rows.set(C::level, level);
            rows.set(C::old_spte, old_spte);
            rows.set(C::new_spte, new_spte);
        }
        Body::SplitHugePage { gfn: _, spte, level, errno } => {
            rows.set(C::spte, spte);
            rows.set(C::level, level);
            rows.set(C::errno, errno);
        }
        _ => vcpu_fields(rows, body, strings),
    }
}

/// Sets the cells of events of a running vCPU: exits, entries, faults, emulation.
fn vcpu_fields(rows: &mut Rows, body: &Body, strings: &Strings) {
    match *body {
        Body::PageFault { vcpu: _, rip, address, error_code, encoding: how } => {
            rows.set(C::rip, rip);
            rows.set(C::address, address);
            match how {
                ErrorEncoding::EptQualification | ErrorEncoding::NestedPageFault => rows.set(C::gpa, address),
                ErrorEncoding::PageFault => rows.set(C::gva, address),
                ErrorEncoding::Ambiguous => {}
            }
            rows.set(C::error_code, error_code);
            rows.set(C::encoding, encoding(how));
        }
        Body::Exit {
            vcpu: _,
            reason,
            reason_name,
            isa,
            rip,
            info1,
            info2,
            intr_info,
            error_code,
            requests,
        } => {
            rows.set(C::rip, rip);
            exit(rows, reason, isa, strings.get(reason_name));
            rows.set(C::info1, info1);
            rows.set(C::info2, info2);
            rows.set(C::intr_info, intr_info);
            rows.set(C::error_code, error_code);
            rows.set(C::requests, requests);
        }
        Body::Entry { vcpu: _, rip, immediate_exit, intr_info, error_code } => {
            rows.set(C::rip, rip);
            rows.set(C::flag, immediate_exit);
            rows.set(C::intr_info, intr_info);
            rows.set(C::error_code, error_code);
        }
        Body::UserspaceExit { reason, errno } => {
            rows.set(C::reason, reason);
            rows.set(C::errno, errno);
        }
        Body::Mmio { kind, len, gpa, val } => {
            rows.set(C::kind, mmio_kind(kind));
            rows.set(C::length, len);
            rows.set(C::gpa, gpa);
            rows.set(C::value, val);
        }
        Body::VcpuMatchMmio { gva, gpa, write, gpa_match } => {
            rows.set(C::gva, gva);
            rows.set(C::gpa, gpa);
            rows.set(C::kind, if write { "write" } else { "read" });
            rows.set(C::flag, gpa_match);
        }
        Body::NestedVmexit { vcpu: _, reason, isa, rip, info1, info2 } => {
            exit(rows, reason, isa, "");
            rows.set(C::rip, rip);
            rows.set(C::info1, info1);
            rows.set(C::info2, info2);
        }
        Body::NestedVmenter { rip, nested_rip, nested_pgd } => {
            rows.set(C::rip, rip);
            rows.set(C::nested_rip, nested_rip);
            rows.set(C::nested_pgd, nested_pgd);
        }
        Body::RmpFault { vcpu: _, gpa, pfn, error_code, rmp_level, psmash_ret } => {
            rows.set(C::gpa, gpa);
            rows.set(C::pfn, pfn);
            rows.set(C::error_code, error_code);
            rows.set(C::level, rmp_level);
            rows.set(C::errno, psmash_ret);
        }
        Body::SmmTransition { vcpu: _, smbase, entering } => {
            rows.set(C::address, smbase);
            rows.set(C::flag, entering);
        }
        Body::EmulateInsn { rip, failed } => {
            rows.set(C::rip, rip);
            rows.set(C::flag, failed);
        }
        _ => host_fields(rows, body, strings),
    }
}

/// Sets the cells of events of the host: notifiers, asynchronous faults, dirty rings, and records that are no tracepoint.
fn host_fields(rows: &mut Rows, body: &Body, strings: &Strings) {
    match *body {
        Body::UnmapHvaRange { start, end } | Body::AgeHva { start, end } => {
            rows.set(C::start, start);
            rows.set(C::end, end);
        }
        Body::TestAgeHva { hva } | Body::SetSpteHva { hva } => rows.set(C::address, hva),
        Body::AgePage { hva, gfn: _, level, young } => {
            rows.set(C::address, hva);
            rows.set(C::level, level);
            rows.set(C::flag, young);
        }
        Body::TryAsyncGetPage { gva, gfn: _, repeated } => {
            rows.set(C::gva, gva);
            rows.set(C::flag, repeated);
        }
        Body::AsyncPf { token, gva, ready: _ } => {
            rows.set(C::token, token);
            rows.set(C::gva, gva);
        }
        Body::AsyncPfCompleted { address, gva } => {
            rows.set(C::address, address);
            rows.set(C::gva, gva);
        }
        Body::DirtyRingPush { index, dirty_index: _, reset_index: _, slot, offset } => {
            rows.set(C::index, index);
            rows.set(C::slot, slot);
            rows.set(C::offset, offset);
        }
        Body::DirtyRingReset { index, .. } => rows.set(C::index, index),
        Body::SetMemAttributes { start, end, attributes } => {
            rows.set(C::start, start);
            rows.set(C::end, end);
            rows.set(C::attributes, attributes);
        }
        Body::Marker { text } => rows.set(C::text, &*strings.text(text)),
        Body::Lost { count, event } => {
            rows.set(C::count, count);
            rows.set(C::text, event.map(|e| strings.get(e)));
        }
        Body::Damage { index } | Body::Snapshot { index } => rows.set(C::count, index),
        Body::Task { kind, tid: _, pid: _, comm } => {
            rows.set(C::kind, task_kind(kind));
            rows.set(C::text, strings.get(comm));
        }
        Body::Other { name: _, fields } => rows.set(C::text, &*strings.text(fields)),
        _ => {}
    }
}

fn exit(rows: &mut Rows, reason: Option<u32>, isa: Option<Isa>, said: &str) {
    rows.set(C::reason, reason);
    let known = reason.zip(isa).and_then(|(r, isa)| exit_name(isa, r));
    match known {
        Some(name) => rows.set(C::reason_name, name),
        None if !said.is_empty() => rows.set(C::reason_name, said),
        None => {}
    }
    match isa {
        Some(Isa::Vmx) => rows.set(C::isa, "vmx"),
        Some(Isa::Svm) => rows.set(C::isa, "svm"),
        Some(Isa::Other(n)) => rows.set(C::isa, &n.to_string()),
        None => {}
    }
}

fn page(rows: &mut Rows, p: &Page) {
    rows.set(C::level, p.role.level);
    rows.set(C::role, &role(&p.role));
    rows.set(C::role_word, p.role.raw);
    rows.set(C::unsync, p.unsync);
    rows.set(C::root_count, p.root_count);
    rows.set(C::mmu_valid_gen, p.mmu_valid_gen);
}

/// A role in words, in the kernel's terms.
fn role(r: &Role) -> String {
    let mut words: Vec<String> = Vec::new();
    if r.direct {
        words.push("direct".into());
    }
    if let Some(bytes) = r.gpte_bytes {
        words.push(format!("{bytes}-byte"));
    }
    if r.quadrant != 0 {
        words.push(format!("q{}", r.quadrant));
    }
    let letter = |on: bool, l: char| if on { l } else { '-' };
    words.push([letter(r.w, 'w'), letter(r.u, 'u'), letter(r.x, 'x')].iter().collect());
    let flags = [
        (r.invalid, "invalid"),
        (r.nxe == Some(true), "nxe"),
        (r.ad_disabled, "ad_disabled"),
        (r.guest_mode == Some(true), "guest_mode"),
        (r.smm == Some(true), "smm"),
        (r.mirror == Some(true), "mirror"),
    ];
    words.extend(flags.iter().filter(|(on, _)| *on).map(|(_, w)| (*w).to_string()));
    words.join(" ")
}

fn encoding(e: ErrorEncoding) -> &'static str {
    match e {
        ErrorEncoding::EptQualification => "ept",
        ErrorEncoding::NestedPageFault => "npf",
        ErrorEncoding::PageFault => "pf",
        ErrorEncoding::Ambiguous => "ambiguous",
    }
}

fn fast_result(r: FastPfResult) -> &'static str {
    match r {
        FastPfResult::Invalid => "invalid",
        FastPfResult::Fixed => "fixed",
        FastPfResult::Spurious => "spurious",
        FastPfResult::Retry => "retry",
        FastPfResult::Emulate => "emulate",
        FastPfResult::Other(_) => "other",
    }
}

fn mmio_kind(kind: u32) -> &'static str {
    match kind {
        0 => "unsatisfied-read",
        1 => "read",
        2 => "write",
        _ => "unknown",
    }
}

fn task_kind(kind: TaskKind) -> &'static str {
    match kind {
        TaskKind::Fork => "fork",
        TaskKind::Comm { exec: true } => "exec",
        TaskKind::Comm { exec: false } => "comm",
        TaskKind::Exit => "exit",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_huge_page_covers_the_frames_behind_its_first() {
        let body = Body::TdpSpteChanged { as_id: 0, gfn: 0x2000, level: 2, old_spte: 0, new_spte: 1 };
        assert_eq!(gfns_of(&body), Some((0x2000, 0x2200)));
    }
}
