//! The map of another trace on the time axis of the open one. It is drawn by the code of the map, with a document of its own.

use std::sync::Arc;

use egui::{Align2, Rect, Ui, pos2, vec2};

use super::{Axis, Cx, Rects, ask, map, strips};
use crate::capture;
use crate::command::Command;
use crate::contain::Contained;
use crate::fmt;
use crate::other::shifted;
use crate::theme::small;

/// Draws the map of the other trace. A click in it makes that trace the open one.
pub(super) fn show(
    ui: &mut Ui,
    cx: &mut Cx<'_>,
    r: &Rects,
    place: (Rect, Rect),
    axis: &Axis,
    contained: &mut Contained,
) {
    label(ui, cx, r.map, None);
    let Some(mut other) = cx.doc.other.take() else { return };
    let shared = Arc::clone(&other.doc.capture);
    // It was read to its end before it was shown, so that nobody writes to it.
    let cap = capture::read(&shared);
    let time = shifted(cx.doc.view.time, other.shift);
    let doc = &mut *other.doc;
    doc.view.time = time;
    doc.hover.time = cx.doc.hover.time.map(|t| t + other.shift);
    (doc.colour, doc.absolute) = (cx.doc.colour, cx.doc.absolute);
    let selected = doc.selection;
    let theirs = Axis { time, ..*axis };
    let mut mine = Cx { cap: &cap, doc, tokens: cx.tokens, out: cx.out };
    let places = Rects { map: place.0, side: place.1, area: Rect::ZERO, lanes: Vec::new(), ..r.clone() };
    ask(ui, &mut mine, &places, &[], ui.ctx().pixels_per_point());
    ui.push_id("other trace", |ui| {
        contained.show(ui, "Other trace", |ui| map::show(ui, &mut mine, place.0, place.1, &theirs));
    });
    strips::lost(&ui.painter().with_clip_rect(place.0), &mine, place.0, &theirs);
    label(ui, &mine, place.0, Some(other.shift));
    let (moved, pointed) = (other.doc.view.time, other.doc.pointed.as_ref().map(|p| p.pointed));
    if other.doc.selection.is_some() && other.doc.selection != selected {
        cx.out.push(Command::SwapTraces);
    }
    drop(cap);
    if moved != time {
        cx.doc.show(cx.cap, shifted(moved, -other.shift), cx.doc.view.rows);
    }
    cx.doc.hover.gfn = pointed.or(cx.doc.hover.gfn);
    cx.doc.other = Some(other);
}

/// Names the trace of a map, with its address space, and how far it is moved against the open one.
fn label(ui: &Ui, cx: &Cx<'_>, map: Rect, shift: Option<f64>) {
    let here = (cx.doc.view.vm, cx.doc.view.as_id);
    let space = cx.cap.spaces().into_iter().find(|s| (s.vm, s.as_id) == here);
    // Recordings are often called alike, and differ in their folders.
    let folder = match cx.cap.paths.as_slice() {
        [one] => one.parent().and_then(|p| p.file_name()),
        _ => None,
    };
    let mut text = folder.map_or_else(String::new, |f| format!("{}/", f.to_string_lossy()));
    text.push_str(&cx.cap.title());
    if let Some(s) = space {
        text.extend(["  ", &s.label]);
    }
    // What is added to its moments to be at a place of the open trace is what it was moved by.
    let by = -shift.unwrap_or(0.0);
    if by != 0.0 {
        let way = if by > 0.0 { "later" } else { "earlier" };
        text.extend(["  moved ", &fmt::time(by.abs()), " ", way]);
    }
    let galley = ui.painter().layout_no_wrap(text, small(), cx.tokens.ink);
    let size = (galley.size() + vec2(8.0, 2.0)).min(map.size());
    let place = Rect::from_min_size(map.left_top() + vec2(4.0, 3.0), size);
    let named = ui.interact(place, ui.scope_id().with(("trace", shift.is_some())), egui::Sense::hover());
    named.widget_info(|| egui::WidgetInfo::labeled(egui::Role::Label, true, galley.text()));
    ui.painter().rect_filled(place, 3.0, cx.tokens.background.gamma_multiply(0.8));
    let at = pos2(place.left() + 4.0, place.center().y);
    let color = if shift.is_some() { cx.tokens.muted } else { cx.tokens.ink };
    ui.painter().with_clip_rect(map).text(at, Align2::LEFT_CENTER, galley.text(), small(), color);
}
