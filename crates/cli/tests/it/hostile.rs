//! Traces whose every number is as large as its field allows, put before each command. Release builds wrap where debug builds panic, and a loop
//! over a range that wraps never ends: both happened.

use std::fmt::Write as _;
use std::path::Path;

/// The edges of frame numbers, addresses and counts: around nothing, the size of a huge page, 40 and 52 bits, and the end of 64 bits.
const NUMBERS: [u64; 15] = [
    0,
    1,
    2,
    0x1ff,
    0x200,
    0xf_ffff,
    0x10_0000,
    1 << 39,
    (1 << 40) - 1,
    1 << 51,
    (1 << 52) - 1,
    1 << 63,
    u64::MAX,
    u64::MAX - 511,
    u64::MAX - 0x3_ffff,
];

/// Nothing, REMOVED, MMIO, present small and large entries of several kernels, and two values that no kernel writes.
const SPTES: [u64; 8] =
    [0, 0x5a0, 0x3a0_2827, 0x36d_6e67, 0x36d_6ee7, 0x0008_0000_d000_0017, u64::MAX, 0x8000_0000_0000_0000];

/// Numbers that look random and are the same at every run (a linear congruential generator, constants of Knuth's MMIX).
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        usize::try_from(self.0 >> 33).expect("31 bits") % n
    }

    fn one_of<const N: usize>(&mut self, from: [u64; N]) -> u64 {
        from[self.below(N)]
    }

    /// The body of one event.
    fn event(&mut self) -> String {
        let level = self.below(5) + 1;
        let (a, b) = (self.one_of(NUMBERS), self.one_of(NUMBERS));
        let (old, new) = (self.one_of(SPTES), self.one_of(SPTES));
        let (slot, as_id) = (self.below(1 << 31), self.below(3));
        let page = format!("sp gen 0 gfn {a:x} l{level} 8-byte q0 direct wux nxe ad root 0 sync");
        match self.below(15) {
            0 | 1 => format!(
                "kvm_tdp_mmu_spte_changed: as id {as_id} gfn {a:x} level {level} old_spte {old:x} new_spte {new:x}"
            ),
            2 => format!("kvm_mmu_set_spte: gfn {a:x} spte {new:x} (rwxu) level {level} at {b:x}"),
            3 => format!("kvm_page_fault: vcpu 0 rip 0x6000 address 0x{a:x} error_code 0x100000006"),
            4 => format!("kvm_mmu_spte_requested: gfn {a:x} pfn {b:x} level {level}"),
            5 => format!("kvm_mmu_get_page: {page} new"),
            6 => format!("kvm_mmu_prepare_zap_page: {page}"),
            7 => format!("mark_mmio_spte: sptep:{slot:016x} gfn {a:x} access 7 gen {:x}", b & 0xf_ffff),
            8 => format!("kvm_unmap_hva_range: mmu notifier unmap range: 0x{a:x} -- 0x{b:x}"),
            9 => format!("kvm_age_hva: mmu notifier age hva: 0x{a:x} -- 0x{b:x}"),
            10 => format!("kvm_mmio: mmio write len 8 gpa 0x{a:x} val 0x{b:x}"),
            11 => "kvm_entry: vcpu 0, rip 0x6000".to_string(),
            12 => format!(
                "kvm_exit: vcpu 0 reason npf rip 0x6000 info1 0x0000000100000006 info2 0x{a:016x} intr_info 0x00000000 error_code 0x00000000"
            ),
            13 => format!(
                "fast_page_fault: vcpu 0 gva {a:x} error_code P|W|U sptep {slot:016x} old 0x{old:x} new {new:x} spurious 0 fixed 1"
            ),
            _ => format!("kvm_mmu_split_huge_page: gfn {a:x} spte {old:x} level {level} errno 0"),
        }
    }

    /// A trace of so many events, of two threads on four CPUs, with a gap of minutes now and then.
    fn trace(&mut self, events: usize) -> String {
        let mut text = String::new();
        let mut at = 10_000_000_u64;
        for _ in 0..events {
            at += if self.below(60) == 0 { 1_000_000_000 } else { [1, 10, 1000][self.below(3)] };
            let (thread, cpu, event) = (111 + self.below(2), self.below(4), self.event());
            let (s, us) = (at / 1_000_000, at % 1_000_000);
            let _ = writeln!(text, "            load-{thread} [00{cpu}] ..... {s}.{us:06}: {event}");
        }
        text
    }
}

/// Runs one command, and panics if it panics, dies or does not end.
fn survives(args: &[&str], seed: u64) {
    let out = super::run(args);
    // A panic is 101; a signal has no code.
    assert!(
        matches!(out.status.code(), Some(0..=2)),
        "seed {seed}: mmuscope {args:?}: {}\n{}",
        out.status,
        String::from_utf8_lossy(&out.stderr)
    );
}

#[test]
fn the_largest_numbers_neither_stop_a_command_nor_keep_it_for_ever() {
    let dir = tempfile::tempdir().expect("a folder");
    let path = |name: &str| dir.path().join(name).to_str().expect("UTF-8").to_string();
    let (html, part) = (path("all.html"), path("part.html"));
    for (seed, events) in [(1, 3), (2, 20), (3, 120), (4, 20), (5, 120), (6, 120)] {
        let file = path(&format!("{seed}.txt"));
        std::fs::write(Path::new(&file), Dice(seed).trace(events)).expect("written");
        for args in [
            &["report", &file, "-o", &html][..],
            &["report", &file, "--gfn", "100-ffffffffffffffff", "-o", &part],
            &["report", &file, "--format", "md"],
            &["summary", &file],
            &["events", &file],
            &["faults", &file],
            &["spans", &file],
            &["state", &file],
            &["memory", &file],
            &["memslots", &file],
            &["stat", &file],
            &["check", &file],
            &["page", &file, "ffffffffffffffff"],
            &["diff", &file, &file],
        ] {
            survives(args, seed);
        }
    }
}
