//! [`find`]: the events that the event table shows, and their order. It runs off the UI thread, on all processors.

use std::collections::{HashMap, HashSet};

use mmuscope_analysis::Filter;
use mmuscope_analysis::events::{self, EVENTS};
use mmuscope_analysis::table::Rows;
use mmuscope_replay::EventIx;
use mmuscope_trace::Event;

use crate::capture::Capture;
use crate::scope::Scope;

/// What the event table is sorted by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum By {
    /// The number of the event, which is the order in time.
    #[default]
    Time,
    Vcpu,
    Kind,
    Gfn,
    Task,
    Cpu,
}

/// An order of the event table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Order {
    pub(crate) by: By,
    /// Whether the largest comes first. Events without a value come last either way.
    pub(crate) down: bool,
}

/// Everything that the rows of the event table depend on.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Wish {
    /// The filter.
    pub(crate) text: String,
    /// Start and end of the time in view, in nanoseconds since the first event, where only events of that time are wanted.
    pub(crate) window: Option<(u64, u64)>,
    /// The scope of all tables.
    pub(crate) scope: Scope,
    /// Whether events that do not pass the filter stay, between those that do.
    pub(crate) keep: bool,
    pub(crate) order: Order,
    /// Version of the capture.
    pub(crate) version: u64,
}

impl Wish {
    /// Whether nothing is left out, marked or moved.
    pub(crate) fn is_plain(&self) -> bool {
        self.text.is_empty() && self.window.is_none() && self.scope.is_all() && self.order == Order::default()
    }

    /// Whether another asks for the same, perhaps of a shorter part of a growing trace.
    pub(crate) fn same(&self, other: &Self) -> bool {
        Self { version: 0, ..self.clone() } == Self { version: 0, ..other.clone() }
    }
}

/// What is shown in the event table, before it is put into another order.
#[derive(Debug, Default)]
enum Base {
    /// All events of the trace.
    All,
    /// The events that pass.
    #[default]
    Hits,
    /// The events of the scope, whether they pass the filter or not.
    Scope(Vec<EventIx>),
}

/// The rows of the event table.
#[derive(Debug, Default)]
pub(crate) struct Passing {
    /// Numbers of the events that are in the scope and pass the filter, in the order of the trace.
    pub(crate) hits: Vec<EventIx>,
    /// How many of them are events, rather than notes of losses, snapshots and tasks.
    pub(crate) count: u64,
    base: Base,
    sorted: Option<Sorted>,
    /// Number of events in the trace when this was made.
    all: usize,
}

impl Passing {
    /// Number of rows.
    pub(crate) fn len(&self) -> usize {
        match &self.base {
            Base::All => self.all,
            Base::Hits => self.hits.len(),
            Base::Scope(rows) => rows.len(),
        }
    }

    /// The event of a row.
    pub(crate) fn event_at(&self, row: usize) -> Option<EventIx> {
        match (&self.sorted, &self.base) {
            (Some(s), _) => s.events.get(row).copied(),
            (None, Base::All) => (row < self.all).then_some(row as EventIx),
            (None, Base::Hits) => self.hits.get(row).copied(),
            (None, Base::Scope(rows)) => rows.get(row).copied(),
        }
    }

    /// The row of an event, or that of the next one where it has none.
    pub(crate) fn row_of(&self, cap: &Capture, ix: EventIx) -> usize {
        match (&self.sorted, &self.base) {
            (Some(s), _) => s.row_of(cap, ix),
            (None, Base::All) => ix as usize,
            (None, Base::Hits) => self.hits.partition_point(|e| *e < ix),
            (None, Base::Scope(rows)) => rows.partition_point(|e| *e < ix),
        }
    }

    /// Whether an event passes.
    pub(crate) fn is_hit(&self, ix: EventIx) -> bool {
        self.hits.binary_search(&ix).is_ok()
    }
}

/// Events in an order of their own.
#[derive(Debug)]
pub(crate) struct Sorted {
    /// Numbers of the events.
    pub(crate) events: Vec<EventIx>,
    keys: Keys,
}

impl Sorted {
    /// The row of an event, or where it would be.
    pub(crate) fn row_of(&self, cap: &Capture, ix: EventIx) -> usize {
        let Some(e) = cap.event(ix) else { return 0 };
        let wanted = self.keys.of(cap, &e, ix);
        self.events.partition_point(|i| cap.event(*i).is_some_and(|e| self.keys.of(cap, &e, *i) < wanted))
    }
}

/// What a row is sorted by: no value last, then the value, then the order of the trace.
type Key = (bool, u64, EventIx);

/// Makes the keys of an order.
#[derive(Debug)]
struct Keys {
    order: Order,
    /// The place in the alphabet of each name of an event, or of each name of a task.
    names: HashMap<String, u64>,
}

impl Keys {
    fn new(cap: &Capture, order: Order) -> Self {
        let name: fn(&Capture, &Event) -> String = match order.by {
            By::Kind => |cap, e| cap.event_name(e).to_owned(),
            By::Task => |cap, e| cap.trace.strings.get(e.comm).to_owned(),
            _ => return Self { order, names: HashMap::new() },
        };
        let of = |a, b| -> HashSet<String> {
            let mut seen = HashSet::new();
            let mut last = None;
            for e in cap.trace.events.range(a..b) {
                let what = (e.body.kind(), e.comm);
                // Most events are like the one before.
                if last.replace(what) != Some(what) {
                    seen.insert(name(cap, &e));
                }
            }
            seen
        };
        let mut all: Vec<String> = in_parts((0, cap.trace.events.len()), of)
            .into_iter()
            .flatten()
            .collect::<HashSet<_>>()
            .into_iter()
            .collect();
        all.sort_unstable();
        Self { order, names: all.into_iter().zip(1..).collect() }
    }

    fn of(&self, cap: &Capture, e: &Event, ix: EventIx) -> Key {
        let name = |n: &str| self.names.get(n).copied().unwrap_or(0);
        let value = match self.order.by {
            By::Time => Some(u64::from(ix)),
            By::Vcpu => cap.whose().vcpu(e).map(u64::from),
            By::Kind => Some(name(cap.event_name(e))),
            By::Gfn => Capture::gfn_of(e),
            By::Task => Some(name(cap.trace.strings.get(e.comm)) << 32 | u64::from(e.tid.unwrap_or(0))),
            By::Cpu => Some(u64::from(e.cpu)),
        };
        match value {
            Some(v) if self.order.down => (false, u64::MAX - v, ix),
            Some(v) => (false, v, ix),
            None => (true, 0, ix),
        }
    }
}

/// The events that are asked for. The error says why the filter is not understood.
pub(crate) fn find(cap: &Capture, wish: &Wish) -> Result<Passing, String> {
    let store = &cap.trace.events;
    let start = cap.start();
    let (mut from, mut to) = (0, store.len());
    for (a, b) in [wish.window, wish.scope.time].into_iter().flatten() {
        from = from.max(store.first_at_or_after(start.saturating_add(a)));
        to = to.min(store.first_at_or_after(start.saturating_add(b).saturating_add(1)));
    }
    let to = to.max(from);
    let filter = match wish.text.as_str() {
        "" => None,
        text => Some(Filter::new(text, &EVENTS).map_err(|e| e.to_string())?),
    };
    let scope = Some(wish.scope).filter(|s| s.frames.is_some() || s.tid.is_some());
    let mut out = Passing { all: store.len(), ..Passing::default() };
    for (events, count) in in_parts((from, to), |a, b| matching(cap, filter.as_ref(), scope.as_ref(), a, b)) {
        out.hits.extend(events);
        out.count += count;
    }
    if wish.keep && filter.is_some() {
        let everything = scope.is_none() && (from, to) == (0, store.len());
        out.base = if everything {
            Base::All
        } else {
            let parts = in_parts((from, to), |a, b| matching(cap, None, scope.as_ref(), a, b).0);
            Base::Scope(parts.into_iter().flatten().collect())
        };
    }
    if wish.order != Order::default() {
        let all: Vec<EventIx>;
        let rows = match &out.base {
            Base::All => {
                all = (0..store.len() as EventIx).collect();
                &all
            }
            Base::Hits => &out.hits,
            Base::Scope(rows) => rows,
        };
        out.sorted = Some(sorted(cap, rows, wish.order));
    }
    Ok(out)
}

/// Works through `from..to` on all processors, and gives the results in order.
fn in_parts<R: Send>((from, to): (usize, usize), work: impl Fn(usize, usize) -> R + Sync) -> Vec<R> {
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    // A thread costs more than it gains on few events.
    let part = (to - from).div_ceil(threads).max(20_000);
    let parts: Vec<(usize, usize)> = (from..to).step_by(part).map(|a| (a, (a + part).min(to))).collect();
    if parts.len() < 2 {
        return parts.into_iter().map(|(a, b)| work(a, b)).collect();
    }
    std::thread::scope(|scope| {
        let work = &work;
        let started: Vec<_> = parts.iter().map(|&(a, b)| scope.spawn(move || work(a, b))).collect();
        started
            .into_iter()
            .map(|t| t.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

/// Events in an order: parts are sorted on all processors, and then merged by one more sort, which takes sorted parts as they are.
#[expect(clippy::stable_sort_primitive, reason = "the stable sort takes sorted parts as they are")]
fn sorted(cap: &Capture, events: &[EventIx], order: Order) -> Sorted {
    if order.by == By::Time {
        let events = events.iter().rev().copied().collect();
        return Sorted { events, keys: Keys::new(cap, order) };
    }
    let keys = Keys::new(cap, order);
    let parts = in_parts((0, events.len()), |a, b| {
        let mut part: Vec<Key> =
            events[a..b].iter().filter_map(|ix| Some(keys.of(cap, &cap.event(*ix)?, *ix))).collect();
        part.sort_unstable();
        part
    });
    let mut all: Vec<Key> = parts.into_iter().flatten().collect();
    all.sort();
    Sorted { events: all.into_iter().map(|k| k.2).collect(), keys }
}

/// Numbers of the events `from..to` that pass a filter and are in the scope, and how many of them are events.
fn matching(
    cap: &Capture,
    filter: Option<&Filter>,
    scope: Option<&Scope>,
    from: usize,
    to: usize,
) -> (Vec<EventIx>, u64) {
    let mut rows = Rows::new(&EVENTS);
    let mut out: Vec<EventIx> = Vec::new();
    let mut notes: Vec<EventIx> = Vec::new();
    let mut asked: Vec<EventIx> = Vec::new();
    let flush = |rows: &mut Rows, asked: &mut Vec<EventIx>, out: &mut Vec<EventIx>| {
        let hits = filter.map(|f| f.matches(&rows.take()));
        out.extend(
            asked
                .drain(..)
                .enumerate()
                .filter(|(i, _)| hits.as_ref().is_none_or(|h| h[*i]))
                .map(|(_, ix)| ix),
        );
    };
    for (id, e) in (from as u64..).zip(cap.trace.events.range(from..to)) {
        if scope.is_some_and(|s| !s.has_event(cap, &e)) {
            continue;
        }
        if !e.body.is_event() {
            notes.push(id as EventIx);
        }
        asked.push(id as EventIx);
        if filter.is_some() {
            events::push(&mut rows, id, &e, &cap.trace.strings, cap.whose(), cap.start());
        }
        if rows.is_full() || asked.len() >= 1 << 16 {
            flush(&mut rows, &mut asked, &mut out);
        }
    }
    flush(&mut rows, &mut asked, &mut out);
    let passing = notes.iter().filter(|n| out.binary_search(n).is_ok()).count();
    let events = (out.len() - passing) as u64;
    (out, events)
}
