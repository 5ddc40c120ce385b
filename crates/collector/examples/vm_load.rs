//! A small VM that exercises KVM's MMU: `vm_load [SECONDS] [VCPUS]`.
//!
//! The guest is thirty bytes of code in long mode at CPL 3 (which a PVM host also runs natively): it reads or writes pages on command. A fixed
//! round comes first, with the same number of faults every time. Then, for SECONDS, every vCPU touches pages while the VMM discards them
//! again, which causes many faults and zaps. It prints how many pages the guest touched, and how fast.
#![allow(unsafe_code)]

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Kvm, VcpuExit, VcpuFd, VmFd};

type Error = Box<dyn std::error::Error + Send + Sync>;

const MIB: u64 = 1 << 20;
const PAGE: u64 = 4096;
const MEMORY: u64 = 64 * MIB;
const CODE: u64 = 0x1000;
/// The address of four-level tables for CPL 3 that map the first 4 GiB one to one with 2 MiB pages.
const PML4: u64 = 0x2000;
const PDPT: u64 = 0x3000;
const PDS: u64 = 0x10000;

/// Does this rcx times: writes rcx to [rdi] (rax 0) or reads it (rax 1), then rdi += rsi. At the end it executes `out`.
const GUEST: [u8; 30] = [
    0x48, 0x85, 0xc9, // again: test rcx, rcx
    0x74, 0x15, //        jz done
    0x48, 0x85, 0xc0, //  test rax, rax
    0x75, 0x05, //        jnz read
    0x48, 0x89, 0x0f, //  mov [rdi], rcx
    0xeb, 0x03, //        jmp next
    0x48, 0x8b, 0x1f, // read: mov rbx, [rdi]
    0x48, 0x01, 0xf7, // next: add rdi, rsi
    0x48, 0xff, 0xc9, //  dec rcx
    0xeb, 0xe6, //        jmp again
    0xe6, 0x10, // done:  out 0x10, al
    0xeb, 0xe2, //        jmp again
];

/// Guest memory.
#[derive(Clone, Copy)]
struct Memory(*mut u8);

// SAFETY: the mapping lives until the process ends; the guest writes to it from any thread anyway, and we only write before it runs.
unsafe impl Send for Memory {}

impl Memory {
    fn new() -> Result<Self, Error> {
        // SAFETY: a fresh private mapping.
        let p = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                MEMORY as usize,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_NORESERVE,
                -1,
                0,
            )
        };
        if p == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error().into());
        }
        // SAFETY: our own mapping. 4 KiB pages: every page has a fault of its own.
        unsafe { libc::madvise(p, MEMORY as usize, libc::MADV_NOHUGEPAGE) };
        Ok(Self(p.cast()))
    }

    fn write(self, at: u64, bytes: &[u8]) {
        assert!(at + bytes.len() as u64 <= MEMORY);
        // SAFETY: inside the mapping (just checked); nothing runs in the guest yet.
        unsafe { std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.0.add(at as usize), bytes.len()) };
    }

    /// Gives the pages back, so that KVM has to zap them.
    fn discard(self, at: u64, len: u64) {
        assert!(at + len <= MEMORY);
        // SAFETY: inside our own mapping; losing the contents is the point.
        unsafe { libc::madvise(self.0.add(at as usize).cast(), len as usize, libc::MADV_DONTNEED) };
    }
}

fn tables(memory: Memory) {
    memory.write(PML4, &(PDPT | 7).to_le_bytes());
    for i in 0..4u64 {
        memory.write(PDPT + i * 8, &((PDS + i * PAGE) | 7).to_le_bytes());
        for j in 0..512u64 {
            memory.write(PDS + i * PAGE + j * 8, &((i << 30) | (j << 21) | 0x87).to_le_bytes());
        }
    }
}

fn vcpu(kvm: &Kvm, vm: &VmFd, index: u64) -> Result<VcpuFd, Error> {
    let vcpu = vm.create_vcpu(index)?;
    vcpu.set_cpuid2(&kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES)?)?;
    let mut s = vcpu.get_sregs()?;
    (s.cr3, s.cr4, s.cr0, s.efer) = (PML4, 0x20, 0x8000_0011, 0x500);
    let code = kvm_segment {
        limit: u32::MAX,
        selector: 0x33,
        present: 1,
        type_: 11,
        dpl: 3,
        s: 1,
        l: 1,
        g: 1,
        ..kvm_segment::default()
    };
    let data = kvm_segment { selector: 0x2b, type_: 3, l: 0, db: 1, ..code };
    s.cs = code;
    (s.ds, s.es, s.fs, s.gs, s.ss) = (data, data, data, data, data);
    vcpu.set_sregs(&s)?;
    Ok(vcpu)
}

/// Lets the guest touch `count` pages from `start` on.
fn touch(vcpu: &mut VcpuFd, write: bool, start: u64, stride: u64, count: u64) -> Result<(), Error> {
    vcpu.set_regs(&kvm_regs {
        rip: CODE,
        // IOPL is 3: the guest ends its round with `out` at CPL 3.
        rflags: 0x3202,
        rax: u64::from(!write),
        rdi: start,
        rsi: stride,
        rcx: count,
        ..kvm_regs::default()
    })?;
    loop {
        match vcpu.run() {
            Ok(VcpuExit::IoOut(0x10, _)) => return Ok(()),
            Ok(VcpuExit::MmioRead(_, data)) => data.fill(0),
            Ok(VcpuExit::MmioWrite(..)) => {}
            Ok(other) => return Err(format!("the guest stopped: {other:?}").into()),
            Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => {}
            Err(e) => return Err(e.into()),
        }
    }
}

fn main() -> Result<(), Error> {
    let mut args = std::env::args().skip(1);
    let seconds: f64 = args.next().map_or(Ok(1.0), |a| a.parse())?;
    let vcpus: u64 = args.next().map_or(Ok(2), |a| a.parse())?;
    let kvm = Kvm::new()?;
    let vm = kvm.create_vm()?;
    vm.set_tss_address(0xfffb_d000)?;
    let memory = Memory::new()?;
    tables(memory);
    memory.write(CODE, &GUEST);
    let slot = kvm_userspace_memory_region {
        memory_size: MEMORY,
        userspace_addr: memory.0 as u64,
        ..kvm_userspace_memory_region::default()
    };
    // SAFETY: the mapping is as large as the slot says and is never unmapped.
    unsafe { vm.set_user_memory_region(slot)? };
    let mut cpus = (0..vcpus).map(|i| vcpu(&kvm, &vm, i)).collect::<Result<Vec<_>, _>>()?;

    // The fixed round has reads, writes after reads, and MMIO.
    touch(&mut cpus[0], false, 4 * MIB, PAGE, 256)?;
    touch(&mut cpus[0], true, 4 * MIB, PAGE, 256)?;
    touch(&mut cpus[0], true, 0xd000_0000, PAGE, 16)?;

    // The storm touches 16 pages at a time out of 8 MiB, which are discarded piece by piece.
    let stop = Arc::new(AtomicBool::new(false));
    let touched = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let threads: Vec<_> = cpus
        .into_iter()
        .enumerate()
        .map(|(i, mut cpu)| {
            let (stop, touched) = (Arc::clone(&stop), Arc::clone(&touched));
            std::thread::Builder::new().name(format!("vcpu{i}")).spawn(move || -> Result<(), Error> {
                let mut seed = i as u64 * 77 + 1;
                while !stop.load(Ordering::Relaxed) {
                    seed =
                        seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    touch(&mut cpu, seed >> 63 == 0, 16 * MIB + (seed >> 33) % 2032 * PAGE, PAGE, 16)?;
                    touched.fetch_add(16, Ordering::Relaxed);
                }
                Ok(())
            })
        })
        .collect::<Result<_, _>>()?;
    let mut piece = 0;
    while began.elapsed() < Duration::from_secs_f64(seconds) {
        memory.discard(16 * MIB + piece * MIB, MIB);
        piece = (piece + 1) % 8;
        std::thread::sleep(Duration::from_micros(500));
    }
    stop.store(true, Ordering::Relaxed);
    for t in threads {
        t.join().map_err(|_| "a vCPU thread panicked")??;
    }
    // A slot is added and deleted, which makes KVM zap all page tables at once (kvm_mmu_zap_all_fast).
    let extra =
        kvm_userspace_memory_region { slot: 1, guest_phys_addr: 1 << 30, memory_size: 2 * MIB, ..slot };
    // SAFETY: inside the same mapping as slot 0; a size of 0 only deletes.
    unsafe {
        vm.set_user_memory_region(extra)?;
        vm.set_user_memory_region(kvm_userspace_memory_region { memory_size: 0, ..extra })?;
    }
    let n = touched.load(Ordering::Relaxed);
    println!(
        "touched {n} pages in {:.3} s, {:.0} a second",
        began.elapsed().as_secs_f64(),
        n as f64 / began.elapsed().as_secs_f64()
    );
    Ok(())
}
