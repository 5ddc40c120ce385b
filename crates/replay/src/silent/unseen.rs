//! What may happen unseen where classes of events were not recorded: each rule that rests on the absence of an event holds only where the
//! event would be in the trace.

use mmuscope_spte::Mode;
use mmuscope_trace::{Body, ErrorEncoding, Event, Page};

use crate::engine::Engine;
use crate::keys::{TableIx, index_of, key_of};
use crate::model::{Reason, Shade};
use crate::moment::At;
use crate::recorded::kind;
use crate::silent::fresh::Fresh;
use crate::silent::shadow::SpKey;

impl Engine {
    /// Whether an entry of a silent MMU may go, or change, without an event because the event was not recorded.
    pub(super) fn goes_unseen(&self, table: TableIx, spte: u64, shade: Shade) -> bool {
        let r = &self.recorded;
        let t = &self.store.tables[table];
        let opened = self.may_open(spte, shade) && !r.has(kind::FAST_FAULT) && !r.has(kind::PAGE_FAULT);
        if self.probed() && shade != Shade::Mmio {
            // Each leaf of a page that goes is an event of its own.
            return opened || self.may_be_tdp(t.vm);
        }
        // The TDP MMU of 5.10 zaps its pages without an event, recorded or not.
        let zaps = r.has(if self.silent.above.contains(&t.vm) { kind::ZAP_ALL } else { kind::PREPARE_ZAP });
        let lacking = r.lacks(kind::CHANGED, &self.traces);
        if !r.has(kind::GET_PAGE) || !zaps || lacking || self.may_be_tdp(t.vm) {
            return true;
        }
        if shade == Shade::Mmio {
            return !r.has(kind::ZAP_ALL) || !r.has(kind::SET_SPTE);
        }
        let ages = matches!(self.layout.mode, Mode::EptNoAd | Mode::NestedEptNoAd) && !r.has(kind::AGE_HVA);
        let guests = !(t.direct || r.has(kind::PAGE_FAULT) && self.boundaries_recorded());
        let synced = !r.has(kind::SYNC_PAGE)
            && self.silent.key_of_table.get(&table).is_some_and(|k| self.silent.unsync.contains(k));
        ages || guests || synced || opened
    }

    /// Whether what is taken for the legacy MMU may be the TDP MMU, its changes not recorded. Kernels that trace no ranges are left out: there
    /// what either MMU maps is stale once its thread goes on (`unguard`).
    fn may_be_tdp(&self, vm: u16) -> bool {
        !self.recorded.has(kind::CHANGED) && self.ranges_traced() && !self.silent.legacy.contains(&vm)
    }

    /// The TDP MMU makes each of its pages anew, and gives them no generation; a VM whose first root shadows a guest's table has none.
    pub(super) fn note_legacy(&mut self, vm: u16, page: &Page, created: bool) {
        let direct = page.role.direct;
        if direct && (!created || page.mmu_valid_gen.is_some_and(|g| g > 0))
            || !direct && !self.silent.direct_root.contains(&vm) && page.role.guest_mode != Some(true)
        {
            self.silent.legacy.insert(vm);
        } else if direct && page.role.level >= 4 {
            self.silent.direct_root.insert(vm);
        }
    }

    /// Whether the fast path may give an entry permissions.
    pub(crate) fn may_open(&self, spte: u64, shade: Shade) -> bool {
        let mask = self.layout.masks.mmu_writable_mask;
        match shade {
            Shade::AccessTracked => true,
            Shade::ReadOnly => mask == 0 || spte & mask != 0,
            _ => false,
        }
    }

    /// A write to a frame that a guest's table lies in is let through: its shadow pages are out of sync from here on, which an event shows
    /// where it is recorded.
    pub(super) fn unseen_unsync(&mut self, vm: u16, gfn: u64, ev: u32) {
        if self.recorded.has(kind::UNSYNC_PAGE) || !self.silent.guest_tables.contains_key(&(vm, gfn)) {
            return;
        }
        let mut keys: Vec<SpKey> =
            self.silent.pages.iter().filter(|k| k.vm == vm && k.gfn == Some(gfn)).copied().collect();
        keys.sort_unstable_by_key(|k| (k.role.level, k.role.quadrant));
        for key in keys {
            self.silent.unsync.insert(key);
            self.sync(vm, key.role.level, key, ev);
        }
    }

    /// A fault may be the fast path's, where that is not recorded: an entry for its address may get permissions. Shadow paging has no such
    /// path.
    pub(crate) fn unseen_fast_fault(&mut self, at: At, e: &Event) {
        let Body::PageFault { address, encoding, .. } = e.body else { return };
        if self.recorded.has(kind::FAST_FAULT) {
            return;
        }
        let gfn = match encoding {
            ErrorEncoding::EptQualification | ErrorEncoding::NestedPageFault => Some(address >> 12),
            ErrorEncoding::Ambiguous => None,
            ErrorEncoding::PageFault => return,
        };
        let mut hit = Vec::new();
        if let Some(gfn) = gfn {
            for level in 1..=3u8 {
                for as_id in 0..=self.store.top_as_id.min(1) {
                    let tables = self.attached.at(&key_of(as_id, level, gfn)).iter();
                    hit.extend(tables.filter_map(|t| self.store.slot(*t, index_of(level, gfn))));
                }
            }
        }
        let fresh = self.silent.fresh.get(&at.vm);
        match gfn {
            Some(g) => hit.extend(fresh.into_iter().flat_map(|f| f.covering(g, g, 1))),
            None => hit.extend(fresh.into_iter().flat_map(Fresh::all)),
        }
        hit.retain(|x| self.store.now(*x).is_some_and(|(v, m)| self.may_open(v, m.shade)));
        self.stale_list(hit, at.ev, Reason::Unrecorded);
    }
}
