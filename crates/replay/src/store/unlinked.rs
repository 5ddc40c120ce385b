//! [`Unlinked`]: tables whose link no event has shown, by their place. Where a table above them is unlinked, they may have lain below it.
//!
//! [`Store::push`] lists such a table when something becomes known of one of its entries, and the TDP tables take out those of a range
//! ([`Store::take_unlinked_below`]). Every listing is paid for by a span, so that no file can make this cost more than its events do.

use std::collections::BTreeSet;

use super::Store;
use crate::keys::{EntryIx, TableIx};
use crate::model::{Certainty, pages_of};

/// VM, address space, level, first frame, table.
pub(super) type Unlinked = BTreeSet<(u16, u8, u8, u64, TableIx)>;

impl Store {
    /// Lists the table of an entry of which something becomes known, if no event has shown its link.
    #[inline]
    pub(super) fn list_unlinked(&mut self, table: TableIx, certainty: Certainty) {
        let t = &mut self.tables[table];
        if t.parent == EntryIx::NONE
            && !t.listed
            && !t.silent
            && certainty != Certainty::Stale
            && t.attached()
        {
            t.listed = true;
            self.unlinked.insert((t.vm, t.as_id, t.level, t.gfn, table));
        }
    }

    /// The attached tables that may lie below a table because they are within its range and no event has shown their own link. They are not
    /// given again before something new becomes known of their entries.
    pub(crate) fn take_unlinked_below(&mut self, table: TableIx) -> Vec<TableIx> {
        let t = &self.tables[table];
        let (vm, as_id, first) = (t.vm, t.as_id, t.gfn);
        // A table has 512 entries of its level.
        let end = first.saturating_add(pages_of(t.level).saturating_mul(512));
        let mut out = Vec::new();
        for level in 1..t.level {
            let range = (vm, as_id, level, first, TableIx(0))..(vm, as_id, level, end, TableIx(0));
            let found: Vec<_> = self.unlinked.range(range).copied().collect();
            for key in found {
                self.unlinked.remove(&key);
                let t = &mut self.tables[key.4];
                t.listed = false;
                if t.parent == EntryIx::NONE && t.attached() {
                    out.push(key.4);
                }
            }
        }
        out
    }
}
