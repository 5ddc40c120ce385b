//! Two traces side by side: one time axis, each with its own map; the tables belong to the one that was clicked last.

use std::sync::Arc;

use egui::{pos2, vec2};
use egui_kittest::kittest::Queryable;

use super::{Window, click, command, doc, labels, open, read, small};
use crate::ThemeChoice;
use crate::capture;
use crate::command::Command;
use crate::doc::Doc;
use crate::other;
use crate::view::Range;

/// The small trace with a real one, which is much longer, beside it.
fn both(shift: f64) -> Window {
    let mut h = open(small(), ThemeChoice::Dark);
    let ctx = h.ctx.clone();
    let theirs = Doc::new(read("6.1-npt/trace.txt.zst"), &ctx, true);
    let shared = Arc::clone(&doc(&mut h).capture);
    other::put(doc(&mut h), &capture::read(&shared), theirs, shift);
    h.run_ok();
    h
}

/// The time that each of both shows: that of the open one first.
fn times(h: &mut Window) -> (Range, Range) {
    let d = doc(h);
    (d.view.time, d.other.as_ref().expect("side by side").doc.view.time)
}

/// Both maps from the top, by their names for screen readers.
fn maps(h: &Window) -> Vec<egui::Rect> {
    let mut all: Vec<_> = h.query_all_by_label_contains("GFN map: guest frames").map(|n| n.rect()).collect();
    all.sort_by(|a, b| a.top().total_cmp(&b.top()));
    all
}

#[test]
fn both_maps_show_one_stretch_of_time_and_keep_to_it() {
    let mut h = both(0.0);
    let found = maps(&h);
    assert_eq!(found.len(), 2);
    assert!(found[0].bottom() <= found[1].top(), "one over the other: {found:?}");
    assert!(
        (found[0].left() - found[1].left()).abs() < 0.1 && (found[0].width() - found[1].width()).abs() < 0.1
    );
    // The longer of both fills the axis, and the view can go to its end.
    let (mine, theirs) = times(&mut h);
    assert_eq!(mine, theirs);
    assert!(mine.span() > 1e8, "{mine:?}");
    command(&mut h, Command::ZoomIn);
    command(&mut h, Command::PanRight);
    let (mine, theirs) = times(&mut h);
    assert_eq!(mine, theirs);
    // The wheel over the lower map moves both.
    let at = maps(&h)[1].center();
    h.hover_at(at);
    h.event(egui::Event::MouseWheel {
        unit: egui::MouseWheelUnit::Line,
        delta: vec2(0.0, 3.0),
        phase: egui::TouchPhase::Move,
        source: egui::MouseWheelSource::Wheel,
        modifiers: egui::Modifiers::COMMAND,
    });
    h.run_ok();
    let (zoomed, theirs) = times(&mut h);
    assert!(zoomed.span() < mine.span() * 0.9, "{zoomed:?} {mine:?}");
    assert!((zoomed.start - theirs.start).abs() < 1.0 && (zoomed.end - theirs.end).abs() < 1.0);
}

#[test]
fn where_a_trace_has_no_events_its_map_says_nothing_of_pages() {
    let mut h = both(0.0);
    // The small trace ends after a millisecond of a long axis.
    let upper = maps(&h)[0];
    h.hover_at(pos2(upper.right() - 20.0, upper.center().y));
    h.run_ok();
    assert!(doc(&mut h).pointed.is_none(), "{:?}", doc(&mut h).pointed);
    assert!(labels(&h, "This trace has ended before."));
    click(&mut h, pos2(upper.right() - 20.0, upper.center().y));
    assert_eq!(doc(&mut h).selection, None);
    // Moved to the right, it begins in the middle: before that there is nothing to say either.
    let by = times(&mut h).0.span() / 2.0;
    command(&mut h, Command::SwapTraces);
    let shared = Arc::clone(&doc(&mut h).capture);
    other::move_by(doc(&mut h), &capture::read(&shared), by);
    h.run_ok();
    let upper = maps(&h)[0];
    h.hover_at(pos2(upper.left() + 20.0, upper.center().y));
    h.run_ok();
    assert!(labels(&h, "This trace begins later."));
}

#[test]
fn a_click_opens_the_other_trace_and_keeps_its_place() {
    let mut h = both(0.0);
    let events = |h: &mut Window| capture::read(&doc(h).capture).timeline.event_count();
    let few = events(&mut h);
    // The other trace is the lower one; where its pages are, a click finds one.
    let lower = maps(&h)[1];
    click(&mut h, pos2(lower.left() + lower.width() * 0.4, lower.center().y));
    h.run_ok();
    assert!(events(&mut h) > few, "the tables are about the other trace");
    assert!(doc(&mut h).selection.is_some());
    assert!(doc(&mut h).other.as_ref().is_some_and(|o| o.below), "it stays the lower one");
    assert_eq!(maps(&h).len(), 2);
    let (mine, theirs) = times(&mut h);
    assert!((mine.start - theirs.start).abs() < 1.0);
    command(&mut h, Command::SwapTraces);
    assert_eq!(events(&mut h), few);
}

#[test]
fn cursors_align_two_moments_and_the_link_says_so() {
    let mut h = both(0.0);
    command(&mut h, Command::AlignCursors);
    assert!(labels(&h, "put cursor A at a moment"), "nothing is moved without cursors");
    doc(&mut h).cursors = [Some(1000.0), Some(5_000_000.0)];
    command(&mut h, Command::AlignCursors);
    let d = doc(&mut h);
    let o = d.other.as_ref().expect("side by side");
    // What the other trace shows at B, 5 ms after its first event, is now at A, 1 µs after that of the open one.
    assert!((1000.0 + o.shift - 5_000_000.0).abs() < 1.0, "{}", o.shift);
    assert!(labels(&h, "moved 5 ms earlier"));
    let (mine, theirs) = times(&mut h);
    assert!((theirs.start - mine.start - 4_999_000.0).abs() < 1.0, "{mine:?} {theirs:?}");
    command(&mut h, Command::CopyLink);
    assert!(labels(&h, "--beside") && labels(&h, "--shift=4999000ns"));
    command(&mut h, Command::AlignStarts);
    let (mine, theirs) = times(&mut h);
    assert!((theirs.start - mine.start).abs() < 1.0);
    command(&mut h, Command::CloseOther);
    assert_eq!(maps(&h).len(), 1);
    let end = capture::read(&doc(&mut h).capture).full_time().end;
    assert!(doc(&mut h).view.time.end <= end, "the axis is that of one trace again");
}

#[test]
fn a_trace_that_cannot_be_opened_beside_says_so_until_it_is_hidden() {
    let mut h = open(small(), ThemeChoice::Dark);
    let ctx = h.ctx.clone();
    let missing = std::path::PathBuf::from("/nonexistent/b.dat");
    h.state_mut().as_mut().expect("made").open_beside(&ctx, missing, 0);
    let until = std::time::Instant::now() + std::time::Duration::from_mins(1);
    while !labels(&h, "could not be opened: /nonexistent/b.dat") {
        assert!(std::time::Instant::now() < until, "the line comes");
        h.run_steps(1);
    }
    h.get_by_label("×").click();
    h.run_ok();
    assert!(!labels(&h, "could not be opened"));
    assert!(doc(&mut h).other.is_none());
}
