//! The `perf_event_attr` of each event: which fields its samples have and when the reader wakes up.

use perf_event_open_sys::bindings as b;

use crate::sys::{ATTR_SIZE, perf_event_attr};

/// The settings in which the events of recordings differ.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    /// Whether the ring overwrites its oldest records (flight recorder) instead of being consumed.
    pub backward: bool,
    /// Whether the kernel counts the lost events of each event (6.0 and later).
    pub lost: bool,
    /// The number of bytes in the ring that wakes the reader up; 0 means that every record does.
    pub watermark: u32,
}

fn common(style: Style) -> perf_event_attr {
    let mut a = perf_event_attr { size: ATTR_SIZE, ..perf_event_attr::default() };
    a.__bindgen_anon_1.sample_period = 1;
    a.sample_type =
        u64::from(b::PERF_SAMPLE_IDENTIFIER | b::PERF_SAMPLE_TID | b::PERF_SAMPLE_TIME | b::PERF_SAMPLE_CPU);
    a.read_format =
        u64::from(b::PERF_FORMAT_ID) | if style.lost { u64::from(b::PERF_FORMAT_LOST) } else { 0 };
    a.set_disabled(1);
    a.set_sample_id_all(1);
    // The clock is CLOCK_MONOTONIC, as in ftrace's `mono`, the logs of user space and other tools.
    a.set_use_clockid(1);
    a.clockid = libc::CLOCK_MONOTONIC;
    a.set_write_backward(u64::from(style.backward));
    if style.watermark > 0 {
        a.set_watermark(1);
        a.__bindgen_anon_2.wakeup_watermark = style.watermark;
    } else {
        a.__bindgen_anon_2.wakeup_events = 1;
    }
    a
}

/// The attr of a tracepoint, of which every hit is recorded.
pub(crate) fn tracepoint(id: u64, style: Style) -> perf_event_attr {
    let mut a = common(style);
    a.type_ = b::PERF_TYPE_TRACEPOINT;
    a.config = id;
    a.sample_type |= u64::from(b::PERF_SAMPLE_RAW);
    a
}

/// The attr of a kprobe, of which every hit is recorded with some registers. `pmu` is the number of perf's `kprobe` PMU. The function is named
/// when the event is opened ([`crate::sys::open_kprobe`]), and not in the capture.
pub(crate) fn kprobe(pmu: u32, registers: u64, style: Style) -> perf_event_attr {
    let mut a = common(style);
    a.type_ = pmu;
    a.sample_type |= u64::from(b::PERF_SAMPLE_REGS_INTR);
    a.sample_regs_intr = registers;
    a
}

/// The attr of the software event that owns a CPU's ring and reports which tasks start, end and are renamed.
pub(crate) fn dummy(style: Style) -> perf_event_attr {
    let mut a = common(style);
    a.type_ = b::PERF_TYPE_SOFTWARE;
    a.config = u64::from(b::PERF_COUNT_SW_DUMMY);
    a.set_comm(1);
    a.set_comm_exec(1);
    a.set_task(1);
    a
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::attr_bytes;

    fn u64_at(b: &[u8], at: usize) -> u64 {
        u64::from_le_bytes(b[at..at + 8].try_into().unwrap())
    }

    #[test]
    fn a_tracepoint_attr_is_what_the_kernel_header_says() {
        // The offsets and bits are those of include/uapi/linux/perf_event.h.
        let bytes = attr_bytes(&tracepoint(119, Style { backward: true, lost: true, watermark: 4096 }));
        assert_eq!(bytes.len(), 112);
        assert_eq!(u64_at(&bytes, 0), 2 | 112 << 32); // type, size
        assert_eq!(u64_at(&bytes, 8), 119); // config
        assert_eq!(u64_at(&bytes, 16), 1); // sample_period
        assert_eq!(u64_at(&bytes, 24), 1 << 16 | 1 << 10 | 1 << 7 | 1 << 2 | 1 << 1); // IDENTIFIER RAW CPU TIME TID
        assert_eq!(u64_at(&bytes, 32), 1 << 2 | 1 << 4); // read_format: ID LOST
        assert_eq!(u64_at(&bytes, 40), 1 | 1 << 14 | 1 << 18 | 1 << 25 | 1 << 27); // disabled watermark sample_id_all use_clockid write_backward
        assert_eq!(u64_at(&bytes, 48) as u32, 4096); // wakeup_watermark
        assert_eq!(u64_at(&bytes, 88) >> 32, 1); // clockid: CLOCK_MONOTONIC
    }

    #[test]
    fn the_ring_owner_follows_tasks() {
        let bytes = attr_bytes(&dummy(Style { backward: false, lost: false, watermark: 0 }));
        assert_eq!(u64_at(&bytes, 0) as u32, 1); // software
        assert_eq!(u64_at(&bytes, 8), 9); // dummy
        assert_eq!(u64_at(&bytes, 40), 1 | 1 << 9 | 1 << 13 | 1 << 18 | 1 << 24 | 1 << 25); // comm task comm_exec
        assert_eq!(u64_at(&bytes, 48) as u32, 1); // every record wakes
    }
}
