//! What the recorder read in KVM's own memory, taken into the replay. [`Engine::take_piece`] is called for each part of a snapshot at its
//! moment, between the events before and after it.
//!
//! The rule in five sentences:
//!
//! 1. Each entry of a table that was read is *observed* from the moment at which the table was read.
//! 2. An entry that an event changed while the table was being read keeps what the event says ([`meanwhile`]).
//! 3. What was stale or unknown is settled by it; what was claimed as fact and is otherwise in memory is a [`Difference`], unless the event of
//!    that very change follows, which the kernel had made already and not yet traced.
//! 4. Once all tables of a VM were read, a table of it that was not among them is gone, and everything that made its tables is known.
//! 5. Where the trace cannot show what becomes of the entries, they are stale from the next event on.

mod entry;
mod meanwhile;
mod seen;
pub(crate) mod state;
mod tdp;

use mmuscope_trace::snapshot::{self, Mmu, Piece, Table};

use crate::engine::Engine;
use crate::keys::{EntryIx, TableIx, ThreadIx};
use crate::kinds::kind_by_name;
use crate::model::{Certainty, Difference, Reason, Shade, Snapshot, VmId};
use crate::moment::At;
use crate::recorded::kind;

/// The number of the thread that stands for the recorder; no task has it.
const RECORDER: u32 = u32::MAX;

impl Engine {
    /// Takes in one part of a snapshot, whose note among the events was the last one to be numbered.
    pub(crate) fn take_piece(&mut self, piece: &Piece) {
        let (ev, ts) = self.clock.now();
        match piece {
            Piece::Begin { at, all_on } => {
                if let Some(all_on) = *all_on {
                    self.not_all_recorded(ev, ts, all_on);
                }
                self.snapshots.done.push(Snapshot { event: ev, start: *at, end: ts, ..Snapshot::default() });
            }
            Piece::Vm(v) => {
                self.snapshots.vm = self.vms.of_snapshot(v);
                self.snapshots.began = v.at;
                self.snapshots.interrupted = false;
                self.snapshots.read.clear();
                if let Some(vm) = self.snapshots.vm
                    && !v.slots.is_empty()
                {
                    let r = (v.at, Some(self.snapshots.done.len()));
                    self.slots.take_in(vm, &v.slots, false, r, (&self.recorded, &self.traces));
                }
            }
            Piece::Slots(s) => {
                // In a snapshot they are those of the VM that came last.
                let within = self.snapshots.vm;
                let of = snapshot::Vm { pid: s.pid, at: s.at, ..snapshot::Vm::default() };
                if let Some(vm) = within.or_else(|| self.vms.of_snapshot(&of)) {
                    let r = (s.at, within.map(|_| self.snapshots.done.len()));
                    self.slots.take_in(vm, &s.slots, s.more, r, (&self.recorded, &self.traces));
                }
            }
            Piece::Table(t) => {
                if let Some(vm) = self.snapshots.vm {
                    let at = At { th: self.recorder(vm), vm, vm_known: true, ev, ts };
                    self.table_read(at, t);
                }
            }
            Piece::VmEnd { complete, notes, .. } => {
                if let Some(vm) = self.snapshots.vm.take() {
                    self.vm_read(vm, ev, ts, *complete && !self.snapshots.interrupted);
                    if let Some(s) = self.snapshots.done.last_mut() {
                        s.vms += 1;
                        s.incomplete += u32::from(!complete);
                        s.notes.extend(notes.iter().cloned());
                    }
                }
            }
            Piece::Stopped { events, .. } => self.stopped(ev, ts, events),
            Piece::End { at, notes } => {
                if let Some(s) = self.snapshots.done.last_mut() {
                    s.end = *at;
                    s.notes.extend(notes.iter().cloned());
                }
            }
        }
    }

    /// The recorder stopped recording some events: what they would have shown is not known from here on.
    fn stopped(&mut self, ev: u32, ts: u64, events: &[String]) {
        for kind in events.iter().filter_map(|e| kind_by_name(e)) {
            self.recorded.stop(kind);
        }
        if self.probed.stand_in() && self.recorded.is_stopped(kind::PROBE_CHANGED) {
            self.probed.stop(ev);
            self.traces.changes = false;
            self.recorded.stop(kind::CHANGED);
        }
        self.doubt_everything(ev, ts, Reason::Unrecorded);
        self.faults.lost(self.threads.all_mut(), ev, u64::MAX);
    }

    /// Until `all_on` the recorder was switching on one event after another, so that what some showed others may have changed unseen. What was
    /// shown of tables later stands on tables that were shown by then.
    fn not_all_recorded(&mut self, ev: u32, ts: u64, all_on: u64) {
        let before = |t: &TableIx| self.store.tables[*t].start_ts < all_on;
        let silent = self.vms.numbers().any(|vm| self.silent_tables(vm).iter().any(before));
        if silent || self.attached.all().any(|t| before(&t)) {
            self.doubt_everything(ev, ts, Reason::Unrecorded);
        }
        if self.clock.first().is_some_and(|first| first < all_on) {
            // What did not fit since may rest on what was shown by then, and what faults that are open did may not have been recorded.
            self.noted.unsure_until(ts);
            self.faults.lost(self.threads.all_mut(), ev, all_on);
        }
    }

    fn recorder(&mut self, vm: u16) -> ThreadIx {
        let th = self.thread(RECORDER);
        self.threads[th].vm = Some(vm);
        th
    }

    fn table_read(&mut self, at: At, t: &Table) {
        if t.level == 0 || t.level > 5 || t.entries.len() != 512 || t.page == 0 {
            return;
        }
        if let Some(s) = self.snapshots.done.last_mut() {
            s.tables += 1;
            s.end = at.ts;
        }
        let table = if t.mmu == Mmu::Tdp && self.traces.changes {
            self.tdp_read(at, t)
        } else {
            self.silent_read(at, t)
        };
        self.apply_meanwhile(at, t, table);
        self.snapshots.read.insert(table);
    }

    /// All that a VM has was read.
    fn vm_read(&mut self, vm: u16, ev: u32, ts: u64, complete: bool) {
        let read = std::mem::take(&mut self.snapshots.read);
        if complete {
            let began = self.snapshots.began;
            let gone: Vec<TableIx> = self
                .attached
                .all()
                .chain(self.silent_tables(vm))
                .filter(|t| {
                    let r = &self.store.tables[*t];
                    r.vm == vm && r.attached() && r.start_ts < began && !read.contains(t)
                })
                .collect();
            for t in gone {
                self.not_in_memory(t, ev, ts);
            }
            if self.vms.sure() {
                self.vms.all_read(vm);
            }
        }
        if self.vms.is_tdp(vm) && !self.recorded.has(kind::CHANGED) {
            self.snapshots.unfollowed.push(vm);
        }
    }

    /// A table that was taken for alive is not in the kernel's memory.
    fn not_in_memory(&mut self, t: TableIx, ev: u32, ts: u64) {
        let r = &self.store.tables[t];
        if !r.attached() {
            return;
        }
        let (vm, silent, parent) = (r.vm, r.silent, r.parent);
        // A table of which no event named the page may be one of those that were read: it was neither seen nor missed there.
        let nameless = r.page == 0 && !silent;
        let entries: Vec<EntryIx> = self.store.table_entries(t).collect();
        for e in entries {
            let Some((value, m)) = self.store.now(e) else { continue };
            if nameless {
                self.store.push(e, ev, None, Shade::Unknown, Certainty::Stale, Reason::Incomplete);
                continue;
            }
            let claimed = m.certainty < Certainty::Stale
                && matches!(m.shade, Shade::Writable | Shade::ReadOnly | Shade::AccessTracked | Shade::Mmio);
            if claimed {
                let p = self.store.place(e);
                let d = Difference {
                    vm: VmId(vm),
                    as_id: self.store.tables[t].as_id,
                    level: p.level,
                    gfn: p.gfn,
                    claimed: value,
                    found: self.layout.zapped,
                    certainty: m.certainty,
                };
                if let Some(s) = self.snapshots.done.last_mut() {
                    s.differ(d);
                }
            }
        }
        if silent {
            self.drop_silent(t, ev, ts);
            return;
        }
        if parent != EntryIx::NONE {
            self.attached.unlink(parent);
        }
        self.attached.obsolete_ended(t);
        self.note_unlinked(t, ts);
        self.detach_tree(t, ev, ts);
        self.store.free_table(t, ev, ts);
    }

    /// The first event after a snapshot: what no event follows is known no more.
    pub(crate) fn after_snapshot(&mut self, ev: u32) {
        for e in std::mem::take(&mut self.snapshots.waiting) {
            self.unguard(e, ev);
        }
        for vm in std::mem::take(&mut self.snapshots.unfollowed) {
            let tables: Vec<TableIx> =
                self.attached.all().filter(|t| self.store.tables[*t].vm == vm).collect();
            for t in tables {
                let entries: Vec<EntryIx> = self.store.table_entries(t).collect();
                for e in entries {
                    self.make_stale(e, ev, Reason::Unrecorded);
                }
                self.store.tables[t].lossy = true;
            }
        }
    }

    /// Whether the next event is the first after a snapshot.
    pub(crate) fn is_after_snapshot(&self) -> bool {
        !(self.snapshots.waiting.is_empty() && self.snapshots.unfollowed.is_empty())
    }
}
