//! The ring of one CPU and the events that write into it. The main type is [`Cpu`].

use std::collections::HashMap;
use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;

use perf_event_open_sys::bindings as b;

use crate::Error;
use crate::attr::{self, Style};
use crate::probes::Probe;
use crate::ring::{Ring, RingMemory};
use crate::sys::{self, RingMap, Watch};
use crate::tracefs::Tracepoint;

/// What is opened on every CPU.
pub(crate) struct Plan {
    /// The tracepoints, each with its filter (empty for none).
    pub events: Vec<(Tracepoint, String)>,
    /// The probes, which come after the tracepoints wherever events have numbers.
    pub probes: Vec<Probe>,
    /// The number of the PMU of the probes.
    pub pmu: u32,
    pub style: Style,
    /// The bytes of ring for each CPU.
    pub ring: usize,
    /// The directory of the cgroup to watch.
    pub cgroup: Option<OwnedFd>,
}

impl Plan {
    /// The full names of all events, in their order.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> + '_ {
        self.events.iter().map(|e| e.0.full_name()).chain(self.probes.iter().map(Probe::full_name))
    }

    /// The number of all events.
    pub(crate) fn len(&self) -> usize {
        self.events.len() + self.probes.len()
    }

    /// Opens a probe.
    fn open_probe(&self, p: &Probe, watch: Watch<'_>) -> io::Result<OwnedFd> {
        sys::open_kprobe(&attr::kprobe(self.pmu, p.registers(), self.style), &p.function, watch)
    }

    /// Leaves out the probes that the kernel does not set, and returns their names with the kernel's reason.
    pub(crate) fn try_probes(&mut self) -> Vec<(String, io::Error)> {
        let mut refused = Vec::new();
        for p in std::mem::take(&mut self.probes) {
            match self.open_probe(&p, Watch::SelfOnly) {
                Ok(_) => self.probes.push(p),
                Err(e) => refused.push((p.full_name(), e)),
            }
        }
        refused
    }
}

/// One CPU with its ring.
pub(crate) struct Cpu {
    /// The number of the CPU.
    pub nr: u32,
    pub ring: Ring<RingMap>,
    /// The dummy event (the owner of the ring) first, then the events of the plan in their order.
    pub fds: Vec<OwnedFd>,
    pub ids: Vec<u64>,
    /// The number of records seen of each event.
    pub seen: Vec<u64>,
    /// The sum of the LOST records seen.
    pub lost_seen: u64,
    /// Whether the CPU went offline.
    pub gone: bool,
    /// For a CPU that came online later: the ids of its events, mapped to those of the CPU whose ids the head of the capture names.
    pub translate: HashMap<u64, u64>,
}

/// The kernel's counts of one event on one CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Counts {
    /// The number of hits, including lost ones.
    pub value: u64,
    /// The number of records that found no room; `None` where the kernel does not count them.
    pub lost: Option<u64>,
}

pub(crate) fn counts(fd: &OwnedFd, with_lost: bool) -> io::Result<Counts> {
    let mut buf = [0u8; 24];
    let n = rustix::io::read(fd, &mut buf)?;
    let word =
        |i: usize| buf.get(i * 8..i * 8 + 8).and_then(|b| b.try_into().ok()).map_or(0, u64::from_ne_bytes);
    Ok(Counts { value: word(0), lost: (with_lost && n >= 24).then(|| word(2)) })
}

impl Cpu {
    /// The index of the event with this id.
    pub(crate) fn index(&self, id: u64) -> Option<usize> {
        // The ids of one CPU are given out one after the other, so the distance usually is the index.
        let guess = id.wrapping_sub(*self.ids.first()?) as usize;
        if self.ids.get(guess) == Some(&id) {
            return Some(guess);
        }
        self.ids.iter().position(|&i| i == id)
    }

    pub(crate) fn enable(&self) -> io::Result<()> {
        // The owner of the ring starts first and stops last, so that task records surround the events.
        self.fds.iter().try_for_each(sys::enable)
    }

    pub(crate) fn disable(&self) {
        for fd in &self.fds {
            // A CPU that went offline has nothing left to disable.
            let _ = sys::disable(fd);
        }
    }
}

/// Whether this kernel counts lost events for each event (6.0 and later).
pub(crate) fn kernel_counts_lost() -> bool {
    let style = Style { backward: false, lost: true, watermark: 0 };
    match sys::open(&attr::dummy(style), Watch::SelfOnly) {
        Ok(_) => true,
        Err(e) => e.raw_os_error() != Some(libc::EINVAL),
    }
}

/// Opens all events on one CPU. The result is `Ok(None)` if the CPU went offline meanwhile.
pub(crate) fn open(plan: &Plan, cpu: u32) -> Result<Option<Cpu>, Error> {
    let watch = match &plan.cgroup {
        Some(dir) => Watch::Cgroup(dir, cpu),
        None => Watch::Cpu(cpu),
    };
    let gone = |e: &io::Error| matches!(e.raw_os_error(), Some(libc::ENODEV | libc::ENXIO));
    let owner = match sys::open(&attr::dummy(plan.style), watch) {
        Ok(fd) => fd,
        Err(e) if gone(&e) => return Ok(None),
        Err(e) => return Err(refused("recording", &e)),
    };
    let map = RingMap::new(&owner, plan.ring, !plan.style.backward).map_err(|e| mapping(plan.ring, &e))?;
    let mut fds = vec![owner];
    for (tp, filter) in &plan.events {
        let fd = match sys::open(&attr::tracepoint(tp.id, plan.style), watch) {
            Ok(fd) => fd,
            Err(e) if gone(&e) => return Ok(None),
            Err(e) => return Err(refused(&tp.full_name(), &e)),
        };
        sys::set_output(&fd, &fds[0])
            .map_err(|source| Error::System { what: "sharing one ring between events", source })?;
        if !filter.is_empty() {
            let text = CString::new(filter.as_str())
                .map_err(|_| Error::Usage("a filter must not contain a NUL byte".into()))?;
            sys::set_filter(&fd, &text).map_err(|e| {
                Error::Usage(format!(
                    "the kernel does not take the filter {filter:?} for {}: {e}\n  fields are those of its format file: {}",
                    tp.full_name(),
                    crate::tracefs::fields(&tp.format)
                        .iter()
                        .map(|f| f.0)
                        .filter(|f| !f.starts_with("common_") || *f == "common_pid")
                        .collect::<Vec<_>>()
                        .join(", ")
                ))
            })?;
        }
        fds.push(fd);
    }
    for p in &plan.probes {
        let fd = match plan.open_probe(p, watch) {
            Ok(fd) => fd,
            Err(e) if gone(&e) => return Ok(None),
            Err(e) => return Err(refused(&p.full_name(), &e)),
        };
        sys::set_output(&fd, &fds[0])
            .map_err(|source| Error::System { what: "sharing one ring between events", source })?;
        fds.push(fd);
    }
    let ids = fds
        .iter()
        .map(sys::id)
        .collect::<io::Result<Vec<u64>>>()
        .map_err(|source| Error::System { what: "asking for an event's id", source })?;
    let seen = vec![0; fds.len()];
    let ring = Ring::new(map);
    debug_assert!(ring.memory().len() == plan.ring);
    Ok(Some(Cpu { nr: cpu, ring, fds, ids, seen, lost_seen: 0, gone: false, translate: HashMap::new() }))
}

/// The meaning of the kernel's refusal of an event.
pub(crate) fn refused(what: &str, e: &io::Error) -> Error {
    let paranoid = std::fs::read_to_string("/proc/sys/kernel/perf_event_paranoid").unwrap_or_default();
    let paranoid = paranoid.trim();
    let (why, mend) = match e.raw_os_error() {
        Some(libc::EACCES | libc::EPERM) => (
            format!("the kernel does not let this user see other tasks' events (kernel.perf_event_paranoid is {paranoid})"),
            "run as root (sudo mmuscope record …), or give the binary the right, as root: setcap cap_perfmon,cap_dac_read_search+ep $(command -v mmuscope)\n  `mmuscope doctor` shows everything that is missing".to_owned(),
        ),
        Some(libc::ENOSYS) => (
            "perf_event_open is not there (a container's seccomp filter, or a kernel without CONFIG_PERF_EVENTS)".to_owned(),
            "record on the host itself, or start the container with --privileged (or a seccomp profile that allows perf_event_open)".to_owned(),
        ),
        Some(libc::EMFILE | libc::ENFILE) => (
            "too many open files: each event takes one on each CPU".to_owned(),
            "raise the limit (ulimit -n 65536) or record fewer events (--events faults)".to_owned(),
        ),
        Some(libc::ENOMEM) => (
            "out of memory".to_owned(),
            "use smaller rings (--buffer 1M)".to_owned(),
        ),
        _ => (e.to_string(), "`mmuscope doctor` may know more".to_owned()),
    };
    Error::Refused { what: what.to_owned(), why, mend }
}

fn mapping(bytes: usize, e: &io::Error) -> Error {
    let (why, mend) = match e.raw_os_error() {
        Some(libc::EPERM) => (
            "the kernel does not let this user lock so much memory".to_owned(),
            "use smaller rings (--buffer 256k), or as root: sysctl kernel.perf_event_mlock_kb=16384, or give the binary cap_ipc_lock".to_owned(),
        ),
        Some(libc::ENOMEM) => ("out of memory".to_owned(), "use smaller rings (--buffer 1M)".to_owned()),
        _ => (e.to_string(), "try another size (--buffer 1M)".to_owned()),
    };
    Error::Refused { what: format!("a ring of {} KiB", bytes >> 10), why, mend }
}

/// Raises the limit of open files where that is needed and allowed.
pub(crate) fn want_files(n: u64) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let now = getrlimit(Resource::Nofile);
    if now.current.is_some_and(|c| c < n) {
        let maximum = now.maximum.map(|m| m.max(n));
        // root may raise the hard limit as well; other users get as many as it allows.
        if setrlimit(Resource::Nofile, Rlimit { current: Some(n), maximum }).is_err() {
            let _ = setrlimit(Resource::Nofile, Rlimit { current: now.maximum, maximum: now.maximum });
        }
    }
}

/// The bytes of ring for each CPU: a power of two of pages. The default is large, but limited on a host with many CPUs.
pub(crate) fn ring_size(asked: Option<u64>, cpus: usize, total_mem_kb: u64) -> usize {
    let page = rustix::param::page_size() as u64;
    let wanted = asked.unwrap_or_else(|| {
        let all = (total_mem_kb.saturating_mul(1024) / 32).min(2 << 30);
        (all / cpus.max(1) as u64).clamp(512 << 10, 8 << 20)
    });
    let pages = (wanted / page).clamp(2, 1 << 18);
    // The size is rounded down, so that a limit which the user gave is kept.
    ((1u64 << pages.ilog2()) * page) as usize
}

/// The bit `PERF_FORMAT_LOST`, which the facts mention.
pub(crate) const COUNTS_LOST: u32 = b::PERF_FORMAT_LOST;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ring_sizes() {
        assert_eq!(ring_size(Some(1 << 20), 4, 0), 1 << 20);
        assert_eq!(ring_size(Some(3 << 20), 4, 0), 2 << 20);
        assert_eq!(ring_size(Some(1), 4, 0), 2 * rustix::param::page_size());
        assert_eq!(ring_size(None, 2, 16 << 20), 8 << 20);
        assert_eq!(ring_size(None, 256, 512 << 20), 8 << 20);
        assert_eq!(ring_size(None, 512, 16 << 20), 1 << 20);
    }
}
