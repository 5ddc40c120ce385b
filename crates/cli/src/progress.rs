//! Progress on standard error, and Ctrl-C.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread::JoinHandle;
use std::time::Duration;

/// How often the line is drawn.
const EVERY: Duration = Duration::from_millis(100);
/// Work that is done before this needs no progress line.
const QUIET: Duration = Duration::from_millis(300);

/// A progress line for one piece of work, which Ctrl-C cancels.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    line: Option<JoinHandle<()>>,
}

/// What is watched: how far it is and how to stop it.
pub(crate) trait Work: Send + Sync + 'static {
    /// Part done, 0 to 1, where it can be told.
    fn fraction(&self) -> Option<f32>;
    /// Words about how far it is.
    fn message(&self) -> String;
    /// Ends it early.
    fn cancel(&self);
}

impl Work for mmuscope_trace::Progress {
    fn fraction(&self) -> Option<f32> {
        Self::fraction(self)
    }
    fn message(&self) -> String {
        let n = self.events.load(Ordering::Relaxed);
        if n == 0 { String::new() } else { format!("{} events", mmuscope_analysis::words::count(n)) }
    }
    fn cancel(&self) {
        Self::cancel(self);
    }
}

/// What Ctrl-C has to end.
static CURRENT: Mutex<Option<Arc<dyn Work>>> = Mutex::new(None);
/// Half-written files that go when the program ends early.
static PARTS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
/// Ctrl-C came.
static STOPPED: AtomicBool = AtomicBool::new(false);
/// How long work may take to end by itself after Ctrl-C.
const GRACE: Duration = Duration::from_secs(1);

/// Whether the user asked to stop.
pub(crate) fn stopped() -> bool {
    STOPPED.load(Ordering::Relaxed)
}

/// Keeps in mind (or forgets) a file to remove when the program ends early.
pub(crate) fn part(path: &Path, exists: bool) {
    if let Ok(mut parts) = PARTS.lock() {
        parts.retain(|p| p != path);
        if exists {
            parts.push(path.to_path_buf());
        }
    }
}

/// Takes over Ctrl-C: the work is cancelled, which ends it cleanly; what does not end so is ended here.
fn on_interrupt() {
    STOPPED.store(true, Ordering::Relaxed);
    if let Ok(current) = CURRENT.lock()
        && let Some(work) = &*current
    {
        work.cancel();
    }
    std::thread::sleep(GRACE);
    if let Ok(parts) = PARTS.lock() {
        for p in &*parts {
            // What cannot be removed stays; there is nobody left to tell.
            let _ = std::fs::remove_file(p);
        }
    }
    quit();
}

impl Watch {
    /// Begins to watch: `doing` names the work, as `reading trace.dat`.
    pub(crate) fn new(doing: impl Into<String>, work: Arc<impl Work>) -> Self {
        static ONCE: Once = Once::new();
        // Without a handler Ctrl-C ends the program by default: worse, and no reason to fail.
        ONCE.call_once(|| drop(ctrlc::set_handler(on_interrupt)));
        if let Ok(mut current) = CURRENT.lock() {
            *current = Some(work.clone());
        }
        let stop = Arc::new(AtomicBool::new(false));
        let line = std::io::stderr().is_terminal().then(|| {
            let (stop, doing) = (Arc::clone(&stop), doing.into());
            std::thread::Builder::new()
                .name("progress".into())
                .spawn(move || draw(&doing, &*work, &stop))
                .ok()
        });
        Self { stop, line: line.flatten() }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        if let Ok(mut current) = CURRENT.lock() {
            *current = None;
        }
        self.stop.store(true, Ordering::Relaxed);
        if let Some(line) = self.line.take() {
            line.thread().unpark();
            // A progress line that failed has nothing more to say.
            let _ = line.join();
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "the user asked to stop, and nothing is left to be finished")]
fn quit() {
    std::process::exit(130);
}

fn draw(doing: &str, work: &impl Work, stop: &AtomicBool) {
    std::thread::park_timeout(QUIET);
    let bar = ProgressBar::new(1000);
    let style = ProgressStyle::with_template("{prefix} [{bar:30}] {percent:>3}% {msg}");
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("=> "));
    bar.set_prefix(doing.to_string());
    while !stop.load(Ordering::Relaxed) {
        if let Some(f) = work.fraction() {
            bar.set_position((f * 1000.0) as u64);
        }
        bar.set_message(work.message());
        std::thread::park_timeout(EVERY);
    }
    bar.finish_and_clear();
}
