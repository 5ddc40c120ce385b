//! [`Loading`]: the thread that reads and replays a trace.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use mmuscope_replay::{Glimpse, LayoutOverride, ReplayOptions, Timeline, replay};
use mmuscope_trace::{Error, Follower, POLL_EVENTS, Progress, ReadOptions, Trace};

use crate::capture::Capture;

/// The input of a load.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Source {
    /// Files that are read as one trace.
    Files(Vec<PathBuf>),
    /// Standard input, followed until it ends.
    Stdin,
}

impl Source {
    /// Name of the input in messages.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Stdin => "standard input".to_owned(),
            Self::Files(paths) => match paths.as_slice() {
                [one] => one.display().to_string(),
                [first, rest @ ..] => format!("{} and {} more", first.display(), rest.len()),
                [] => "nothing".to_owned(),
            },
        }
    }
}

/// An input to load, and how.
#[derive(Clone, Debug)]
pub(crate) struct Job {
    /// The input.
    pub(crate) source: Source,
    /// Whether to keep reading while the input grows.
    pub(crate) follow: bool,
    /// What the user says about the layout.
    pub(crate) layout: LayoutOverride,
}

/// The steps of a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Reading,
    Replaying,
}

/// A load that is under way.
pub(crate) struct Loading {
    /// The input that is being loaded.
    pub(crate) job: Job,
    /// Time at which the load began.
    pub(crate) since: Instant,
    progress: Arc<Progress>,
    step: Arc<AtomicU8>,
    result: mpsc::Receiver<News>,
}

/// A result of a load.
pub(crate) enum News {
    /// The part that has been read and replayed so far; more will come.
    SoFar(Box<Capture>),
    /// The whole trace, or why it could not be loaded.
    Done(Box<Result<Loaded, String>>),
}

/// Most events of a part that is shown before the whole is read. Showing a part needs a copy of it.
const GLIMPSE: usize = 3_000_000;

/// A finished load.
pub(crate) struct Loaded {
    /// The trace and its replay.
    pub(crate) capture: Capture,
    /// The reader that goes on, if the trace grows.
    pub(crate) follower: Option<Follower>,
}

impl Loading {
    /// Starts a load, which calls `wake` for each result. With `glimpses`, parts are results too, before the whole is read.
    pub(crate) fn start(
        job: Job,
        glimpses: bool,
        wake: impl Fn() + Send + Sync + 'static,
    ) -> Result<Self, String> {
        let progress = Arc::new(Progress::default());
        let step = Arc::new(AtomicU8::new(0));
        let (send, result) = mpsc::channel();
        let (p, s, j) = (Arc::clone(&progress), Arc::clone(&step), job.clone());
        std::thread::Builder::new()
            .name("mmuscope-load".to_owned())
            .spawn(move || {
                let begun = Instant::now();
                let report = |news| {
                    // Sending fails if the window was closed or another file was opened, and then nobody waits.
                    send.send(news).ok();
                    wake();
                };
                let Source::Files(paths) = &j.source else { return report(News::done(&j, &p, &s, None)) };
                let mut so_far = |trace: &Trace, timeline: &Timeline| {
                    if trace.events.len() <= GLIMPSE {
                        report(News::SoFar(Box::new(Capture {
                            trace: trace.clone(),
                            timeline: timeline.clone(),
                            paths: paths.clone(),
                            version: 0,
                            growing: true,
                            took: begun.elapsed(),
                        })));
                    }
                };
                let news = News::done(&j, &p, &s, glimpses.then_some(&mut so_far));
                report(news);
            })
            .map_err(|e| format!("cannot start a thread to read with: {e}"))?;
        Ok(Self { job, since: Instant::now(), progress, step, result })
    }

    /// A load whose results a test sends.
    #[cfg(test)]
    pub(crate) fn fed_by(result: mpsc::Receiver<News>, progress: Arc<Progress>) -> Self {
        let job = Job { source: Source::Stdin, follow: false, layout: LayoutOverride::default() };
        Self { job, since: Instant::now(), progress, step: Arc::new(AtomicU8::new(0)), result }
    }

    /// Takes the next result, if there is one.
    pub(crate) fn take(&self) -> Option<News> {
        self.result.try_recv().ok()
    }

    /// Asks the thread to stop.
    pub(crate) fn cancel(&self) {
        self.progress.cancel();
    }

    /// The current step.
    pub(crate) fn step(&self) -> Step {
        if self.step.load(Ordering::Relaxed) == 0 { Step::Reading } else { Step::Replaying }
    }

    /// The part of the input that has been read, 0 to 1; `None` where its size is not known.
    pub(crate) fn fraction(&self) -> Option<f32> {
        self.progress.fraction()
    }
}

impl Drop for Loading {
    /// Stops the thread, because nobody waits for its result any more.
    fn drop(&mut self) {
        self.cancel();
    }
}

impl News {
    fn done(job: &Job, progress: &Arc<Progress>, step: &AtomicU8, glimpse: Option<&mut Glimpse<'_>>) -> Self {
        let load = || load_with(job, Some(progress), Some(step), glimpse);
        let loaded = catch_unwind(AssertUnwindSafe(load)).unwrap_or_else(|_| {
            Err(format!("{}: reading it failed: this is a bug in mmuscope", job.source.name()))
        });
        Self::Done(Box::new(loaded))
    }
}

/// Reads and replays on the caller's thread, for tests.
#[cfg(test)]
pub(crate) fn load(job: &Job) -> Result<Loaded, String> {
    load_with(job, None, None, None)
}

fn load_with(
    job: &Job,
    progress: Option<&Arc<Progress>>,
    step: Option<&AtomicU8>,
    glimpse: Option<&mut Glimpse<'_>>,
) -> Result<Loaded, String> {
    let begun = Instant::now();
    let options = ReadOptions { progress: progress.map(Arc::clone), ..ReadOptions::default() };
    let (trace, follower, paths) = match &job.source {
        Source::Files(paths) if !job.follow => {
            let replay = ReplayOptions {
                layout: job.layout.clone(),
                progress: progress.map(Arc::clone),
                ..ReplayOptions::default()
            };
            let (trace, timeline) =
                mmuscope_replay::load(paths, &options, &replay, glimpse).map_err(|e| e.to_string())?;
            if progress.is_some_and(|p| p.cancelled.load(Ordering::Relaxed)) {
                return Err("stopped".to_owned());
            }
            let (paths, took) = (paths.clone(), begun.elapsed());
            let capture = Capture { trace, timeline, paths, version: 0, growing: false, took };
            return Ok(Loaded { capture, follower: None });
        }
        Source::Files(paths) => {
            let [path] = paths.as_slice() else { return Err("only one file can be followed".to_owned()) };
            let (trace, follower) = first_look(path, &options)?;
            (trace, Some(follower), paths.clone())
        }
        Source::Stdin => {
            let (trace, follower) = first_look(Path::new("-"), &options)?;
            (trace, Some(follower), Vec::new())
        }
    };
    if let Some(step) = step {
        step.store(1, Ordering::Relaxed);
    }
    let timeline = replay(&trace, &ReplayOptions { layout: job.layout.clone(), ..ReplayOptions::default() });
    let growing = follower.is_some();
    let capture = Capture { trace, timeline, paths, version: 0, growing, took: begun.elapsed() };
    Ok(Loaded { capture, follower })
}

/// Reads what a growing input contains already, which may be nothing.
fn first_look(path: &Path, options: &ReadOptions) -> Result<(Trace, Follower), String> {
    let stopped = |e: Error| if matches!(e, Error::Cancelled) { "stopped".to_owned() } else { e.to_string() };
    let mut follower = Follower::open(path, options).map_err(stopped)?;
    let mut trace = Trace::default();
    // A file is read to its current end; a pipe may never pause, so it is polled once.
    while follower.poll(&mut trace).map_err(stopped)? >= POLL_EVENTS && path.as_os_str() != "-" {}
    // Dropping the load cancels its progress, which must not stop the follower.
    follower.report_to(None);
    Ok((trace, follower))
}
