//! The system calls that have no safe wrapper: `perf_event_open`, its ioctls, the mapped ring, blocked signals.
//!
//! All `unsafe` code of this crate is in this file. Each function here is safe to call and owns what it needs for that.
#![allow(unsafe_code)]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicU64, Ordering, fence};

use perf_event_open_sys as perf;
pub(crate) use perf_event_open_sys::bindings::perf_event_attr;

use crate::ring::RingMemory;

/// The size in bytes of the attr that is passed to the kernel and written to captures. It is old enough for perf 4.1 and kernel 4.1, and new
/// enough for `use_clockid`; perf refuses attrs that are larger than its own.
pub(crate) const ATTR_SIZE: u32 = perf::bindings::PERF_ATTR_SIZE_VER5;

/// The tasks and CPUs that an event watches.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Watch<'a> {
    /// All tasks on one CPU.
    Cpu(u32),
    /// The tasks of one cgroup (its directory) on one CPU.
    Cgroup(&'a OwnedFd, u32),
    /// This thread on any CPU. It serves to ask whether the kernel allows an event at all.
    SelfOnly,
}

fn check(ret: libc::c_int) -> io::Result<libc::c_int> {
    if ret < 0 { Err(io::Error::last_os_error()) } else { Ok(ret) }
}

/// Opens an event. Its descriptor is closed on exec.
pub(crate) fn open(attr: &perf_event_attr, watch: Watch<'_>) -> io::Result<OwnedFd> {
    let cloexec = libc::c_ulong::from(perf::bindings::PERF_FLAG_FD_CLOEXEC);
    let (pid, cpu, flags) = match watch {
        Watch::Cpu(cpu) => (-1, cpu as i32, cloexec),
        Watch::Cgroup(dir, cpu) => {
            (dir.as_raw_fd(), cpu as i32, cloexec | libc::c_ulong::from(perf::bindings::PERF_FLAG_PID_CGROUP))
        }
        Watch::SelfOnly => (0, -1, cloexec),
    };
    let mut attr = *attr;
    // SAFETY: attr is initialised and its first `size` bytes lie inside it; the kernel writes back at most `size`.
    let fd = check(unsafe { perf::perf_event_open(&raw mut attr, pid, cpu, -1, flags) })?;
    // SAFETY: the kernel has just given us this descriptor; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Opens a kprobe at the beginning of a function of the kernel or of a module.
pub(crate) fn open_kprobe(attr: &perf_event_attr, function: &CStr, watch: Watch<'_>) -> io::Result<OwnedFd> {
    let mut attr = *attr;
    // The kernel copies the name while the event is opened, in which time it is borrowed.
    attr.__bindgen_anon_3.config1 = function.as_ptr() as u64;
    open(&attr, watch)
}

/// The first [`ATTR_SIZE`] bytes of an attr, as the kernel sees them and perf.data stores them.
pub(crate) fn attr_bytes(attr: &perf_event_attr) -> Vec<u8> {
    // SAFETY: perf_event_attr is repr(C) without padding in its first 112 bytes (kernel ABI), and fully initialised.
    unsafe { std::slice::from_raw_parts(std::ptr::from_ref(attr).cast::<u8>(), ATTR_SIZE as usize) }.to_vec()
}

/// The id of the event, which its samples carry.
pub(crate) fn id(fd: &OwnedFd) -> io::Result<u64> {
    let mut id = 0u64;
    // SAFETY: the kernel writes one u64 to the pointer, which lives through the call.
    check(unsafe { perf::ioctls::ID(fd.as_raw_fd(), &raw mut id) })?;
    Ok(id)
}

/// Starts counting and sampling.
pub(crate) fn enable(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { perf::ioctls::ENABLE(fd.as_raw_fd(), 0) }).map(drop)
}

/// Stops counting and sampling.
pub(crate) fn disable(fd: &OwnedFd) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { perf::ioctls::DISABLE(fd.as_raw_fd(), 0) }).map(drop)
}

/// Sends the records of an event to the ring of another event.
pub(crate) fn set_output(fd: &OwnedFd, leader: &OwnedFd) -> io::Result<()> {
    // SAFETY: no pointers are passed; the kernel checks both descriptors.
    check(unsafe { perf::ioctls::SET_OUTPUT(fd.as_raw_fd(), leader.as_raw_fd()) }).map(drop)
}

/// Sets the in-kernel filter of a tracepoint event.
pub(crate) fn set_filter(fd: &OwnedFd, filter: &CStr) -> io::Result<()> {
    // SAFETY: the kernel only reads the NUL-terminated string (its ioctl takes a non-const pointer for no reason).
    check(unsafe { perf::ioctls::SET_FILTER(fd.as_raw_fd(), filter.as_ptr().cast_mut()) }).map(drop)
}

/// Stops (or resumes) writing into the ring that belongs to this event.
pub(crate) fn pause(fd: &OwnedFd, pause: bool) -> io::Result<()> {
    // SAFETY: no pointers are passed.
    check(unsafe { perf::ioctls::PAUSE_OUTPUT(fd.as_raw_fd(), u32::from(pause)) }).map(drop)
}

/// A mapped perf ring.
pub(crate) struct RingMap {
    base: std::ptr::NonNull<u8>,
    map_len: usize,
    data_offset: usize,
    data_len: usize,
}

// SAFETY: the mapping is owned by this value alone and may be used from any one thread at a time (all access is through &self loads
// with atomics or through ranges the kernel does not write).
unsafe impl Send for RingMap {}

/// Byte offsets in `struct perf_event_mmap_page` (kernel ABI).
const DATA_HEAD: usize = 1024;
const DATA_TAIL: usize = 1032;
const DATA_OFFSET: usize = 1040;

impl RingMap {
    /// Maps a ring of `data_len` bytes (a power of two of whole pages). With `consume`, records are consumed and the kernel may write over them
    /// afterwards; without it, the ring overwrites its oldest records and is mapped read-only.
    pub(crate) fn new(fd: &OwnedFd, data_len: usize, consume: bool) -> io::Result<Self> {
        let page = rustix::param::page_size();
        let map_len = page + data_len;
        let prot = if consume { libc::PROT_READ | libc::PROT_WRITE } else { libc::PROT_READ };
        // SAFETY: a fresh mapping at an address of the kernel's choice; nothing of ours is replaced.
        let p =
            unsafe { libc::mmap(std::ptr::null_mut(), map_len, prot, libc::MAP_SHARED, fd.as_raw_fd(), 0) };
        if p == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        let base = std::ptr::NonNull::new(p.cast::<u8>()).ok_or_else(|| io::Error::other("mapped at 0"))?;
        let mut map = Self { base, map_len, data_offset: page, data_len };
        let offset = map.word(DATA_OFFSET).load(Ordering::Relaxed);
        // Kernels before 4.1 leave data_offset 0.
        if offset != 0 && (offset as usize) + data_len <= map_len {
            map.data_offset = offset as usize;
        }
        Ok(map)
    }

    fn word(&self, offset: usize) -> &AtomicU64 {
        debug_assert!(offset + 8 <= self.data_offset && offset.is_multiple_of(8));
        // SAFETY: inside the first page of a live mapping, 8-aligned (pages are, and so are the three offsets); the kernel accesses it
        // as one word too. In a read-only mapping only `load` is used (see `release`).
        #[allow(clippy::cast_ptr_alignment)]
        unsafe {
            &*self.base.as_ptr().add(offset).cast::<AtomicU64>()
        }
    }
}

impl RingMemory for RingMap {
    fn len(&self) -> usize {
        self.data_len
    }

    fn head(&self) -> u64 {
        self.word(DATA_HEAD).load(Ordering::Acquire)
    }

    fn release(&mut self, tail: u64) {
        // All reads of the records happen before the kernel may write over them.
        fence(Ordering::SeqCst);
        self.word(DATA_TAIL).store(tail, Ordering::Release);
    }

    fn bytes(&self, at: usize, len: usize) -> &[u8] {
        assert!(at <= self.data_len && len <= self.data_len - at, "outside of the ring");
        // SAFETY: inside the mapping (just checked). The kernel does not write to it meanwhile: callers ask only for what lies between
        // tail and head of a consumed ring (free for the kernel after `release`), or for a paused overwriting ring.
        unsafe { std::slice::from_raw_parts(self.base.as_ptr().add(self.data_offset + at), len) }
    }
}

impl Drop for RingMap {
    fn drop(&mut self) {
        // SAFETY: exactly the mapping made in `new`; no slice of it outlives self.
        unsafe { libc::munmap(self.base.as_ptr().cast(), self.map_len) };
    }
}

/// Blocked signals as a descriptor to poll. While it exists, SIGINT, SIGTERM, SIGHUP and SIGUSR1 do not interrupt this thread.
pub(crate) struct Signals {
    fd: OwnedFd,
    old: libc::sigset_t,
}

impl Signals {
    /// Blocks the signals and opens the descriptor.
    pub(crate) fn new() -> io::Result<Self> {
        // SAFETY: sigset_t is plain data; both sets are initialised by the calls before they are read.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            let mut old: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&raw mut set);
            for s in [libc::SIGINT, libc::SIGTERM, libc::SIGHUP, libc::SIGUSR1] {
                libc::sigaddset(&raw mut set, s);
            }
            let ret = libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut old);
            if ret != 0 {
                return Err(io::Error::from_raw_os_error(ret));
            }
            let fd = check(libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK))?;
            Ok(Self { fd: OwnedFd::from_raw_fd(fd), old })
        }
    }

    /// The next signal that has arrived, if any.
    pub(crate) fn next(&self) -> Option<i32> {
        let mut buf = [0u8; size_of::<libc::signalfd_siginfo>()];
        match rustix::io::read(&self.fd, &mut buf) {
            Ok(n) if n == buf.len() => Some(i32::from_ne_bytes([buf[0], buf[1], buf[2], buf[3]])),
            _ => None,
        }
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> std::os::fd::BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Signals {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // SAFETY: `old` was filled by pthread_sigmask in `new`.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.old, std::ptr::null_mut()) };
    }
}

/// Gives the calling thread the lowest real-time priority, before all ordinary threads. Threads and commands that it starts do not inherit it.
pub(crate) fn realtime() -> io::Result<()> {
    // SAFETY: sched_param is plain data, and zero is a valid value of each of its fields (some C libraries have more than one).
    let mut param: libc::sched_param = unsafe { std::mem::zeroed() };
    param.sched_priority = 1;
    // SAFETY: 0 is the calling thread; the kernel only reads the parameter, which lives through the call.
    check(unsafe {
        libc::sched_setscheduler(0, libc::SCHED_RR | libc::SCHED_RESET_ON_FORK, &raw const param)
    })
    .map(drop)
}

/// One CPUID leaf: eax, ebx, ecx, edx. `None` on other machines than x86, or where the CPU has no such leaf.
pub(crate) fn cpuid(leaf: u32, sub: u32) -> Option<[u32; 4]> {
    #[cfg(target_arch = "x86_64")]
    {
        #[allow(unused_unsafe)]
        // SAFETY: every x86-64 CPU has the instruction.
        let (top, r) = unsafe {
            (std::arch::x86_64::__cpuid(leaf & 0x8000_0000).eax, std::arch::x86_64::__cpuid_count(leaf, sub))
        };
        (leaf <= top).then_some([r.eax, r.ebx, r.ecx, r.edx])
    }
    #[cfg(not(target_arch = "x86_64"))]
    {
        let _ = (leaf, sub);
        None
    }
}
