//! Tables over a replay: `state`, `spans`, `faults`, `memory`.

use crate::table::{Rows, table};
use mmuscope_replay::{Entry, EventIx, Fault, MemoryRange, Span, Timeline};
use mmuscope_trace::{Trace, event_name};

table! {
    /// Entries of the live page tables at one moment.
    pub State / STATE = "state", lead 15, "An entry of a live page table at the moment asked for." {
        vm: Number, "VM";
        as_id: Number, "address space: 1 is SMM";
        level: Number, "level of the entry: 1 is 4K";
        gfn: Hex, "first guest frame it covers";
        state: Text, "present, mmio, removed or table; with --all also nonpresent and unknown";
        spte: Hex, "value; null where only the state is known";
        pfn: Hex, "host frame it points to";
        size: Bytes, "bytes of guest memory it covers";
        r: Flag, "readable";
        w: Flag, "writable";
        x: Flag, "executable";
        u: Flag, "user, where the paging mode has it";
        since: Time, "since when";
        certainty: Text, "exact, observed, implied, assumed or stale";
        sptep: Hex, "host-physical address of the entry";
        reason: Text, "how this is known, in words";
    }
}

table! {
    /// Stretches of time in which one entry held one state and value.
    pub Spans / SPANS = "spans", lead 11, "A stretch of time in which one entry held one state and value." {
        vm: Number, "VM";
        as_id: Number, "address space: 1 is SMM";
        level: Number, "level of the entry: 1 is 4K";
        gfn: Hex, "first guest frame it covers";
        state: Text, "state of the entry";
        spte: Hex, "value; null where only the state is known";
        start: Time, "when it began; where `opened_by` is empty, the value is the old value of the entry's first event, and it is taken to have stood since the trace began or last lost events, or for no time at all where that is not known either";
        end: Time, "when it ended; null where it lasts";
        certainty: Text, "exact, observed, implied, assumed or stale";
        opened_by: Text, "event that began it";
        closed_by: Text, "event that ended it";
        duration: Duration, "how long it lasted; to the last event where it has not ended";
        opened_event: Number, "number of the event that began it, from 0";
        closed_event: Number, "number of the event that ended it";
        opened_tid: Number, "thread that began it";
        closed_tid: Number, "thread that ended it";
        sptep: Hex, "host-physical address of the entry";
        reason: Text, "how this is known, in words";
    }
}

table! {
    /// Faults, from exit to entry.
    pub Faults / FAULTS = "faults", lead 11, "A page fault or MMIO access, from the exit to the next entry." {
        ts: Time, "when";
        vm: Number, "VM";
        vcpu: Number, "vCPU";
        tid: Number, "its thread";
        gfn: Hex, "guest frame";
        gva: Hex, "guest virtual address, where known";
        access: Text, "read, write or fetch";
        outcome: Text, "how it ended";
        duration: Duration, "from the exit to the next entry";
        level: Number, "level that was installed";
        rip: Hex, "guest instruction pointer";
        gpa: Hex, "guest physical address, where known";
        as_id: Number, "address space";
        level_wanted: Number, "level that was asked for";
        pfn: Hex, "host frame that was found";
        error_code: Hex, "raw error code";
        retries: Number, "faults of the same vCPU at the same address directly before";
        mmio: Flag, "an MMIO access";
        errno: Signed, "error that KVM_RUN returned";
        event: Number, "number of its event, from 0";
    }
}

table! {
    /// The guest's memory as ranges.
    pub Memory / MEMORY = "memory", lead 10, "A stretch of guest frames that are of one kind at the end of the trace." {
        vm: Number, "VM";
        as_id: Number, "address space: 1 is SMM";
        gfn_start: Hex, "first frame";
        gfn_end: Hex, "one past the last";
        bytes: Bytes, "how much that is";
        kind: Text, "ram, gone (was mapped, is not now), mmio; with --all also unseen (no event names it)";
        shade: Text, "what its entries allow";
        level: Number, "level of the entries; 0: mixed";
        entries: Count, "how many";
        certainty: Text, "the worst certainty among them";
        slot: Number, "a guess at the memslot: ranges of one number have no MMIO and no long untouched stretch between them; null for MMIO";
    }
}

/// Adds an entry at a moment to a `state` table. `base` is the moment that times count from.
pub fn push_state(rows: &mut Rows, timeline: &Timeline, entry: &Entry, span: &Span, base: u64) {
    use State as C;
    rows.row();
    rows.set(C::vm, entry.vm.0);
    rows.set(C::as_id, entry.as_id);
    rows.set(C::level, entry.level);
    rows.set(C::gfn, entry.gfn);
    rows.set(C::state, span.state.name());
    rows.set(C::spte, span.spte);
    rows.set(C::size, entry.pages().saturating_mul(4096));
    if let Some(d) = timeline.decode(entry, span) {
        rows.set(C::pfn, d.pfn);
        rows.set(C::r, d.r);
        rows.set(C::w, d.w);
        rows.set(C::x, d.x);
        rows.set(C::u, d.u);
    }
    rows.set(C::since, span.start.saturating_sub(base));
    rows.set(C::certainty, span.certainty.name());
    rows.set(C::sptep, entry.sptep);
    rows.set(C::reason, span.reason.words());
}

/// Adds a span to a `spans` table.
pub fn push_span(rows: &mut Rows, trace: &Trace, entry: &Entry, span: &Span, base: u64) {
    use Spans as C;
    rows.row();
    rows.set(C::vm, entry.vm.0);
    rows.set(C::as_id, entry.as_id);
    rows.set(C::level, entry.level);
    rows.set(C::gfn, entry.gfn);
    rows.set(C::state, span.state.name());
    rows.set(C::spte, span.spte);
    rows.set(C::start, span.start.saturating_sub(base));
    rows.set(C::end, span.end.map(|e| e.saturating_sub(base)));
    rows.set(C::duration, span.end.unwrap_or(trace.info.last_ts).saturating_sub(span.start));
    rows.set(C::certainty, span.certainty.name());
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
    rows.set(C::sptep, entry.sptep);
    rows.set(C::reason, span.reason.words());
}

/// Adds a fault to a `faults` table.
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

/// Adds a range to a `memory` table.
pub fn push_memory(rows: &mut Rows, range: &MemoryRange) {
    use Memory as C;
    use mmuscope_replay::MemoryKind;
    rows.row();
    rows.set(C::vm, range.vm.0);
    rows.set(C::as_id, range.as_id);
    rows.set(C::gfn_start, range.gfn_start);
    rows.set(C::gfn_end, range.gfn_end);
    rows.set(C::bytes, range.gfn_end.saturating_sub(range.gfn_start).saturating_mul(4096));
    rows.set(
        C::kind,
        match range.kind {
            MemoryKind::Ram => "ram",
            MemoryKind::Gone => "gone",
            MemoryKind::Mmio => "mmio",
            MemoryKind::Unseen => "unseen",
        },
    );
    rows.set(C::shade, range.shade.name());
    rows.set(C::level, range.level);
    rows.set(C::entries, range.entries);
    rows.set(C::certainty, range.certainty.name());
    rows.set(C::slot, range.slot);
}
