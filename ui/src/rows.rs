//! [`rows_of`] and [`filter_events`]: the rows of the event table as text, and the events that pass a filter. Columns and filters are those of
//! `mmuscope events`.

use mmuscope_analysis::Filter;
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
        let comm = fmt::clean(cap.trace.strings.get(e.comm));
        let task = match (comm.as_str(), e.tid) {
            ("", None) => String::new(),
            ("", Some(tid)) => tid.to_string(),
            (comm, None) => comm.to_owned(),
            (comm, Some(tid)) => format!("{comm}-{tid}"),
        };
        out.push(EventRow {
            time: e.ts.saturating_sub(start),
            cpu: e.cpu.to_string(),
            task,
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

/// Rows of the event table: their numbers, and how many of them are events rather than notes of losses, snapshots and tasks.
pub(crate) type Passing = (Vec<EventIx>, u64);

/// The events that pass the filter `text` and lie in `window` (start and end in nanoseconds since the first event).
pub(crate) fn filter_events(
    cap: &Capture,
    text: &str,
    window: Option<(u64, u64)>,
) -> Result<Passing, String> {
    let store = &cap.trace.events;
    let (from, to) = match window {
        None => (0, store.len()),
        Some((a, b)) => {
            let start = cap.start();
            (
                store.first_at_or_after(start.saturating_add(a)),
                store.first_at_or_after(start.saturating_add(b).saturating_add(1)),
            )
        }
    };
    if text.is_empty() {
        let events = store.range(from..to).filter(|e| e.body.is_event()).count();
        return Ok(((from..to).map(|i| i as EventIx).collect(), events as u64));
    }
    let filter = Filter::new(text, &EVENTS).map_err(|e| e.to_string())?;
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // A thread costs more than it gains on few events.
    let part = (to - from).div_ceil(threads).max(20_000);
    let parts: Vec<(usize, usize)> = (from..to).step_by(part).map(|a| (a, (a + part).min(to))).collect();
    if let [(a, b)] = parts[..] {
        return Ok(matching(cap, &filter, a, b));
    }
    let found: Vec<Passing> = std::thread::scope(|scope| {
        let filter = &filter;
        let started: Vec<_> =
            parts.iter().map(|&(a, b)| scope.spawn(move || matching(cap, filter, a, b))).collect();
        started
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    });
    let events = found.iter().map(|f| f.1).sum();
    Ok((found.into_iter().flat_map(|f| f.0).collect(), events))
}

/// Numbers of the events `from..to` that pass a filter.
fn matching(cap: &Capture, filter: &Filter, from: usize, to: usize) -> Passing {
    let mut rows = Rows::new(&EVENTS);
    let mut out: Vec<EventIx> = Vec::new();
    let mut notes: Vec<EventIx> = Vec::new();
    let mut first = from;
    let mut flush = |rows: &mut Rows| {
        let hits = filter.matches(&rows.take());
        out.extend(hits.iter().enumerate().filter(|(_, hit)| **hit).map(|(i, _)| (first + i) as EventIx));
        first += hits.len();
    };
    for (id, e) in (from as u64..).zip(cap.trace.events.range(from..to)) {
        if !e.body.is_event() {
            notes.push(id as EventIx);
        }
        events::push(&mut rows, id, &e, &cap.trace.strings, cap.whose(), cap.start());
        if rows.is_full() {
            flush(&mut rows);
        }
    }
    flush(&mut rows);
    let passing = notes.iter().filter(|n| out.binary_search(n).is_ok()).count();
    let events = (out.len() - passing) as u64;
    (out, events)
}
