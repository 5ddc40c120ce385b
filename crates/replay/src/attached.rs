//! [`Attached`] knows where tables are reached: by their place, by the host page that they lie in, and by the entry that links them. The rules of
//! the TDP MMU and the snapshots keep it and ask it; other rules ask. The tables themselves are in
//! [`crate::store`]. Nothing here decides which table an event means.

use rustc_hash::{FxHashMap, FxHashSet};

use crate::keys::{EntryIx, Key, TableIx};

/// The number of tables detached lately that are kept. Threads tear down what they unlinked at once, so that few are asked for again.
const LATELY: usize = 256;

/// The tables that are attached, and those that were until lately.
#[derive(Clone, Debug, Default)]
pub(crate) struct Attached {
    at: FxHashMap<Key, Vec<TableIx>>,
    /// VM and place of every table there was.
    places: FxHashSet<(u16, Key)>,
    in_page: FxHashMap<u64, TableIx>,
    /// The table that was last torn down in a host page.
    dying: FxHashMap<u64, TableIx>,
    below: FxHashMap<EntryIx, TableIx>,
    /// Roots that `kvm_mmu_zap_all_fast` made obsolete.
    obsolete: FxHashSet<TableIx>,
    /// Tables detached lately, newest last.
    lately: Vec<TableIx>,
}

impl Attached {
    /// The attached tables of a place, oldest first: those of several VMs and roots lie at one place.
    #[inline]
    pub(crate) fn at(&self, key: &Key) -> &[TableIx] {
        self.at.get(key).map_or(&[], Vec::as_slice)
    }

    /// All that are attached, in no order that means anything.
    pub(crate) fn all(&self) -> impl Iterator<Item = TableIx> + '_ {
        self.at.values().flatten().copied()
    }

    /// The table that lies in a host page.
    #[inline]
    pub(crate) fn in_page(&self, page: u64) -> Option<TableIx> {
        self.in_page.get(&page).copied()
    }

    /// The table that was last torn down in a host page.
    pub(crate) fn dying_in(&self, page: u64) -> Option<TableIx> {
        self.dying.get(&page).copied()
    }

    /// The table that an entry links.
    #[inline]
    pub(crate) fn below(&self, entry: EntryIx) -> Option<TableIx> {
        self.below.get(&entry).copied()
    }

    /// Tables detached lately, the newest first.
    pub(crate) fn lately(&self) -> impl Iterator<Item = TableIx> + '_ {
        self.lately.iter().rev().copied()
    }

    /// A table comes to be at its place. Returns whether the VM had one there before.
    pub(crate) fn attach(&mut self, table: TableIx, vm: u16, key: Key) -> bool {
        self.at.entry(key).or_default().push(table);
        !self.places.insert((vm, key))
    }

    /// It is known in which host page a table lies.
    pub(crate) fn lies_in(&mut self, table: TableIx, page: u64) {
        self.in_page.insert(page, table);
    }

    /// A table that was never attached in this page is torn down there.
    pub(crate) fn dies_in(&mut self, table: TableIx, page: u64) {
        self.dying.insert(page, table);
    }

    /// An entry links a table.
    pub(crate) fn link(&mut self, entry: EntryIx, table: TableIx) {
        self.below.insert(entry, table);
    }

    /// An entry links nothing any more. Returns what it linked.
    pub(crate) fn unlink(&mut self, entry: EntryIx) -> Option<TableIx> {
        self.below.remove(&entry)
    }

    /// The same, unless the entry links another table by now.
    pub(crate) fn unlink_from(&mut self, parent: EntryIx, table: TableIx) {
        if parent != EntryIx::NONE && self.below(parent) == Some(table) {
            self.unlink(parent);
        }
    }

    /// A table is out of reach: its place and its page are free for another.
    pub(crate) fn detach(&mut self, table: TableIx, key: Key, page: u64) {
        if let Some(here) = self.at.get_mut(&key) {
            here.retain(|t| *t != table);
            if here.is_empty() {
                self.at.remove(&key);
            }
        }
        if self.leaves(table, page) {
            self.dying.insert(page, table);
        }
        if self.lately.len() >= LATELY {
            self.lately.drain(..LATELY / 2);
        }
        self.lately.push(table);
    }

    /// A table does not lie in a host page any more. Returns whether it did.
    pub(crate) fn leaves(&mut self, table: TableIx, page: u64) -> bool {
        let lay = self.in_page(page) == Some(table);
        if lay {
            self.in_page.remove(&page);
        }
        lay
    }

    /// A host page is taken for a new table. Returns the one that was last torn down in it.
    pub(crate) fn reuse(&mut self, page: u64) -> Option<TableIx> {
        self.dying.remove(&page)
    }

    /// Whether a root is obsolete: faults fill nothing below it.
    #[inline]
    pub(crate) fn is_obsolete(&self, root: TableIx) -> bool {
        self.obsolete.contains(&root)
    }

    /// Whether any root is obsolete.
    #[inline]
    pub(crate) fn any_obsolete(&self) -> bool {
        !self.obsolete.is_empty()
    }

    /// These roots are obsolete from now on.
    pub(crate) fn make_obsolete(&mut self, roots: impl IntoIterator<Item = TableIx>) {
        self.obsolete.extend(roots);
    }

    /// An obsolete root is gone.
    pub(crate) fn obsolete_ended(&mut self, root: TableIx) {
        self.obsolete.remove(&root);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_that_is_detached_is_found_among_the_late_ones_only() {
        let (mut a, key) = (Attached::default(), Key { as_id: 0, level: 1, gfn: 0x200 });
        let (one, two) = (TableIx(1), TableIx(2));
        assert!(!a.attach(one, 0, key));
        assert!(a.attach(two, 0, key), "the VM had a table at this place before");
        a.lies_in(one, 0x5000);
        a.link(EntryIx(7), one);
        a.detach(one, key, 0x5000);
        a.unlink_from(EntryIx(7), two);
        assert_eq!((a.at(&key), a.in_page(0x5000)), (&[two][..], None));
        assert_eq!((a.below(EntryIx(7)), a.dying_in(0x5000)), (Some(one), Some(one)));
        assert_eq!(a.lately().collect::<Vec<_>>(), [one]);
        // Another table took the page before the first was detached: that one stays.
        a.lies_in(TableIx(3), 0x6000);
        a.detach(two, key, 0x6000);
        assert_eq!((a.in_page(0x6000), a.dying_in(0x6000)), (Some(TableIx(3)), None));
        assert_eq!((a.reuse(0x5000), a.reuse(0x5000)), (Some(one), None));
    }

    #[test]
    fn those_detached_lately_are_bounded() {
        let (mut a, key) = (Attached::default(), Key { as_id: 0, level: 1, gfn: 0 });
        for t in 0..1000 {
            a.attach(TableIx(t), 0, key);
            a.detach(TableIx(t), key, 0);
        }
        assert!(a.lately().count() <= LATELY);
        assert_eq!(a.lately().next(), Some(TableIx(999)));
        assert_eq!(a.all().count(), 0);
    }
}
