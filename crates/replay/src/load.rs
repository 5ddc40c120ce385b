//! Reading and replaying at the same time.

use std::path::PathBuf;
use std::sync::mpsc;

use mmuscope_trace::{Error, ReadOptions, Trace};

use crate::timeline::{ReplayOptions, Timeline, replay};

/// Most events, about, that are replayed at a time while the rest is read; the first parts are smaller.
const STEP: usize = 1 << 17;

/// What is shown a trace and its replay while they grow.
pub type Glimpse<'a> = dyn FnMut(&Trace, &Timeline) + Send + 'a;

/// Reads files and replays them on a thread of its own while they are read. `glimpse` is shown what there is long before the end (after some
/// ten thousand events, then each time it has become four times as much), on that thread; it may take a copy.
///
/// The result is that of [`Trace::load`] and [`replay`]: what only the end of the trace shows (another layout, which VMs there are) makes
/// it replay everything once more.
///
/// # Errors
/// Those of reading.
pub fn load(
    paths: &[PathBuf],
    read: &ReadOptions,
    opts: &ReplayOptions,
    glimpse: Option<&mut Glimpse<'_>>,
) -> Result<(Trace, Timeline), Error> {
    load_in_steps(STEP, paths, read, opts, glimpse)
}

/// [`load`] that replays about `step` events at a time.
///
/// # Errors
/// Those of reading.
pub fn load_in_steps(
    step: usize,
    paths: &[PathBuf],
    read: &ReadOptions,
    opts: &ReplayOptions,
    glimpse: Option<&mut Glimpse<'_>>,
) -> Result<(Trace, Timeline), Error> {
    if read.threads == 1 || opts.threads == 1 {
        let trace = Trace::load(paths, read)?;
        let timeline = replay(&trace, opts);
        return Ok((trace, timeline));
    }
    let ((trace, reordered), timeline) = std::thread::scope(|scope| {
        // What waits are the same events again, shared: it may be any number.
        let (send, receive) = mpsc::channel::<Trace>();
        let replayed = scope.spawn(move || follow(&receive, opts, glimpse));
        let read = Trace::load_watched(paths, read, step, &mut |so_far| {
            // If the other thread is gone (it panicked), reading goes on to its end, and joining shows it.
            let _ = send.send(so_far);
        });
        drop(send);
        let timeline = replayed.join().unwrap_or_else(|p| std::panic::resume_unwind(p));
        read.map(|r| (r, timeline))
    })?;
    let timeline = match timeline {
        Some(t) if !reordered => t.complete_with(&trace),
        _ => replay(&trace, opts),
    };
    Ok((trace, timeline))
}

/// Replays what comes.
fn follow(
    traces: &mpsc::Receiver<Trace>,
    opts: &ReplayOptions,
    mut glimpse: Option<&mut Glimpse<'_>>,
) -> Option<Timeline> {
    let mut timeline: Option<Timeline> = None;
    let mut shown = 0;
    while let Ok(mut trace) = traces.recv() {
        // Only the newest matters.
        while let Ok(newer) = traces.try_recv() {
            trace = newer;
        }
        let t = match &mut timeline {
            None => timeline.insert(replay(&trace, opts)),
            Some(t) => {
                t.feed(&trace);
                t
            }
        };
        if let Some(glimpse) = &mut glimpse
            && trace.events.len() / 4 >= shown
        {
            shown = trace.events.len();
            t.extend(&trace);
            glimpse(&trace, t);
        }
    }
    timeline
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let paths = [PathBuf::from("/nonexistent/trace.dat")];
        assert!(load(&paths, &ReadOptions::default(), &ReplayOptions::default(), None).is_err());
    }
}
