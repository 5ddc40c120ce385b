//! `perf_event_attr`: which parts the samples of a recorded event have. The main type is [`Attr`].

use crate::blob::Blob;
use crate::info::{Clock, ClockUnit};

pub(crate) const IP: u64 = 1 << 0;
pub(crate) const TID: u64 = 1 << 1;
pub(crate) const TIME: u64 = 1 << 2;
pub(crate) const ADDR: u64 = 1 << 3;
pub(crate) const READ: u64 = 1 << 4;
pub(crate) const CALLCHAIN: u64 = 1 << 5;
pub(crate) const ID: u64 = 1 << 6;
pub(crate) const CPU: u64 = 1 << 7;
pub(crate) const PERIOD: u64 = 1 << 8;
pub(crate) const STREAM_ID: u64 = 1 << 9;
pub(crate) const RAW: u64 = 1 << 10;
pub(crate) const IDENTIFIER: u64 = 1 << 16;
pub(crate) const REGS_INTR: u64 = 1 << 18;
/// Parts that may stand between the raw record and the registers, and that this reader does not split.
const BETWEEN: u64 = 1 << 11 | 1 << 12 | 1 << 13 | 1 << 14 | 1 << 15 | 1 << 17 | 1 << 24;

/// The parts of an attr that this reader needs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Attr {
    pub(crate) kind: u32,
    pub(crate) config: u64,
    pub(crate) sample_type: u64,
    pub(crate) read_format: u64,
    pub(crate) sample_id_all: bool,
    /// Whether the ring was written backwards: the newest events overwrite the oldest, which are not counted as lost.
    pub(crate) overwrites: bool,
    pub(crate) clockid: Option<i32>,
    /// The registers that its samples have, one bit for each (`sample_regs_intr`).
    pub(crate) registers: u64,
    /// The number of bytes that the attr takes (its own `size`).
    pub(crate) size: u32,
    pub(crate) name: Option<String>,
}

impl Attr {
    /// Parses an attr; those of kernels before the `size` field have 64 bytes.
    pub(crate) fn parse(data: &[u8]) -> Option<Self> {
        let mut b = Blob::new(data);
        let kind = b.u32()?;
        let size = match b.u32()? {
            0 => 64,
            n => n,
        };
        if size < 64 {
            return None;
        }
        let config = b.u64()?;
        b.u64()?;
        let sample_type = b.u64()?;
        let read_format = b.u64()?;
        let flags = b.u64()?;
        let clockid = if flags >> 25 & 1 != 0 && size >= 96 {
            Blob { data, at: 92 }.u32().map(|c| c as i32)
        } else {
            None
        };
        let registers = if sample_type & REGS_INTR != 0 && size >= 104 {
            Blob { data, at: 96 }.u64().unwrap_or(0)
        } else {
            0
        };
        Some(Self {
            kind,
            config,
            sample_type,
            read_format,
            sample_id_all: flags >> 18 & 1 != 0,
            overwrites: flags >> 27 & 1 != 0,
            clockid,
            registers,
            size,
            name: None,
        })
    }

    /// The clock of its time stamps.
    pub(crate) fn clock(&self) -> Clock {
        clock(self.clockid)
    }

    /// Whether the samples and trailers of both attrs have the same layout.
    pub(crate) fn same_layout(&self, o: &Self) -> bool {
        self.sample_type == o.sample_type
            && self.read_format == o.read_format
            && self.sample_id_all == o.sample_id_all
    }
}

/// The fixed parts of a sample that this reader needs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Sample<'a> {
    pub(crate) id: Option<u64>,
    pub(crate) pid: Option<u32>,
    pub(crate) tid: Option<u32>,
    pub(crate) time: Option<u64>,
    pub(crate) cpu: Option<u32>,
    pub(crate) raw: Option<&'a [u8]>,
    /// The registers of its attr, as words in the order of their numbers.
    pub(crate) registers: Option<&'a [u8]>,
}

/// Splits the body of a SAMPLE into its parts.
#[allow(clippy::many_single_char_names, reason = "a type, a cursor, a sample")]
#[inline]
pub(crate) fn sample<'a>(a: &Attr, body: &'a [u8]) -> Option<Sample<'a>> {
    let t = a.sample_type;
    let mut b = Blob::new(body);
    let mut s = Sample::default();
    if t & IDENTIFIER != 0 {
        s.id = Some(b.u64()?);
    }
    if t & IP != 0 {
        b.u64()?;
    }
    if t & TID != 0 {
        s.pid = Some(b.u32()?);
        s.tid = Some(b.u32()?);
    }
    if t & TIME != 0 {
        s.time = Some(b.u64()?);
    }
    if t & ADDR != 0 {
        b.u64()?;
    }
    if t & ID != 0 {
        s.id = Some(b.u64()?);
    }
    if t & STREAM_ID != 0 {
        b.u64()?;
    }
    if t & CPU != 0 {
        s.cpu = Some(b.u32()?);
        b.u32()?;
    }
    if t & PERIOD != 0 {
        b.u64()?;
    }
    if t & READ != 0 {
        read_values(a.read_format, &mut b)?;
    }
    if t & CALLCHAIN != 0 {
        let n = b.u64()?;
        b.take(n.checked_mul(8)?)?;
    }
    if t & RAW != 0 {
        let n = b.u32()?;
        s.raw = Some(b.take(n.into())?);
    }
    if a.registers != 0 && t & BETWEEN == 0 {
        // The ABI of the task; 0 means that there are none.
        let abi = b.u64()?;
        s.registers = if abi == 0 { None } else { Some(b.take(8 * u64::from(a.registers.count_ones()))?) };
    }
    Some(s)
}

/// The offsets of a sample's parts, if no part before its raw record varies in length.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fixed {
    id: Option<usize>,
    task: usize,
    time: usize,
    cpu: usize,
    raw: usize,
}

impl Fixed {
    pub(crate) fn of(a: &Attr) -> Option<Self> {
        let t = a.sample_type;
        let needed = TID | TIME | CPU | RAW;
        if t & needed != needed || t & (READ | CALLCHAIN) != 0 {
            return None;
        }
        // Each part is one word, and they come in this order.
        let order = [IDENTIFIER, IP, TID, TIME, ADDR, ID, STREAM_ID, CPU, PERIOD, RAW];
        let at = |part: u64| 8 * order.iter().take_while(|p| **p != part).filter(|p| t & **p != 0).count();
        let id = [ID, IDENTIFIER].into_iter().find(|p| t & p != 0).map(at);
        Some(Self { id, task: at(TID), time: at(TIME), cpu: at(CPU), raw: at(RAW) })
    }

    /// Splits the body of a SAMPLE into its parts, as [`sample`] does.
    #[inline]
    pub(crate) fn sample<'a>(&self, body: &'a [u8]) -> Option<Sample<'a>> {
        let word = |at: usize| body.get(at..)?.first_chunk().map(|c| u64::from_le_bytes(*c));
        let task = word(self.task)?;
        let n = u32::from_le_bytes(*body.get(self.raw..)?.first_chunk()?) as usize;
        Some(Sample {
            id: self.id.and_then(word),
            pid: Some(task as u32),
            tid: Some((task >> 32) as u32),
            time: word(self.time),
            cpu: word(self.cpu).map(|c| c as u32),
            raw: Some(body.get(self.raw + 4..)?.get(..n)?),
            registers: None,
        })
    }
}

/// Skips the values of `read_format`.
fn read_values(f: u64, b: &mut Blob<'_>) -> Option<()> {
    let (enabled, running, id, group, lost) = (f & 1, f >> 1 & 1, f >> 2 & 1, f >> 3 & 1, f >> 4 & 1);
    let words = if group != 0 {
        let n = b.u64()?;
        enabled + running + n.checked_mul(1 + id + lost)?
    } else {
        1 + enabled + running + id + lost
    };
    b.take(words.checked_mul(8)?)?;
    Some(())
}

/// Splits the trailer of any other record into its parts; `body` ends with it.
pub(crate) fn trailer<'a>(a: &Attr, body: &'a [u8]) -> Sample<'a> {
    let t = a.sample_type;
    let mut s = Sample::default();
    if !a.sample_id_all {
        return s;
    }
    let words = (t & (TID | TIME | ID | STREAM_ID | CPU | IDENTIFIER)).count_ones() as usize;
    let Some(from) = body.len().checked_sub(words * 8) else { return s };
    let mut b = Blob { data: body, at: from };
    if t & TID != 0 {
        s.pid = b.u32();
        s.tid = b.u32();
    }
    if t & TIME != 0 {
        s.time = b.u64();
    }
    if t & ID != 0 {
        s.id = b.u64();
    }
    if t & STREAM_ID != 0 {
        b.u64();
    }
    if t & CPU != 0 {
        s.cpu = b.u32();
        b.u32();
    }
    if t & IDENTIFIER != 0 {
        s.id = b.u64();
    }
    s
}

/// The number of bytes of that trailer.
pub(crate) fn trailer_len(a: &Attr) -> usize {
    if a.sample_id_all {
        (a.sample_type & (TID | TIME | ID | STREAM_ID | CPU | IDENTIFIER)).count_ones() as usize * 8
    } else {
        0
    }
}

/// The clock with this number (`man 2 clock_gettime`); perf's own where there is none.
pub(crate) fn clock(id: Option<i32>) -> Clock {
    let name = match id {
        None => "perf".to_owned(),
        Some(0) => "CLOCK_REALTIME".to_owned(),
        Some(1) => "CLOCK_MONOTONIC".to_owned(),
        Some(4) => "CLOCK_MONOTONIC_RAW".to_owned(),
        Some(7) => "CLOCK_BOOTTIME".to_owned(),
        Some(11) => "CLOCK_TAI".to_owned(),
        Some(n) => format!("clockid {n}"),
    };
    Clock { name, unit: ClockUnit::Nanoseconds }
}
