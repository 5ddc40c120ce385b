//! What is done with [`Other`], another trace that is shown beside the open one, on one time axis. Each keeps a document of its own; only the
//! stretch of time is one, and a shift says which moments of both are at one place.

use crate::capture::{self, Capture};
use crate::doc::{Doc, Other};
use crate::view::Range;

/// A stretch of time on the clock of the other trace.
pub(crate) fn shifted(time: Range, by: f64) -> Range {
    Range::new(time.start + by, time.end + by)
}

/// Shows another trace beside the open one, whose capture is `cap`.
pub(crate) fn put(doc: &mut Doc, cap: &Capture, other: Doc, shift: f64) {
    let whole = doc.view.time == doc.whole(cap);
    doc.second = None;
    doc.other = Some(Other { doc: Box::new(other), shift, below: false });
    reach(doc, cap);
    if whole {
        doc.view.time = doc.whole(cap);
    }
}

/// Takes the other trace away.
pub(crate) fn close(doc: &mut Doc, cap: &Capture) {
    doc.other = None;
    doc.reach = None;
    doc.show(cap, doc.view.time, doc.view.rows);
}

/// Lets the view of each trace move as far as the other one reaches.
pub(crate) fn reach(doc: &mut Doc, cap: &Capture) {
    let Some(o) = &mut doc.other else { return };
    let theirs = capture::read(&o.doc.capture).full_time();
    doc.reach = Some(shifted(theirs, -o.shift));
    o.doc.reach = Some(shifted(cap.full_time(), o.shift));
}

/// Moves the other trace against the open one: `by` nanoseconds later, or earlier.
pub(crate) fn move_by(doc: &mut Doc, cap: &Capture, by: f64) {
    if let Some(o) = &mut doc.other {
        o.shift -= by;
        reach(doc, cap);
    }
}

/// Makes the other trace the open one, to which tables and details belong. What is at one place stays there.
pub(crate) fn swap(doc: &mut Doc) {
    let Some(mut o) = doc.other.take() else { return };
    o.doc.view.time = shifted(doc.view.time, o.shift);
    o.doc.cursors = doc.cursors.map(|c| c.map(|t| t + o.shift));
    o.doc.shown = doc.shown;
    o.doc.tables.tab = doc.tables.tab;
    (o.doc.colour, o.doc.absolute) = (doc.colour, doc.absolute);
    let before = std::mem::replace(doc, *o.doc);
    doc.other = Some(Other { doc: Box::new(before), shift: -o.shift, below: !o.below });
}
