//! What a loss of events means for what is known. The engine's step comes here for each loss record, and the timeline for events that cannot be
//! numbered; nothing else makes everything stale at once.

use crate::engine::Engine;
use crate::keys::{EntryIx, TableIx};
use crate::model::{Certainty, LostSpan, Reason, Shade};

impl Engine {
    /// Events after the last one are left out: what is known is known up to here.
    pub(crate) fn leave_out(&mut self, count: u64, until: u64) {
        let (ev, ts) = (self.next_ev.saturating_sub(1), self.last_ts);
        let end = until.max(ts);
        self.lost.push(LostSpan { cpu: None, start: ts, end, count: Some(count), event: ev });
        self.on_lost(ev, ts);
    }

    /// Something was lost: every value known so far may have changed since.
    pub(crate) fn on_lost(&mut self, ev: u32, ts: u64) {
        self.doubt_everything(ev, ts, Reason::Lost);
        self.silent.seen_from(ts);
    }

    /// Every value known so far may have changed since, for this reason.
    pub(crate) fn doubt_everything(&mut self, ev: u32, ts: u64, reason: Reason) {
        self.loss_seen = true;
        self.loss_ev = ev;
        self.vms.lost();
        for g in std::mem::take(&mut self.gaps).iter() {
            self.report_gap(g);
        }
        self.rereads.clear();
        for t in self.threads.numbers() {
            self.settle(t, ev, ts);
        }
        for t in self.threads.all_mut() {
            t.prev_ts = ts;
            t.zapping = false;
            t.notifying = false;
            t.root = TableIx::NONE;
            t.cut = None;
            t.unclear = None;
            t.path.clear();
            t.install = None;
            t.pages.clear();
        }
        let live: Vec<TableIx> = self.live.values().flatten().copied().collect();
        for t in live {
            let entries: Vec<EntryIx> = self.store.table_entries(t).collect();
            for e in entries {
                if let Some((spte, m)) = self.store.now(e)
                    && m.certainty != Certainty::Stale
                    && m.shade != Shade::Unknown
                {
                    self.store.push(e, ev, m.has_value.then_some(spte), m.shade, Certainty::Stale, reason);
                }
            }
            let r = &mut self.store.tables[t];
            (r.lossy, r.alive) = (true, false);
        }
        self.silent_lost(ev, reason);
        self.faults.lost(self.threads.all_mut(), ev);
    }
}
