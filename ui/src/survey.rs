//! [`Surveys`]: the findings and causes of the open trace, made off the UI thread.

use std::collections::HashMap;
use std::sync::{Arc, RwLock};
use std::time::{Duration, Instant};

use mmuscope_analysis::findings::{Cause, CauseKind, Finding, SizeChange, survey};
use mmuscope_replay::VmId;

use crate::capture::{self, Capture};
use crate::view::Range;
use crate::worker::Worker;

/// A trace that grows is looked at again after this time at the earliest: a survey goes through all of it.
const PAUSE: Duration = Duration::from_secs(5);

/// The causes of one kind in a VM, in the order of their beginnings.
#[derive(Clone, Debug)]
pub(crate) struct CauseRow {
    /// Their kind.
    pub(crate) kind: CauseKind,
    /// Indices into [`Surveyed::causes`].
    pub(crate) causes: Vec<u32>,
    /// For each of them, the latest end up to there, so that those that reach into a view are found by bisection.
    reach: Vec<u64>,
    /// The stretches of time in which one was at work, apart from one another.
    acting: Vec<(u64, u64)>,
    /// The stretches of time in which one may go on, apart from one another.
    open: Vec<(u64, u64)>,
}

/// What a survey found.
#[derive(Clone, Debug, Default)]
pub(crate) struct Surveyed {
    /// The findings, the weightiest first.
    pub(crate) findings: Vec<Finding>,
    /// The causes, in the order of their beginnings.
    pub(crate) causes: Vec<Cause>,
    /// The huge pages that were lost and won, in the order of time.
    pub(crate) sizes: Vec<SizeChange>,
    rows: HashMap<VmId, Vec<CauseRow>>,
}

/// The stretch of time and the frames of the cause under the pointer.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Band {
    /// First and last time, in nanoseconds since the first event.
    pub(crate) time: Range,
    /// First and last guest frame, where they are known.
    pub(crate) gfns: Option<(u64, u64)>,
}

/// When a cause was over, as far as it is known.
pub(crate) fn end_of(c: &Cause) -> u64 {
    c.end.unwrap_or(c.start)
}

/// The time of a cause's last event.
fn acted_until(cap: &Capture, c: &Cause) -> u64 {
    cap.timeline.event_ts(c.last_event).unwrap_or(c.start).max(c.start)
}

impl Surveyed {
    fn of(cap: &Capture) -> Self {
        let found = survey(&cap.trace, &cap.timeline);
        let mut out =
            Self { findings: found.findings, causes: found.causes, sizes: found.sizes, rows: HashMap::new() };
        for vm in cap.timeline.vms() {
            let of = |kind: CauseKind| {
                // What no event puts into a VM may be of any.
                let mine = |c: &Cause| c.kind() == kind && c.vm.is_none_or(|v| v == vm.id);
                let causes: Vec<u32> =
                    (0u32..).zip(&out.causes).filter(|(_, c)| mine(c)).map(|(i, _)| i).collect();
                let each = || causes.iter().map(|i| &out.causes[*i as usize]);
                let latest = |last: &mut u64, c: &Cause| {
                    *last = end_of(c).max(*last);
                    Some(*last)
                };
                let reach: Vec<u64> = each().scan(0, latest).collect();
                let acting = united(each().map(|c| (c.start, acted_until(cap, c))));
                let open = united(each().map(|c| (c.start, end_of(c))));
                CauseRow { kind, causes, reach, acting, open }
            };
            let rows: Vec<CauseRow> =
                CauseKind::ALL.into_iter().map(of).filter(|r| !r.causes.is_empty()).collect();
            out.rows.insert(vm.id, rows);
        }
        out
    }

    /// The kinds of causes of a VM, each with its causes.
    pub(crate) fn rows(&self, vm: VmId) -> &[CauseRow] {
        self.rows.get(&vm).map_or(&[], Vec::as_slice)
    }

    /// The narrowest cause of which an event of a thread is a part.
    pub(crate) fn cause_of(&self, tid: u32, event: u32) -> Option<&Cause> {
        let n = self.causes.partition_point(|c| c.event <= event);
        // Causes are ordered by their beginnings; one that holds the event did not begin long before it.
        self.causes[..n].iter().rev().take(10_000).find(|c| c.holds(tid, event))
    }
}

/// Stretches of time in the order of their beginnings, without those that touch: they are one.
fn united(all: impl Iterator<Item = (u64, u64)>) -> Vec<(u64, u64)> {
    let mut out: Vec<(u64, u64)> = Vec::new();
    for (start, end) in all {
        match out.last_mut() {
            Some(last) if start <= last.1 => last.1 = last.1.max(end),
            _ => out.push((start, end)),
        }
    }
    out
}

impl CauseRow {
    /// The place in `causes` of the first that ends at or after a time.
    pub(crate) fn first_reaching(&self, time: u64) -> usize {
        self.reach.partition_point(|r| *r < time)
    }

    /// The first stretch of time, at or after a time, in which one was at work.
    pub(crate) fn next_acting(&self, time: u64) -> Option<(u64, u64)> {
        self.acting.get(self.acting.partition_point(|(_, end)| *end < time)).copied()
    }

    /// The first stretch of time, at or after a time, in which one may go on.
    pub(crate) fn next_open(&self, time: u64) -> Option<(u64, u64)> {
        self.open.get(self.open.partition_point(|(_, end)| *end < time)).copied()
    }
}

/// A capture to survey, and its version.
type Query = (Arc<RwLock<Capture>>, u64);

/// The survey of a trace, and the thread that makes it.
pub(crate) struct Surveys {
    worker: Worker<Query, (u64, Surveyed)>,
    asked: Option<(u64, Instant)>,
    /// The newest survey; `None` until there is one.
    pub(crate) done: Option<Arc<Surveyed>>,
    /// How often `done` was replaced.
    pub(crate) version: u64,
    /// Why there is none, if making it failed.
    pub(crate) error: Option<String>,
}

impl Surveys {
    /// Nothing surveyed yet. With `inline`, surveys are made on the caller's thread.
    pub(crate) fn new(ctx: &egui::Context, inline: bool) -> Self {
        let compute = |(capture, version): Query| (version, Surveyed::of(&capture::read(&capture)));
        let ctx = ctx.clone();
        let worker = if inline {
            Worker::inline(compute)
        } else {
            Worker::start("mmuscope-survey", compute, move || ctx.request_repaint())
        };
        Self { worker, asked: None, done: None, version: 0, error: None }
    }

    /// Asks for a survey of what the capture holds now, unless there is one or it is too soon, and takes over one that has become ready.
    pub(crate) fn want(&mut self, ctx: &egui::Context, cap: &Capture, capture: &Arc<RwLock<Capture>>) {
        let soon = |at: Instant| cap.growing && at.elapsed() < PAUSE;
        let due = self.asked.is_none_or(|(version, at)| version != cap.version && !soon(at));
        if due && !self.worker.busy() {
            self.asked = Some((cap.version, Instant::now()));
            self.worker.ask((Arc::clone(capture), cap.version));
        } else if cap.growing {
            ctx.request_repaint_after(PAUSE);
        }
        match self.worker.take() {
            Some(Ok((_, found))) => {
                self.done = Some(Arc::new(found));
                self.version += 1;
                self.error = None;
            }
            Some(Err(e)) => self.error = Some(e),
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stretches_that_touch_are_one() {
        assert_eq!(united([(1, 3), (2, 9), (9, 12), (14, 14)].into_iter()), [(1, 12), (14, 14)]);
        let row = CauseRow {
            kind: CauseKind::Notifier,
            causes: Vec::new(),
            reach: Vec::new(),
            acting: vec![(3, 5)],
            open: vec![(1, 12), (14, 14)],
        };
        assert_eq!(
            [0, 12, 13, 15].map(|t| row.next_open(t)),
            [Some((1, 12)), Some((1, 12)), Some((14, 14)), None]
        );
    }
}
