//! One VM: guest memory, vCPU threads that obey commands, and the memory slots. The main type is [`Vm`].

use std::{
    fs::File,
    os::fd::FromRawFd as _,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread::{self, JoinHandle},
};

use anyhow::{Context, Result, anyhow, bail};
use kvm_bindings::{KVM_MAX_CPUID_ENTRIES, kvm_regs, kvm_segment, kvm_userspace_memory_region};
use kvm_ioctls::{Cap, Kvm, VcpuExit, VcpuFd, VmFd};
use mmuscope_lab::host::{Backing, Guest, Workload};

use crate::guest::{self, Op};

pub(crate) const KIB4: u64 = 4096;
pub(crate) const MIB: u64 = 1 << 20;
/// The guest addresses of fixed items in low memory: the top-level table.
pub(crate) const ROOT: u64 = 0x2000;
/// A second top-level table, which is a copy of the first.
pub(crate) const ROOT2: u64 = 0x4000;
const POINTERS: u64 = 0x3000;
const CODE: u64 = 0x6000;
const DIRECTORIES: u64 = 0x10000;
/// Sixteen page tables with 4 KiB entries, for the phases that edit them.
pub(crate) const TABLES: u64 = 0x20000;
/// The address at which SMM enters: SMBASE (as after reset) + 0x8000.
pub(crate) const SMM_ENTRY: u64 = 0x38000;
/// The guest-virtual window that the page tables at [`TABLES`] map.
pub(crate) const WINDOW: u64 = 1 << 30;

/// Memory of this process that guests use.
pub(crate) struct Memory {
    at: *mut u8,
    len: usize,
}

// SAFETY: plain bytes that this process, its vCPUs and the guests change at any time; nobody keeps references into them.
unsafe impl Send for Memory {}
// SAFETY: as above; all access goes through raw copies.
unsafe impl Sync for Memory {}

impl Memory {
    /// Maps `len` bytes, aligned to `align`.
    pub(crate) fn new(len: u64, backing: Backing) -> Result<Self> {
        let (flags, align) = match backing {
            Backing::Anonymous => (0, 2 * MIB),
            Backing::Hugetlb2m => (libc::MAP_HUGETLB | 21 << libc::MAP_HUGE_SHIFT, 0),
            Backing::Hugetlb1g => (libc::MAP_HUGETLB | 30 << libc::MAP_HUGE_SHIFT, 0),
        };
        let whole = (len + align) as usize;
        // SAFETY: a fresh anonymous mapping; nothing else refers to it.
        let at = unsafe {
            libc::mmap(
                std::ptr::null_mut(),
                whole,
                libc::PROT_READ | libc::PROT_WRITE,
                libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | flags,
                -1,
                0,
            )
        };
        if at == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error())
                .with_context(|| format!("mapping {len:#x} bytes of guest memory ({backing:?})"));
        }
        let at = if align == 0 { at.cast::<u8>() } else { (at as u64).next_multiple_of(align) as *mut u8 };
        Ok(Self { at, len: len as usize })
    }

    /// Maps a file of `len` bytes that has no name, shared.
    pub(crate) fn of_file(len: u64) -> Result<FileMemory> {
        // SAFETY: makes a new descriptor from a constant name.
        let fd = unsafe { libc::memfd_create(c"lab".as_ptr(), 0) };
        check(fd, "memfd_create")?;
        // SAFETY: the descriptor was just made, and nobody else has it.
        let file = unsafe { File::from_raw_fd(fd) };
        file.set_len(len).context("a file for guest memory")?;
        let prot = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: a fresh mapping; nothing else refers to it.
        let at = unsafe { libc::mmap(std::ptr::null_mut(), len as usize, prot, libc::MAP_SHARED, fd, 0) };
        if at == libc::MAP_FAILED {
            return Err(std::io::Error::last_os_error()).context("mapping a file for guest memory");
        }
        Ok(FileMemory { file, at: at as u64 })
    }

    pub(crate) fn address(&self) -> u64 {
        self.at as u64
    }

    pub(crate) fn len(&self) -> u64 {
        self.len as u64
    }

    fn part(&self, offset: u64, len: u64) -> *mut u8 {
        assert!(offset + len <= self.len as u64, "guest memory is smaller than {:#x}", offset + len);
        // SAFETY: inside the mapping, as just checked.
        unsafe { self.at.add(offset as usize) }
    }

    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) {
        let to = self.part(offset, bytes.len() as u64);
        // SAFETY: `part` checked the target; a slice of ours cannot overlap guest memory.
        unsafe { to.copy_from_nonoverlapping(bytes.as_ptr(), bytes.len()) };
    }

    pub(crate) fn fill(&self, offset: u64, len: u64, byte: u8) {
        let to = self.part(offset, len);
        // SAFETY: `part` checked the range.
        unsafe { to.write_bytes(byte, len as usize) };
    }

    pub(crate) fn advise(&self, offset: u64, len: u64, advice: i32) -> Result<()> {
        let at = self.part(offset, len);
        // SAFETY: our own mapping; guest memory may change its content at any time anyway.
        check(unsafe { libc::madvise(at.cast(), len as usize, advice) }, "madvise")
    }

    pub(crate) fn protect(&self, offset: u64, len: u64, prot: i32) -> Result<()> {
        let at = self.part(offset, len);
        // SAFETY: our own mapping.
        check(unsafe { libc::mprotect(at.cast(), len as usize, prot) }, "mprotect")
    }
}

/// A file that guests use as memory.
pub(crate) struct FileMemory {
    file: File,
    at: u64,
}

impl FileMemory {
    pub(crate) fn address(&self) -> u64 {
        self.at
    }

    /// Makes the file shorter; what was mapped behind its end is no memory any more.
    pub(crate) fn cut(&self, len: u64) -> Result<()> {
        self.file.set_len(len).context("cutting a file of guest memory")
    }
}

pub(crate) fn check(result: i32, what: &str) -> Result<()> {
    if result < 0 { Err(std::io::Error::last_os_error()).with_context(|| what.to_owned()) } else { Ok(()) }
}

/// A command to a vCPU thread.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Work {
    pub op: Op,
    pub at: u64,
    pub step: u64,
    pub count: u64,
    pub value: u64,
    pub value_step: u64,
}

impl Work {
    /// Does `op` on `count` pages from `at` on.
    pub(crate) fn pages(op: Op, at: u64, count: u64) -> Self {
        Self { op, at, step: KIB4, count, value: 0x1234_5678, value_step: 1 }
    }
}

enum Command {
    Once(Work),
    /// Random short runs inside `0..len` bytes from `at`, until the vCPU is asked to stop.
    Churn {
        at: u64,
        len: u64,
        seed: u64,
        stop: Arc<AtomicBool>,
    },
    /// Work in which KVM_RUN returns -EFAULT; it is tried up to this many times.
    Failing(Work, u64),
    /// Raise an SMI, then run the work.
    Smi(Work),
    Prefault {
        at: u64,
        len: u64,
    },
}

struct Cpu {
    commands: Sender<Command>,
    results: Receiver<Result<u64>>,
    thread: Option<JoinHandle<()>>,
}

/// A VM with its vCPU threads.
pub(crate) struct Vm {
    pub fd: VmFd,
    pub memory: Arc<Memory>,
    pub guest: Guest,
    pub kvm: Kvm,
    pub irqchip: bool,
    cpus: Vec<Cpu>,
}

impl Vm {
    pub(crate) fn new(plan: &Workload, len: u64) -> Result<Self> {
        let kvm = Kvm::new().context("/dev/kvm")?;
        let fd = kvm.create_vm().context("KVM_CREATE_VM")?;
        if plan.disable_quirks != 0 {
            let cap = kvm_bindings::kvm_enable_cap {
                cap: kvm_bindings::KVM_CAP_DISABLE_QUIRKS2,
                args: [plan.disable_quirks, 0, 0, 0],
                ..Default::default()
            };
            fd.enable_cap(&cap).context("disabling quirks")?;
        }
        // Only Intel's real-mode emulation needs it; other modules refuse or ignore it.
        let _ = fd.set_tss_address(0xfffb_d000);
        if plan.irqchip {
            fd.create_irq_chip().context("KVM_CREATE_IRQCHIP")?;
        }
        let memory = Arc::new(Memory::new(len, plan.backing)?);
        let mut vm = Self { fd, memory, guest: plan.guest, kvm, irqchip: plan.irqchip, cpus: Vec::new() };
        vm.lay_out();
        vm.slot(0, 0, vm.memory.len(), vm.memory.address(), 0)?;
        for index in 0..plan.vcpus {
            let cpu = vm.start_cpu(index)?;
            vm.cpus.push(cpu);
        }
        Ok(vm)
    }

    pub(crate) fn vcpus(&self) -> usize {
        self.cpus.len()
    }

    /// Adds, changes or (with length 0) deletes a memory slot.
    pub(crate) fn slot(&self, slot: u32, gpa: u64, len: u64, address: u64, flags: u32) -> Result<()> {
        let region = kvm_userspace_memory_region {
            slot,
            flags,
            guest_phys_addr: gpa,
            memory_size: len,
            userspace_addr: address,
        };
        // SAFETY: the memory behind the slot lives as long as the VM: `Memory` never unmaps.
        unsafe { self.fd.set_user_memory_region(region) }
            .with_context(|| format!("slot {slot:#x} at {gpa:#x}+{len:#x}"))
    }

    /// Writes the guest's page tables twice: an identity map of 4 GiB with 2 MiB (or 4 MiB) pages, in the format of its paging mode.
    fn lay_out(&self) {
        let word = |at: u64, v: u64| self.memory.write(at, &v.to_le_bytes());
        match self.guest {
            Guest::Long | Guest::User => {
                word(ROOT, POINTERS | 7);
                word(ROOT2, POINTERS | 7);
            }
            Guest::Paging32 => {
                for i in 0..1024u64 {
                    let pde = (i as u32) << 22 | 0x87;
                    self.memory.write(ROOT + i * 4, &pde.to_le_bytes());
                    self.memory.write(ROOT2 + i * 4, &pde.to_le_bytes());
                }
            }
            Guest::Pae | Guest::Flat => {}
        }
        // PAE pointers must not have W or U set.
        let (pointers, flags) =
            if self.guest == Guest::Pae { (&[ROOT, ROOT2][..], 1) } else { (&[POINTERS][..], 7) };
        if self.guest != Guest::Paging32 && self.guest != Guest::Flat {
            for i in 0..4u64 {
                for p in pointers {
                    word(p + i * 8, (DIRECTORIES + i * KIB4) | flags);
                }
                for j in 0..512 {
                    word(DIRECTORIES + i * KIB4 + j * 8, i << 30 | j << 21 | 0x87);
                }
            }
        }
        self.memory.write(CODE, guest::code(self.long()));
        self.memory.write(SMM_ENTRY, guest::smm_code());
    }

    pub(crate) fn long(&self) -> bool {
        matches!(self.guest, Guest::Long | Guest::User)
    }

    /// The size in bytes of one of the guest's page-table entries; `None` without paging.
    pub(crate) fn gpte_bytes(&self) -> Option<u64> {
        match self.guest {
            Guest::Flat => None,
            Guest::Paging32 => Some(4),
            Guest::Long | Guest::User | Guest::Pae => Some(8),
        }
    }

    /// The guest-physical address of the directory entry that maps [`WINDOW`].
    pub(crate) fn window_entry(&self) -> u64 {
        match self.guest {
            Guest::Paging32 => ROOT + (WINDOW >> 22) * 4,
            _ => DIRECTORIES + (WINDOW >> 30) * KIB4,
        }
    }

    fn start_cpu(&self, index: u32) -> Result<Cpu> {
        let fd = self.fd.create_vcpu(u64::from(index)).context("KVM_CREATE_VCPU")?;
        let cpuid = self.kvm.get_supported_cpuid(KVM_MAX_CPUID_ENTRIES).context("KVM_GET_SUPPORTED_CPUID")?;
        fd.set_cpuid2(&cpuid).context("KVM_SET_CPUID2")?;
        self.set_mode(&fd)?;
        if self.irqchip {
            // With an interrupt controller, all vCPUs but the first wait for another to start them.
            let runs = kvm_bindings::kvm_mp_state { mp_state: kvm_bindings::KVM_MP_STATE_RUNNABLE };
            fd.set_mp_state(runs).context("KVM_SET_MP_STATE")?;
        }
        let code = guest::code(self.long());
        let (commands, rx) = channel();
        let (tx, results) = channel();
        let flags = match (self.guest, self.irqchip) {
            // With IOPL 3, a guest at CPL 3 may use its port.
            (Guest::User, _) => 0x3202,
            // KVM waits for a page while the guest goes on only where the guest could take an interrupt. There is none, as nothing has a timer.
            (_, true) => 0x202,
            _ => 2,
        };
        let mut runner = Runner { fd, back: CODE + guest::back(code), flags };
        let thread = thread::Builder::new().name(format!("vcpu{index}")).spawn(move || {
            while let Ok(command) = rx.recv() {
                if tx.send(runner.obey(command)).is_err() {
                    break;
                }
            }
        })?;
        Ok(Cpu { commands, results, thread: Some(thread) })
    }

    fn set_mode(&self, fd: &VcpuFd) -> Result<()> {
        let (cr0, cr4, efer) = match self.guest {
            Guest::Long | Guest::User => (0x8000_0011, 0x20, 0x500),
            Guest::Paging32 => (0x8000_0011, 0x10, 0),
            Guest::Pae => (0x8000_0011, 0x20, 0),
            Guest::Flat => (0x11, 0, 0),
        };
        let dpl = if self.guest == Guest::User { 3 } else { 0 };
        let long = u8::from(self.long());
        let mut sregs = fd.get_sregs().context("KVM_GET_SREGS")?;
        sregs.cr0 = cr0;
        sregs.cr3 = ROOT;
        sregs.cr4 = cr4;
        sregs.efer = efer;
        let data = kvm_segment {
            limit: 0xffff_ffff,
            selector: 0x28 | u16::from(dpl),
            present: 1,
            type_: 3,
            dpl,
            db: 1,
            s: 1,
            g: 1,
            ..Default::default()
        };
        sregs.cs = kvm_segment { selector: 0x30 | u16::from(dpl), type_: 11, db: 1 - long, l: long, ..data };
        (sregs.ds, sregs.es, sregs.fs, sregs.gs, sregs.ss) = (data, data, data, data, data);
        fd.set_sregs(&sregs).context("KVM_SET_SREGS")
    }

    fn send(&self, cpu: usize, command: Command) -> Result<()> {
        self.cpus[cpu].commands.send(command).map_err(|_| anyhow!("vCPU {cpu} is gone"))
    }

    fn wait(&self, cpu: usize) -> Result<u64> {
        self.cpus[cpu].results.recv().map_err(|_| anyhow!("vCPU {cpu} died"))?
    }

    /// Runs `work` on a vCPU to its end, and returns how many times KVM_RUN returned.
    pub(crate) fn run(&self, cpu: usize, work: Work) -> Result<u64> {
        self.send(cpu, Command::Once(work))?;
        self.wait(cpu)
    }

    /// Runs `work`, in which KVM_RUN returns -EFAULT, up to this many times, and returns how many times it failed.
    pub(crate) fn run_failing(&self, cpu: usize, work: Work, tries: u64) -> Result<u64> {
        self.send(cpu, Command::Failing(work, tries))?;
        self.wait(cpu)
    }

    /// Sends an SMI to a vCPU, which then runs `work`.
    pub(crate) fn smi(&self, cpu: usize, work: Work) -> Result<u64> {
        self.send(cpu, Command::Smi(work))?;
        self.wait(cpu)
    }

    /// Calls KVM_PRE_FAULT_MEMORY; the result is 0 where the kernel does not have it.
    pub(crate) fn prefault(&self, cpu: usize, at: u64, len: u64) -> Result<u64> {
        self.send(cpu, Command::Prefault { at, len })?;
        self.wait(cpu)
    }

    /// Lets all vCPUs touch pages of a range at random while `meanwhile` runs, and returns how many rounds they made.
    pub(crate) fn churn(&self, at: u64, len: u64, meanwhile: impl FnOnce() -> Result<()>) -> Result<u64> {
        self.churn_from(0, at, len, meanwhile)
    }

    /// Does the same on all vCPUs except the first, which `meanwhile` may command.
    pub(crate) fn churn_others(
        &self,
        at: u64,
        len: u64,
        meanwhile: impl FnOnce() -> Result<()>,
    ) -> Result<u64> {
        self.churn_from(1, at, len, meanwhile)
    }

    fn churn_from(
        &self,
        first: usize,
        at: u64,
        len: u64,
        meanwhile: impl FnOnce() -> Result<()>,
    ) -> Result<u64> {
        let stop = Arc::new(AtomicBool::new(false));
        for cpu in first..self.cpus.len() {
            self.send(cpu, Command::Churn { at, len, seed: cpu as u64 * 77 + 1, stop: Arc::clone(&stop) })?;
        }
        let result = meanwhile();
        stop.store(true, Ordering::Relaxed);
        let mut rounds = 0;
        for cpu in first..self.cpus.len() {
            rounds += self.wait(cpu)?;
        }
        result.map(|()| rounds)
    }

    /// Whether this KVM has the capability `cap`.
    pub(crate) fn can(&self, cap: Cap) -> bool {
        self.fd.check_extension(cap)
    }
}

impl Drop for Vm {
    fn drop(&mut self) {
        for mut cpu in self.cpus.drain(..) {
            let thread = cpu.thread.take();
            drop(cpu);
            if let Some(t) = thread {
                let _ = t.join();
            }
        }
    }
}

/// The state of a vCPU's thread.
struct Runner {
    fd: VcpuFd,
    back: u64,
    flags: u64,
}

impl Runner {
    fn obey(&mut self, command: Command) -> Result<u64> {
        match command {
            Command::Once(work) => self.once(work),
            Command::Failing(work, tries) => self.failing(work, tries),
            Command::Smi(work) => {
                self.fd.smi().context("KVM_SMI")?;
                self.once(work)
            }
            Command::Churn { at, len, mut seed, stop } => {
                let mut rounds = 0;
                while !stop.load(Ordering::Relaxed) {
                    // A linear congruential generator gives the same pages in every run of the lab.
                    seed =
                        seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let page = (seed >> 33) % (len / KIB4 - 16);
                    let op = if rounds & 1 == 0 { Op::Write } else { Op::Read };
                    self.once(Work::pages(op, at + page * KIB4, 16))?;
                    rounds += 1;
                }
                Ok(rounds)
            }
            Command::Prefault { at, len } => {
                use std::os::fd::AsRawFd as _;
                // The argument is struct kvm_pre_fault_memory; the kernel advances gpa and size.
                let mut range = [at, len, 0, 0, 0, 0, 0, 0];
                let (mut done, number) = (0, 0xc040_aed5);
                while range[1] != 0 {
                    // SAFETY: the kernel reads and writes the 64 bytes of `range`.
                    if unsafe { libc::ioctl(self.fd.as_raw_fd(), number, range.as_mut_ptr()) } < 0 {
                        let e = std::io::Error::last_os_error();
                        match e.raw_os_error() {
                            Some(libc::EINTR | libc::EAGAIN) => continue,
                            _ => {
                                return if done == 0 {
                                    Ok(0)
                                } else {
                                    Err(e).context("KVM_PRE_FAULT_MEMORY")
                                };
                            }
                        }
                    }
                    done += 1;
                }
                Ok(done)
            }
        }
    }

    fn failing(&mut self, work: Work, tries: u64) -> Result<u64> {
        self.begin(work)?;
        for failed in 0..tries {
            match self.fd.run() {
                Ok(VcpuExit::MemoryFault { .. }) => {}
                Err(e) if e.errno() == libc::EFAULT => {}
                Ok(VcpuExit::IoOut(0x10, _)) => return Ok(failed),
                Ok(other) => bail!("{work:?} ended in {other:?}"),
                Err(e) => return Err(e).with_context(|| format!("KVM_RUN during {work:?}")),
            }
        }
        Ok(tries)
    }

    /// Sets the registers for work.
    fn begin(&mut self, work: Work) -> Result<()> {
        let mut regs: kvm_regs = self.fd.get_regs().context("KVM_GET_REGS")?;
        regs.rip = CODE;
        regs.rflags = self.flags;
        regs.rax = work.op as u64;
        (regs.rsi, regs.rdx, regs.rcx) = (work.at, work.step, work.count);
        (regs.rbx, regs.rbp, regs.rdi) = (work.value, work.value_step, self.back);
        self.fd.set_regs(&regs).context("KVM_SET_REGS")
    }

    fn once(&mut self, work: Work) -> Result<u64> {
        self.begin(work)?;
        let mut exits = 0;
        loop {
            exits += 1;
            match self.fd.run() {
                Ok(VcpuExit::IoOut(0x10, _)) => return Ok(exits),
                Ok(VcpuExit::MmioRead(_, data)) => data.fill(0),
                Ok(VcpuExit::MmioWrite(..) | VcpuExit::Intr) => {}
                Ok(other) => bail!("{work:?} ended in {other:?}"),
                Err(e) if matches!(e.errno(), libc::EINTR | libc::EAGAIN) => {}
                Err(e) => return Err(e).with_context(|| format!("KVM_RUN during {work:?}")),
            }
        }
    }
}
