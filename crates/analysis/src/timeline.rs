//! The tables over a replay: `state`, `spans`, `faults`, `memory`; and `memslots`.
//!
//! Each table has a constant with its columns and a function that adds a row; the commands of the same names call them. They only write
//! down what the replay concluded.

use crate::table::{Rows, table};
use mmuscope_replay::{Entry, EventIx, Fault, MemSlot, MemoryKind, MemoryRange, Span, Timeline};
use mmuscope_trace::{Trace, event_name};

table! {
    /// Entries of the live page tables at one moment.
    pub State / STATE = "state", lead 15, "An entry of a live page table at the moment asked for." {
        vm: Number, "number of the VM, as in `mmuscope summary`";
        as_id: Number, "address space: 0 is the normal one, 1 is SMM";
        level: Number, "level of the entry: 1 is 4K, 2 is 2M, 3 is 1G";
        gfn: Hex, "first guest frame that the entry covers";
        state: Text, "present, mmio, removed or table; with --all also nonpresent and unknown";
        spte: Hex, "value of the entry; null where only the state is known";
        pfn: Hex, "host frame that the entry points to";
        size: Bytes, "bytes of guest memory that the entry covers";
        r: Flag, "whether the entry allows reads";
        w: Flag, "whether the entry allows writes";
        x: Flag, "whether the entry allows instruction fetches";
        u: Flag, "whether the entry allows user-mode accesses, where the paging mode has such a bit";
        since: Time, "time at which the entry took this state and value";
        certainty: Text, "how surely this is known: exact, observed, implied, assumed or stale";
        sptep: Hex, "host-physical address of the entry";
        reason: Text, "how this is known, in words";
    }
}

table! {
    /// Stretches of time in which one entry held one state and value.
    pub Spans / SPANS = "spans", lead 11, "A stretch of time in which one entry held one state and value." {
        vm: Number, "number of the VM, as in `mmuscope summary`";
        as_id: Number, "address space: 0 is the normal one, 1 is SMM";
        level: Number, "level of the entry: 1 is 4K, 2 is 2M, 3 is 1G";
        gfn: Hex, "first guest frame that the entry covers";
        state: Text, "state of the entry: present, mmio, removed, table, nonpresent or unknown";
        spte: Hex, "value of the entry; null where only the state is known";
        start: Time, "time at which the span began; where `opened_by` is empty, the value is the old value of the entry's first event, and it is taken to have stood since the trace began or last lost events, or for no time at all where that is not known either";
        end: Time, "time at which the span ended; null where it lasts to the end of the trace";
        certainty: Text, "how surely this is known: exact, observed, implied, assumed or stale";
        opened_by: Text, "name of the event that began the span";
        closed_by: Text, "name of the event that ended the span";
        duration: Duration, "how long the span lasted; up to the last event where it has not ended";
        opened_event: Number, "number of the event that began the span, from 0";
        closed_event: Number, "number of the event that ended the span, from 0";
        opened_tid: Number, "thread that was running at the event that began the span";
        closed_tid: Number, "thread that was running at the event that ended the span";
        sptep: Hex, "host-physical address of the entry";
        reason: Text, "how this is known, in words";
    }
}

table! {
    /// Faults, from exit to entry.
    pub Faults / FAULTS = "faults", lead 11, "A page fault or MMIO access, from the exit to the next entry." {
        ts: Time, "time of the event that reports the fault";
        vm: Number, "number of the VM, as in `mmuscope summary`";
        vcpu: Number, "number of the vCPU, as KVM counts them";
        tid: Number, "thread of the vCPU";
        gfn: Hex, "guest frame that was accessed, where known";
        gva: Hex, "guest-virtual address, where known";
        access: Text, "kind of access: read, write or fetch";
        outcome: Text, "how the fault ended, as `mmuscope report` explains it";
        duration: Duration, "time from the exit to the next entry into the guest";
        level: Number, "level of the entry that was installed: 1 is 4K, 2 is 2M, 3 is 1G";
        rip: Hex, "guest instruction pointer";
        gpa: Hex, "guest-physical address, where known";
        as_id: Number, "address space: 0 is the normal one, 1 is SMM";
        level_wanted: Number, "level that KVM asked for";
        pfn: Hex, "host frame that KVM found for the access";
        error_code: Hex, "error code of the fault, in the hardware's encoding";
        retries: Number, "how many faults of the same vCPU at the same address came directly before";
        mmio: Flag, "whether the fault was an MMIO access";
        errno: Signed, "error that KVM_RUN returned, negative; null where it returned none";
        event: Number, "number of the event that reports the fault, from 0";
    }
}

table! {
    /// The guest's memory as ranges.
    pub Memory / MEMORY = "memory", lead 10, "A stretch of guest frames that are of one kind at the end of the trace." {
        vm: Number, "number of the VM, as in `mmuscope summary`";
        as_id: Number, "address space: 0 is the normal one, 1 is SMM";
        gfn_start: Hex, "first guest frame of the range";
        gfn_end: Hex, "one past the last guest frame of the range";
        bytes: Bytes, "size of the range in bytes";
        kind: Text, "ram (mapped), gone (was mapped before, is not mapped now) or mmio; with --all also unseen (no event names these frames)";
        shade: Text, "what the entries of the range allow, as the legend of the pictures calls it";
        level: Number, "level of the entries: 1 is 4K, 2 is 2M, 3 is 1G; 0 where they differ";
        entries: Count, "number of entries in the range";
        certainty: Text, "the weakest certainty among the entries";
        slot: Number, "a guess at the memslot: ranges of one number have no MMIO and no long untouched stretch between them; null for MMIO";
    }
}

table! {
    /// The memory slots of VMs.
    pub Memslots / MEMSLOTS = "memslots", lead 10, "A memory slot of a VM for as long as it stayed what it was, as the recorder read it in KVM's own memory or a probe on `kvm_set_memory_region` shows it." {
        at: Time, "when it was first known to be there, in nanoseconds since the start of the trace";
        vm: Number, "number of the VM, as in `mmuscope summary`";
        as_id: Number, "address space: 0 is the normal one, 1 is SMM";
        id: Number, "number of the slot in its address space";
        gfn_start: Hex, "first guest frame of the slot";
        gfn_end: Hex, "one past the last guest frame of the slot";
        bytes: Bytes, "size of the slot in bytes";
        hva: Hex, "host-virtual address of its first frame, moved by an unknown distance in an anonymised capture; null where the recording leaves it out";
        dirty_logging: Flag, "whether writes to it are logged (KVM_MEM_LOG_DIRTY_PAGES)";
        read_only: Flag, "whether the guest's writes leave for the VMM (KVM_MEM_READONLY)";
        guest_memfd: Flag, "whether private memory of it comes from a guest_memfd (KVM_MEM_GUEST_MEMFD)";
        until: Time, "when it was first known to be there no more, in nanoseconds since the start of the trace; null if it never was";
        known: Text, "read: in KVM's own memory; requested: the VMM asked for it, and no later reading shows that KVM made it";
        name: Text, "what memory of this size usually is at this place: a guess";
    }
}

/// Begins a row on a span of an entry with the columns that `state` and `spans` both have, given in this order.
fn begin(
    rows: &mut Rows,
    [vm, as_id, level, gfn, state, spte, certainty, sptep, reason]: [impl Into<usize>; 9],
    entry: &Entry,
    span: &Span,
) {
    rows.row();
    rows.set(vm, entry.vm.0);
    rows.set(as_id, entry.as_id);
    rows.set(level, entry.level);
    rows.set(gfn, entry.gfn);
    rows.set(state, span.state.name());
    rows.set(spte, span.spte);
    rows.set(certainty, span.certainty.name());
    rows.set(sptep, entry.sptep);
    rows.set(reason, span.reason.words());
}

/// Adds a memory slot to a `memslots` table. `base` is the time on the trace's clock that times count from.
pub fn push_slot(rows: &mut Rows, slot: &MemSlot, base: u64) {
    use Memslots as C;
    rows.row();
    rows.set(C::at, slot.start.saturating_sub(base));
    rows.set(C::vm, slot.vm.0);
    rows.set(C::as_id, slot.as_id);
    rows.set(C::id, slot.id);
    rows.set(C::gfn_start, slot.gfn);
    rows.set(C::gfn_end, slot.end_gfn());
    rows.set(C::bytes, slot.pages.saturating_mul(4096));
    rows.set(C::hva, slot.hva);
    rows.set(C::dirty_logging, slot.dirty_logging());
    rows.set(C::read_only, slot.read_only());
    rows.set(C::guest_memfd, slot.guest_memfd());
    rows.set(C::until, slot.end.map(|e| e.saturating_sub(base)));
    rows.set(C::known, slot.known.name());
    rows.set(C::name, crate::slots::name(slot));
}

/// Adds an entry at a moment to a `state` table. `base` is the time on the trace's clock that times count from.
pub fn push_state(rows: &mut Rows, timeline: &Timeline, entry: &Entry, span: &Span, base: u64) {
    use State as C;
    let same = [C::vm, C::as_id, C::level, C::gfn, C::state, C::spte, C::certainty, C::sptep, C::reason];
    begin(rows, same, entry, span);
    rows.set(C::size, entry.pages().saturating_mul(4096));
    if let Some(d) = timeline.decode(entry, span) {
        rows.set(C::pfn, d.pfn);
        rows.set(C::r, d.r);
        rows.set(C::w, d.w);
        rows.set(C::x, d.x);
        rows.set(C::u, d.u);
    }
    rows.set(C::since, span.start.saturating_sub(base));
}

/// Adds a span to a `spans` table. `base` is the time on the trace's clock that times count from.
pub fn push_span(rows: &mut Rows, trace: &Trace, entry: &Entry, span: &Span, base: u64) {
    use Spans as C;
    let same = [C::vm, C::as_id, C::level, C::gfn, C::state, C::spte, C::certainty, C::sptep, C::reason];
    begin(rows, same, entry, span);
    rows.set(C::start, span.start.saturating_sub(base));
    rows.set(C::end, span.end.map(|e| e.saturating_sub(base)));
    rows.set(C::duration, span.end.unwrap_or(trace.info.last_ts).saturating_sub(span.start));
    let mut by = |ix: Option<EventIx>, name: C, number: C, tid: C| {
        if let Some(ix) = ix
            && (ix as usize) < trace.events.len()
        {
            let e = trace.events.get(ix as usize);
            rows.set(name, event_name(&e.body, &trace.strings));
            rows.set(number, ix);
            rows.set(tid, e.tid);
        }
    };
    by(span.opened_by, C::opened_by, C::opened_event, C::opened_tid);
    by(span.closed_by, C::closed_by, C::closed_event, C::closed_tid);
}

/// Adds a fault to a `faults` table. `base` is the time on the trace's clock that times count from.
pub fn push_fault(rows: &mut Rows, fault: &Fault, base: u64) {
    use Faults as C;
    rows.row();
    rows.set(C::ts, fault.ts.saturating_sub(base));
    rows.set(C::vm, fault.vm.0);
    rows.set(C::vcpu, fault.vcpu);
    rows.set(C::tid, fault.tid);
    rows.set(C::gfn, fault.gfn);
    rows.set(C::gva, fault.gva);
    rows.set(C::access, fault.access.name());
    rows.set(C::outcome, fault.outcome.name());
    rows.set(C::duration, fault.duration());
    rows.set(C::level, fault.level);
    rows.set(C::rip, fault.rip);
    rows.set(C::gpa, fault.gpa);
    rows.set(C::as_id, fault.as_id);
    rows.set(C::level_wanted, fault.level_wanted);
    rows.set(C::pfn, fault.pfn);
    rows.set(C::error_code, fault.error_code);
    rows.set(C::retries, fault.retries);
    rows.set(C::mmio, fault.mmio);
    rows.set(C::errno, fault.errno);
    rows.set(C::event, fault.event);
}

/// Name of a kind of range in the column `kind` of `memory`, and in every other machine-readable output.
pub const fn kind_name(kind: MemoryKind) -> &'static str {
    match kind {
        MemoryKind::Ram => "ram",
        MemoryKind::Gone => "gone",
        MemoryKind::Mmio => "mmio",
        MemoryKind::Unseen => "unseen",
    }
}

/// Adds a range to a `memory` table.
pub fn push_memory(rows: &mut Rows, range: &MemoryRange) {
    use Memory as C;
    rows.row();
    rows.set(C::vm, range.vm.0);
    rows.set(C::as_id, range.as_id);
    rows.set(C::gfn_start, range.gfn_start);
    rows.set(C::gfn_end, range.gfn_end);
    rows.set(C::bytes, range.gfn_end.saturating_sub(range.gfn_start).saturating_mul(4096));
    rows.set(C::kind, kind_name(range.kind));
    rows.set(C::shade, range.shade.name());
    rows.set(C::level, range.level);
    rows.set(C::entries, range.entries);
    rows.set(C::certainty, range.certainty.name());
    rows.set(C::slot, range.slot);
}
