//! A loss, for the silent MMUs: nothing that their rules concluded holds beyond it. Called by [`crate::lost`] for each loss.

use crate::engine::Engine;
use crate::model::Reason;
use crate::silent::fresh::Fresh;

impl Engine {
    pub(crate) fn silent_lost(&mut self, ev: u32, reason: Reason) {
        let hit = self.silent.fresh.values().flat_map(Fresh::all).collect();
        self.stale_list(hit, ev, reason);
        let hit = self.silent.links.take_all();
        self.doubt_links(hit, ev);
        self.silent.made.clear();
        self.silent.live.clear();
        self.silent.zaps.clear();
        // A page may have been freed and made anew: which table a zap is of is not known until an event shows it again.
        self.silent.table_of.clear();
        self.silent.key_of_table.clear();
        self.silent.shadows.clear();
        self.silent.unnamed = self.silent.tables.clone();
        self.silent.unsync.clear();
        self.silent.pages.clear();
        self.silent.guest_tables.clear();
        self.silent.set.clear();
        self.silent.walks.clear();
        self.silent.ranges.lost();
        self.silent.cows.clear();
        // A memory slot may have moved.
        self.silent.places.clear();
    }
}
