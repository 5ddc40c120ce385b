//! The table `events`: one row per event, one column per field.
//!
//! [`push`] adds an event to a table and [`EventFilter`] selects events; `mmuscope events` and the viewer's event table call both. Nothing
//! here looks at a replay: an event is shown with what its own record holds, plus the VM and vCPU that [`Attribution`] finds for it. Which column
//! shows which field of an event is in the schema of events (`crates/trace/src/schema`).

mod filter;

pub use filter::{EventFilter, name_fits};
/// Whose events are: [`push`] and [`EventFilter::passes`] take it.
pub use mmuscope_replay::Attribution;

use crate::table::{Rows, table};
use mmuscope_trace::{Body, Cell, Event, Kind, Strings, TaskKind, event_name};
use std::sync::LazyLock;

table! {
    /// Events, in time order. A cell is null where the event has no such field or the format did not carry it.
    pub C [allow(dead_code, reason = "the schema of events names most of these columns")] / EVENTS = "events", lead 7, "An event of the trace." {
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

/// Adds an event as a row. `id` is its number in the trace, from 0; `base` is the time on the trace's clock that `ts` counts from.
pub fn push(rows: &mut Rows, id: u64, e: &Event, strings: &Strings, whose: &Attribution, base: u64) {
    rows.row();
    rows.set(C::ts, e.ts.saturating_sub(base));
    rows.set(C::cpu, e.cpu);
    rows.set(C::tid, e.tid);
    rows.set(C::pid, e.pid);
    let comm = strings.get(e.comm);
    if !comm.is_empty() {
        rows.set(C::comm, comm);
    }
    rows.set(C::vm, whose.vm(e).map(|v| v.0));
    rows.set(C::vcpu, whose.vcpu(e));
    rows.set(C::event, event_name(&e.body, strings));
    rows.set(C::gfn, e.body.gfn());
    rows.set(C::event_id, id);
    fields(rows, &e.body, strings);
}

/// For each kind of event, the columns that its own fields fill. The schema of events names them.
static OWN: LazyLock<Vec<Vec<usize>>> = LazyLock::new(|| {
    let column = |name: &str| EVENTS.columns.iter().position(|c| c.name == name);
    // A test checks that the table has all columns that the schema names.
    Kind::ALL.iter().map(|k| k.columns().into_iter().filter_map(column).collect()).collect()
});

/// Sets the cells of an event's own fields.
fn fields(rows: &mut Rows, body: &Body, strings: &Strings) {
    match *body {
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
        _ => {
            let mut columns = OWN[body.kind() as usize].iter();
            body.cells(&mut |cell| {
                let Some(&column) = columns.next() else { return };
                match cell {
                    Cell::Null => {}
                    Cell::Number(n) => rows.set(column, n),
                    Cell::Signed(n) => rows.set(column, n),
                    Cell::Flag(b) => rows.set(column, b),
                    Cell::Word(w) => rows.set(column, w),
                    Cell::Text(t) => rows.set(column, &t),
                    Cell::Str(id) => rows.set(column, &*strings.text(id)),
                }
            });
        }
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
        assert_eq!(body.covers(), Some((0x2000, 0x2200)));
    }

    #[test]
    fn the_table_has_the_columns_that_the_schema_of_events_names() {
        // What `push` sets itself must not be set again.
        let own = ["ts", "cpu", "tid", "comm", "vm", "vcpu", "event", "pid", "gfn", "event_id"];
        for kind in Kind::ALL {
            for column in kind.columns() {
                assert!(
                    EVENTS.columns.iter().any(|c| c.name == column),
                    "{}: no column {column}",
                    kind.name()
                );
                assert!(!own.contains(&column), "{}: {column} is set twice", kind.name());
            }
        }
    }
}
