//! [`Thread`]: what a thread is doing, as its events so far show. The engine keeps one for each thread and gives it to rules by number; nothing
//! here looks at tables.

use crate::faults::state::FaultState;

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

/// The last leaf a thread installed: `kvm_mmu_set_spte` or `mark_mmio_spte` tells where.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Install {
    pub(crate) table: u32,
    pub(crate) entry: u32,
    pub(crate) span: u32,
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
    pub(crate) named: bool,
    /// Time of its event before this one.
    pub(crate) prev_ts: u64,
    /// Tables it is tearing down.
    pub(crate) tearing: Vec<u32>,
    /// The first of them was in reach until this thread cut its link: the link was not found in a table that was being torn down itself.
    pub(crate) tears_reached: bool,
    /// Entries it froze and has not released.
    pub(crate) frozen: Vec<u32>,
    /// Of the tables it is tearing down: those whose unlinking is told after their entries (7.2 and later), with the time of the event
    /// before which the link cannot have been cut.
    pub(crate) unlinking: Vec<(u32, u64)>,
    /// Level and first frame of a table it said it would tear down, while it is not known which of several, and the time of the event before.
    pub(crate) doomed: Option<(u8, u64, u64)>,
    /// Level and first frame of the tables it said it would tear down, and whose links it has not cut yet, where those are told last.
    pub(crate) announced: Vec<(u8, u64)>,
    /// Level and first frame of the table that its last change unlinked.
    pub(crate) cut: Option<(u8, u64)>,
    /// It invalidates a range of the host's memory: what that maps is zapped in every tree before the thread goes on.
    pub(crate) notifying: bool,
    /// It obsoleted all roots and now zaps them.
    pub(crate) zapping: bool,
    /// Tables it went through in this fault.
    pub(crate) path: Vec<u32>,
    pub(crate) pages: Vec<NewPage>,
    pub(crate) install: Option<Install>,
    /// Root its last installs went to.
    pub(crate) root: u32,
    pub(crate) fault: FaultState,
}

impl Thread {
    /// Remembers a table that this thread just worked on: a fault goes through five at most.
    pub(crate) fn went_through(&mut self, table: u32) {
        if !self.path.contains(&table) {
            if self.path.len() >= 8 {
                self.path.remove(0);
            }
            self.path.push(table);
        }
    }
}
