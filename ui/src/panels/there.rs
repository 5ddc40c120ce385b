//! [`go`]: shows the moment, frames and event that a row of a table names.

use mmuscope_replay::VmId;

use super::Cx;
use crate::view::Range;

/// A moment and place that a row of a table names.
#[derive(Clone, Copy, Debug)]
pub(crate) struct There {
    pub(crate) vm: Option<VmId>,
    pub(crate) as_id: u8,
    /// First and last frame.
    pub(crate) gfns: Option<(u64, u64)>,
    /// First and last time, on the trace's clock.
    pub(crate) time: (u64, u64),
    pub(crate) event: Option<u32>,
}

/// Shows a place: its time is zoomed to, its frame and event are selected.
pub(crate) fn go(cx: &mut Cx<'_>, there: &There) {
    cx.doc.leave();
    if let Some(vm) = there.vm {
        cx.doc.enter_space(cx.cap, vm, there.as_id);
    }
    let (a, b) = (cx.cap.rel(there.time.0), cx.cap.rel(there.time.1));
    if let Some(ix) = there.event {
        cx.doc.select_event(cx.cap, ix);
    }
    if let Some((gfn, last)) = there.gfns {
        let event = cx.doc.selection.and_then(|s| s.event).filter(|_| there.event.is_some());
        cx.doc.select_at(cx.cap, gfn, there.time.0, None);
        if let (Some(s), Some(ix)) = (&mut cx.doc.selection, event) {
            s.event = Some(ix);
            cx.doc.tables.show_event(ix);
        }
        let (vm, as_id) = (cx.doc.view.vm, cx.doc.view.as_id);
        if let Some(rows) = cx.cap.rows_of(vm, as_id, gfn, last.saturating_add(1)) {
            let around = rows.padded(1.0);
            let half = (around.span() / 2.0).max(16.0);
            let rows = Range::new(around.centre() - half, around.centre() + half);
            cx.doc.show(cx.cap, cx.doc.view.time, rows);
        }
    }
    // A moment is shown with what was around it; a stretch, as a whole.
    let time = if b > a { Range::new(a, b).padded(0.1) } else { cx.doc.view.time.reveal(a) };
    cx.doc.show(cx.cap, time, cx.doc.view.rows);
}
