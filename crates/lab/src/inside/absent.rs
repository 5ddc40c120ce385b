//! Phases in which the host has no page for a guest's fault, gives it late, or has it at an address that keeps it from being huge.

use std::{
    fs::File,
    io::{ErrorKind, Read as _},
    os::fd::{AsRawFd as _, FromRawFd as _},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use mmuscope_lab::host::Backing;

use crate::{
    guest::Op,
    phases::mark,
    vm::{KIB4, MIB, Memory, Vm, Work, check},
};

/// How often a VMM runs a vCPU again although KVM_RUN returned an error.
const TRIES: u64 = 20;

/// KVM_RUN ends in -EFAULT: behind the frame is nothing that may be read; then memory that may not be written; then a file that became shorter.
/// The VMM runs the vCPU again, which makes it fault again, and repairs the memory in the end, but for the last one.
pub(crate) fn efault(vm: &Vm) -> Result<()> {
    let at = 7 * MIB;
    let fails = |op, at, what| {
        mark(what);
        match vm.run_failing(0, Work::pages(op, at, 1), TRIES)? {
            TRIES => Ok(()),
            n => bail!("{what}: {n} of {TRIES} runs failed"),
        }
    };
    vm.memory.protect(at, 16 * KIB4, libc::PROT_NONE)?;
    fails(Op::Read, at + KIB4, "efault-none")?;
    vm.memory.protect(at, 16 * KIB4, libc::PROT_READ)?;
    fails(Op::Write, at + 2 * KIB4, "efault-readonly")?;
    vm.memory.protect(at, 16 * KIB4, libc::PROT_READ | libc::PROT_WRITE)?;
    mark("efault-mended");
    vm.run(0, Work::pages(Op::Write, at, 16))?;
    if vm.irqchip {
        // Then KVM asks for the missing page asynchronously, again and again, and never returns.
        return Ok(());
    }
    let file = Memory::of_file(2 * MIB)?;
    vm.slot(5, 0x6400_0000, 2 * MIB, file.address(), 0)?;
    vm.run(0, Work::pages(Op::Write, 0x6400_0000, 64))?;
    file.cut(MIB)?;
    fails(Op::Read, 0x6400_0000 + MIB + MIB / 2, "efault-truncated")
}

/// Guest memory whose pages a thread of the VMM provides through userfaultfd, as after a migration by post-copy: each comes 20 ms after it was
/// asked for, and the first of all after 1.3 s.
pub(crate) fn late(vm: &Vm) -> Result<()> {
    let bank = Memory::new(2 * MIB, Backing::Anonymous)?;
    bank.advise(0, 2 * MIB, libc::MADV_NOHUGEPAGE)?;
    vm.slot(6, 0x6800_0000, 2 * MIB, bank.address(), 0)?;
    let Some(fd) = user_faults(&bank)? else {
        println!("SKIP uffd");
        return Ok(());
    };
    let served = thread::spawn(move || serve(fd, 48));
    vm.run(0, Work::pages(Op::Write, 0x6800_0000, 32))?;
    vm.run(vm.vcpus() - 1, Work::pages(Op::Read, 0x6800_0000 + 32 * KIB4, 16))?;
    served.join().map_err(|_| anyhow::anyhow!("the thread that provides pages panicked"))?
}

/// Huge pages of the host at a guest address that differs from theirs by 4 KiB more than a multiple of 2 MiB, so that KVM maps small pages.
pub(crate) fn misaligned(vm: &Vm) -> Result<()> {
    let bank = match Memory::new(8 * MIB, Backing::Hugetlb2m) {
        Ok(bank) => bank,
        Err(e) => {
            println!("SKIP misaligned: {e:#}");
            return Ok(());
        }
    };
    vm.slot(7, 0x7800_0000, 4 * MIB, bank.address() + 2 * MIB + KIB4, 0)?;
    // A recorder reads the slots when it sees that they change, which takes it a while in an emulator.
    thread::sleep(Duration::from_millis(500));
    vm.run(0, Work::pages(Op::Write, 0x7800_0000, 600))?;
    // The same with addresses that fit.
    vm.slot(8, 0x7a00_0000, 2 * MIB, bank.address(), 0)?;
    vm.run(0, Work::pages(Op::Write, 0x7a00_0000, 512)).map(drop)
}

// linux/userfaultfd.h: ioctls of type 0xaa, and their structures as plain words.
const UFFD_API: u64 = 0xaa;
const UFFDIO_API: libc::Ioctl = 0xc018_aa3f;
const UFFDIO_REGISTER: libc::Ioctl = 0xc020_aa00;
const UFFDIO_COPY: libc::Ioctl = 0xc028_aa03;
const UFFDIO_REGISTER_MODE_MISSING: u64 = 1;
/// The size of `struct uffd_msg`; the address of a fault is its third word.
const MESSAGE: usize = 32;

/// Registers memory for faults on pages that are missing; `None` on kernels without userfaultfd.
fn user_faults(bank: &Memory) -> Result<Option<File>> {
    // SAFETY: makes a new descriptor; no memory is involved.
    let fd = unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
    if fd < 0 {
        return Ok(None);
    }
    // SAFETY: the descriptor was just made, and nobody else has it.
    let file = unsafe { File::from_raw_fd(i32::try_from(fd)?) };
    // struct uffdio_api: version, wanted features, ioctls.
    let mut api = [UFFD_API, 0, 0];
    // SAFETY: the kernel reads and writes the 24 bytes of `api`.
    check(unsafe { libc::ioctl(file.as_raw_fd(), UFFDIO_API, api.as_mut_ptr()) }, "UFFDIO_API")?;
    // struct uffdio_register: start, length, mode, ioctls.
    let mut register = [bank.address(), bank.len(), UFFDIO_REGISTER_MODE_MISSING, 0];
    // SAFETY: the kernel reads and writes the 32 bytes of `register`.
    let done = unsafe { libc::ioctl(file.as_raw_fd(), UFFDIO_REGISTER, register.as_mut_ptr()) };
    check(done, "UFFDIO_REGISTER")?;
    Ok(Some(file))
}

/// Provides this many pages.
fn serve(mut fd: File, pages: u64) -> Result<()> {
    let content = vec![7u8; KIB4 as usize];
    for n in 0..pages {
        let mut message = [0u8; MESSAGE];
        while let Err(e) = fd.read_exact(&mut message) {
            if e.kind() != ErrorKind::Interrupted {
                return Err(e).context("reading from userfaultfd");
            }
        }
        let address = u64::from_le_bytes(message[16..24].try_into()?);
        thread::sleep(Duration::from_millis(if n == 0 { 1300 } else { 20 }));
        // struct uffdio_copy: destination, source, length, mode, bytes copied.
        let mut copy = [address & !(KIB4 - 1), content.as_ptr() as u64, KIB4, 0, 0];
        // SAFETY: the kernel reads and writes the 40 bytes of `copy` and reads the page at `content`.
        check(unsafe { libc::ioctl(fd.as_raw_fd(), UFFDIO_COPY, copy.as_mut_ptr()) }, "UFFDIO_COPY")?;
    }
    Ok(())
}
