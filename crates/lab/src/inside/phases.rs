//! What the VMs do: named phases, each of which exercises some paths of KVM's MMU. Every phase writes its name to trace_marker.

use std::{
    ffi::CString,
    fs::{self, OpenOptions},
    io::Write as _,
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use kvm_bindings::{KVM_MEM_LOG_DIRTY_PAGES, KVM_MEM_READONLY};
use kvm_ioctls::Cap;
use mmuscope_lab::host::{Backing, Guest, Workload};

use crate::{
    absent,
    guest::{Op, RETURN},
    vm::{KIB4, MIB, Memory, ROOT, ROOT2, SMM_ENTRY, TABLES, Vm, WINDOW, Work, check},
};

/// The phases of a workload that names none.
pub(crate) const STANDARD: [&str; 11] = [
    "touch",
    "mmio",
    "huge",
    "dirty",
    "dontneed",
    "protect",
    "cow",
    "slot-readonly",
    "slot-delete",
    "huge-again",
    "race",
];

const MEMORY: u64 = 64 * MIB;
/// Guest memory from this address on asks for transparent huge pages.
const HUGE: u64 = 32 * MIB;
const HUGE_LEN: u64 = 16 * MIB;
/// The address at which the vCPUs race each other and the zaps.
const RACE: u64 = 16 * MIB;
const RACE_LEN: u64 = 8 * MIB;
const DEVICE: u64 = 0xd000_0000;

/// Writes the name of a phase to every trace buffer that can be written, and to the console.
pub(crate) fn mark(text: &str) {
    println!("PHASE {text}");
    // A recorder that is to begin in the middle waits for this file to name its phase.
    let _ = fs::write("/tmp/phase", text);
    for at in ["/sys/kernel/tracing/trace_marker", "/sys/kernel/tracing/instances/lab/trace_marker"] {
        if let Ok(mut f) = OpenOptions::new().write(true).open(at) {
            // The marker only helps the reader of the trace; a run without one is still valid.
            let _ = f.write_all(text.as_bytes());
        }
    }
}

/// Makes the VM of a workload.
pub(crate) fn machine(plan: &Workload) -> Result<Vm> {
    let len = if plan.backing == Backing::Hugetlb1g { 1 << 30 } else { MEMORY };
    let vm = Vm::new(plan, len)?;
    if plan.backing == Backing::Anonymous {
        vm.memory.advise(0, MEMORY, libc::MADV_NOHUGEPAGE)?;
        vm.memory.advise(HUGE, HUGE_LEN, libc::MADV_HUGEPAGE)?;
    }
    Ok(vm)
}

/// Runs the phases of a workload.
pub(crate) fn run(vm: &Vm, plan: &Workload) -> Result<()> {
    let standard: Vec<String> = STANDARD.iter().map(|&s| s.to_owned()).collect();
    for name in if plan.phases.is_empty() { &standard } else { &plan.phases } {
        mark(name);
        let began = Instant::now();
        phase(vm, name, plan.race_ms).with_context(|| format!("in phase {name}"))?;
        println!("TOOK {name} {}", began.elapsed().as_nanos());
    }
    mark("end");
    Ok(())
}

/// Runs one phase. The function is longer than 100 lines because it is a table: one arm for each phase, and nothing shared between the arms.
#[expect(clippy::too_many_lines, reason = "a table: one arm for each phase")]
fn phase(vm: &Vm, name: &str, race_ms: u64) -> Result<()> {
    use Op::{Add, Execute, Read, Write};
    let go = |op, at, count| vm.run(0, Work::pages(op, at, count)).map(drop);
    let other = vm.vcpus() - 1;
    match name {
        // The first faults map 4 KiB pages by writing and by reading; the latter are made writable afterwards.
        "touch" => {
            go(Write, MIB, 256)?;
            go(Read, 4 * MIB, 256)?;
            go(Write, 4 * MIB, 256)
        }
        "mmio" => {
            go(Write, DEVICE, 32)?;
            go(Read, DEVICE, 32)?;
            vm.run(other, Work::pages(Read, DEVICE + 8 * KIB4, 32)).map(drop)
        }
        "huge" | "huge-again" => {
            vm.memory.fill(HUGE, HUGE_LEN, 1);
            vm.run(0, Work { step: 64 * KIB4, ..Work::pages(Write, HUGE, 256) }).map(drop)
        }
        // This is dirty logging as QEMU used it for years: GET of the log write-protects again.
        "dirty" => {
            vm.slot(0, 0, vm.memory.len(), vm.memory.address(), KVM_MEM_LOG_DIRTY_PAGES)?;
            for _ in 0..2 {
                go(Write, MIB, 256)?;
                go(Write, HUGE, 512)?;
                mark("dirty-get");
                vm.fd.get_dirty_log(0, vm.memory.len() as usize)?;
            }
            go(Write, MIB, 256)?;
            mark("dirty-off");
            vm.slot(0, 0, vm.memory.len(), vm.memory.address(), 0)?;
            go(Write, HUGE, 512)
        }
        // This dirty logging starts with every page dirty. The log is cleared piece by piece, which splits huge pages piece by piece.
        "dirty-clear" => {
            let cap = kvm_bindings::kvm_enable_cap {
                cap: kvm_bindings::KVM_CAP_MANUAL_DIRTY_LOG_PROTECT2,
                args: [3, 0, 0, 0],
                ..Default::default()
            };
            if vm.fd.enable_cap(&cap).is_err() {
                println!("SKIP dirty-clear");
                return Ok(());
            }
            vm.slot(0, 0, vm.memory.len(), vm.memory.address(), KVM_MEM_LOG_DIRTY_PAGES)?;
            for piece in 0..6 {
                let at = HUGE + piece * 3 * MIB / 2;
                clear_dirty(vm, at, MIB)?;
                go(Write, at, 100)?;
                go(Read, at, 200)?;
            }
            vm.fd.get_dirty_log(0, vm.memory.len() as usize)?;
            clear_dirty(vm, 0, 8 * MIB)?;
            go(Add, MIB, 256)?;
            vm.slot(0, 0, vm.memory.len(), vm.memory.address(), 0)?;
            go(Write, HUGE, 512)
        }
        // Dirty logging is begun, and still on when the phase ends.
        "dirty-stay" => {
            vm.slot(0, 0, vm.memory.len(), vm.memory.address(), KVM_MEM_LOG_DIRTY_PAGES)?;
            go(Write, MIB, 128)?;
            go(Write, HUGE + MIB, 300)?;
            vm.fd.get_dirty_log(0, vm.memory.len() as usize)?;
            go(Write, MIB, 64)?;
            go(Write, HUGE + MIB, 100)
        }
        // Dirty logging ends, and nothing happens afterwards. What the legacy MMU zaps then is not traced.
        "dirty-end" => {
            vm.slot(0, 0, vm.memory.len(), vm.memory.address(), KVM_MEM_LOG_DIRTY_PAGES)?;
            go(Write, 2 * MIB, 128)?;
            go(Write, HUGE, 700)?;
            vm.fd.get_dirty_log(0, vm.memory.len() as usize)?;
            go(Write, HUGE + MIB, 64)?;
            vm.slot(0, 0, vm.memory.len(), vm.memory.address(), 0)
        }
        // The last thing that happens is GET of the dirty log, which write-protects everything once more and is not traced.
        "dirty-get" => {
            vm.slot(0, 0, vm.memory.len(), vm.memory.address(), KVM_MEM_LOG_DIRTY_PAGES)?;
            go(Write, MIB, 256)?;
            vm.fd.get_dirty_log(0, vm.memory.len() as usize).map(drop).context("KVM_GET_DIRTY_LOG")
        }
        // Memory is mapped twice: a second slot shows a part of the first at other guest addresses.
        "slot-alias" => {
            vm.slot(4, 0x6000_0000, 2 * MIB, vm.memory.address() + 10 * MIB, 0)?;
            go(Write, 0x6000_0000, 256)?;
            go(Read, 11 * MIB, 64)?;
            go(Write, 11 * MIB, 64)?;
            vm.memory.advise(10 * MIB + 64 * KIB4, 64 * KIB4, libc::MADV_DONTNEED)?;
            vm.memory.advise(11 * MIB, 16 * KIB4, libc::MADV_DONTNEED)
        }
        // The host takes pages away in the middle of faults on others.
        "squeeze" => squeeze(vm),
        // The host has no page for a fault, or gives it late, or its address does not let it be huge.
        "efault" => absent::efault(vm),
        "uffd" => absent::late(vm),
        "misaligned" => absent::misaligned(vm),
        "dontneed" => {
            vm.memory.advise(MIB, MIB, libc::MADV_DONTNEED)?;
            go(Read, MIB, 256)?;
            go(Write, MIB, 256)
        }
        "protect" => {
            vm.memory.protect(4 * MIB, MIB, libc::PROT_READ)?;
            vm.memory.protect(4 * MIB, MIB, libc::PROT_READ | libc::PROT_WRITE)?;
            go(Write, 4 * MIB, 256)
        }
        // Copy on write: a child process shares all memory for a while.
        "cow" => {
            // SAFETY: the child calls nothing but sleep and exit, which need no lock that another thread may hold.
            let child = unsafe { libc::fork() };
            check(child, "fork")?;
            if child == 0 {
                // SAFETY: as above.
                unsafe {
                    libc::usleep(50_000);
                    libc::_exit(0);
                }
            }
            go(Write, 4 * MIB, 64)?;
            go(Read, 5 * MIB - 64 * KIB4, 64)?;
            // SAFETY: waits for the child made above; no status is asked for.
            check(unsafe { libc::waitpid(child, std::ptr::null_mut(), 0) }, "waitpid")
        }
        "slot-readonly" => {
            let rom = Memory::new(2 * MIB, Backing::Anonymous)?;
            rom.fill(0, 2 * MIB, 3);
            vm.slot(1, 0x5000_0000, 2 * MIB, rom.address(), KVM_MEM_READONLY)?;
            go(Read, 0x5000_0000, 64)?;
            go(Write, 0x5000_0000, 8)
        }
        "slot-delete" => {
            if vm.slot(1, 0x5000_0000, 0, 0, 0).is_err() {
                // No earlier phase made the slot.
                let bank = Memory::new(2 * MIB, Backing::Anonymous)?;
                vm.slot(1, 0x5000_0000, 2 * MIB, bank.address(), 0)?;
                go(Write, 0x5000_0000, 64)?;
                vm.slot(1, 0x5000_0000, 0, 0, 0)?;
            }
            go(Read, 0x5000_0000, 16)?;
            go(Read, MIB, 256)
        }
        // The guest addresses of a slot move, so that everything in it is zapped.
        "slot-move" => {
            let bank = Memory::new(4 * MIB, Backing::Anonymous)?;
            vm.slot(2, 0x6000_0000, 4 * MIB, bank.address(), 0)?;
            go(Write, 0x6000_0000, 64)?;
            vm.slot(2, 0x6200_0000, 4 * MIB, bank.address(), 0)?;
            go(Write, 0x6200_0000, 64)?;
            go(Read, 0x6000_0000, 8)
        }
        "race" => race(vm, race_ms, |k| vm.memory.advise(RACE + k % 8 * MIB, MIB, libc::MADV_DONTNEED)),
        // Memory slots are added and deleted while the vCPUs run. With the usual quirk, each deletion zaps all tables.
        "race-slots" => {
            let bank = Memory::new(2 * MIB, Backing::Anonymous)?;
            race(vm, race_ms, |k| {
                let len = if k % 2 == 0 { 2 * MIB } else { 0 };
                vm.slot(3, 0x7000_0000, len, bank.address(), 0)?;
                if k % 2 == 0 {
                    Ok(())
                } else {
                    vm.memory.advise(RACE + k % 8 * MIB, MIB / 2, libc::MADV_DONTNEED)
                }
            })
        }
        // Dirty logging is switched on and off while the vCPUs write.
        "race-dirty" => race(vm, race_ms, |k| match k % 4 {
            0 => vm.slot(0, 0, vm.memory.len(), vm.memory.address(), KVM_MEM_LOG_DIRTY_PAGES),
            3 => vm.slot(0, 0, vm.memory.len(), vm.memory.address(), 0),
            _ => vm.fd.get_dirty_log(0, vm.memory.len() as usize).map(drop).context("KVM_GET_DIRTY_LOG"),
        }),
        // The guest fetches instructions from huge pages. With nx_huge_pages they are split, and the kernel's worker recovers them later.
        "execute" => {
            for page in 0..HUGE_LEN / KIB4 {
                vm.memory.write(HUGE + page * KIB4, &RETURN);
            }
            vm.run(0, Work { step: 64 * KIB4, ..Work::pages(Write, HUGE + 64, 256) })?;
            vm.run(0, Work { step: 200 * KIB4, ..Work::pages(Execute, HUGE, 16) })?;
            go(Execute, HUGE + 2 * MIB, 40)?;
            vm.run(other, Work { step: 64 * KIB4, ..Work::pages(Execute, HUGE + 4 * MIB, 40) }).map(drop)
        }
        // This phase gives the NX recovery worker time, touches huge pages now and then, and stops the worker at the end so that the state is stable.
        "recovery" => {
            let end = Instant::now() + Duration::from_millis(race_ms.max(1500));
            while Instant::now() < end {
                thread::sleep(Duration::from_millis(300));
                vm.run(0, Work { step: 512 * KIB4, ..Work::pages(Write, HUGE + 64, 4) })?;
            }
            let _ = fs::write("/sys/module/kvm/parameters/nx_huge_pages_recovery_ratio", "0");
            thread::sleep(Duration::from_millis(150));
            Ok(())
        }
        // The guest changes its own page tables: shadow paging write-protects, unsyncs and syncs them.
        "guest-tables" => guest_tables(vm),
        // One vCPU changes page tables while the others use them.
        "race-tables" => race_tables(vm, race_ms),
        // The guest uses two top-level tables in turn.
        "roots" => {
            if !vm.long() && vm.guest != Guest::Paging32 || vm.guest == Guest::User {
                return Ok(());
            }
            for round in 0..6 {
                let root = if round % 2 == 0 { ROOT2 } else { ROOT };
                go(Op::Root, root, 1)?;
                go(Write, 8 * MIB + round * 32 * KIB4, 64)?;
            }
            go(Op::Root, ROOT, 1)
        }
        // The guest enters system management mode, which has an address space of its own.
        "smm" => {
            if !vm.can(Cap::X86Smm) {
                println!("SKIP smm");
                return Ok(());
            }
            vm.memory.write(SMM_ENTRY, crate::guest::smm_code());
            let high = Memory::new(2 * MIB, Backing::Anonymous)?;
            vm.slot(1 << 16, 0, vm.memory.len(), vm.memory.address(), 0)?;
            vm.slot(1 << 16 | 1, 0x4000_0000, 2 * MIB, high.address(), 0)?;
            for round in 0..3 {
                vm.smi(0, Work::pages(Write, 2 * MIB + round * 8 * KIB4, 32))?;
                vm.smi(other, Work::pages(Read, 3 * MIB, 16))?;
            }
            vm.memory.advise(2 * MIB, 8 * KIB4, libc::MADV_DONTNEED)?;
            vm.smi(0, Work::pages(Read, 2 * MIB, 16)).map(drop)
        }
        // Guest memory is swapped out and comes back: aging, access tracking, asynchronous faults.
        "swap" => {
            go(Write, 9 * MIB, 512)?;
            for _ in 0..2 {
                vm.memory.advise(9 * MIB, 2 * MIB, libc::MADV_COLD)?;
                vm.memory.advise(9 * MIB, 2 * MIB, libc::MADV_PAGEOUT)?;
                go(Read, 9 * MIB, 300)?;
                go(Write, 9 * MIB + 100 * KIB4, 300)?;
            }
            Ok(())
        }
        // Equal pages are merged (KSM) and separated again.
        "merge" => {
            vm.memory.fill(12 * MIB, 2 * MIB, 0x5a);
            go(Read, 12 * MIB, 512)?;
            vm.memory.advise(12 * MIB, 2 * MIB, libc::MADV_MERGEABLE)?;
            for (file, value) in [("sleep_millisecs", "5"), ("pages_to_scan", "5000"), ("run", "1")] {
                fs::write(format!("/sys/kernel/mm/ksm/{file}"), value)
                    .with_context(|| format!("ksm/{file}"))?;
            }
            thread::sleep(Duration::from_millis(700));
            go(Read, 12 * MIB, 512)?;
            go(Write, 12 * MIB, 100)?;
            fs::write("/sys/kernel/mm/ksm/run", "0").context("ksm/run")
        }
        "prefault" => {
            if vm.prefault(0, 56 * MIB, 2 * MIB)? == 0 {
                println!("SKIP prefault");
            }
            go(Write, 56 * MIB, 64)
        }
        // The kernel moves pages (compaction).
        "compact" => {
            let _ = fs::write("/proc/sys/vm/compact_memory", "1");
            go(Read, MIB, 256)?;
            go(Write, HUGE, 512)
        }
        // Huge pages are broken up under the guest and put together again.
        "collapse" => {
            vm.memory.advise(HUGE, 4 * MIB, libc::MADV_NOHUGEPAGE)?;
            vm.memory.advise(HUGE + 16 * KIB4, 64 * KIB4, libc::MADV_DONTNEED)?;
            go(Write, HUGE, 512)?;
            vm.memory.advise(HUGE, 4 * MIB, libc::MADV_HUGEPAGE)?;
            // The advice is MADV_COLLAPSE, since Linux 6.1.
            let _ = vm.memory.advise(HUGE, 4 * MIB, 25);
            go(Write, HUGE, 512)
        }
        // With a small limit the legacy MMU zaps its oldest pages; reclaim shrinks it, too.
        "few-pages" => {
            use std::os::fd::AsRawFd as _;
            // SAFETY: KVM_SET_NR_MMU_PAGES takes a plain number.
            check(unsafe { libc::ioctl(vm.fd.as_raw_fd(), 0xae44, 64u64) }, "KVM_SET_NR_MMU_PAGES")?;
            vm.run(0, Work { step: 512 * KIB4, ..Work::pages(Read, 0, 32) })?;
            go(Write, MIB, 64)?;
            let _ = fs::write("/proc/sys/vm/drop_caches", "2");
            go(Write, HUGE, 64)
        }
        // This phase does a little of everything, so that the end of a trace is not all of one kind.
        "settle" => {
            go(Read, 6 * MIB, 64)?;
            go(Write, 6 * MIB, 16)?;
            go(Read, DEVICE, 4)
        }
        "rest" => {
            thread::sleep(Duration::from_millis(race_ms));
            Ok(())
        }
        _ => bail!("no such phase"),
    }
}

/// Runs the guest under a memory limit with which every fault evicts what was mapped before.
fn squeeze(vm: &Vm) -> Result<()> {
    let group = Path::new("/tmp/squeeze-cgroup");
    let limit = || -> std::io::Result<PathBuf> {
        fs::create_dir_all(group)?;
        let here = CString::new(group.as_os_str().as_bytes())?;
        // SAFETY: mounts a file system on an empty directory; both strings end in a zero byte.
        let done =
            unsafe { libc::mount(c"none".as_ptr(), here.as_ptr(), c"cgroup2".as_ptr(), 0, std::ptr::null()) };
        if done != 0 {
            return Err(std::io::Error::last_os_error());
        }
        fs::write(group.join("cgroup.subtree_control"), "+memory")?;
        let own = group.join("vm");
        fs::create_dir_all(&own)?;
        fs::write(own.join("cgroup.procs"), std::process::id().to_string())?;
        fs::write(own.join("memory.high"), (3 * MIB).to_string())?;
        fs::write(own.join("memory.max"), (12 * MIB).to_string())?;
        Ok(own.join("memory.high"))
    };
    let limit = match limit() {
        Ok(file) => file,
        Err(e) => {
            println!("SKIP squeeze: {e}");
            return Ok(());
        }
    };
    for _ in 0..2 {
        vm.run(0, Work::pages(Op::Write, 16 * MIB, 1500))?;
        vm.run(0, Work::pages(Op::Read, 16 * MIB, 700))?;
        vm.run(0, Work::pages(Op::Write, 16 * MIB, 300))?;
    }
    fs::write(limit, "max").context("memory.high")
}

fn race(vm: &Vm, ms: u64, mut step: impl FnMut(u64) -> Result<()>) -> Result<()> {
    let rounds = vm.churn(RACE, RACE_LEN, || {
        for k in 0..ms / 10 {
            thread::sleep(Duration::from_millis(10));
            step(k)?;
        }
        Ok(())
    })?;
    println!("race: {rounds} rounds");
    Ok(())
}

fn race_tables(vm: &Vm, ms: u64) -> Result<()> {
    let Some(bytes) = vm.gpte_bytes().filter(|_| vm.guest != Guest::User && vm.vcpus() > 1) else {
        return Ok(());
    };
    guest_tables(vm)?;
    mark("race-tables");
    // The other vCPUs stay inside what the first table maps at any time, because its upper half is never unmapped.
    let churn = WINDOW + KIB4 / bytes / 2 * KIB4;
    let table = |first: u64, count: u64, gpa: u64, flags: u64| {
        let at = TABLES + first * bytes;
        vm.run(0, Work { op: Op::Write, at, step: bytes, count, value: gpa | flags, value_step: KIB4 })
    };
    table(KIB4 / bytes / 2, 64, 28 * MIB, 7)?;
    vm.run(0, Work::pages(Op::Root, ROOT, 1))?;
    let end = Instant::now() + Duration::from_millis(ms);
    let mut round = 0;
    vm.churn_others(churn, 64 * KIB4, || {
        while Instant::now() < end {
            table(round % 8 * 8, 16, 26 * MIB + round % 32 * 16 * KIB4, if round % 3 == 0 { 5 } else { 7 })?;
            table(KIB4 / bytes / 2, 64, 28 * MIB + round % 4 * 64 * KIB4, 7)?;
            vm.run(0, Work::pages(Op::Flush, WINDOW + round % 8 * 8 * KIB4, 16))?;
            vm.run(0, Work::pages(Op::Read, WINDOW + round % 8 * 8 * KIB4, 16))?;
            if round % 16 == 15 {
                vm.run(0, Work::pages(Op::Root, if round % 32 == 15 { ROOT2 } else { ROOT }, 1))?;
            }
            round += 1;
        }
        Ok(())
    })?;
    vm.run(0, Work::pages(Op::Root, ROOT, 1)).map(drop)
}

fn clear_dirty(vm: &Vm, at: u64, len: u64) -> Result<()> {
    use std::os::fd::AsRawFd as _;
    let pages = len / KIB4;
    let bits = vec![u64::MAX; pages.div_ceil(64) as usize];
    // The argument is struct kvm_clear_dirty_log: slot, number of pages, first page, bitmap.
    let log = [pages << 32, at / KIB4, bits.as_ptr() as u64];
    // SAFETY: KVM_CLEAR_DIRTY_LOG reads these 24 bytes and the bitmap.
    check(unsafe { libc::ioctl(vm.fd.as_raw_fd(), 0xc018_aec0, log.as_ptr()) }, "KVM_CLEAR_DIRTY_LOG")
}

fn guest_tables(vm: &Vm) -> Result<()> {
    let Some(bytes) = vm.gpte_bytes() else { return Ok(()) };
    if vm.guest == Guest::User {
        return Ok(());
    }
    // The guest itself writes the entries: `count` entries of table `table` from `first` on map the memory at `gpa`.
    let map = |table: u64, first: u64, count: u64, gpa: u64, flags: u64| {
        let at = TABLES + table * KIB4 + first * bytes;
        vm.run(0, Work { op: Op::Write, at, step: bytes, count, value: gpa | flags, value_step: KIB4 })
    };
    let per_table = KIB4 / bytes;
    let window = |table: u64| WINDOW + table * per_table * KIB4;
    for table in 0..3 {
        map(table, 0, 128, 24 * MIB + table * 128 * KIB4, 7)?;
        let entry = Work {
            op: Op::Write,
            at: vm.window_entry() + table * bytes,
            step: bytes,
            count: 1,
            value: (TABLES + table * KIB4) | 7,
            value_step: 0,
        };
        vm.run(0, entry)?;
    }
    vm.run(0, Work::pages(Op::Root, ROOT, 1))?;
    for table in 0..3 {
        vm.run(0, Work::pages(Op::Write, window(table), 128))?;
    }
    mark("guest-remap");
    for round in 0..4 {
        map(0, round * 8, 16, 26 * MIB + round * 64 * KIB4, if round % 2 == 0 { 7 } else { 5 })?;
        vm.run(0, Work::pages(Op::Flush, window(0) + round * 8 * KIB4, 16))?;
        vm.run(0, Work::pages(Op::Read, window(0), 64))?;
    }
    mark("guest-unmap");
    map(1, 0, 32, 0, 0)?;
    vm.run(0, Work::pages(Op::Root, ROOT, 1))?;
    vm.run(vm.vcpus() - 1, Work::pages(Op::Write, window(1) + 32 * KIB4, 64))?;
    mark("guest-alias");
    // The same table is used in two places, in one of them read-only.
    let entry = Work {
        op: Op::Write,
        at: vm.window_entry() + 3 * bytes,
        step: bytes,
        count: 1,
        value: (TABLES + 2 * KIB4) | 5,
        value_step: 0,
    };
    vm.run(0, entry)?;
    vm.run(0, Work::pages(Op::Root, ROOT, 1))?;
    vm.run(0, Work::pages(Op::Read, window(3), 64)).map(drop)
}
