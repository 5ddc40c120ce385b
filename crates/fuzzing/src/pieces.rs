//! Snapshots of KVM's memory as bytes that a fuzzer can change: the number of events (two bytes, little-endian), the [`Scenario`] that they are, and
//! the pieces of snapshots, not compressed, which are put between them.

use std::sync::Arc;

use arbitrary::{Arbitrary, Unstructured};
use mmuscope_trace::snapshot::{self, Piece};
use mmuscope_trace::{Body, Event, EventStore, StrId};

use crate::Scenario;
use crate::look::look;

/// The bytes of a scenario's head and of each of its steps.
const HEAD: usize = 8;
const STEP: usize = 40;
/// The most events and pieces that are taken.
const MOST: usize = 1024;

/// The bytes that are read as these events and pieces.
pub fn input(scenario: &Scenario, pieces: &[Piece]) -> Vec<u8> {
    let mut out = (scenario.steps.len() as u16).to_le_bytes().to_vec();
    out.extend(scenario.bytes());
    out.extend(snapshot::to_bytes(pieces));
    out
}

/// Any pieces of snapshots, however impossible, between any events, and their replay.
pub fn pieces(data: &[u8]) {
    // As the body of a record they are compressed, and most changes of those are refused at once.
    let _ = snapshot::unpack(data);
    let Some((n, rest)) = data.split_first_chunk::<2>() else { return };
    let steps = usize::from(u16::from_le_bytes(*n)).min(MOST);
    let Some((events, rest)) = rest.split_at_checked(HEAD + STEP * steps) else { return };
    let Ok(scenario) = Scenario::arbitrary_take_rest(Unstructured::new(events)) else { return };
    let (mut pieces, _) = snapshot::of_bytes(rest);
    pieces.truncate(MOST);
    let (mut trace, options) = scenario.trace();
    let events: Vec<Event> = trace.events.iter().collect();
    let mut all = EventStore::new();
    let (each, mut next) = (events.len() / (pieces.len() + 1) + 1, 0);
    for (i, piece) in pieces.into_iter().enumerate() {
        let until = (next + each).min(events.len());
        for e in &events[next..until] {
            all.push(e);
        }
        next = until;
        let ts = events.get(next.saturating_sub(1)).map_or(1_000_000, |e| e.ts);
        trace.info.snapshots.push(Arc::new(piece));
        let (comm, body) = (StrId::default(), Body::Snapshot { index: i as u32 });
        all.push(&Event { ts, cpu: 0, tid: None, pid: None, comm, body });
    }
    for e in &events[next..] {
        all.push(e);
    }
    trace.events = all;
    look(&trace, &mmuscope_replay::replay(&trace, &options));
}
