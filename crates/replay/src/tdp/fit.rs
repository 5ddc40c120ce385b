//! How an old value fits an entry ([`Fit`]). Every rule that looks for the entry of an event asks here; nothing here changes anything.

use mmuscope_spte::{Layout, State as SpteState};

use crate::engine::Engine;
use crate::keys::TableIx;
use crate::model::{Certainty, Reason, Shade};
use crate::tdp::change::Fit;

/// Same value but for what hardware sets.
pub(super) fn same(l: &Layout, a: u64, b: u64, level: u8) -> bool {
    if a == b {
        return true;
    }
    if l.is_shadow_present(a) && l.is_shadow_present(b) {
        return (a ^ b) & !(l.masks.accessed_mask | l.masks.dirty_mask) == 0;
    }
    let empty = |x: u64| matches!(l.state(x, level), SpteState::Nonpresent | SpteState::Removed);
    // Never filled, zapped and released after freezing are one state.
    empty(a) && empty(b)
}

impl Engine {
    /// [`same`] under the trace's layout.
    pub(crate) fn same(&self, a: u64, b: u64, level: u8) -> bool {
        same(&self.layout, a, b, level)
    }

    pub(super) fn fit(&self, table: TableIx, idx: u16, old: u64, level: u8) -> Fit {
        let t = &self.store.tables[table];
        let l = &self.layout;
        let now = self.store.slot(table, idx).and_then(|e| self.store.now(e));
        let Some((cur, m)) = now else {
            return if t.born && !t.lossy {
                if self.same(l.zapped, old, level) { Fit::Exact } else { Fit::No }
            } else {
                Fit::Unknown
            };
        };
        if m.shade == Shade::Unknown {
            return Fit::Unknown;
        }
        if m.has_value && self.same(cur, old, level) {
            return Fit::Exact;
        }
        if l.is_shadow_present(cur)
            && l.is_shadow_present(old)
            && self.pfn_bits(cur) == self.pfn_bits(old)
            && l.state(cur, level) == l.state(old, level)
        {
            return Fit::Volatile;
        }
        // A zap that may have been of another table's entry is no evidence against this one.
        let zapped = m.reason == Reason::Incomplete && !l.is_shadow_present(cur) && !l.is_mmio(cur);
        if m.certainty == Certainty::Stale || zapped { Fit::Unknown } else { Fit::No }
    }
}
