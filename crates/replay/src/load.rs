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
    load_from(STEP, paths, read, opts, glimpse)
}

fn load_from(
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
    use crate::model::{SpanFilter, StateFilter};
    use std::path::Path;

    /// Everything that can be asked of both, of the samples.
    #[test]
    fn it_is_what_reading_and_then_replaying_gives() {
        let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples");
        let mut glimpses = 0;
        let mut many = 0;
        for dir in std::fs::read_dir(samples).expect("samples").filter_map(Result::ok) {
            for file in ["trace.txt.zst", "trace.dat", "perf.data"].map(|f| dir.path().join(f)) {
                if !file.exists() {
                    continue;
                }
                let paths = [file.clone()];
                let trace = Trace::load(&paths, &ReadOptions::default()).expect("a sample");
                let want = replay(&trace, &ReplayOptions::default());
                let mut last = 0;
                let mut seen = |trace: &Trace, t: &Timeline| {
                    assert!(trace.events.len() >= last && t.events() == trace.events.len());
                    let (a, b) = t.range();
                    // What was there already does not change, but for what only later events tell.
                    assert_eq!((a, Some(b)), (want.range().0, want.event_ts(t.events() as u32 - 1)));
                    assert!(t.span_count() > 0 && t.span_count() <= want.span_count());
                    last = trace.events.len();
                    glimpses += 1;
                };
                let read = ReadOptions { threads: 2, ..ReadOptions::default() };
                let opts = ReplayOptions { threads: 2, ..ReplayOptions::default() };
                let (got_trace, got) =
                    load_from(3000, &paths, &read, &opts, Some(&mut seen)).expect("a sample");
                assert!(got_trace.events.iter().eq(trace.events.iter()), "{}", file.display());
                assert_eq!(got_trace.info.vm_hints, trace.info.vm_hints);
                let spans = |t: &Timeline| t.all_spans(&SpanFilter::default()).collect::<Vec<_>>();
                assert_eq!(spans(&got), spans(&want), "{}", file.display());
                assert!(got.faults().eq(want.faults()), "{}", file.display());
                assert_eq!(got.evidence(), want.evidence());
                assert_eq!(got.vms(), want.vms());
                assert_eq!(got.phases(), want.phases());
                let at = want.range().1;
                assert_eq!(
                    got.state_at(at, &StateFilter::default()),
                    want.state_at(at, &StateFilter::default())
                );
                many += 1;
            }
        }
        assert!(many > 10 && glimpses >= 5, "{glimpses} glimpses of {many} samples");
    }

    #[test]
    fn what_cannot_be_read_is_an_error() {
        let paths = [PathBuf::from("/nonexistent/trace.dat")];
        assert!(load(&paths, &ReadOptions::default(), &ReplayOptions::default(), None).is_err());
    }
}
