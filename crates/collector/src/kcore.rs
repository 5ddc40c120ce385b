//! Kernel memory through `/proc/kcore`, which is only ever read. The main type is [`Kcore`]; `kernelvars` reads variables with it, `snapshot`
//! KVM's structures and page tables.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

/// Memory of the kernel that can be read by address.
pub(crate) trait Memory {
    /// Fills `to` with what lies at a kernel-virtual address. The result is `false`, and `to` is undefined, if not all of it can be read.
    fn read(&self, virt: u64, to: &mut [u8]) -> bool;
    /// The address at which the kernel maps a page of RAM; `None` where the address is not one of RAM.
    fn direct(&self, phys: u64) -> Option<u64>;
    /// The host-physical address of an address in the kernel's map of all RAM.
    fn phys(&self, virt: u64) -> Option<u64>;

    /// A value of up to 8 bytes. The host is x86 and little-endian, so the low bytes come first.
    fn number(&self, virt: u64, width: usize) -> Option<u64> {
        let mut b = [0; 8];
        let part = b.get_mut(..width)?;
        self.read(virt, part).then(|| u64::from_le_bytes(b))
    }

    /// A pointer (to something in the kernel's half of the address space), and `None` where the value is anything else.
    fn pointer(&self, virt: u64) -> Option<u64> {
        self.number(virt, 8).filter(|p| *p >> 47 == 0x1_ffff)
    }
}

/// Where a stretch of kernel memory is stored in kcore.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Segment {
    virt: u64,
    /// The host-physical address, where it is a stretch of RAM or of the kernel's image; all ones otherwise.
    phys: u64,
    len: u64,
    offset: u64,
}

/// The kernel's image and its modules lie above this address, the map of all RAM below.
const IMAGE: u64 = 0xffff_ffff_8000_0000;

/// A core file of the kernel with its segments.
#[derive(Debug)]
pub(crate) struct Kcore<F> {
    file: F,
    segments: Vec<Segment>,
}

impl Kcore<File> {
    /// Opens the running kernel's memory.
    pub(crate) fn open() -> io::Result<Self> {
        Self::of(File::open("/proc/kcore")?)
    }
}

impl<F: FileExt> Kcore<F> {
    /// Reads the PT_LOAD segments of an ELF core file.
    pub(crate) fn of(file: F) -> io::Result<Self> {
        let bad = |what| io::Error::new(io::ErrorKind::InvalidData, what);
        let mut head = [0u8; 64];
        file.read_exact_at(&mut head, 0)?;
        if head[..4] != *b"\x7fELF" {
            return Err(bad("not an ELF file"));
        }
        let wide = match head[4] {
            1 => false,
            2 => true,
            _ => return Err(bad("neither 32 nor 64 bit")),
        };
        let u16_at = |b: &[u8], at: usize| u64::from(u16::from_ne_bytes([b[at], b[at + 1]]));
        let u32_at = |b: &[u8], at: usize| {
            b.get(at..at + 4).and_then(|s| s.try_into().ok()).map_or(0, |s| u64::from(u32::from_ne_bytes(s)))
        };
        let u64_at = |b: &[u8], at: usize| {
            b.get(at..at + 8).and_then(|s| s.try_into().ok()).map_or(0, u64::from_ne_bytes)
        };
        let (phoff, phentsize, phnum) = if wide {
            (u64_at(&head, 32), u16_at(&head, 54), u16_at(&head, 56))
        } else {
            (u32_at(&head, 28), u16_at(&head, 42), u16_at(&head, 44))
        };
        if phentsize < if wide { 56 } else { 32 } {
            return Err(bad("program headers too small"));
        }
        let mut table = vec![0u8; (phentsize * phnum) as usize];
        file.read_exact_at(&mut table, phoff)?;
        let segments = table
            .chunks_exact(phentsize as usize)
            .filter(|p| u32_at(p, 0) == 1)
            .map(|p| {
                if wide {
                    let (offset, virt, phys, len) =
                        (u64_at(p, 8), u64_at(p, 16), u64_at(p, 24), u64_at(p, 40));
                    Segment { virt, phys, len, offset }
                } else {
                    let (offset, virt, len) = (u32_at(p, 4), u32_at(p, 8), u32_at(p, 20));
                    Segment { virt, phys: u64::MAX, len, offset }
                }
            })
            .collect();
        Ok(Self { file, segments })
    }

    /// The segment that holds all of a stretch of memory.
    fn segment(&self, virt: u64, len: u64) -> Option<&Segment> {
        self.segments.iter().find(|s| virt >= s.virt && (virt - s.virt).saturating_add(len) <= s.len)
    }

    /// Reads a variable of up to 8 bytes. `Err` says in words why not.
    pub(crate) fn variable(&self, address: u64, width: usize) -> Result<u64, String> {
        let s = self
            .segment(address, width as u64)
            .ok_or_else(|| format!("{address:#x} is in no segment of /proc/kcore"))?;
        let mut b = [0u8; 8];
        self.file
            .read_exact_at(&mut b[..width], s.offset + (address - s.virt))
            .map_err(|e| format!("/proc/kcore at {address:#x}: {e}"))?;
        Ok(u64::from_le_bytes(b))
    }

    fn ram(&self) -> impl Iterator<Item = &Segment> {
        self.segments.iter().filter(|s| s.virt < IMAGE && s.phys != u64::MAX)
    }
}

impl<F: FileExt> Memory for Kcore<F> {
    fn read(&self, virt: u64, to: &mut [u8]) -> bool {
        self.segment(virt, to.len() as u64).is_some_and(|s| {
            let at = s.offset.checked_add(virt - s.virt);
            at.is_some_and(|at| self.file.read_exact_at(to, at).is_ok())
        })
    }

    fn direct(&self, phys: u64) -> Option<u64> {
        let s = self.ram().find(|s| phys >= s.phys && (phys - s.phys).saturating_add(4096) <= s.len)?;
        Some(s.virt + (phys - s.phys))
    }

    fn phys(&self, virt: u64) -> Option<u64> {
        let s = self.ram().find(|s| virt >= s.virt && virt - s.virt < s.len)?;
        s.phys.checked_add(virt - s.virt)
    }
}
