//! Traces and their replays, for the tests of this crate and of those built on it.

use mmuscope_replay::{ReplayOptions, Timeline, replay};
use mmuscope_trace::{ReadOptions, Trace};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock, PoisonError};

/// A trace and its replay, made once for all tests of a program, which ask for the same few files.
pub(crate) fn load(file: &Path) -> (&'static Trace, &'static Timeline) {
    type Replayed = OnceLock<(Trace, Timeline)>;
    static ALL: Mutex<BTreeMap<PathBuf, &'static Replayed>> = Mutex::new(BTreeMap::new());
    let mut all = ALL.lock().unwrap_or_else(PoisonError::into_inner);
    let one: &'static Replayed = all.entry(file.to_path_buf()).or_insert_with(|| Box::leak(Box::default()));
    // Tests that ask for other files need not wait.
    drop(all);
    let (trace, t) = one.get_or_init(|| {
        let trace = Trace::load(&[file.to_path_buf()], &ReadOptions::default()).expect("a readable sample");
        let t = replay(&trace, &ReplayOptions::default());
        (trace, t)
    });
    (trace, t)
}
