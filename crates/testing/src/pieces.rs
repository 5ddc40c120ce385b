//! [`with_pieces`]: parts of snapshots of KVM's memory between the events of a made-up trace.

use std::sync::Arc;

use mmuscope_trace::snapshot::Piece;
use mmuscope_trace::{Body, Event, EventStore, StrId, Trace};

/// Puts parts of snapshots between the events of a trace, each by its time in microseconds; they must be in order.
pub fn with_pieces(mut trace: Trace, pieces: &[(u64, Piece)]) -> Trace {
    let events: Vec<Event> = trace.events.iter().collect();
    trace.events = EventStore::new();
    let mut todo = pieces.iter().peekable();
    for e in events.into_iter().map(Some).chain([None]) {
        while let Some((us, piece)) = todo.next_if(|p| e.is_none_or(|e| p.0 * 1000 < e.ts)) {
            let index = trace.info.snapshots.len() as u32;
            trace.info.snapshots.push(Arc::new(piece.clone()));
            let (ts, comm, body) = (us * 1000, StrId::default(), Body::Snapshot { index });
            trace.events.push(&Event { ts, cpu: 0, tid: None, pid: None, comm, body });
        }
        if let Some(e) = e {
            trace.events.push(&e);
        }
    }
    trace.info.events = trace.events.len() as u64;
    trace
}
