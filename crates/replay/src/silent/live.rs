//! [`Live`]: which shadow pages exist, by their making and their zap. What follows from that of tables whose page no event names is in
//! [`gone`](super::gone).

use crate::keys::TableIx;
use rustc_hash::FxHashMap;

use super::shadow::SpKey;

/// The walk of the guest's tables that a fault began with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Walked {
    /// The address it was for.
    pub(super) addr: u64,
    /// The guest's table of the level asked for; the root's frame is not traced.
    pub(super) table: Option<u64>,
}

impl Walked {
    /// Whether a page that shadows a guest's table may be on the way.
    pub(super) fn may_be_in(&self, key: &SpKey) -> bool {
        // A table of 1024 entries of 4 bytes has two shadow pages, or as the root four.
        let part = match (key.role.gpte_bytes, key.role.level) {
            (Some(4), 1) => self.addr >> 21 & 1,
            (Some(4), 2) => self.addr >> 30 & 3,
            _ => u64::from(key.role.quadrant),
        };
        part == u64::from(key.role.quadrant) && (self.table.is_none() || self.table == key.gfn)
    }
}

/// The pages of each VM, by level.
#[derive(Clone, Debug, Default)]
pub(super) struct Live {
    /// How many of a key: text does not print all of a role, so that SMM's pages look like others.
    pages: FxHashMap<SpKey, u32>,
    levels: FxHashMap<(u16, u8), Vec<SpKey>>,
}

/// A page of which `kvm_mmu_get_page` is the last that a thread did for a fault.
#[derive(Clone, Copy, Debug)]
pub(super) struct Made {
    pub(super) key: SpKey,
    /// The thread made it; otherwise it was there and was looked up.
    pub(super) new: bool,
    pub(super) ev: u32,
}

/// `kvm_mmu_zap_all_fast`, and the zaps that follow it.
#[derive(Clone, Copy, Debug)]
pub(super) struct ZapAll {
    pub(super) vm: u16,
    pub(super) tid: u32,
    pub(super) ev: u32,
    /// The table of MMIO entries that were known by their frame only.
    pub(super) framed: Option<TableIx>,
}

impl Live {
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn made(&mut self, key: SpKey) {
        let n = self.pages.entry(key).or_default();
        *n += 1;
        if *n == 1 {
            self.levels.entry((key.vm, key.role.level)).or_default().push(key);
        }
    }

    /// One page of this key is zapped; gives how many are left.
    pub(super) fn zapped(&mut self, key: SpKey) -> u32 {
        match self.pages.get_mut(&key) {
            Some(n) if *n > 1 => {
                *n -= 1;
                *n
            }
            _ => {
                if self.pages.remove(&key).is_some()
                    && let Some(l) = self.levels.get_mut(&(key.vm, key.role.level))
                {
                    l.retain(|k| *k != key);
                }
                0
            }
        }
    }

    pub(super) fn count(&self, key: &SpKey) -> u32 {
        self.pages.get(key).copied().unwrap_or(0)
    }

    pub(super) fn of(&self, vm: u16, level: u8) -> &[SpKey] {
        self.levels.get(&(vm, level)).map_or(&[], Vec::as_slice)
    }
}
