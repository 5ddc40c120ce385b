//! What a loss of events means for what is known. The engine's step comes here for each loss record, and the timeline for events that cannot be
//! numbered; so does the snapshots' code where the recorder did not record some events.

use crate::engine::Engine;
use crate::keys::{EntryIx, TableIx};
use crate::model::{Certainty, LostSpan, Reason, Shade};

impl Engine {
    /// Events after the last one are left out: what is known is known up to here.
    pub(crate) fn leave_out(&mut self, count: u64, until: u64) {
        let (ev, ts) = self.clock.now();
        let end = until.max(ts);
        self.noted.add_lost(LostSpan { cpu: None, start: ts, end, count: Some(count), event: ev });
        self.on_lost(ev, ts);
    }

    /// Something was lost: every value known so far may have changed since.
    pub(crate) fn on_lost(&mut self, ev: u32, ts: u64) {
        self.doubt_everything(ev, ts, Reason::Lost);
        self.faults.lost(self.threads.all_mut(), ev, u64::MAX);
        self.silent.seen_from(ts);
    }

    /// What an entry holds, as far as that is known and not stale.
    fn still_known(&self, entry: EntryIx) -> Option<(Option<u64>, Shade)> {
        let (spte, m) = self.store.now(entry)?;
        let known = m.certainty != Certainty::Stale && m.shade != Shade::Unknown;
        known.then(|| (m.has_value.then_some(spte), m.shade))
    }

    /// Every value known so far may have changed since, for this reason. What becomes of open faults is the caller's to say.
    pub(crate) fn doubt_everything(&mut self, ev: u32, ts: u64, reason: Reason) {
        self.noted.doubted(ev);
        self.snapshots.interrupted = true;
        self.vms.lost();
        for g in self.unexplained.give_up().iter() {
            self.report_gap(g);
        }
        for t in self.threads.numbers() {
            self.settle(t, ev, ts);
        }
        for t in self.threads.all_mut() {
            t.prev_ts = ts;
            t.zapping = false;
            t.did_more_than_zap = false;
            t.notifying = false;
            t.root = TableIx::NONE;
            t.cut = None;
            t.unclear = None;
            t.path.clear();
            t.install = None;
            t.pages.clear();
        }
        let live: Vec<TableIx> = self.attached.all().collect();
        for t in live {
            let r = &mut self.store.tables[t];
            (r.lossy, r.alive) = (true, false);
            // A trace may hold very many losses: entries are looked at only where something was learned since the last one.
            if std::mem::replace(&mut r.doubted, true) {
                debug_assert!(self.store.table_entries(t).all(|e| self.still_known(e).is_none()));
                continue;
            }
            let entries: Vec<EntryIx> = self.store.table_entries(t).collect();
            for e in entries {
                if let Some((spte, shade)) = self.still_known(e) {
                    self.store.push(e, ev, spte, shade, Certainty::Stale, reason);
                }
            }
        }
        self.silent_lost(ev, reason);
        self.slots.doubt(None, ts);
    }
}
