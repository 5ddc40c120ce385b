//! The table of events. Only rows in sight are made; the filter has the language of the command line's `--where`.

use std::sync::Arc;

use egui::{Key, RichText, Ui};
use mmuscope_replay::EventIx;

use super::Cx;
use crate::capture::{self, Capture};
use crate::fmt;
use crate::rows::{EventRow, Passing, filter_events, rows_of};
use crate::widgets::rows::{Column, Scroll, Table, Text, table};
use crate::worker::Worker;

/// A filter to run over all events of a capture.
pub(crate) struct Query {
    capture: Arc<std::sync::RwLock<Capture>>,
    key: Wish,
}

/// Everything that the result of a filter depends on.
#[derive(Clone, Debug, Default, PartialEq)]
struct Wish {
    text: String,
    /// Start and end of the time in view, in nanoseconds since the first event, where only events of that time are wanted.
    window: Option<(u64, u64)>,
    version: u64,
}

type Answer = (Wish, Result<Passing, String>);

/// State of the table of events.
pub(crate) struct EventTable {
    worker: Worker<Query, Answer>,
    asked: Wish,
    /// Numbers of the events that pass the filter; `None` without a filter.
    passing: Option<Arc<Passing>>,
    /// Whether rows that do not pass are hidden; otherwise those that pass are marked, and Find next goes from one to the next.
    hide: bool,
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
            let found = filter_events(&cap, &q.key.text, q.key.window);
            drop(cap);
            (q.key, found)
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
        self.rows().map_or(cap.trace.events.len(), Vec::len)
    }

    /// The rows that are left, where rows are hidden.
    fn rows(&self) -> Option<&Vec<EventIx>> {
        self.passing.as_ref().filter(|_| self.hide).map(|p| &p.0)
    }

    /// The next event (`forward`) or the one before that passes the filter.
    pub(crate) fn find(&self, from: Option<EventIx>, forward: bool) -> Option<EventIx> {
        let all = &self.passing.as_ref()?.0;
        match from {
            None => all.first().copied(),
            Some(ix) if forward => all.get(all.partition_point(|e| *e <= ix)).copied(),
            Some(ix) => all.get(all.partition_point(|e| *e < ix).checked_sub(1)?).copied(),
        }
    }

    /// How many of the rows are events, and how many are notes.
    fn counts(&self, cap: &Capture) -> (u64, u64) {
        if let Some(p) = &self.passing {
            return (p.1, p.0.len() as u64 - p.1);
        }
        let notes = cap.timeline.events() as u64 - cap.timeline.event_count();
        (cap.trace.events.len() as u64 - notes, notes)
    }

    fn event_at(&self, row: usize) -> Option<EventIx> {
        match self.rows() {
            None => Some(row as EventIx),
            Some(p) => p.get(row).copied(),
        }
    }

    /// The row of an event, or of the first event after it that passes the filter.
    fn row_of(&self, ix: EventIx) -> usize {
        self.rows().map_or(ix as usize, |p| p.partition_point(|e| *e < ix))
    }

    /// The event one row after (`forward`) or before another.
    pub(crate) fn step(&self, cap: &Capture, from: Option<EventIx>, forward: bool) -> Option<EventIx> {
        let len = self.len(cap);
        let row = match from {
            None => 0,
            Some(ix) => {
                let row = self.row_of(ix);
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
    let hint = "filter: event == 'kvm_page_fault' and gfn >= 0x100";
    let edit = egui::TextEdit::singleline(&mut table.text)
        .hint_text(hint)
        .desired_width(340.0)
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
    let words = if busy { "filtering…".to_owned() } else { words };
    let tip = "Notes of lost events, damage, snapshots and tasks have rows, too; they are no events";
    ui.label(RichText::new(words).color(t.muted)).on_hover_text(tip);
    hidden(ui, cx);
    let table = &mut cx.doc.tables.events;
    let view = cx.doc.view.time;
    let key = Wish {
        text: table.text.trim().to_owned(),
        window: table.window.then(|| (view.start.floor().max(0.0) as u64, view.end.ceil().max(0.0) as u64)),
        version: cx.cap.version,
    };
    let plain = key.text.is_empty() && key.window.is_none();
    if key != table.asked {
        table.asked = key.clone();
        if plain {
            table.passing = None;
            table.error = None;
        } else {
            table.worker.ask(Query { capture: Arc::clone(&cx.doc.capture), key });
        }
    }
    match cx.doc.tables.events.worker.take() {
        Some(Ok((key, found))) if !plain && key == cx.doc.tables.events.asked => {
            let table = &mut cx.doc.tables.events;
            match found {
                Ok(list) => {
                    table.passing = Some(Arc::new(list));
                    table.error = None;
                    table.reveal = cx.doc.selection.and_then(|s| s.event);
                }
                Err(e) => table.error = Some(e),
            }
        }
        Some(Err(e)) => cx.doc.tables.events.error = Some(e),
        _ => {}
    }
}

/// Says that the filter hides the selected event, with a button that shows it.
fn hidden(ui: &mut Ui, cx: &mut Cx<'_>) {
    let Some(ix) = cx.doc.selection.and_then(|s| s.event) else { return };
    let table = &mut cx.doc.tables.events;
    if table.worker.busy() || table.rows().is_none() || table.event_at(table.row_of(ix)) == Some(ix) {
        return;
    }
    let text = format!("#{} is hidden by the filter:", fmt::count(u64::from(ix)));
    ui.label(RichText::new(text).color(cx.tokens.warn));
    if ui.small_button("show").on_hover_text("Remove the filter and show the selected event").clicked() {
        table.text.clear();
        table.window = false;
        table.reveal = Some(ix);
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
        Column { name: "#", width: 64.0, right: true },
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
        scroll.show = Some(table_state.row_of(ix));
    }
    let at = selected
        .map(|ix| (table_state.row_of(ix), ix))
        .filter(|(r, ix)| table_state.event_at(*r) == Some(*ix))
        .map(|(r, _)| r);
    let len = table_state.len(cx.cap);
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
        let of = Table { name: "Events", columns: &columns, count: len, selected: at, ..Table::default() };
        table(ui, t, &of, &mut scroll, |row| {
            let Some(ix) = table_state.event_at(row) else { return Vec::new() };
            let found = cached.and_then(|(w, _, rows)| rows.get(w.binary_search(&ix).ok()?));
            let made;
            let r = if let Some(r) = found {
                r
            } else {
                made = rows_of(cap, &[ix]).pop().unwrap_or_default();
                &made
            };
            let lost = matches!(r.event.as_str(), "lost" | "damage");
            let marked = !table_state.hide
                && table_state.passing.as_ref().is_some_and(|p| p.0.binary_search(&ix).is_ok());
            let event_color = if marked { Some(t.accent) } else { lost.then_some(t.lost) };
            vec![
                Text { text: fmt::count(u64::from(ix)), color: Some(t.faint) },
                fmt::exact(r.time).into(),
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
