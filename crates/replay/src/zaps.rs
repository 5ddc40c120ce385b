//! Zaps: leaves, present or MMIO, that stopped mapping what they mapped. Whoever counts them asks here.

use mmuscope_trace::Kind;

use crate::keys::{EntryIx, SpanIx};
use crate::model::{EventIx, Reason, Shade, State, Zap, ZapCause};
use crate::store::{Store, TableRec};

fn is_mapping(shade: Shade) -> bool {
    matches!(shade.state(), State::Present | State::Mmio)
}

/// Whether a leaf stopped mapping when a span began: what was present or MMIO is nonpresent or removed, or maps another host page.
pub(crate) fn begins_with_zap(store: &Store, span: SpanIx) -> bool {
    let m = store.meta(span);
    // An install that was attributed to the wrong table and is taken back was never there.
    let gone = matches!(m.shade, Shade::Nonpresent | Shade::Removed) && m.reason != Reason::Contradicted;
    store.remapped(span) || gone && m.prev.is_some_and(is_mapping)
}

/// Whether an entry was a leaf that stopped mapping when its table was unlinked. What is traced of it later, as the table is torn down, is no
/// other zap.
pub(crate) fn goes_with_table(store: &Store, t: &TableRec, entry: EntryIx) -> bool {
    store.last_before(entry, t.detach_sp).is_some_and(|x| is_mapping(store.meta(x).shade))
}

fn cause(store: &Store, event: EventIx, with_table: bool, remapped: bool) -> ZapCause {
    let kind = store.ev_kind.get(event as usize).copied();
    let is = |k: Kind| kind == Some(k as u8);
    if remapped {
        ZapCause::Remapped
    } else if is(Kind::TdpSpteChanged) || is(Kind::ProbeSpteChanged) {
        if with_table { ZapCause::Unlinked } else { ZapCause::Changed }
    } else if is(Kind::ProbeSpteClear) || is(Kind::ProbeSpteUpdate) {
        ZapCause::Probed
    } else if is(Kind::PrepareZapPage) {
        ZapCause::PageZapped
    } else if is(Kind::Task) {
        ZapCause::Ended
    } else if is(Kind::SetSpte) || is(Kind::MarkMmioSpte) {
        ZapCause::Reused
    } else {
        ZapCause::Obsolete
    }
}

/// The zaps of one entry: on its own, or with its table.
pub(crate) fn zaps_of(store: &Store, entry: EntryIx) -> impl Iterator<Item = Zap> + '_ {
    let t = &store.tables[store.table_of(entry)];
    let own = std::iter::successors(store.first_span(entry), |x| store.next_span(*x))
        .filter(|x| begins_with_zap(store, *x))
        .map(move |x| {
            let event = store.s_ev[x];
            let m = store.meta(x);
            // MMIO that became memory, or the other way round, is no other host page.
            let pages =
                m.shade.state() == State::Present && m.prev.is_some_and(|p| p.state() == State::Present);
            let cause = cause(store, event, false, store.remapped(x) && pages);
            Zap { ts: store.start(x), event, entry: entry.id(), cause }
        });
    let last = (!t.attached() && goes_with_table(store, t, entry)).then(|| {
        let cause = cause(store, t.detach_ev, true, false);
        Zap { ts: t.detach_ts, event: t.detach_ev, entry: entry.id(), cause }
    });
    own.chain(last)
}
