//! [`Worker`]: a background thread that computes the newest request. Requests that a newer one replaced before they were begun are dropped.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

struct Slot<Q, R> {
    wanted: Option<Q>,
    busy: bool,
    done: Option<Result<R, String>>,
    quit: bool,
}

struct Shared<Q, R> {
    slot: Mutex<Slot<Q, R>>,
    wake: Condvar,
}

impl<Q, R> Shared<Q, R> {
    fn lock(&self) -> MutexGuard<'_, Slot<Q, R>> {
        // Each field of the slot is replaced as a whole, so that a panic elsewhere leaves it consistent.
        self.slot.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A function that runs on a thread of its own, on the newest request.
pub(crate) struct Worker<Q, R> {
    shared: Arc<Shared<Q, R>>,
    inline: Option<Box<dyn Fn(Q) -> R + Send>>,
}

impl<Q: Send + 'static, R: Send + 'static> Worker<Q, R> {
    /// Starts the thread, which calls `wake` after each result. If the system refuses a thread, requests are computed on the caller's.
    pub(crate) fn start(
        name: &str,
        compute: impl Fn(Q) -> R + Send + Clone + 'static,
        wake: impl Fn() + Send + 'static,
    ) -> Self {
        let shared = Arc::new(Shared {
            slot: Mutex::new(Slot { wanted: None, busy: false, done: None, quit: false }),
            wake: Condvar::new(),
        });
        let theirs = Arc::clone(&shared);
        let work = compute.clone();
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(move || {
            loop {
                let mut slot = theirs.lock();
                let query = loop {
                    if slot.quit {
                        return;
                    }
                    if let Some(q) = slot.wanted.take() {
                        slot.busy = true;
                        break q;
                    }
                    slot = theirs.wake.wait(slot).unwrap_or_else(PoisonError::into_inner);
                };
                drop(slot);
                let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| work(query)))
                    .map_err(|_| "computing the picture failed: this is a bug in mmuscope".to_owned());
                let mut slot = theirs.lock();
                slot.busy = false;
                slot.done = Some(result);
                drop(slot);
                wake();
            }
        });
        let inline = thread.is_err().then(|| Box::new(compute) as _);
        Self { shared, inline }
    }

    /// A worker that computes on the caller's thread, for tests and screenshots.
    pub(crate) fn inline(compute: impl Fn(Q) -> R + Send + 'static) -> Self {
        let shared = Arc::new(Shared {
            slot: Mutex::new(Slot { wanted: None, busy: false, done: None, quit: false }),
            wake: Condvar::new(),
        });
        Self { shared, inline: Some(Box::new(compute)) }
    }

    /// Asks for a result. An older request that was not begun is dropped.
    pub(crate) fn ask(&self, query: Q) {
        if let Some(compute) = &self.inline {
            let result = compute(query);
            self.shared.lock().done = Some(Ok(result));
            return;
        }
        self.shared.lock().wanted = Some(query);
        self.shared.wake.notify_one();
    }

    /// Takes the newest result, if there is one that was not taken yet.
    pub(crate) fn take(&self) -> Option<Result<R, String>> {
        self.shared.lock().done.take()
    }

    /// Whether a request is waiting or being computed.
    pub(crate) fn busy(&self) -> bool {
        let slot = self.shared.lock();
        slot.busy || slot.wanted.is_some()
    }
}

impl<Q, R> Drop for Worker<Q, R> {
    fn drop(&mut self) {
        self.shared.lock().quit = true;
        self.shared.wake.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;
    use std::time::{Duration, Instant};

    /// Longer than anything here takes on the slowest machine.
    const SOON: Duration = Duration::from_mins(1);

    #[test]
    fn the_newest_question_is_answered_and_the_ones_between_are_not() {
        let (gate_in, gate) = mpsc::channel::<()>();
        let gate = Arc::new(Mutex::new(gate));
        let (woke, wakes) = mpsc::channel();
        let w = Worker::start(
            "test",
            move |q: u32| {
                gate.lock().unwrap_or_else(PoisonError::into_inner).recv_timeout(SOON).ok();
                q * 2
            },
            move || {
                woke.send(()).ok();
            },
        );
        w.ask(1);
        let until = Instant::now() + SOON;
        while !w.shared.lock().busy {
            assert!(Instant::now() < until, "the worker begins");
            std::thread::yield_now();
        }
        w.ask(2);
        w.ask(3);
        gate_in.send(()).ok();
        wakes.recv_timeout(SOON).expect("an answer");
        assert_eq!(w.take(), Some(Ok(2)));
        gate_in.send(()).ok();
        wakes.recv_timeout(SOON).expect("an answer");
        assert_eq!(w.take(), Some(Ok(6)));
        assert!(!w.busy());
    }

    #[test]
    fn a_panic_becomes_a_message_and_the_thread_lives() {
        let (woke, wakes) = mpsc::channel();
        let w = Worker::start(
            "test",
            |q: u32| {
                assert!(q > 0, "deliberate");
                q
            },
            move || {
                woke.send(()).ok();
            },
        );
        w.ask(0);
        wakes.recv_timeout(SOON).expect("an answer");
        assert!(matches!(w.take(), Some(Err(_))));
        w.ask(5);
        wakes.recv_timeout(SOON).expect("an answer");
        assert_eq!(w.take(), Some(Ok(5)));
    }

    #[test]
    fn inline_answers_at_once() {
        let w = Worker::inline(|q: u32| q + 1);
        w.ask(1);
        assert_eq!(w.take(), Some(Ok(2)));
        assert_eq!(w.take(), None);
    }
}
