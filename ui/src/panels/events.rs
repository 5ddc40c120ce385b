//! The table of events. Only rows in sight are made; the filter has the language of the command line's `--where`.

use std::sync::Arc;

use egui::{Key, RichText, Ui};
use mmuscope_replay::EventIx;

use super::{Cx, complete};
use crate::capture::{self, Capture};
use crate::fmt;
use crate::follow::Live;
use crate::passing::{self, By, Order, Passing, Wish};
use crate::rows::{EventRow, rows_of};
use crate::scope::Scope;
use crate::view::Range;
use crate::widgets::rows::{Column, Scroll, Sorting, Table, Text, table};
use crate::worker::Worker;

/// The rows to find in a capture.
pub(crate) struct Query {
    capture: Arc<std::sync::RwLock<Capture>>,
    wish: Wish,
}

type Answer = (Wish, Result<Passing, String>);

/// State of the table of events.
pub(crate) struct EventTable {
    worker: Worker<Query, Answer>,
    asked: Wish,
    /// What is shown, and in which order; `None` if that is the whole trace as it is.
    passing: Option<Arc<Passing>>,
    /// Whether rows that do not pass are hidden; otherwise those that pass are marked, and Find next goes from one to the next.
    hide: bool,
    order: Order,
    completion: complete::State,
    /// Event and column of the row whose menu is open.
    menu: Option<(EventIx, usize)>,
    error: Option<String>,
    /// The filter as it is typed.
    text: String,
    window: bool,
    /// Whether to focus the filter box in the next frame.
    pub(crate) focus: bool,
    /// The event to bring into view.
    pub(crate) reveal: Option<EventIx>,
    scroll: Scroll,
    cache: Option<(Vec<EventIx>, u64, Vec<EventRow>)>,
}

impl EventTable {
    /// A table of all events, scrolled to the top.
    pub(crate) fn new(ctx: &egui::Context, inline: bool) -> Self {
        let compute = |q: Query| {
            let cap = capture::read(&q.capture);
            let found = passing::find(&cap, &q.wish);
            drop(cap);
            (q.wish, found)
        };
        let ctx = ctx.clone();
        let worker = if inline {
            Worker::inline(compute)
        } else {
            Worker::start("mmuscope-filter", compute, move || ctx.request_repaint())
        };
        Self {
            worker,
            asked: Wish::default(),
            passing: None,
            hide: true,
            order: Order::default(),
            completion: complete::State::default(),
            menu: None,
            error: None,
            text: String::new(),
            window: false,
            focus: false,
            reveal: None,
            scroll: Scroll::default(),
            cache: None,
        }
    }

    /// The rows; `None` if these are all events.
    pub(crate) fn shown(&self) -> Option<Arc<Passing>> {
        self.passing.clone()
    }

    /// The filter as it is typed.
    pub(crate) fn filter(&self) -> &str {
        self.text.trim()
    }

    /// Replaces the filter.
    pub(crate) fn set_filter(&mut self, text: &str) {
        text.clone_into(&mut self.text);
    }

    /// Number of rows.
    pub(crate) fn len(&self, cap: &Capture) -> usize {
        self.passing.as_ref().map_or(cap.trace.events.len(), |p| p.len())
    }

    /// The next event (`forward`) or the one before that passes the filter.
    pub(crate) fn find(&self, from: Option<EventIx>, forward: bool) -> Option<EventIx> {
        let all = &self.passing.as_ref()?.hits;
        match from {
            None => all.first().copied(),
            Some(ix) if forward => all.get(all.partition_point(|e| *e <= ix)).copied(),
            Some(ix) => all.get(all.partition_point(|e| *e < ix).checked_sub(1)?).copied(),
        }
    }

    /// How many of the rows that pass are events, and how many are notes.
    fn counts(&self, cap: &Capture) -> (u64, u64) {
        if let Some(p) = &self.passing {
            return (p.count, p.hits.len() as u64 - p.count);
        }
        let notes = cap.timeline.events() as u64 - cap.timeline.event_count();
        (cap.trace.events.len() as u64 - notes, notes)
    }

    /// The event of a row.
    pub(crate) fn event_at(&self, row: usize) -> Option<EventIx> {
        match &self.passing {
            None => Some(row as EventIx),
            Some(p) => p.event_at(row),
        }
    }

    /// The row of an event, or of the next one where it has none.
    fn row_of(&self, cap: &Capture, ix: EventIx) -> usize {
        self.passing.as_ref().map_or(ix as usize, |p| p.row_of(cap, ix))
    }

    /// The rows as they are asked for now.
    fn wish(&self, scope: Scope, view: Range, version: u64) -> Wish {
        let window =
            self.window.then(|| (view.start.floor().max(0.0) as u64, view.end.ceil().max(0.0) as u64));
        let text = self.text.trim().to_owned();
        Wish { text, window, scope, keep: !self.hide, order: self.order, version }
    }

    /// Asks for the rows, and takes over those that have become ready.
    fn update(
        &mut self,
        cap: &Capture,
        capture: &Arc<std::sync::RwLock<Capture>>,
        wish: Wish,
        selected: Option<EventIx>,
    ) {
        let plain = wish.is_plain();
        // A trace that grows would never be answered if each part that arrives put off the answer.
        let later = cap.growing && self.worker.busy() && wish.same(&self.asked);
        if wish != self.asked && !later {
            self.asked = wish.clone();
            if plain {
                self.passing = None;
                self.error = None;
            } else {
                self.worker.ask(Query { capture: Arc::clone(capture), wish });
            }
        }
        match self.worker.take() {
            Some(Ok((wish, found))) if !plain && wish.same(&self.asked) => match found {
                Ok(list) => {
                    self.passing = Some(Arc::new(list));
                    self.error = None;
                    if !cap.growing {
                        self.reveal = selected;
                    }
                }
                Err(e) => self.error = Some(e),
            },
            Some(Err(e)) => self.error = Some(e),
            _ => {}
        }
    }

    fn sort_by(&mut self, column: usize) {
        let Some((_, by)) = ORDERS.iter().find(|(c, _)| *c == column) else { return };
        self.order = Order { by: *by, down: self.order.by == *by && !self.order.down };
        self.reveal = None;
        self.scroll = Scroll::default();
    }

    /// The event one row after (`forward`) or before another.
    pub(crate) fn step(&self, cap: &Capture, from: Option<EventIx>, forward: bool) -> Option<EventIx> {
        let len = self.len(cap);
        let row = match from {
            None => 0,
            Some(ix) => {
                let row = self.row_of(cap, ix);
                let exact = self.event_at(row) == Some(ix);
                match (forward, exact) {
                    (true, true) => row + 1,
                    (true, false) => row,
                    (false, _) => row.checked_sub(1)?,
                }
            }
        };
        (row < len).then(|| self.event_at(row)).flatten()
    }
}

/// Draws the filter box and runs the filter.
pub(crate) fn filter_bar(ui: &mut Ui, cx: &mut Cx<'_>) {
    let t = cx.tokens;
    let table = &mut cx.doc.tables.events;
    let busy = table.worker.busy();
    let color = match (&table.error, table.text.trim().is_empty()) {
        (_, true) => None,
        // Whether it is understood is not known yet.
        _ if busy => Some(t.accent),
        (Some(_), _) => Some(t.bad),
        (None, _) => Some(t.good),
    };
    let id = ui.make_persistent_id("filter events");
    let typing = ui.memory(|m| m.has_focus(id)) && complete::at_end(ui, id, &table.text);
    let offer = if typing { complete::offer(cx.cap, &table.text) } else { complete::Offer::default() };
    if complete::keys(ui, &mut table.completion, &offer, &mut table.text) {
        complete::caret_to_end(ui, id, &table.text);
    }
    let hint = "filter: event == 'kvm_page_fault' and gfn >= 0x100";
    let edit = egui::TextEdit::singleline(&mut table.text)
        .id(id)
        .lock_focus(!offer.is_empty())
        .hint_text(hint)
        .desired_width(if ui.available_width() > 700.0 { 340.0 } else { 220.0 })
        .align(egui::Align2::LEFT_CENTER);
    let response = ui
        .scope(|ui| {
            if let Some(c) = color {
                let stroke = egui::Stroke::new(1.0, c);
                let w = &mut ui.visuals_mut().widgets;
                (w.inactive.bg_stroke, w.hovered.bg_stroke) = (stroke, stroke);
                ui.visuals_mut().selection.stroke = stroke;
            }
            ui.add(edit)
        })
        .inner;
    crate::widgets::name_edit(&response, "Filter events", &table.text);
    if complete::list(t, &response, table.completion, &offer, &mut table.text) {
        complete::caret_to_end(ui, id, &table.text);
        response.request_focus();
    }
    let response = response.on_hover_ui(|ui| {
        ui.label("A filter is an expression over the columns of `mmuscope events`, with the operators and or not == != < > in contains like &.");
        ui.label(RichText::new(crate::rows::column_names()).monospace().size(11.0));
    });
    if std::mem::take(&mut table.focus) {
        response.request_focus();
    }
    if response.has_focus() && ui.input(|i| i.key_pressed(Key::Escape)) {
        table.text.clear();
        response.surrender_focus();
    }
    if !table.text.is_empty() && ui.small_button("Clear").on_hover_text("Show all events").clicked() {
        table.text.clear();
    }
    ui.checkbox(&mut table.window, "only what is shown above")
        .on_hover_text("Show only events of the time that the map shows");
    if !table.text.trim().is_empty() {
        ui.checkbox(&mut table.hide, "hide others")
            .on_hover_text("Without it all rows stay, those that pass are marked, and F3 goes to the next");
    }
    let (events, notes) = table.counts(cx.cap);
    let mut words = fmt::plural(events, "event", "events");
    if notes > 0 {
        words.extend([" and ", &fmt::plural(notes, "note", "notes")]);
    }
    let sorting = table.order != Order::default();
    let words = match (busy, sorting && table.text.trim().is_empty()) {
        (true, true) => "sorting…".to_owned(),
        (true, false) => "filtering…".to_owned(),
        _ => words,
    };
    let tip = "Notes of lost events, damage, snapshots and tasks have rows, too; they are no events";
    ui.label(RichText::new(words).color(t.muted)).on_hover_text(tip);
    hidden(ui, cx);
    let selected = cx.doc.selection.and_then(|s| s.event);
    let scope = cx.doc.scopes.now();
    let table = &mut cx.doc.tables.events;
    let wish = table.wish(scope, cx.doc.view.time, cx.cap.version);
    table.update(cx.cap, &cx.doc.capture, wish, selected);
}

/// The columns that the table can be sorted by.
const ORDERS: [(usize, By); 7] =
    [(0, By::Time), (1, By::Time), (2, By::Cpu), (3, By::Task), (4, By::Vcpu), (5, By::Kind), (6, By::Gfn)];

/// Says that the filter hides the selected event, with a button that shows it.
fn hidden(ui: &mut Ui, cx: &mut Cx<'_>) {
    let Some(ix) = cx.doc.selection.and_then(|s| s.event) else { return };
    let table = &mut cx.doc.tables.events;
    if table.worker.busy() || table.event_at(table.row_of(cx.cap, ix)) == Some(ix) {
        return;
    }
    let filtered = !table.text.trim().is_empty() || table.window;
    let by = if filtered { "filter" } else { "scope" };
    let text = format!("#{} is hidden by the {by}:", fmt::count(u64::from(ix)));
    ui.label(RichText::new(text).color(cx.tokens.warn));
    let tip = format!("Remove the {by} and show the selected event");
    if ui.small_button("show").on_hover_text(tip).clicked() {
        table.text.clear();
        table.window = false;
        table.reveal = Some(ix);
        let e = cx.cap.event(ix);
        let scope = cx.doc.scopes.now();
        let inside = e.is_some_and(|e| scope.has_event(cx.cap, &e) && scope.has_time(cx.cap, e.ts, e.ts));
        if !inside {
            cx.doc.scopes.back_to(0);
        }
    }
}

/// Draws the reason why a filter is not understood, in as many lines as it needs.
pub(crate) fn filter_error(ui: &mut Ui, cx: &Cx<'_>) {
    let table = &cx.doc.tables.events;
    if let Some(e) = table.error.as_ref().filter(|_| !table.worker.busy()) {
        ui.add(egui::Label::new(RichText::new(e).monospace().size(11.5).color(cx.tokens.bad)).wrap());
    }
}

/// Draws the rows in sight.
pub(crate) fn show(ui: &mut Ui, cx: &mut Cx<'_>) {
    let columns = [
        // Wide enough for hundreds of millions: what is shown of a number must be all of it.
        Column { name: "#", width: 88.0, right: true },
        Column { name: "time", width: 128.0, right: true },
        Column { name: "cpu", width: 38.0, right: true },
        Column { name: "task", width: 150.0, right: false },
        Column { name: "vcpu", width: 40.0, right: true },
        Column { name: "event", width: 176.0, right: false },
        Column { name: "gfn", width: 92.0, right: true },
        Column { name: "fields", width: 0.0, right: false },
    ];
    let selected = cx.doc.selection.and_then(|s| s.event);
    let table_state = &mut cx.doc.tables.events;
    let mut scroll = table_state.scroll;
    if let Some(ix) = table_state.reveal.take() {
        scroll.show = Some(table_state.row_of(cx.cap, ix));
    }
    let len = table_state.len(cx.cap);
    // While the newest events are followed, the rows follow, too, unless the user has scrolled away from the last.
    if scroll.at_end && cx.doc.follow && cx.doc.live.as_ref().is_some_and(Live::goes_on) {
        scroll.show = scroll.show.or(len.checked_sub(1));
    }
    let at = selected
        .map(|ix| (table_state.row_of(cx.cap, ix), ix))
        .filter(|(r, ix)| table_state.event_at(*r) == Some(*ix))
        .map(|(r, _)| r);
    let cap = cx.cap;
    // Texts are made only for the rows in sight, and again only when those change.
    let fit = (ui.available_height() / crate::widgets::rows::ROW) as usize + 2;
    let near = scroll.show.map_or(scroll.top as usize, |row| row.saturating_sub(fit)).min(len);
    let window: Vec<EventIx> = (near.saturating_sub(fit)..(near + 3 * fit).min(len))
        .filter_map(|r| table_state.event_at(r))
        .collect();
    let stale = table_state.cache.as_ref().is_none_or(|(w, v, _)| *w != window || *v != cap.version);
    if stale {
        table_state.cache = Some((window.clone(), cap.version, rows_of(cap, &window)));
    }
    let t = cx.tokens;
    let done = {
        let table_state = &cx.doc.tables.events;
        let cached = table_state.cache.as_ref();
        let order = table_state.order;
        let column = ORDERS.iter().rfind(|(_, by)| *by == order.by).map_or(1, |(c, _)| *c);
        let sorting = Some(Sorting { column, down: order.down });
        let of =
            Table { name: "Events", columns: &columns, count: len, selected: at, sorting, unsorted: Some(7) };
        table(ui, t, &of, &mut scroll, |row| {
            let Some(ix) = table_state.event_at(row) else { return Vec::new() };
            let found = cached.and_then(|(w, _, rows)| rows.get(w.iter().position(|i| *i == ix)?));
            let made;
            let r = if let Some(r) = found {
                r
            } else {
                made = rows_of(cap, &[ix]).pop().unwrap_or_default();
                &made
            };
            let lost = matches!(r.event.as_str(), "lost" | "damage");
            let marked = !table_state.hide
                && !table_state.text.trim().is_empty()
                && table_state.passing.as_ref().is_some_and(|p| p.is_hit(ix));
            let event_color = if marked { Some(t.accent) } else { lost.then_some(t.lost) };
            vec![
                Text { text: fmt::count(u64::from(ix)), color: Some(t.faint) },
                cx.when(r.time).into(),
                Text { text: r.cpu.clone(), color: Some(t.muted) },
                Text { text: r.task.clone(), color: Some(t.muted) },
                r.vcpu.clone().into(),
                Text { text: r.event.clone(), color: event_color },
                r.gfn.clone().into(),
                Text { text: r.fields.clone(), color: Some(t.muted) },
            ]
        })
    };
    cx.doc.tables.events.scroll = scroll;
    if let Some(column) = done.head {
        cx.doc.tables.events.sort_by(column);
    }
    if let Some((row, column)) = done.menu {
        cx.doc.tables.events.menu = cx.doc.tables.events.event_at(row).map(|ix| (ix, column));
    }
    if let (Some(body), Some((ix, column))) = (&done.body, cx.doc.tables.events.menu) {
        body.context_menu(|ui| super::event_menu::show(ui, cx, ix, column));
    }
    if let Some(ix) = done.picked.and_then(|r| cx.doc.tables.events.event_at(r)) {
        cx.doc.select_event(cx.cap, ix);
        if done.twice {
            cx.doc.fit_selection(cx.cap);
        }
    }
}
