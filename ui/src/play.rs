//! The selected moment moves through the time in view by itself, so that map, details and tables show the state over time.

use std::time::Instant;

use crate::capture::Capture;
use crate::doc::Doc;
use crate::view::Play;

/// How long the time in view takes at first, in seconds.
const SECONDS: f64 = 10.0;

/// Begins at the selection, or at the start of the time in view if the selection lies outside of it or there is none.
pub(crate) fn begin(cap: &Capture, doc: &Doc) -> Play {
    let view = doc.view.time;
    let selected = doc.selection.map(|s| cap.rel(s.time));
    let inside = selected.filter(|t| *t >= view.start && *t < view.end - view.span() * 0.01);
    let at = inside.unwrap_or(view.start.max(0.0));
    Play { speed: view.span() / SECONDS, at, last: Instant::now() }
}

/// The frame whose moments are played: the selected one, else one in the middle of the map.
fn frame(cap: &Capture, doc: &Doc) -> u64 {
    let (vm, as_id) = (doc.view.vm, doc.view.as_id);
    let middle = || {
        let first = cap.segments(vm, as_id).iter().map(|s| s.gfn_start).min();
        cap.gfn_at(vm, as_id, doc.view.rows.centre()).or(first).unwrap_or(0)
    };
    doc.selection.map_or_else(middle, |s| s.gfn)
}

/// Moves the moment on by the time that has passed. At the end of the time in view it stops.
pub(crate) fn step(cap: &Capture, doc: &mut Doc, now: Instant) {
    let Some(mut play) = doc.play else { return };
    let passed = now.saturating_duration_since(play.last).as_secs_f64().min(0.25);
    let last = doc.view.time.end.min(cap.full_time().end - 1.0);
    play.last = now;
    play.at = (play.at + play.speed * passed).min(last);
    doc.play = (play.at < last).then_some(play);
    let (gfn, time) = (frame(cap, doc), cap.abs(play.at));
    doc.select_at(cap, gfn, time, None);
    // The event table shows what has just happened, of whatever page.
    let next = cap.trace.events.first_at_or_after(time.saturating_add(1));
    if let Some(ix) = next.checked_sub(1) {
        doc.tables.show_event(ix as u32);
    }
}
