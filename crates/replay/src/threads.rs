//! [`Thread`]: what a thread is doing, as its events so far show. The engine keeps one for each thread and gives it to rules by number; nothing
//! here looks at tables.

use std::ops::{Index, IndexMut};

use rustc_hash::FxHashMap;

use crate::faults::state::FaultState;
use crate::keys::{Column, EntryIx, Ix, SpanIx, TableIx, ThreadIx};

/// A `kvm_mmu_get_page` whose table no event has linked yet.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NewPage {
    pub(crate) level: u8,
    pub(crate) gfn: Option<u64>,
    pub(crate) mirror: bool,
    pub(crate) as_id: Option<u8>,
    pub(crate) ev: u32,
    pub(crate) ts: u64,
}

/// The last leaf a thread installed: `kvm_mmu_set_spte` or `mark_mmio_spte` names where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Install {
    pub(crate) table: TableIx,
    pub(crate) entry: EntryIx,
    pub(crate) span: SpanIx,
    pub(crate) gfn: u64,
    pub(crate) level: u8,
    pub(crate) as_id: u8,
    pub(crate) spte: u64,
    pub(crate) ambiguous: bool,
}

/// What a thread is doing.
#[derive(Clone, Debug, Default)]
pub(crate) struct Thread {
    pub(crate) tid: u32,
    pub(crate) vm: Option<u16>,
    pub(crate) vcpu: Option<u32>,
    /// Time of its event before this one.
    pub(crate) prev_ts: u64,
    /// Tables it is tearing down.
    pub(crate) tearing: Vec<TableIx>,
    /// The first of them was in reach until this thread cut its link: the link was not found in a table that was being torn down itself.
    pub(crate) tears_reached: bool,
    /// It did something else than zapping since the trace began or last lost events: what it zaps is no rest of a teardown that began before.
    pub(crate) did_more_than_zap: bool,
    /// Entries it froze and has not released.
    pub(crate) frozen: Vec<EntryIx>,
    /// Of the tables it is tearing down: those whose unlinking is traced after their entries (7.2 and later), with the time of the event
    /// before which the link cannot have been cut.
    pub(crate) unlinking: Vec<(TableIx, u64)>,
    /// Level and first frame of a table it said it would tear down, while it is not known which of several, and the time of the event before.
    pub(crate) unclear: Option<(u8, u64, u64)>,
    /// Level and first frame of the tables it said it would tear down, and whose links it has not cut yet, where cuts are traced last.
    pub(crate) announced: Vec<(u8, u64)>,
    /// Level and first frame of the table that its last change unlinked.
    pub(crate) cut: Option<(u8, u64)>,
    /// It invalidates a range of the host's memory: what that maps is zapped in every tree before the thread goes on.
    pub(crate) notifying: bool,
    /// It obsoleted all roots and now zaps them.
    pub(crate) zapping: bool,
    /// Tables it went through in this fault.
    pub(crate) path: Vec<TableIx>,
    pub(crate) pages: Vec<NewPage>,
    pub(crate) install: Option<Install>,
    /// Root its last installs went to.
    pub(crate) root: TableIx,
    pub(crate) fault: FaultState,
}

impl Thread {
    /// Remembers a table that this thread just worked on: a fault goes through five at most.
    pub(crate) fn went_through(&mut self, table: TableIx) {
        if !self.path.contains(&table) {
            if self.path.len() >= 8 {
                self.path.remove(0);
            }
            self.path.push(table);
        }
    }
}

/// All threads, in the order of their first events, by [`ThreadIx`].
#[derive(Clone, Debug, Default)]
pub(crate) struct Threads {
    all: Column<ThreadIx, Thread>,
    by_tid: FxHashMap<u32, ThreadIx>,
    /// The thread that was asked for last: mostly it is the next, too.
    last: Option<(u32, ThreadIx)>,
}

impl Threads {
    /// The thread with this id; `make` gives its state where it is new.
    pub(crate) fn of_tid(&mut self, tid: u32, make: impl FnOnce() -> Thread) -> ThreadIx {
        if let Some((last, i)) = self.last
            && last == tid
        {
            return i;
        }
        let next = ThreadIx::nth(self.all.len());
        let i = *self.by_tid.entry(tid).or_insert(next);
        if i == next {
            self.all.push(make());
        }
        self.last = Some((tid, i));
        i
    }

    /// The numbers of all threads.
    pub(crate) fn numbers(&self) -> impl Iterator<Item = ThreadIx> + use<> {
        (0..self.all.len() as u32).map(ThreadIx)
    }

    /// All threads.
    pub(crate) fn all(&self) -> &[Thread] {
        self.all.slice()
    }

    /// All threads.
    pub(crate) fn all_mut(&mut self) -> &mut [Thread] {
        self.all.slice_mut()
    }
}

impl Index<ThreadIx> for Threads {
    type Output = Thread;
    #[inline]
    fn index(&self, i: ThreadIx) -> &Thread {
        &self.all[i]
    }
}

impl IndexMut<ThreadIx> for Threads {
    #[inline]
    fn index_mut(&mut self, i: ThreadIx) -> &mut Thread {
        &mut self.all[i]
    }
}
