//! The second map: another address space on the same time axis, such as that of another VM. It is drawn by the code of the map, with its part of
//! the document put in the place of the first.

use egui::{Align2, Rect, Ui, pos2, vec2};

use super::{Axis, Cx, Rects, ask, map};
use crate::contain::Contained;
use crate::doc::{Doc, View};
use crate::picture::Pictures;
use crate::second::Second;
use crate::theme::small;

/// Room between both maps, in points: the label of the lower one.
const GAP: f32 = 16.0;

/// The map of another address space.
pub(crate) fn new(
    doc: &Doc,
    cap: &crate::capture::Capture,
    ctx: &egui::Context,
    inline: bool,
) -> Option<Second> {
    let spaces = cap.spaces();
    let here = spaces.iter().position(|s| (s.vm, s.as_id) == (doc.view.vm, doc.view.as_id))?;
    let other = spaces.get((here + 1) % spaces.len()).filter(|_| spaces.len() > 1)?;
    Some(Second {
        vm: other.vm,
        as_id: other.as_id,
        rows: cap.full_rows(other.vm, other.as_id),
        pictures: Pictures::new(&doc.capture, ctx, inline),
        selection: None,
        below: false,
    })
}

/// Puts the other address space in the place of the selected one. Time and everything else stays.
fn swap(second: &mut Second, doc: &mut Doc) {
    let View { vm, as_id, rows, .. } = &mut doc.view;
    std::mem::swap(vm, &mut second.vm);
    std::mem::swap(as_id, &mut second.as_id);
    std::mem::swap(rows, &mut second.rows);
    std::mem::swap(&mut doc.pictures, &mut second.pictures);
    std::mem::swap(&mut doc.selection, &mut second.selection);
}

/// Makes room for both maps: the place of the other one, and its overview.
pub(super) fn split(cx: &Cx<'_>, r: &mut Rects) -> Option<(Rect, Rect)> {
    let below = match (&cx.doc.other, &cx.doc.second) {
        (Some(o), _) => o.below,
        (None, Some(s)) => s.below,
        (None, None) => return None,
    };
    let half = ((r.map.height() - GAP) / 2.0).floor();
    if half < 40.0 {
        return None;
    }
    let upper = |rect: Rect| rect.with_max_y(rect.top() + half);
    let lower = |rect: Rect| rect.with_min_y(rect.bottom() - half);
    let (mine, other) = if below { (lower(r.map), upper(r.map)) } else { (upper(r.map), lower(r.map)) };
    let (mine_side, other_side) =
        if below { (lower(r.side), upper(r.side)) } else { (upper(r.side), lower(r.side)) };
    (r.map, r.side) = (mine, mine_side);
    Some((other, other_side))
}

/// Draws the other map. A click in it makes its address space the selected one.
pub(super) fn show(
    ui: &mut Ui,
    cx: &mut Cx<'_>,
    r: &Rects,
    other: (Rect, Rect),
    axis: &Axis,
    contained: &mut Contained,
) {
    label(ui, cx, r.map);
    let Some(mut second) = cx.doc.second.take() else { return };
    let (pointed, hover) = (cx.doc.pointed.take(), cx.doc.hover);
    swap(&mut second, cx.doc);
    let places = Rects { map: other.0, side: other.1, area: Rect::ZERO, lanes: Vec::new(), ..r.clone() };
    ask(ui, cx, &places, &[], ui.ctx().pixels_per_point());
    ui.push_id("second map", |ui| {
        contained.show(ui, "Second map", |ui| map::show(ui, cx, other.0, other.1, axis));
    });
    label(ui, cx, other.0);
    if cx.doc.selection.is_some() {
        // It was clicked: it keeps its place on the screen.
        second.below = !second.below;
        second.selection = None;
    } else {
        swap(&mut second, cx.doc);
    }
    if cx.doc.pointed.is_none() {
        (cx.doc.pointed, cx.doc.hover) = (pointed, hover);
    }
    cx.doc.second = Some(second);
}

/// Names the address space of a map.
fn label(ui: &Ui, cx: &Cx<'_>, map: Rect) {
    let here = (cx.doc.view.vm, cx.doc.view.as_id);
    let Some(space) = cx.cap.spaces().into_iter().find(|s| (s.vm, s.as_id) == here) else { return };
    let galley = ui.painter().layout_no_wrap(space.label, small(), cx.tokens.ink);
    let place = Rect::from_min_size(map.left_top() + vec2(4.0, 3.0), galley.size() + vec2(8.0, 2.0));
    ui.painter().rect_filled(place, 3.0, cx.tokens.background.gamma_multiply(0.8));
    let at = pos2(place.left() + 4.0, place.center().y);
    ui.painter().text(at, Align2::LEFT_CENTER, galley.text(), small(), cx.tokens.ink);
}
