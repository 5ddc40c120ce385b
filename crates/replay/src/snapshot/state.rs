//! What is remembered of snapshots between two events: those that were taken in, and entries whose memory is ahead of the trace. The engine holds
//! it, and the rules in this folder change it.

use rustc_hash::FxHashSet;

use crate::keys::{EntryIx, Key, TableIx};
use crate::model::{Certainty, Difference, Snapshot, VmId, pages_of};
use crate::snapshot::seen::Meanwhile;

/// How long after a snapshot the thread that unlinked a table may trace what it tears down, in nanoseconds, and how many such tables are kept.
const TORN_DOWN: u64 = 2_000_000_000;
const MOST_UNLINKED: usize = 4096;
/// Differences that are kept of one snapshot.
const MOST_DIFFERENCES: usize = 1000;

/// The snapshots taken in so far, and what is known of the one that is going on.
#[derive(Clone, Debug, Default)]
pub(crate) struct Snapshots {
    /// Something was lost since reading the VM began, perhaps a part of what was read.
    pub(crate) interrupted: bool,
    pub(crate) done: Vec<Snapshot>,
    /// What the last events showed of tables that may be in the middle of being read.
    pub(crate) meanwhile: Meanwhile,
    /// The VM whose tables come now.
    pub(super) vm: Option<u16>,
    /// When reading of its tables began.
    pub(super) began: u64,
    /// Its tables that were read.
    pub(super) read: FxHashSet<TableIx>,
    /// Entries whose memory is ahead of the trace, or else of which the trace is wrong.
    pub(super) ahead: Vec<Ahead>,
    /// Entries of MMUs that do not trace every change, until the next event.
    pub(crate) waiting: Vec<EntryIx>,
    /// Tables that memory showed as unlinked, whose end the trace may show only now: VM, key and until when.
    pub(super) unlinked: Vec<(u16, Key, u64)>,
    /// VMs whose changes are not recorded, until the next event.
    pub(super) unfollowed: Vec<u16>,
}

/// An entry that memory showed otherwise than the trace did.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ahead {
    pub key: Key,
    pub gfn: u64,
    pub entry: EntryIx,
    pub claimed: u64,
    pub found: u64,
    pub certainty: Certainty,
    pub vm: u16,
    /// The snapshot, by its place in `done`.
    pub(super) of: usize,
}

impl Snapshots {
    /// Memory shows that nothing points to a table any more, of which no event has shown the end.
    pub(super) fn note_unlinked(&mut self, vm: u16, key: Key, ts: u64) {
        self.unlinked.retain(|u| u.2 > ts);
        if self.unlinked.len() < MOST_UNLINKED {
            self.unlinked.push((vm, key, ts.saturating_add(TORN_DOWN)));
        }
    }

    /// Whether a change is of a table, or of one below it, that a snapshot found unlinked in the middle of its teardown.
    pub(crate) fn is_unlinked(&self, vm: u16, key: Key, ts: u64) -> bool {
        let over = |k: &Key| {
            let pages = pages_of(k.level.saturating_add(1));
            k.as_id == key.as_id && key.level <= k.level && key.gfn / pages == k.gfn / pages
        };
        self.unlinked.iter().any(|u| u.0 == vm && ts < u.2 && over(&u.1))
    }

    /// The snapshots, with what is still ahead counted as different.
    pub(crate) fn finished(&self) -> Vec<Snapshot> {
        let mut all = self.done.clone();
        for a in &self.ahead {
            if let Some(s) = all.get_mut(a.of) {
                s.differ(difference(a));
            }
        }
        all
    }
}

pub(super) fn difference(a: &Ahead) -> Difference {
    Difference {
        vm: VmId(a.vm),
        as_id: a.key.as_id,
        level: a.key.level,
        gfn: a.gfn,
        claimed: a.claimed,
        found: a.found,
        certainty: a.certainty,
    }
}

impl Snapshot {
    pub(crate) fn differ(&mut self, d: Difference) {
        self.differ += 1;
        if self.differences.len() < MOST_DIFFERENCES {
            self.differences.push(d);
        }
    }
}
