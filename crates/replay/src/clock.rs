//! [`Clock`] numbers the events of a replay and keeps their times. The engine's step ticks it once for each event; the rules ask it.

/// How far a replay has come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    /// Events consumed.
    events: u32,
    first: Option<u64>,
    last: u64,
    /// Time of the last event of each CPU.
    cpus: Vec<Option<u64>>,
}

impl Clock {
    /// Numbers an event of this time. Returns its number, and its time, which never goes back.
    pub(crate) fn tick(&mut self, ts: u64) -> (u32, u64) {
        let ev = self.events;
        self.events += 1;
        self.last = self.last.max(ts);
        self.first.get_or_insert(self.last);
        (ev, self.last)
    }

    /// The number of events consumed, which is the number of the next one.
    pub(crate) fn events(&self) -> u32 {
        self.events
    }

    /// The number and time of the last event.
    pub(crate) fn now(&self) -> (u32, u64) {
        (self.events.saturating_sub(1), self.last)
    }

    /// The time of the first event.
    pub(crate) fn first(&self) -> Option<u64> {
        self.first
    }

    /// The time of the last event.
    pub(crate) fn last(&self) -> u64 {
        self.last
    }

    /// The time of the last event of a CPU; `now` where it had none.
    pub(crate) fn last_of(&self, cpu: u16, now: u64) -> u64 {
        self.cpus.get(usize::from(cpu)).copied().flatten().unwrap_or(now)
    }

    /// An event of a CPU was made at this time.
    pub(crate) fn seen_on(&mut self, cpu: u16, ts: u64) {
        let cpu = usize::from(cpu);
        if cpu >= self.cpus.len() {
            self.cpus.resize(cpu + 1, None);
        }
        self.cpus[cpu] = Some(ts);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_never_goes_back() {
        let mut c = Clock::default();
        assert_eq!((c.tick(50), c.tick(40), c.tick(60)), ((0, 50), (1, 50), (2, 60)));
        assert_eq!((c.first(), c.last(), c.events(), c.now()), (Some(50), 60, 3, (2, 60)));
        // A CPU of which no event is known had its last one just now.
        assert_eq!(c.last_of(3, 60), 60);
        c.seen_on(3, 70);
        assert_eq!((c.last_of(3, 90), c.last_of(1, 90), c.last_of(5, 90)), (70, 90, 90));
    }
}
