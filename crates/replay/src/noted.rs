//! [`Noted`], what the engine writes down beside the tables: evidence of what does not fit, losses, and markers. The rules add to it, and ask
//! whether events were lost; the timeline reads it when a batch of events was replayed.

use crate::ends::MarkerNote;
use crate::model::{Evidence, LostSpan};

/// The number of pieces of evidence that are kept: made-up files could hold one for every event.
const MAX_EVIDENCE: usize = 100_000;

/// What was noted down so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Noted {
    evidence: Vec<Evidence>,
    lost: Vec<LostSpan>,
    markers: Vec<MarkerNote>,
    /// The last event since which all that was known is in doubt: a loss, or the recorder stopped some of its events.
    last_loss: Option<u32>,
    /// Evidence of events up to this time proves nothing: the recorder was switching its events on when the trace began.
    unsure_until: u64,
}

impl Noted {
    /// All evidence so far, in the order in which it was found.
    pub(crate) fn evidence(&self) -> &[Evidence] {
        &self.evidence
    }

    /// Adds a piece of evidence, unless there are too many: those are not counted either.
    pub(crate) fn add(&mut self, evidence: Evidence) {
        if self.evidence.len() < MAX_EVIDENCE {
            self.evidence.push(evidence);
        }
    }

    /// Whether what does not fit at this time may come of events that are not in the trace.
    pub(crate) fn after_loss(&self, ts: u64) -> bool {
        self.loss_seen() || ts <= self.unsure_until
    }

    /// What did not fit up to this time may rest on events that were not recorded yet.
    pub(crate) fn unsure_until(&mut self, ts: u64) {
        self.unsure_until = ts;
        for e in &mut self.evidence {
            e.after_loss = true;
        }
    }

    /// Stretches of time in which events were lost.
    pub(crate) fn lost(&self) -> &[LostSpan] {
        &self.lost
    }

    pub(crate) fn add_lost(&mut self, span: LostSpan) {
        self.lost.push(span);
    }

    /// What was known is in doubt since this event.
    pub(crate) fn doubted(&mut self, ev: u32) {
        self.last_loss = Some(ev);
    }

    /// Whether anything that was known came into doubt as a whole.
    pub(crate) fn loss_seen(&self) -> bool {
        self.last_loss.is_some()
    }

    /// The last event since which what was known is in doubt.
    pub(crate) fn last_loss(&self) -> Option<u32> {
        self.last_loss
    }

    pub(crate) fn markers(&self) -> &[MarkerNote] {
        &self.markers
    }

    pub(crate) fn add_marker(&mut self, marker: MarkerNote) {
        self.markers.push(marker);
    }
}
