//! [`Watch`]: a progress line on standard error for a piece of work, which Ctrl-C cancels.

use indicatif::{ProgressBar, ProgressStyle};
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, Once};
use std::thread::JoinHandle;
use std::time::Duration;

/// Time between two updates of the progress line.
const EVERY: Duration = Duration::from_millis(100);
/// Work that ends within this time shows no progress line.
const QUIET: Duration = Duration::from_millis(300);

/// Shows progress of one piece of work and lets Ctrl-C cancel it, until it is dropped.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    line: Option<JoinHandle<()>>,
}

/// Work whose progress can be shown and that can be cancelled.
pub(crate) trait Work: Send + Sync + 'static {
    /// The part that is done, 0 to 1, where it is known.
    fn fraction(&self) -> Option<f32>;
    /// Text to show beside the bar.
    fn message(&self) -> String;
    /// Ends the work early.
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

/// The work that Ctrl-C cancels.
static CURRENT: Mutex<Option<Arc<dyn Work>>> = Mutex::new(None);
/// Unfinished files, which are removed when the program ends early.
static PARTS: Mutex<Vec<PathBuf>> = Mutex::new(Vec::new());
/// Whether Ctrl-C was pressed.
static STOPPED: AtomicBool = AtomicBool::new(false);
/// Time that work has to end by itself after Ctrl-C.
const GRACE: Duration = Duration::from_secs(1);

/// Whether the user pressed Ctrl-C.
pub(crate) fn stopped() -> bool {
    STOPPED.load(Ordering::Relaxed)
}

/// Registers (or, with `exists` false, forgets) an unfinished file that is to be removed if the program ends early.
pub(crate) fn part(path: &Path, exists: bool) {
    if let Ok(mut parts) = PARTS.lock() {
        parts.retain(|p| p != path);
        if exists {
            parts.push(path.to_path_buf());
        }
    }
}

/// Handles Ctrl-C: it cancels the work, which ends it cleanly, and ends the program if that takes too long.
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
            // The program ends, so that a failure can be neither handled nor reported.
            let _ = std::fs::remove_file(p);
        }
    }
    quit();
}

impl Watch {
    /// Begins to watch. `doing` names the work, such as `reading trace.dat`.
    pub(crate) fn new(doing: impl Into<String>, work: Arc<impl Work>) -> Self {
        static ONCE: Once = Once::new();
        // Without a handler Ctrl-C ends the program at once, which is acceptable.
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
            // A failed progress line does not concern the work.
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
