//! For each rule, events that show it, and a near miss that does not.

use super::{Finding, Severity, find};
use mmuscope_replay::{ReplayOptions, replay};
use mmuscope_testing::fixture;
use mmuscope_testing::pieces::with_pieces;
use mmuscope_trace::snapshot::{Mmu, Piece, Slot, Table, Vm};

pub(super) fn findings(text: &str) -> Vec<Finding> {
    let trace = fixture::trace(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    find(&trace, &replay(&trace, &ReplayOptions::default()))
}

/// The finding of a rule; there must be exactly one.
pub(super) fn only(id: &str, text: &str) -> Finding {
    let mut all: Vec<Finding> = findings(text).into_iter().filter(|f| f.id == id).collect();
    assert_eq!(all.len(), 1, "{id}: {all:#?}");
    all.remove(0)
}

pub(super) fn silent(id: &str, text: &str) {
    let all: Vec<Finding> = findings(text).into_iter().filter(|f| f.id == id).collect();
    assert!(all.is_empty(), "{all:#?}");
}

/// Lines repeated, with `{n}` and `{x}` replaced by the number of the turn in decimal and in hex, counted from `from`.
pub(super) fn repeated(n: std::ops::Range<u64>, lines: &str) -> String {
    n.map(|n| lines.replace("{n}", &n.to_string()).replace("{x}", &format!("{n:x}"))).collect()
}

/// A VM of thread 1 (its vCPU) and thread 9 (its VMM) with page tables down to level 1 over gfn 0, and over gfn 0x200.
const TREE: &str = "layout C/npt\nkernel 6.1.0\nvm 1 t1 t2 t9\n1 t1 root\n+1 t1 entry 0\n+1 t1 exit\n+1 t1 page 3 0\n+1 t1 tdp 4 0 empty T11\n\
     +1 t1 page 2 0\n+1 t1 tdp 3 0 empty T12\n+1 t1 page 1 0\n+1 t1 tdp 2 0 empty T13\n+1 t1 page 1 200\n+1 t1 tdp 2 200 empty T14\n+1 t1 entry 0\n";

pub(super) fn tree(rest: &str) -> String {
    format!("{TREE}{rest}")
}

const RETRY: &str = "+1 t1 exit\n+1 t1 fault 5 w\n+2 t1 entry 0\n";

/// Pages that are mapped, so that an invalidation of them shows where they are in host memory.
pub(super) fn mapped() -> String {
    repeated(4..8, "+1 t1 exit\n+1 t1 fault {x} w\n+1 t1 tdp 1 {x} empty W5{n}\n+1 t1 entry 0\n")
}

#[test]
fn retries_while_a_page_is_invalidated() {
    let zaps = repeated(4..8, "+1 t9 tdp 1 {x} W5{n} empty\n");
    let begin = format!("{}+1 t9 unmap 7f0000004000 7f0000008000\n{zaps}", mapped());
    let end = "+1 t9 kvm_pml_full vcpu 0: PML full\n+1 t1 exit\n+1 t1 fault 5 w\n+1 t1 tdp 1 5 empty W60\n+1 t1 entry 0\n";
    let f = only("retry-invalidation", &tree(&format!("{begin}{}{end}", RETRY.repeat(9))));
    assert_eq!((f.count, f.cost, f.vm), (9, Some(27_000), Some(0)));
    assert!(f.title.contains("9 times on gfn 0x5"), "{}", f.title);
    assert!(
        f.title.contains("task-9 was invalidating hva 0x7f0000004000 to 0x7f0000008000 (16 KiB"),
        "{}",
        f.title
    );
    // Too few; after the thread went on; of a page that the range does not cover; by the thread itself.
    silent("retry-invalidation", &tree(&format!("{begin}{}{end}", RETRY.repeat(7))));
    silent(
        "retry-invalidation",
        &tree(&format!("{begin}+1 t9 kvm_pml_full vcpu 0: PML full\n{}", RETRY.repeat(9))),
    );
    silent("retry-invalidation", &tree(&format!("{begin}{}", RETRY.replace("fault 5", "fault 9").repeat(9))));
    silent("retry-invalidation", &tree(&format!("{begin}{}", RETRY.repeat(9)).replace("t9", "t1")));
}

#[test]
fn retries_between_two_invalidations() {
    let low = "+1 t9 unmap 7f0000004000 7f0000005000\n+1 t9 tdp 1 4 W54 empty\n";
    let high = "+1 t2 unmap 7f0000007000 7f0000008000\n+1 t2 tdp 1 7 W57 empty\n";
    let f = only("retry-invalidation", &tree(&format!("{}{low}{high}{}", mapped(), RETRY.repeat(8))));
    assert!(f.title.contains("below it") && f.title.contains("task-2"), "{}", f.title);
    silent("retry-invalidation", &tree(&format!("{}{low}{}", mapped(), RETRY.repeat(8))));
}

#[test]
fn pages_that_are_copied_at_the_first_write() {
    let read = "+1 t1 exit\n+1 t1 fault {x} r\n+1 t1 want 1 {x} 99\n+1 t1 tdp 1 {x} empty O99\n+1 t1 set 1 {x} O99 at 13000\n+1 t1 entry 0\n";
    let copy = "+1 t1 exit\n+1 t1 fault {x} wp\n+1 t1 unmap 7f0000000000 7f0000001000\n+1 t1 tdp 1 {x} O99 empty\n+1 t1 entry 0\n\
                +1 t1 exit\n+1 t1 fault {x} w\n+1 t1 want 1 {x} 1{x}\n+1 t1 tdp 1 {x} empty W1{x}\n+1 t1 entry 0\n";
    let reads = |n| repeated(0..n, &read.replace("at 13000", "at 13ff8"));
    let f = only("shared-page-first", &tree(&format!("{}{}", reads(64), repeated(0..20, copy))));
    // Each of the 20 pages needed a read, the write that made the host copy it, and the write that mapped the copy.
    assert_eq!(f.count, 60);
    assert!(
        f.title.contains("0x99 was mapped read-only for 64 guest frames")
            && f.title.contains("20 were written"),
        "{}",
        f.title
    );
    silent("shared-page-first", &tree(&format!("{}{}", reads(63), repeated(0..20, copy))));
    silent("shared-page-first", &tree(&reads(64)));
}

#[test]
fn zap_alls() {
    let install = "+1 t1 exit\n+1 t1 fault 5 w\n+1 t1 tdp 1 5 empty W55\n+1 t1 entry 0\n";
    let again = "+9 t9 zapall\n+1 t1 root\n+1 t1 exit\n+1 t1 fault 5 w\n+1 t1 page 3 0\n+1 t1 tdp 4 0 empty T2{x}1\n+1 t1 page 2 0\n\
                 +1 t1 tdp 3 0 empty T2{x}2\n+1 t1 page 1 0\n+1 t1 tdp 2 0 empty T2{x}3\n+1 t1 tdp 1 5 empty W55\n+1 t1 entry 0\n";
    let f = only("zap-all", &tree(&format!("{install}{}", repeated(0..3, again))));
    assert_eq!((f.count, f.severity), (3, Severity::Warning));
    assert!(
        f.title.contains("at least 3 faults only mapped again") && f.title.contains("by task-9"),
        "{}",
        f.title
    );
    silent("zap-all", &tree(&format!("{install}{}", repeated(0..2, again))));
}

#[test]
fn dirty_logging_by_round() {
    let map = repeated(0..16, "+1 t1 exit\n+1 t1 fault {x} w\n+1 t1 tdp 1 {x} empty W3{x}\n+1 t1 entry 0\n");
    let protect = repeated(0..16, "+1 t9 tdp 1 {x} W3{x} W3{x}-w\n");
    let written =
        repeated(0..4, "+1 t1 exit\n+1 t1 fault {x} wp\n+1 t1 fast {x} W3{x}-w W3{x} fixed\n+1 t1 entry 0\n");
    let f = only("dirty-logging", &tree(&format!("{map}{protect}{written}{protect}")));
    assert_eq!((f.severity, f.count, f.cost), (Severity::Info, 32, Some(12_000)));
    assert!(
        f.title.contains("2 rounds by task-9") && f.title.contains("4 without the MMU lock and 0 with it"),
        "{}",
        f.title
    );
    // Protection of page tables takes MMU-writable away, too.
    silent("dirty-logging", &tree(&format!("{map}{}", protect.replace("-w\n", "-w-m\n"))));
    silent("dirty-logging", &tree(&format!("{map}{}", repeated(0..15, "+1 t9 tdp 1 {x} W3{x} W3{x}-w\n"))));
    // Aging takes Accessed away.
    silent("dirty-logging", &tree(&format!("{map}{}", protect.replace("-w\n", "-a\n"))));
}

const HUGE: &str = "+1 t1 exit\n+1 t1 fault 400 w\n+1 t1 tdp 2 400 empty W800\n+1 t1 entry 0\n";

#[test]
fn huge_pages_lost_and_won() {
    let eager = format!("{HUGE}+1 t9 page 1 400\n+1 t9 tdp 2 400 W800 T15\n+1 t9 split 2 400 W800\n");
    let f = only("huge-lost", &tree(&eager));
    assert!(f.title.contains("outside of any fault") && f.title.contains("1 of 2M"), "{}", f.title);
    assert_eq!(f.severity, Severity::Info);
    let many = repeated(
        0..8,
        "+1 t1 exit\n+1 t1 fault {x}000 w\n+1 t1 tdp 2 {x}000 empty W800\n+1 t1 entry 0\n+1 t9 page 1 {x}000\n+1 t9 tdp 2 {x}000 W800 T9{n}\n",
    );
    assert_eq!(only("huge-lost", &tree(&many)).severity, Severity::Warning);
    let back = format!("{eager}+1 t9 tdp 2 400 T15 W800\n");
    assert!(only("huge-lost", &tree(&back)).title.contains("all of these ranges are huge again"), "{back}");
    assert!(only("huge-won", &tree(&back)).title.contains("an ioctl"), "{back}");
    let small = "+1 t1 exit\n+1 t1 fault 401 w\n+1 t1 page 1 400\n+1 t1 tdp 2 400 empty T15\n+1 t1 tdp 1 401 empty W99\n+1 t1 entry 0\n";
    let host = format!("{HUGE}+1 t9 unmap 7f0000400000 7f0000600000\n+1 t9 tdp 2 400 W800 empty\n");
    assert!(only("huge-lost", &tree(&format!("{host}{small}"))).title.contains("mmu_notifier"));
    // Zapped and not mapped again, or mapped huge again: nothing is lost.
    silent("huge-lost", &tree(&host));
    silent("huge-lost", &tree(&format!("{host}{HUGE}")));
    silent("huge-won", &tree(&format!("{host}{HUGE}")));
}

#[test]
fn huge_pages_that_are_executed() {
    let huge = HUGE.replace("W800", "N800");
    let split = "+1 t1 exit\n+1 t1 fault 401 xp\n+1 t1 page 1 400\n+1 t1 tdp 2 400 N800 T15\n+1 t1 tdp 1 401 empty R801\n+1 t1 entry 0\n";
    let f = only("nx-churn", &tree(&format!("{huge}{split}")));
    assert_eq!(f.severity, Severity::Info);
    assert!(only("huge-lost", &tree(&format!("{huge}{split}"))).title.contains("NX mitigation"));
    let worker = "name t8 kvm-nx-lpage-re\n+1 t8 tdp 2 400 T15 empty\n";
    let f = only("nx-churn", &tree(&format!("{huge}{split}{worker}{huge}{}", split.replace("T15", "T16"))));
    assert_eq!(f.severity, Severity::Warning);
    assert!(f.title.contains("2 huge pages") && f.title.contains("1 of the splits"), "{}", f.title);
    silent("nx-churn", &tree(&format!("{huge}{}", split.replace("401 xp", "401 wp"))));
}

#[test]
fn hot_registers() {
    let hit = "+1 t1 exit\n+1 t1 fault fec00 w rsvd\n+1 t1 handle fec00\n+1 t1 kvm_mmio mmio write len 4 gpa 0xfec00000 val 0x1\n+1 t1 entry 0\n";
    let f = only("mmio-hot", &tree(&hit.repeat(200)));
    assert_eq!((f.count, f.gfn, f.severity), (200, Some(0xfec00), Severity::Info));
    assert!(f.title.contains("I/O APIC") && f.title.contains("rip 0x1000"), "{}", f.title);
    silent("mmio-hot", &tree(&hit.repeat(199)));
}

#[test]
fn mmio_without_a_cache() {
    let access = "+1 t1 exit\n+1 t1 fault d0000 w\n+1 t1 emulate\n+1 t1 kvm_mmio mmio write len 4 gpa 0xd0000000 val 0x1\n+1 t1 user 6 0\n";
    let f = only("mmio-uncached", &tree(&access.repeat(16)));
    assert_eq!((f.count, f.severity), (16, Severity::Warning));
    silent("mmio-uncached", &tree(&access.repeat(15)));
    silent("mmio-uncached", &tree(&format!("+1 t1 mmio d0001 2 at ffff888000001000\n{}", access.repeat(16))));
    // Each page once; and writes to read-only memory.
    silent("mmio-uncached", &tree(&repeated(0..16, &access.replace("d0000", "d000{x}"))));
    let rom = "+1 t1 exit\n+1 t1 fault 5 r\n+1 t1 tdp 1 5 empty O55\n+1 t1 entry 0\n";
    silent("mmio-uncached", &tree(&format!("{rom}{}", access.replace("d0000", "5").repeat(16))));
}

#[test]
fn mmio_of_old_generations() {
    let old = "+1 t1 check_mmio_spte spte 80000d0000017 kvm_gen 6 spte-gen 4 valid 0\n";
    let new = "+1 t1 check_mmio_spte spte 80000d0000017 kvm_gen 6 spte-gen 6 valid 1\n";
    let f = only("mmio-generation", &tree(&format!("{}{}", old.repeat(16), new.repeat(304))));
    assert_eq!(f.count, 16);
    silent("mmio-generation", &tree(&format!("{}{}", old.repeat(16), new.repeat(305))));
    silent("mmio-generation", &tree(&old.repeat(15)));
}

#[test]
fn memory_that_became_mmio() {
    let ram = "+1 t1 exit\n+1 t1 fault 5 w\n+1 t1 tdp 1 5 empty W55\n+1 t1 entry 0\n";
    let gone =
        "+1 t9 zapall\n+1 t1 exit\n+1 t1 fault 5 w\n+1 t1 mmio 5 6 at ffff888000001028\n+1 t1 entry 0\n";
    let f = only("ram-to-mmio", &tree(&format!("{ram}{gone}")));
    assert_eq!((f.gfn, f.count), (Some(5), 1));
    silent("ram-to-mmio", &tree(gone));
    silent("ram-to-mmio", &tree(&format!("{ram}{}", gone.replace("mmio 5", "mmio 6"))));
}

#[test]
fn reserved_bits_of_a_guest() {
    let walk = |pte: &str, pferr: &str| {
        format!(
            "+1 t1 exit\n+1 t1 walk ffff888012345000 2\n+1 t1 element 1 {pte}\n+1 t1 walkererror {pferr}\n"
        )
    };
    let f = only("guest-reserved-bit", &tree(&walk("8000000012345067", "9")));
    assert!(f.title.contains("entry 0x8000000012345067 of level 1"), "{}", f.title);
    // Not present; and the MMIO SPTE of a hypervisor in the guest, which holds the frame it was looked up for.
    silent("guest-reserved-bit", &tree(&walk("0", "2")));
    let nested = walk("80000d0000017", "13").replace("ffff888012345000", "d0000000");
    silent("guest-reserved-bit", &tree(&nested));
}

#[test]
fn pages_mapped_and_zapped_in_turn() {
    let turn = "+1 t1 exit\n+1 t1 fault 5 w\n+1 t1 tdp 1 5 empty W55\n+1 t1 entry 0\n+9 t9 unmap 7f0000005000 7f0000006000\n+1 t9 tdp 1 5 W55 empty\n";
    let f = only("map-zap", &tree(&turn.repeat(8)));
    assert_eq!((f.gfn, f.count, f.cost), (Some(5), 8, Some(21_000)));
    assert!(f.title.contains("8 by task-9"), "{}", f.title);
    silent("map-zap", &tree(&turn.repeat(7)));
    silent("map-zap", &tree(&turn.repeat(8).replace("+9 t9", "+10001 t9")));
}

#[test]
fn buffers_that_run_full() {
    let full = "+1 t1 kvm_dirty_ring_exit vcpu 0\n";
    assert_eq!(only("dirty-ring-full", &tree(full)).severity, Severity::Warning);
    silent("dirty-ring-full", TREE);
    let pml = "+1 t1 kvm_pml_full vcpu 0: PML full\n";
    assert_eq!(only("pml-full", &tree(&pml.repeat(16))).count, 16);
    silent("pml-full", &tree(&pml.repeat(15)));
}

#[test]
fn splits_that_fail() {
    let f = only("split-failed", &tree("+1 t9 split 2 400 W800 -12\n"));
    assert!(f.title.contains("gfn 0x400 with error -12"), "{}", f.title);
    silent("split-failed", &tree("+1 t9 split 2 400 W800 0\n"));
}

#[test]
fn reverse_map_faults() {
    let f = |ret| {
        format!(
            "+1 t1 kvm_rmp_fault vcpu 0 gpa 0000000000200000 pfn 0x12340 error_code 0x100000006 rmp_level 2 psmash_ret {ret}\n"
        )
    };
    assert_eq!(only("rmp-fault", &tree(&f(4))).count, 1);
    silent("rmp-fault", &tree(&f(0)));
}

#[test]
fn asynchronous_faults_that_are_late() {
    let absent = "+1 t1 kvm_async_pf_not_present token 0x10 gva 0x1000\n";
    let ready = |us: u64| format!("+{us} t1 kvm_async_pf_ready token 0x10 gva 0x1000\n");
    let f = only("async-fault-late", &tree(&format!("{absent}{}", ready(1_200_000))));
    assert!(f.title.contains("1.2 s"), "{}", f.title);
    silent("async-fault-late", &tree(&format!("{absent}{}", ready(900_000))));
    // It never came; and where the event of its coming was lost, nothing is known.
    let other = "+1 t1 kvm_async_pf_ready token 0x20 gva 0x1000\n+1100000 t1 entry 0\n";
    only("async-fault-late", &tree(&format!("{absent}{other}")));
    silent("async-fault-late", &tree(&format!("{absent}{other}+1 t1 lost 3\n")));
}

#[test]
fn aging_without_accessed_bits() {
    let noad = |text: &str| tree(text).replace("C/npt", "C/ept-noad");
    let turn = "+1 t1 exit\n+1 t1 fault {x} r\n+1 t1 fast {x} K3{x} W3{x} fixed\n+1 t1 entry 0\n";
    let map = repeated(0..64, "+1 t1 tdp 1 {x} empty W3{x}\n+1 t9 tdp 1 {x} W3{x} K3{x}\n");
    let f = only("aging-faults", &noad(&format!("{map}{}", repeated(0..64, turn))));
    assert_eq!((f.count, f.severity), (64, Severity::Info));
    silent("aging-faults", &noad(&format!("{map}{}", repeated(0..63, turn))));
}

#[test]
fn shadow_pages_made_again() {
    let turn = "+1 t1 zapshadow 1 {x}\n+9 t1 shadow 1 {x}\n";
    let f = only("shadow-refill", &format!("layout C/shadow64\n1 t1 entry 0\n{}", repeated(0..256, turn)));
    assert_eq!(f.count, 256);
    silent("shadow-refill", &format!("layout C/shadow64\n1 t1 entry 0\n{}", repeated(0..255, turn)));
    let late = turn.replace("+9", "+10001");
    silent("shadow-refill", &format!("layout C/shadow64\n1 t1 entry 0\n{}", repeated(0..256, &late)));
}

#[test]
fn broken_rules_of_kvm() {
    let map = "+1 t1 exit\n+1 t1 fault 5 w\n+1 t1 tdp 1 5 empty W55\n+1 t1 entry 0\n";
    let broken = [
        ("invariant-pfn", "+1 t1 tdp 1 5 W55 W56\n", "+1 t1 tdp 1 5 W55 W55-w\n"),
        ("invariant-nonpresent", "+1 t1 tdp 1 6 empty 40\n", "+1 t1 tdp 1 6 empty frozen\n"),
        ("invariant-aligned", "+1 t1 tdp 2 401 empty W800\n", "+1 t1 tdp 2 400 empty W800\n"),
        ("invariant-writable", "+1 t1 tdp 1 6 empty W57-m\n", "+1 t1 tdp 1 6 empty W57-m-w\n"),
        ("invariant-values", "+1 t1 tdp 1 5 W66 empty\n", "+1 t1 tdp 1 5 W55 empty\n"),
    ];
    for (id, bad, good) in broken {
        let f = only(id, &tree(&format!("{map}{bad}+1 t1 exit\n")));
        assert!(f.severity >= Severity::Warning && !f.events.is_empty(), "{f:?}");
        silent(id, &tree(&format!("{map}{good}+1 t1 exit\n")));
        // What follows a loss proves nothing.
        if id == "invariant-values" {
            silent(id, &tree(&format!("{map}+1 t1 lost 5\n{bad}+1 t1 exit\n")));
        }
    }
    silent("invariant-pfn", &tree(&format!("{map}+1 t1 tdp 1 5 W55 empty\n+1 t1 tdp 1 5 empty W56\n")));
}

#[test]
fn host_frames_of_two_vms() {
    let of = |t: &str, base: &str, pfn: &str| {
        format!(
            "+1 {t} root\n+1 {t} exit\n+1 {t} fault 5 w\n+1 {t} page 3 0\n+1 {t} tdp 4 0 empty T{base}1\n+1 {t} page 2 0\n+1 {t} tdp 3 0 empty T{base}2\n\
             +1 {t} page 1 0\n+1 {t} tdp 2 0 empty T{base}3\n+1 {t} tdp 1 5 empty {pfn}\n+1 {t} entry 0\n"
        )
    };
    let two = |a: &str, b: &str| {
        format!(
            "layout C/npt\nkernel 6.1.0\nvm 1 t1\nvm 2 t2\n1 t1 entry 0\n{}{}+1 t1 exit\n+1 t2 exit\n",
            of("t1", "1", a),
            of("t2", "2", b)
        )
    };
    let f = only("frame-in-two-vms", &two("W55", "W55"));
    assert!(f.title.contains("host frame 0x55 is gfn 0x5 of VM 0 and gfn 0x5 of VM 1"), "{}", f.title);
    silent("frame-in-two-vms", &two("W55", "W56"));
    // The zero page, or one that KSM merged.
    silent("frame-in-two-vms", &two("O55", "O55"));
}

#[test]
fn loops_are_compared_with_known_bugs() {
    let round = "+1 t1 exit\n+1 t1 fault 5 w\n+10000 t1 entry 0\n";
    let f = only("fault-loop", &tree(&round.repeat(16)));
    assert!(
        f.why.contains("mmu_notifier's sequence count") && f.remedy.contains("mmu_invalidate_seq"),
        "{f:#?}"
    );
    // The bug was fixed by then.
    let f = only("fault-loop", &tree(&round.repeat(16)).replace("kernel 6.1.0", "kernel 6.9.0"));
    assert!(!f.why.contains("known bug"), "{f:#?}");
}

#[test]
fn ends_of_vms() {
    let end = "+1 t9 tdp 4 0 T11 empty\n+1 t9 zappage 3 0\n+1 t9 tdp 3 0 T12 frozen\n+1 t9 zappage 2 0\n+1 t9 tdp 2 0 T13 frozen\n\
               +1 t9 zappage 1 0\n+1 t9 tdp 2 200 T14 frozen\n+1 t9 zappage 1 200\n+1 t9 zappage 4 0 invalid\n";
    let f = only("vm-torn-down", &tree(end));
    assert!(f.title.contains("by task-9"), "{}", f.title);
    silent("vm-torn-down", TREE);
}

/// The findings of one rule in a trace with a snapshot, taken at this time in microseconds.
pub(super) fn read(id: &str, text: &str, us: u64, slots: Vec<Slot>, table: Option<Table>) -> Vec<Finding> {
    let trace = fixture::trace(text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let at = us * 1000;
    let mut pieces = vec![
        Piece::Begin { at, all_on: None },
        Piece::Vm(Vm { at, pid: 1, name: "vm".into(), vcpus: Vec::new(), slots }),
    ];
    pieces.extend(table.map(|t| Piece::Table(Box::new(t))));
    pieces.extend([
        Piece::VmEnd { at, complete: false, notes: Vec::new() },
        Piece::End { at, notes: Vec::new() },
    ]);
    let trace = with_pieces(trace, &pieces.into_iter().map(|p| (us, p)).collect::<Vec<_>>());
    let all = find(&trace, &replay(&trace, &ReplayOptions::default()));
    all.into_iter().filter(|f| f.id == id).collect()
}

#[test]
fn memory_that_differs() {
    let text = tree(
        "+1 t1 exit\n+1 t1 fault 5 w\n+1 t1 tdp 1 5 empty W55\n+1 t1 entry 0\n1000 t1 exit\n+1 t1 entry 0\n",
    );
    let with = |value: u64| {
        let mut entries = vec![0; 512];
        entries[5] = value;
        let table = Table {
            from: 500_000,
            to: 500_000,
            page: 0x13000,
            mmu: Mmu::Tdp,
            as_id: 0,
            level: 1,
            gfn: 0,
            direct: true,
            root: false,
            invalid: false,
            mirror: false,
            guest_mode: false,
            parent: Some((0x12000, 0)),
            entries,
            gfns: Vec::new(),
        };
        read("snapshot-differs", &text, 500, Vec::new(), Some(table))
    };
    let layout = mmuscope_spte::LayoutSpec::find("C/npt").expect("a layout").layout;
    let same = fixture::trace(&text).expect("a trace");
    let value = same.events.iter().find_map(|e| match e.body {
        mmuscope_trace::Body::TdpSpteChanged { level: 1, new_spte, .. } => Some(new_spte),
        _ => None,
    });
    let value = value.expect("the leaf");
    assert_eq!(with(value), []);
    let all = with(layout.zapped);
    assert_eq!((all.len(), all[0].severity, all[0].gfn), (1, Severity::Error, Some(5)), "{all:#?}");
    assert!(all[0].title.starts_with("1 of 1 entries are otherwise in KVM's memory"), "{}", all[0].title);
}

#[test]
fn a_guest_that_jumps_into_nowhere() {
    let fault = |gfn: &str, access: &str| {
        tree(&format!("1000 t1 exit\n+1 t1 fault {gfn} {access}\n+1 t1 emulate\n+1 t1 entry 0\n2000 t9 mark end\n"))
            .replace("vm 1 t1 t2 t9\n", "vm 1 t1 t2 t9\nfact record.events kvm:kvm_entry,kvm:kvm_exit,kvm:kvm_page_fault,kvm:kvm_emulate_insn,kvmmmu:kvm_tdp_mmu_spte_changed,kvmmmu:kvm_mmu_get_page,probe:__kvm_set_memory_region\n")
    };
    let ram = || vec![Slot { as_id: 0, id: 0, gfn: 0, pages: 0x100, hva: 0x7f00_0000_0000, flags: 0 }];
    let all = read("outside-slots", &fault("800", "x"), 500, ram(), None);
    assert_eq!((all.len(), all[0].gfn), (1, Some(0x800)), "{all:#?}");
    // Reads and writes there are MMIO; a frame of a slot; before the slots are known.
    assert_eq!(read("outside-slots", &fault("800", "w"), 500, ram(), None), []);
    assert_eq!(read("outside-slots", &fault("50", "x"), 500, ram(), None), []);
    assert_eq!(read("outside-slots", &fault("800", "x"), 1500, ram(), None), []);
}

#[test]
fn dirty_logging_that_probes_show() {
    let call = "+1 t9 kvm_get_dirty_log_protect (kvm_get_dirty_log_protect+0x0/0x250 [kvm]) kvm=0xffffc900003e5000\n";
    let update = |n: u64| {
        let both = "+1 t9 mmu_spte_update (mmu_spte_update+0x0/0x1a0 [kvm]) sptep=0xffff88800cf{x}000 new_spte=0x29cda25\n\
                    +0 t9 mmu_spte_update_no_track (mmu_spte_update_no_track+0x0/0x40 [kvm]) sptep=0xffff88800cf{x}000 new_spte=0x29cda25\n";
        repeated(0x10..0x10 + n, both)
    };
    let begin = "layout C/npt\nkernel 6.1.0\nvm 1 t1 t9\n1 t1 exit\n+1 t1 shadow 1 5\n+1 t1 set 1 5 W55 at 40028\n+1 t1 entry 0\n";
    let round = |n: u64| format!("{call}{}+1 t9 user 2 0\n", update(n));
    let f = only("dirty-logging", &format!("{begin}{}{}", round(20), round(30)));
    assert_eq!((f.count, f.vm), (50, Some(0)));
    assert!(f.title.contains("2 rounds") && f.title.contains("20 entries in "), "{}", f.title);
    // Few entries; entries that no call protects.
    silent("dirty-logging", &format!("{begin}{}", round(15)));
    silent("dirty-logging", &format!("{begin}{}+1 t9 user 2 0\n", update(40)));
}
