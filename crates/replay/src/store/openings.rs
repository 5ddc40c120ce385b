//! What entries held before their first event, as the old value in that event shows it.

use super::Store;
use crate::keys::{EntryIx, SpanIx};
use crate::model::{Certainty, EventIx, Reason, Shade, pages_of};

/// So many of the last openings are looked at; a fault takes microseconds.
const MANY: usize = 1024;

impl Store {
    /// Appends what an entry held until now, which the old value of event `ev` shows. What it becomes is to be pushed next.
    ///
    /// An entry of which nothing was known has held it since `since`, when the trace began or last lost something: every change since then is
    /// an event, and none named this entry. Of any other it is not known since when, and the span has no length.
    pub(crate) fn push_old(&mut self, entry: EntryIx, ev: EventIx, spte: u64, shade: Shade, since: u64) {
        let first = !self.used(entry);
        let span = self.push(entry, ev, Some(spte), shade, Certainty::Implied, Reason::OldValue);
        if first {
            self.openings.push((span, since));
        }
    }

    /// Gives no length to what an entry that maps `gfn` held until a change, if that change came at `begun` or later and the value is one of
    /// those that `stored` is true of: a thread that had begun by then is known to have stored it.
    pub(crate) fn date_opening(&mut self, gfn: u64, begun: u64, stored: impl Fn(u64) -> bool) {
        for i in (0..self.openings.len()).rev().take(MANY) {
            let span = self.openings[i].0;
            let ts = self.ev_ts.get(self.s_ev[span] as usize);
            if ts < begun {
                return;
            }
            let p = self.place(self.s_entry[span]);
            let maps = p.gfn <= gfn && gfn - p.gfn < pages_of(p.level);
            if maps && stored(self.s_spte[span]) {
                self.openings[i].1 = ts;
                return;
            }
        }
    }

    /// Since when a span that was recorded with the event that ended it has lasted.
    pub(crate) fn opening(&self, span: SpanIx) -> Option<u64> {
        let i = self.openings.partition_point(|o| o.0 < span);
        self.openings.get(i).filter(|o| o.0 == span).map(|o| o.1)
    }

    /// Spans from number `p` on that had begun before event `ev`, at `t`, as later events show.
    pub(crate) fn opened_before(&self, p: SpanIx, ev: u32, t: u64) -> impl Iterator<Item = SpanIx> + '_ {
        let i = self.openings.partition_point(|o| o.0 < p);
        let attached = move |x: SpanIx| self.tables[self.table_of(self.s_entry[x])].detach_ev >= ev;
        self.openings[i..].iter().filter(move |o| o.1 <= t && attached(o.0)).map(|o| o.0)
    }
}
