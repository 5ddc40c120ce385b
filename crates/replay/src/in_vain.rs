//! [`InVain`]: pages on which faults keep coming to nothing. The timeline gives it the faults that have ended, and the search for stuck entries
//! ([`crate::stuck`]) reads it; nothing here looks at entries.

use rustc_hash::FxHashMap;

use crate::faults::state::Packed;
use crate::model::Outcome;

/// The latest faults on a page, while each of them came to nothing.
#[derive(Clone, Debug)]
pub(crate) struct Tail {
    /// Times of the first and the last of them, in nanoseconds on the trace's clock.
    pub(crate) first: u64,
    pub(crate) last: u64,
    /// The first few threads.
    pub(crate) tids: Vec<u32>,
    /// Number of faults.
    pub(crate) count: u32,
}

/// The pages whose latest faults came to nothing, kept up to date as faults end.
#[derive(Clone, Debug, Default)]
pub(crate) struct InVain {
    /// By VM and guest frame.
    pub(crate) tails: FxHashMap<(u16, u64), Tail>,
    /// Faults that are taken in.
    taken: usize,
}

impl InVain {
    /// Takes in the faults that have ended since.
    pub(crate) fn take_in(&mut self, done: &[Packed]) {
        for f in &done[self.taken.min(done.len())..] {
            if f.gfn == u64::MAX || f.levels & 15 == 0 {
                continue;
            }
            let page = (f.vm, f.gfn);
            if f.outcome != Outcome::Retry {
                self.tails.remove(&page);
                continue;
            }
            let new = || Tail { first: f.ts, last: f.ts, tids: Vec::new(), count: 0 };
            let t = self.tails.entry(page).or_insert_with(new);
            t.last = f.ts;
            t.count += 1;
            if t.tids.len() < 8 && !t.tids.contains(&f.tid) {
                t.tids.push(f.tid);
            }
        }
        self.taken = done.len();
    }
}
