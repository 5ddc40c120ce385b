//! Converting the trace of a guest to its host's clock, by the samples that trace-cmd took of the difference (option TIME_SHIFT).
//!
//! ```text
//! u64 trace id of the peer, u32 flags (1: between two samples, interpolate), u32 cpus
//! cpus × { u32 n, n × u64 time, n × i64 offset, n × i64 scaling }      cpus × { n × u64 bits of the scaling's fraction }   (newer files)
//! ```

use crate::blob::Blob;

/// A sample: at `time` on the guest's clock, the host's clock is `(time * scaling >> fraction) + offset`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Sample {
    time: u64,
    offset: i64,
    scaling: u64,
    fraction: u32,
}

/// The samples of each CPU.
#[derive(Clone, Debug, Default)]
pub(crate) struct TimeShift {
    interpolate: bool,
    cpus: Vec<Vec<Sample>>,
}

/// The most CPUs that a guest may have.
const MAX_CPUS: u32 = 8192;

impl TimeShift {
    /// Reads the option. The result is `None` if it holds no sample.
    pub(crate) fn parse(data: &[u8]) -> Option<Self> {
        let mut b = Blob::new(data);
        let (_peer, flags, cpus) = (b.u64()?, b.u32()?, b.u32()?);
        let mut all: Vec<Vec<Sample>> = Vec::new();
        for _ in 0..cpus.min(MAX_CPUS) {
            let n = b.u32()? as usize;
            // Only as many are read as there are bytes for.
            let times = words(&mut b, n)?;
            let offsets = words(&mut b, n)?;
            let scalings = words(&mut b, n)?;
            let samples = times.zip(offsets).zip(scalings);
            let sample =
                |((time, offset), scaling)| Sample { time, offset: offset as i64, scaling, fraction: 0 };
            // The order of the file is kept, because the fractions that follow are in the same order.
            all.push(samples.map(sample).collect::<Vec<Sample>>());
        }
        for cpu in &mut all {
            let Some(fractions) = words(&mut b, cpu.len()) else { break };
            for (s, bits) in cpu.iter_mut().zip(fractions) {
                s.fraction = bits.min(63) as u32;
            }
        }
        for cpu in &mut all {
            cpu.sort_by_key(|s| s.time);
            cpu.dedup_by_key(|s| s.time);
        }
        all.iter().any(|c| !c.is_empty()).then_some(Self { interpolate: flags & 1 != 0, cpus: all })
    }

    /// Converts a time stamp of a CPU to the host's clock.
    pub(crate) fn host(&self, cpu: u16, ts: u64) -> u64 {
        let Some(samples) = self.cpus.get(usize::from(cpu)) else { return ts };
        let next = samples.partition_point(|s| s.time <= ts);
        let Some(s) = samples.get(next.saturating_sub(1)) else { return ts };
        let mut offset = s.offset;
        if let Some(e) = samples.get(next).filter(|_| self.interpolate && next > 0) {
            let span = i128::from(e.time - s.time);
            let part = i128::from(ts - s.time) * (i128::from(e.offset) - i128::from(s.offset));
            offset = offset.saturating_add(((part + span / 2) / span) as i64);
        }
        // Files that do not use scaling store 0.
        let scaled =
            if s.scaling == 0 { ts } else { ((u128::from(ts) * u128::from(s.scaling)) >> s.fraction) as u64 };
        scaled.wrapping_add_signed(offset)
    }
}

fn words<'a>(b: &mut Blob<'a>, n: usize) -> Option<impl Iterator<Item = u64> + use<'a>> {
    let bytes = b.take((n as u64).checked_mul(8)?)?;
    Some(bytes.as_chunks::<8>().0.iter().map(|c| u64::from_le_bytes(*c)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn option(flags: u32, samples: &[(u64, i64, i64)], fractions: Option<u64>) -> Vec<u8> {
        let mut d = 7u64.to_le_bytes().to_vec();
        d.extend(flags.to_le_bytes());
        d.extend(1u32.to_le_bytes());
        d.extend((samples.len() as u32).to_le_bytes());
        d.extend(samples.iter().flat_map(|s| s.0.to_le_bytes()));
        d.extend(samples.iter().flat_map(|s| s.1.to_le_bytes()));
        d.extend(samples.iter().flat_map(|s| s.2.to_le_bytes()));
        if let Some(f) = fractions {
            d.extend(samples.iter().flat_map(|_| f.to_le_bytes()));
        }
        d
    }

    #[test]
    fn one_sample_is_an_offset() {
        let t = TimeShift::parse(&option(0, &[(1_000, -300, 1)], None)).expect("a sample");
        assert_eq!((t.host(0, 500), t.host(0, 5_000), t.host(1, 5_000)), (200, 4_700, 5_000));
    }

    #[test]
    fn between_samples() {
        let samples = [(2_000, 200, 1), (1_000, 100, 1)];
        let steps = TimeShift::parse(&option(0, &samples, None)).expect("samples");
        assert_eq!((steps.host(0, 1_500), steps.host(0, 2_500)), (1_600, 2_700));
        let ramp = TimeShift::parse(&option(1, &samples, None)).expect("samples");
        assert_eq!((ramp.host(0, 500), ramp.host(0, 1_500), ramp.host(0, 9_000)), (600, 1_650, 9_200));
    }

    #[test]
    fn scaling_has_a_fraction() {
        let t = TimeShift::parse(&option(0, &[(0, 10, 3)], Some(1))).expect("a sample");
        assert_eq!(t.host(0, 1_000), 1_510);
    }

    #[test]
    fn damaged_options() {
        let whole = option(1, &[(1, 2, 3)], Some(0));
        for n in 0..40 {
            assert!(TimeShift::parse(&whole[..n]).is_none(), "{n}");
        }
    }
}
