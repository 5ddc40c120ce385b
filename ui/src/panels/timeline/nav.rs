//! Movement of the view by wheel, drag and keys, for all plots. `rows` says whether a plot has the GFN axis as well as the time axis.

use egui::{Event, Key, MouseWheelUnit, PointerButton, Rect, Response, Ui, pos2};

use super::{Axis, Cx, row_at};
use crate::command::Command;
use crate::view::Range;

/// Zoom factor of one notch of the wheel.
const NOTCH: f64 = 1.22;
/// Movement by one tap of a key, as a part of the window.
const TAP: f64 = 0.08;
/// Movement while a key is held, in windows per second.
const SPEED: f64 = 0.9;

/// Moves the view by pointer and wheel over a plot.
pub(super) fn plot(ui: &Ui, cx: &mut Cx<'_>, response: &Response, rect: Rect, axis: &Axis, rows: bool) {
    let mut view = cx.doc.view;
    let pointer = response.hover_pos().or_else(|| response.interact_pointer_pos());
    if response.contains_pointer()
        && let Some(pos) = pointer
    {
        let fx = f64::from((pos.x - axis.x0) / (axis.x1 - axis.x0));
        let fy = f64::from((rect.bottom() - pos.y) / rect.height());
        ui.input(|i| {
            for event in &i.events {
                match event {
                    Event::MouseWheel { unit, delta, modifiers, .. } => {
                        let per = match unit {
                            MouseWheelUnit::Line => 1.0,
                            MouseWheelUnit::Page => 4.0,
                            MouseWheelUnit::Point => 1.0 / 50.0,
                        };
                        // Some systems report the wheel with Shift as a sideways movement.
                        let (mut dx, mut dy) = (f64::from(delta.x) * per, f64::from(delta.y) * per);
                        if modifiers.shift && dy == 0.0 {
                            std::mem::swap(&mut dx, &mut dy);
                        }
                        let only_time = modifiers.command || modifiers.ctrl || !rows;
                        let factor = NOTCH.powf(-dy.clamp(-20.0, 20.0));
                        if modifiers.alt {
                            view.time = view.time.pan(-dy * TAP);
                        } else {
                            if only_time || !modifiers.shift {
                                view.time = view.time.zoom(fx, factor);
                            }
                            if rows && !(modifiers.command || modifiers.ctrl) {
                                view.rows = view.rows.zoom(fy, factor);
                            }
                        }
                        view.time = view.time.pan(-dx * TAP);
                    }
                    Event::Zoom(z) if z.is_finite() && *z > 0.0 => {
                        view.time = view.time.zoom(fx, 1.0 / f64::from(*z));
                    }
                    _ => {}
                }
            }
        });
    }
    let shift = ui.input(|i| i.modifiers.shift);
    let box_button = response.drag_started_by(PointerButton::Secondary)
        || response.drag_started_by(PointerButton::Middle)
        || response.drag_started_by(PointerButton::Primary) && shift;
    if box_button && let Some(from) = ui.input(|i| i.pointer.press_origin()) {
        cx.doc.rubber = Some((from, rows));
    } else if response.drag_started() {
        cx.doc.leave();
    }
    if response.dragged() && cx.doc.rubber.is_none() {
        let d = response.drag_delta();
        view.time = view.time.pan(-f64::from(d.x / (axis.x1 - axis.x0)));
        if rows {
            view.rows = view.rows.pan(f64::from(d.y / rect.height()));
        }
    }
    if response.drag_stopped()
        && let Some((from, both)) = cx.doc.rubber.take()
        && let Some(to) = ui.ctx().pointer_latest_pos()
    {
        let wide = (to.x - from.x).abs() > 4.0;
        let high = both && (to.y - from.y).abs() > 4.0;
        if wide || high {
            cx.doc.leave();
        }
        if wide {
            view.time = Range::new(axis.t(from.x), axis.t(to.x));
        }
        if high {
            view.rows = Range::new(row_at(rect, cx.doc.view.rows, from), row_at(rect, cx.doc.view.rows, to));
        }
    }
    if view != cx.doc.view {
        cx.doc.show(cx.cap, view.time, view.rows);
    }
    draw_rubber(ui, cx, response, rect, axis);
}

fn draw_rubber(ui: &Ui, cx: &Cx<'_>, response: &Response, rect: Rect, axis: &Axis) {
    let (Some((from, both)), Some(to)) = (cx.doc.rubber, ui.ctx().pointer_latest_pos()) else { return };
    if !response.dragged() {
        return;
    }
    let (top, bottom) = if both { (from.y.min(to.y), from.y.max(to.y)) } else { (rect.top(), rect.bottom()) };
    let x = |v: f32| v.clamp(axis.x0, axis.x1);
    let r = Rect::from_min_max(
        pos2(x(from.x.min(to.x)), top.max(rect.top())),
        pos2(x(from.x.max(to.x)), bottom.min(rect.bottom())),
    );
    ui.painter().rect(
        r,
        0.0,
        cx.tokens.accent.gamma_multiply(0.15),
        egui::Stroke::new(1.0, cx.tokens.accent),
        egui::StrokeKind::Inside,
    );
}

/// Moves the view by keys: a tap moves a little, a held key goes on. Letters count by their place on the keyboard, so that WASD is in the
/// same place on every keyboard layout.
pub(super) fn keys(ui: &Ui, cx: &mut Cx<'_>) {
    if ui.ctx().egui_wants_keyboard_input() {
        cx.doc.held.clear();
        return;
    }
    let mut taps = Vec::new();
    let (dt, shift, focused) = ui.input(|i| {
        for event in &i.events {
            let Event::Key { key, physical_key, pressed, repeat, modifiers } = event else { continue };
            let key = physical_key.unwrap_or(*key);
            let key = if is_move(key) { key } else { continue };
            if *pressed && !(modifiers.ctrl || modifiers.command || modifiers.alt) {
                if !repeat {
                    taps.push(key);
                    if !cx.doc.held.contains(&key) {
                        cx.doc.held.push(key);
                    }
                }
            } else if !*pressed {
                cx.doc.held.retain(|k| *k != key);
            }
        }
        (f64::from(i.stable_dt.min(0.1)), i.modifiers.shift, i.focused)
    });
    if !focused {
        cx.doc.held.clear();
    }
    let mut view = cx.doc.view;
    for key in &taps {
        step(&mut view, *key, TAP, shift);
    }
    if !cx.doc.held.is_empty() {
        for key in cx.doc.held.clone() {
            if !taps.contains(&key) {
                step(&mut view, key, SPEED * dt, shift);
            }
        }
        ui.ctx().request_repaint();
    }
    if view != cx.doc.view {
        if !taps.is_empty() {
            cx.doc.leave();
        }
        cx.doc.show(cx.cap, view.time, view.rows);
    }
}

fn is_move(key: Key) -> bool {
    matches!(
        key,
        Key::W | Key::A | Key::S | Key::D | Key::ArrowLeft | Key::ArrowRight | Key::ArrowUp | Key::ArrowDown
    )
}

fn step(view: &mut crate::doc::View, key: Key, amount: f64, shift: bool) {
    let factor = NOTCH.powf(amount / TAP);
    match key {
        Key::A | Key::ArrowLeft => view.time = view.time.pan(-amount),
        Key::D | Key::ArrowRight => view.time = view.time.pan(amount),
        Key::ArrowUp => view.rows = view.rows.pan(amount),
        Key::ArrowDown => view.rows = view.rows.pan(-amount),
        Key::W if shift => view.rows = view.rows.zoom(0.5, 1.0 / factor),
        Key::S if shift => view.rows = view.rows.zoom(0.5, factor),
        Key::W => view.time = view.time.zoom(0.5, 1.0 / factor),
        Key::S => view.time = view.time.zoom(0.5, factor),
        _ => {}
    }
}

/// Moves the view by a command of a menu or the palette.
pub(crate) fn by_command(cx: &mut Cx<'_>, command: Command) {
    let mut view = cx.doc.view;
    let key = match command {
        Command::ZoomIn => Key::W,
        Command::ZoomOut => Key::S,
        Command::PanLeft => Key::A,
        Command::PanRight => Key::D,
        Command::PanUp => Key::ArrowUp,
        Command::PanDown => Key::ArrowDown,
        _ => return,
    };
    step(&mut view, key, TAP * 2.0, false);
    cx.doc.leave();
    cx.doc.show(cx.cap, view.time, view.rows);
}
