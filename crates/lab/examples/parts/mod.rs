//! Parts of a trace, and a print of everything about one frame, for the programs that look for false facts.

use mmuscope_replay::{Span, Timeline};
use mmuscope_trace::snapshot::Piece;
use mmuscope_trace::{Body, EventStore, Trace};
use std::ops::Range;

/// Takes a range of a trace's events, as if a recording had begun later and ended earlier.
pub(crate) fn part_of(trace: &Trace, events: Range<usize>) -> Trace {
    let mut part = EventStore::new();
    for e in trace.events.range(events.clone()) {
        part.push(&e);
    }
    let mut info = trace.info.clone();
    // What the recorder had stopped recording by then is not recorded in the part.
    for e in trace.events.range(0..events.start) {
        if let Body::Snapshot { index } = e.body
            && let Some(Piece::Stopped { events, .. }) =
                trace.info.snapshots.get(index as usize).map(|p| &**p)
        {
            let stopped = |name: &str| name.rsplit(':').next().is_some_and(|n| events.iter().any(|e| e == n));
            if let Some(recorded) = &mut info.recorded {
                recorded.names.retain(|name| !stopped(name));
            }
            for (_, list) in info.host.facts.iter_mut().filter(|(name, _)| name == "record.events") {
                *list = list.split(',').filter(|name| !stopped(name)).collect::<Vec<_>>().join(",");
            }
        }
    }
    info.events = part.len() as u64;
    if let Some(last) = part.len().checked_sub(1) {
        (info.first_ts, info.last_ts) = (part.ts(0), part.ts(last));
    }
    Trace { info, strings: trace.strings.clone(), events: part }
}

/// A generator of numbers that look random and are the same in each run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    /// A number below `n`.
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % n.max(1)
    }
}

/// Prints everything about one frame: its events, and what the replay made of them.
pub(crate) fn print_frame(trace: &Trace, timeline: &Timeline, gfn: u64) {
    for (i, e) in trace.events.iter().enumerate() {
        let (at, level) = match e.body {
            Body::TdpSpteChanged { gfn, level, .. } | Body::SetSpte { gfn, level, .. } => (gfn, level),
            Body::GetPage { page, .. } | Body::PrepareZapPage { page } => {
                (page.gfn.unwrap_or(0), page.role.level + 1)
            }
            Body::FastPageFault { cr2_or_gpa, .. } => (cr2_or_gpa >> 12, 1),
            Body::MarkMmioSpte { gfn, .. } => (gfn, 1),
            Body::Lost { .. } | Body::ZapAllFast { .. } => (gfn, 1),
            _ => continue,
        };
        let span = 9 * (u32::from(level.clamp(1, 6)) - 1);
        if at >> span == gfn >> span {
            println!("{i} {} cpu {} {:?} {:x?}", e.ts, e.cpu, e.tid, e.body);
        }
    }
    for e in timeline.entries().filter(|e| e.level < 4 && e.gfn <= gfn && gfn < e.gfn + e.pages()) {
        println!("entry {e:x?} {:x?}", timeline.table(e.table));
        for s in timeline.spans(e.id) {
            println!(
                "    {:?}..{:?} {:x?} {} {}",
                s.opened_by,
                s.closed_by,
                s.spte,
                s.state.name(),
                words(&s)
            );
        }
    }
}

/// How a span is known, in words.
pub(crate) fn words(s: &Span) -> String {
    format!("{}: {}", s.certainty.name(), s.reason.words())
}
