//! [`rows_of`]: the rows of the event table as text. Columns are those of `mmuscope events`.

use mmuscope_analysis::events::{self, EVENTS};
use mmuscope_analysis::table::{Cell, Chunk, Kind, Rows, human};
use mmuscope_replay::EventIx;

use crate::capture::Capture;
use crate::fmt;

/// One row of the event table as text.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct EventRow {
    /// Time in nanoseconds since the first event.
    pub(crate) time: u64,
    pub(crate) cpu: String,
    pub(crate) task: String,
    pub(crate) vcpu: String,
    pub(crate) event: String,
    pub(crate) gfn: String,
    /// All other fields of the event, as `name=value`.
    pub(crate) fields: String,
}

/// Columns that are not repeated in `fields`.
const OWN: [&str; 10] = ["ts", "cpu", "tid", "comm", "vm", "vcpu", "event", "pid", "gfn", "event_id"];

/// Names of the columns that a filter can use.
pub(crate) fn column_names() -> String {
    EVENTS.columns.iter().map(|c| c.name).collect::<Vec<_>>().join(" ")
}

/// The rows of some events.
pub(crate) fn rows_of(cap: &Capture, wanted: &[EventIx]) -> Vec<EventRow> {
    let whose = cap.whose();
    let mut rows = Rows::new(&EVENTS);
    let start = cap.start();
    let mut out = Vec::with_capacity(wanted.len());
    for ix in wanted {
        let Some(e) = cap.event(*ix) else { continue };
        events::push(&mut rows, (*ix).into(), &e, &cap.trace.strings, whose, start);
        out.push(EventRow {
            time: e.ts.saturating_sub(start),
            cpu: e.cpu.to_string(),
            task: cap.task(&e),
            vcpu: whose.vcpu(&e).map_or_else(String::new, |v| v.to_string()),
            event: cap.event_name(&e).to_owned(),
            gfn: Capture::gfn_of(&e).map_or_else(String::new, fmt::gfn),
            fields: String::new(),
        });
    }
    let chunk = rows.take();
    for (n, row) in out.iter_mut().enumerate() {
        row.fields = fields(&chunk, n);
    }
    out
}

/// A field of an event, and the filter that finds all events that have the same.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Term {
    /// Name of the column of `mmuscope events`.
    pub(crate) column: &'static str,
    /// The value as people read it.
    pub(crate) value: String,
    /// The filter.
    pub(crate) is: String,
}

/// All fields of an event.
pub(crate) fn terms_of(cap: &Capture, ix: EventIx) -> Vec<Term> {
    let Some(e) = cap.event(ix) else { return Vec::new() };
    let mut rows = Rows::new(&EVENTS);
    events::push(&mut rows, ix.into(), &e, &cap.trace.strings, cap.whose(), cap.start());
    let chunk = rows.take();
    let term = |(n, c): (usize, &'static mmuscope_analysis::table::Column)| {
        let cell = chunk.cell(0, n);
        let is = match cell {
            Cell::Null => return None,
            Cell::U64(v) if c.kind == Kind::Hex => format!("{} == {v:#x}", c.name),
            Cell::U64(v) => format!("{} == {v}", c.name),
            Cell::I32(v) => format!("{} == {v}", c.name),
            Cell::Bool(true) => c.name.to_owned(),
            Cell::Bool(false) => format!("not {}", c.name),
            Cell::Text(v) if v.contains('\'') => format!("{} == \"{v}\"", c.name),
            Cell::Text(v) => format!("{} == '{v}'", c.name),
        };
        Some(Term { column: c.name, value: human(c, cell, false).into_owned(), is })
    };
    EVENTS.columns.iter().enumerate().filter_map(term).collect()
}

/// What a row holds beside the columns that have a place of their own.
fn fields(chunk: &Chunk, row: usize) -> String {
    let mut out = String::new();
    for (n, c) in EVENTS.columns.iter().enumerate().filter(|(_, c)| !OWN.contains(&c.name)) {
        let cell = chunk.cell(row, n);
        if cell == Cell::Null {
            continue;
        }
        if !out.is_empty() {
            out.push_str("  ");
        }
        out.push_str(c.name);
        out.push('=');
        out.push_str(&human(c, cell, false));
    }
    out
}
