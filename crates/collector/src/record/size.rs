//! The size that a capture is to have: [`SizeLimit`] decides when it is reached.

use std::time::Duration;

use crate::Error;

/// Decides when a capture has reached its size.
pub(super) struct SizeLimit {
    most: u64,
    /// The number of bytes before the first event.
    head: u64,
    /// The number of bytes at the last look, and how many had come since the look before.
    last: u64,
    step: u64,
}

impl SizeLimit {
    /// The bytes reserved for what is written at the end: facts that are known only then.
    const TAIL: u64 = 1024;

    pub(super) fn new(most: u64, head: u64) -> Result<Self, Error> {
        if head + Self::TAIL >= most {
            let (head, most) = (mmuscope_units::bytes(head), mmuscope_units::bytes(most));
            return Err(Error::Usage(format!(
                "--max-size {most}: the formats of the events and the facts about the host take {head} before the first event"
            )));
        }
        Ok(Self { most, head, last: head, step: 0 })
    }

    /// How long to wait until the next look: half of the time in which the rest would be filled at the present rate.
    pub(super) fn patience(&self, written: u64, elapsed: Duration, rhythm: Duration) -> Duration {
        const SHORTEST: Duration = Duration::from_millis(1);
        let came = written.saturating_sub(self.head);
        if came == 0 {
            return rhythm.min(5 * SHORTEST);
        }
        let left = self.most.saturating_sub(Self::TAIL + written);
        let time = elapsed.mul_f64((left as f64 / came as f64 / 2.0).min(1e3));
        time.clamp(SHORTEST, rhythm.max(SHORTEST))
    }

    /// Whether what the rings collect until they are stopped will fill the capture.
    pub(super) fn is_reached(&mut self, written: u64) -> bool {
        self.step = written.saturating_sub(self.last);
        self.last = written;
        written + Self::TAIL + self.step / 2 >= self.most
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_capture_ends_near_its_size() {
        // The capture has 60,000 bytes before the first event, then 300 bytes a millisecond, with bursts.
        for most in [100_000, 1_000_000] {
            let mut size = SizeLimit::new(most, 60_000).expect("there is room");
            let (mut written, mut at) = (60_000u64, Duration::ZERO);
            while !size.is_reached(written) {
                at += size.patience(written, at, Duration::from_millis(250));
                written = 60_000 + at.as_millis() as u64 * 300;
                assert!(at < Duration::from_mins(1), "it ends");
            }
            let end = written + SizeLimit::TAIL;
            assert!(end.abs_diff(most) < most / 20, "{end} for {most}");
        }
        let said = SizeLimit::new(50_000, 60_000).err().map(|e| e.to_string());
        assert!(said.is_some_and(|s| s.contains("58.6 KiB before the first event")));
    }
}
