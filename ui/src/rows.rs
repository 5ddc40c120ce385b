//! [`rows_of`] and [`filter_events`]: the rows of the event table as text, and the events that pass a filter. Columns and filters are those of
//! `mmuscope events`.

use mmuscope_analysis::Filter;
use mmuscope_analysis::events::{self, EVENTS};
use mmuscope_analysis::table::{Format, Rows, TableWriter, WriteOptions};
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
    let who = cap.who();
    let mut rows = Rows::new(&EVENTS);
    let start = cap.start();
    let mut out = Vec::with_capacity(wanted.len());
    for ix in wanted {
        let Some(e) = cap.event(*ix) else { continue };
        events::push(&mut rows, (*ix).into(), &e, &cap.trace.strings, &who, start);
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
            vcpu: who.vcpu(&e).map_or_else(String::new, |v| v.to_string()),
            event: cap.event_name(&e).to_owned(),
            gfn: Capture::gfn_of(&e).map_or_else(String::new, fmt::gfn),
            fields: String::new(),
        });
    }
    if let Some(lines) = json_lines(rows) {
        for (row, line) in out.iter_mut().zip(lines) {
            row.fields = fields(&line);
        }
    }
    out
}

fn json_lines(mut rows: Rows) -> Option<Vec<serde_json::Map<String, serde_json::Value>>> {
    let chunk = rows.take();
    let mut writer = TableWriter::new(&EVENTS, Format::Jsonl, WriteOptions::default(), Vec::new()).ok()?;
    writer.write(&chunk).ok()?;
    let bytes = writer.finish().ok()?;
    let text = String::from_utf8(bytes).ok()?;
    Some(text.lines().map(|l| serde_json::from_str(l).unwrap_or_default()).collect())
}

fn fields(line: &serde_json::Map<String, serde_json::Value>) -> String {
    let mut out = String::new();
    for c in EVENTS.columns.iter().filter(|c| !OWN.contains(&c.name)) {
        let text = match line.get(c.name) {
            None | Some(serde_json::Value::Null) => continue,
            Some(serde_json::Value::String(s)) => fmt::clean(s),
            Some(v) => v.to_string(),
        };
        if !out.is_empty() {
            out.push_str("  ");
        }
        out.push_str(c.name);
        out.push('=');
        out.push_str(&text);
    }
    out
}

/// Numbers of the events that pass the filter `text` and lie in `window` (start and end in nanoseconds since the first event).
pub(crate) fn filter_events(
    cap: &Capture,
    text: &str,
    window: Option<(u64, u64)>,
) -> Result<Vec<EventIx>, String> {
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
        return Ok((from..to).map(|i| i as EventIx).collect());
    }
    let filter = Filter::new(text, &EVENTS).map_err(|e| e.to_string())?;
    let who = cap.who();
    let mut rows = Rows::new(&EVENTS);
    let mut out = Vec::new();
    let mut first = from;
    let mut flush = |rows: &mut Rows, first: &mut usize| -> Result<(), String> {
        let n = rows.len();
        let chunk = rows.take();
        let hits = filter.matches(&chunk);
        out.extend(hits.iter().enumerate().filter(|(_, hit)| **hit).map(|(i, _)| (*first + i) as EventIx));
        *first += n;
        Ok(())
    };
    for (id, e) in (from as u64..).zip(store.range(from..to)) {
        events::push(&mut rows, id, &e, &cap.trace.strings, &who, cap.start());
        if rows.is_full() {
            flush(&mut rows, &mut first)?;
        }
    }
    if !rows.is_empty() {
        flush(&mut rows, &mut first)?;
    }
    Ok(out)
}
