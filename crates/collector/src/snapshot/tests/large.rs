//! How large the snapshot of a large guest is, and how long it takes to read: the tables of a guest in pages of 4 KiB, in a file of the form of
//! `/proc/kcore`. The test reads 1 GiB; `cargo xtask bench snapshot [GIB]` runs it in release mode with more, and prints what it measures.

use std::fs::File;
use std::io::Write as _;
use std::path::Path;

use mmuscope_snapshot::{Piece, unpack};

use super::super::{shape::Shape, shot::read, tables::Bits};
use super::{RAM, modern};
use crate::capture::Capture;
use crate::kcore::Kcore;
use crate::preamble::{Preamble, snapshot};
use crate::types::Types;

/// The number of GiB of the guest, in place of 1; set by `cargo xtask bench snapshot`.
const GIB: &str = "MMUSCOPE_BENCH_GIB";
/// A folder to which the bench writes each snapshot as a capture, so that the commands can be tried on it.
const KEEP: &str = "MMUSCOPE_BENCH_KEEP";

/// Where the structures lie in the made memory, from its beginning; the tables follow.
const VM_LIST: u64 = 0;
const KVM: u64 = 0x1000;
const SLOTS: u64 = 0x2000;
const ROOT_SP: u64 = 0x3000;
const TABLES: u64 = 0x10000;
/// The bits of entries that 6.1 writes with NPT, as recorded in `samples/6.1-npt`.
const LEAF: u64 = 0xe67;
const LINK: u64 = 0x827;
/// The size of the head of the file: an ELF header and one program header.
const HEAD: u64 = 4096;

/// How the guest's frames lie in the host's memory.
#[derive(Clone, Copy, Debug)]
enum Host {
    /// One after the other.
    Contiguous,
    /// In blocks of 1 to 256 pages, all block sizes being equally many: memory in which 2 MiB are nowhere free.
    Blocks,
    /// Each anywhere.
    Scattered,
}

impl Host {
    /// The host frames of that many guest frames, in a host with twice as many. None is used twice where they are not scattered.
    fn frames(self, count: u64) -> Vec<u64> {
        let mut seed = 0x9e37_79b9_7f4a_7c15u64;
        let mut random = || {
            // xorshift
            seed ^= seed << 13;
            seed ^= seed >> 7;
            seed ^= seed << 17;
            seed
        };
        let first = 0x10_0000;
        let mut out = Vec::with_capacity(count as usize + 256);
        while (out.len() as u64) < count {
            let (size, at) = match self {
                Self::Contiguous => (1, out.len() as u64),
                Self::Blocks => {
                    let size = 1 << (random() % 9);
                    (size, random() % (2 * count) / size * size)
                }
                Self::Scattered => (1, random() % (2 * count)),
            };
            out.extend((0..size).map(|i| first + at + i));
        }
        out.truncate(count as usize);
        out
    }
}

/// Memory that holds a VM whose guest has these host frames behind its own, all in pages of 4 KiB.
struct Made(Vec<u8>);

impl Made {
    fn of(frames: &[u64]) -> Self {
        let last = frames.len() / 512;
        let directories = last.div_ceil(512);
        let mut m = Self(vec![0; TABLES as usize + 4096 * (2 + directories + last)]);
        for (head, link) in [(VM_LIST, KVM + 32), (KVM + 64, KVM + 64), (KVM + 64 + 32, ROOT_SP)] {
            // A list of one, or of none.
            m.word(head, RAM + link);
            m.word(head + 8, RAM + link);
            m.word(link, RAM + head);
            m.word(link + 8, RAM + head);
        }
        m.word(KVM + 128, 4242);
        // The slot in the tree of address space 0.
        m.word(KVM, RAM + SLOTS);
        m.word(SLOTS + 8, RAM + SLOTS + 0x100);
        m.word(SLOTS + 0x100 + 56, frames.len() as u64);
        m.word(SLOTS + 0x100 + 64, 0x7f00_0000_0000);
        m.word(ROOT_SP + 16, 0x0104);
        m.word(ROOT_SP + 32, RAM + TABLES);
        m.word(TABLES, (TABLES + 4096) | LINK);
        let table = |n: usize| TABLES + 4096 * (2 + n as u64);
        for d in 0..directories {
            m.word(TABLES + 4096 + 8 * d as u64, table(d) | LINK);
        }
        for (n, leaves) in frames.chunks_exact(512).enumerate() {
            let own = table(directories + n);
            m.word(table(n / 512) + 8 * (n % 512) as u64, own | LINK);
            for (i, pfn) in leaves.iter().enumerate() {
                m.word(own + 8 * i as u64, pfn << 12 | LEAF);
            }
        }
        m
    }

    fn word(&mut self, at: u64, v: u64) {
        self.0[at as usize..at as usize + 8].copy_from_slice(&v.to_le_bytes());
    }

    /// The same as a core file with one segment, which is all of RAM.
    fn core(&self) -> Kcore<File> {
        let mut head = b"\x7fELF\x02\x01\x01".to_vec();
        head.resize(64, 0);
        // Where the program headers lie, the size of one, and how many there are.
        head[32..40].copy_from_slice(&64u64.to_le_bytes());
        head[54..58].copy_from_slice(&[56, 0, 1, 0]);
        for v in [1, HEAD, RAM, 0, self.0.len() as u64, self.0.len() as u64, 4096] {
            head.extend(u64::to_le_bytes(v));
        }
        head.resize(HEAD as usize, 0);
        let mut file = tempfile::tempfile().expect("a temporary file");
        file.write_all(&head).and_then(|()| file.write_all(&self.0)).expect("room for the memory");
        Kcore::of(file).expect("a core file")
    }
}

/// Writes a capture that holds these records, as `mmuscope snapshot` does.
fn keep(path: &Path, bodies: &[Vec<u8>]) {
    let fact = |(k, v): (&str, &str)| (k.to_owned(), v.to_owned());
    let facts = [
        ("facts.version", "1"),
        ("kernel.release", "6.1.0-56-cloud-amd64"),
        ("kernel.machine", "x86_64"),
        ("cpu.vendor", "AuthenticAMD"),
        ("cpu.phys_bits", "48"),
        ("cpu.maxphyaddr", "48"),
        ("param.kvm.tdp_mmu", "Y"),
        ("param.kvm_amd.npt", "Y"),
    ];
    let (release, arch) = (facts[1].1.to_owned(), facts[2].1.to_owned());
    let facts = facts.into_iter().map(fact).collect();
    let preamble = Preamble { release, arch, facts, compressed: true, level: 1, ..Preamble::default() };
    let file = File::create(path).expect("a file for the capture");
    let mut capture = Capture::start(file, &preamble).expect("room for the capture");
    let mut records = Vec::new();
    for b in bodies {
        snapshot(&mut records, b);
    }
    capture.plain(&records);
    capture.finish(&[]).expect("room for the capture");
}

#[test]
fn a_large_guest_takes_little_room() {
    let gib = std::env::var(GIB).map_or(1, |n| n.parse().expect("a number of GiB"));
    let btf = modern();
    let shape = Shape::of(&Types::new(&btf, None).expect("a BTF")).expect("all members");
    // At most so many bits an entry. A host frame that may be any of 2 to the power of n has n bits that nothing can be known of.
    for (host, most) in [(Host::Contiguous, 0.5), (Host::Blocks, 4.0), (Host::Scattered, 40.0)] {
        let frames = host.frames(gib << 18);
        let core = Made::of(&frames).core();
        let shot = read(&core, &shape, Bits::default(), RAM + VM_LIST, (&|_| true, None), Some(1));
        assert!(shot.vms[0].complete && shot.vms[0].torn == 0, "{shot}");
        let bytes: usize = shot.records.iter().map(Vec::len).sum();
        let bits = 8.0 * bytes as f64 / frames.len() as f64;
        let took = mmuscope_units::duration(shot.took);
        println!("{gib} GiB in 4 KiB pages, {host:?}: {took}, {bytes} bytes, {bits:.2} bits an entry");
        assert!(bits < most, "{host:?}: {bits} bits an entry");
        if let Ok(folder) = std::env::var(KEEP) {
            keep(&Path::new(&folder).join(format!("{host:?}.snap")), &shot.records);
        }
        let pieces = shot.records.iter().flat_map(|r| unpack(r).expect("a record"));
        let mut leaves = vec![0; frames.len()];
        for p in pieces {
            if let Piece::Table(t) = p
                && t.level == 1
            {
                let at = t.gfn as usize;
                leaves[at..at + 512].copy_from_slice(&t.entries);
            }
        }
        assert!(frames.iter().zip(&leaves).all(|(pfn, entry)| pfn << 12 | LEAF == *entry), "{host:?}");
    }
}
