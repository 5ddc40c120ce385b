//! [`Silent`], what is kept of MMUs that do not trace their zaps. The rules beside this file fill it and ask it; nothing here decides
//! anything, and nobody outside this module writes to it.

use std::collections::{BTreeMap, BTreeSet};

use mmuscope_trace::Trace;
use rustc_hash::{FxHashMap, FxHashSet};

use super::fresh::Fresh;
use super::links::Links;
use super::live::{Live, Made, ZapAll};
use super::places::Places;
use super::ranges::{Cow, Ranges};
use super::shadow::SpKey;
use crate::keys::{EntryIx, TableIx};

/// A walk of a guest's page tables, and the frames that walks since the last exit led to.
#[derive(Clone, Debug, Default)]
pub(super) struct Walks {
    pub(super) addr: u64,
    pub(super) frames: Vec<u64>,
    /// Frames of the guest's tables that the last one went through, by level; the root's is not traced.
    pub(super) tables: [Option<u64>; 6],
    /// Some of them led nowhere that is known.
    pub(super) dark: bool,
    /// The last one has not come to its end.
    pub(super) open: bool,
    /// The last one ended in a fault for the guest: that the guest's entry was present.
    pub(super) fault: Option<bool>,
}

/// State of the silent MMUs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Silent {
    /// Entry of a slot, by the slot's physical address.
    pub(super) slots: FxHashMap<u64, EntryIx>,
    /// In which GiB of memory these lie.
    gibs: BTreeSet<u64>,
    /// Tables that were read in memory: the frame of each as its page has it, and whether it is direct.
    pub(super) read: FxHashMap<TableIx, (u64, bool)>,
    /// Entries whose value is known, per VM.
    pub(crate) fresh: FxHashMap<u16, Fresh>,
    /// Entries above the 4K level that were seen without a mapping.
    pub(super) links: Links,
    /// Pages that a thread made or looked up in the fault it is in: the install that follows goes to the last.
    pub(super) made: FxHashMap<u32, Vec<Made>>,
    /// Pages that exist, located or not.
    pub(super) live: Live,
    /// VMs whose pages are named by the level of the entry that points to them: the TDP MMU of 5.10.
    pub(super) above: FxHashSet<u16>,
    /// VMs whose pages show that they are not the TDP MMU's, and those that have a direct root.
    pub(super) legacy: FxHashSet<u16>,
    pub(super) direct_root: FxHashSet<u16>,
    pub(super) table_of: FxHashMap<SpKey, TableIx>,
    pub(super) key_of_table: FxHashMap<TableIx, SpKey>,
    /// What each table was when it was last known, for stories that name it later.
    pub(crate) was: FxHashMap<TableIx, SpKey>,
    /// Roles that two tables at once were of, as far as they are printed.
    pub(super) twins: FxHashSet<SpKey>,
    /// Tables by the frame they shadow.
    pub(super) shadows: FxHashMap<(u16, u64), Vec<TableIx>>,
    /// Guest tables that have shadow pages, located or not, and by frame how many.
    pub(super) pages: FxHashSet<SpKey>,
    pub(super) guest_tables: BTreeMap<(u16, u64), u32>,
    /// Pages that are out of sync with the guest's.
    pub(super) unsync: FxHashSet<SpKey>,
    /// Tables of each VM in use, and of those the ones whose making was not seen.
    pub(super) tables: FxHashMap<u16, FxHashSet<TableIx>>,
    pub(super) unnamed: FxHashMap<u16, FxHashSet<TableIx>>,
    pub(super) ranges: Ranges,
    pub(super) cows: FxHashMap<u32, Cow>,
    pub(super) places: FxHashMap<u16, Places>,
    pub(super) walks: FxHashMap<u32, Walks>,
    /// VMs whose guests have tables of 4-byte entries.
    pub(super) narrow: FxHashSet<u16>,
    /// MMIO entries known only by frame.
    pub(super) mmio: FxHashMap<(u16, u64), EntryIx>,
    pub(super) mmio_tables: FxHashMap<u16, TableIx>,
    /// All pages of a VM were made obsolete, and the thread that zaps them is not known to be done.
    pub(super) zaps: Vec<ZapAll>,
    /// What a thread set since it came out of the guest: once it goes on, others may have changed it.
    pub(super) set: FxHashMap<u32, Vec<EntryIx>>,
    /// A (virtual, frame) pair waiting for the physical address of the same entry.
    pub(super) virt: Option<(u32, u64, u64)>,
    /// Threads of which `kvm_set_spte_hva` was the last event, probes apart.
    pub(super) exchanging: FxHashSet<u32>,
    /// What a probe last saw a thread set: its tid, the entry's virtual address and the value.
    pub(super) set_by_probe: Option<(u32, u64, u64)>,
    /// Entries of tables that are, or may be, direct, by level and frame.
    pub(super) direct_at: FxHashMap<(u16, u8, u64), Vec<EntryIx>>,
    /// VMs with any silent table.
    pub(crate) active: bool,
}

impl Silent {
    pub(crate) fn new(trace: &Trace) -> Self {
        Self { ranges: Ranges::of(trace), ..Self::default() }
    }

    /// An entry lies at this physical address.
    pub(super) fn lies_at(&mut self, phys: u64, entry: EntryIx) {
        self.gibs.insert(phys >> 30);
        self.slots.insert(phys, entry);
    }

    /// The entries that may lie at a virtual address, with their physical addresses, where the distance of the two is not known: it is a
    /// multiple of a GiB.
    pub(super) fn may_lie_at(&self, virt: u64) -> Vec<(u64, EntryIx)> {
        let low = virt & 0x3fff_fff8;
        let at = |g: &u64| {
            let phys = g << 30 | low;
            self.slots.get(&phys).map(|e| (phys, *e))
        };
        self.gibs.iter().filter_map(at).collect()
    }

    /// A thread's event names the entry of a frame by its virtual address; the physical one may follow.
    pub(crate) fn named_by(&mut self, tid: u32, gfn: u64, virt: u64) {
        self.virt = Some((tid, gfn, virt));
    }

    /// The recorder was asked for the ranges of mmu_notifiers.
    pub(crate) fn ranges_recorded(&mut self, asked: bool) {
        self.ranges.recorded |= asked && !self.ranges.partial;
    }

    /// Every event from `ts` on is in the trace, as far as is known; what was announced before may be missing.
    pub(crate) fn seen_from(&mut self, ts: u64) {
        self.ranges.seen_from(ts);
    }
}
