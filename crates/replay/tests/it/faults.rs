//! Fault records: whole samples against the counters of the kernel that ran them, and what real kernels traced in the odd cases.

use crate::replayed::load;
use std::path::Path;

use mmuscope_replay::{Fault, Outcome, ReplayOptions, SeriesKind, Timeline, replay};
use mmuscope_trace::Trace;

fn faults(text: &str) -> Vec<Fault> {
    timeline(text).faults().collect()
}

fn timeline(text: &str) -> Timeline {
    replay(&Trace::from_text(text).expect("a trace"), &ReplayOptions::default())
}

/// `kvmstats.txt` of a sample: KVM's counters of one VM when the trace ended.
fn counter(stats: &str, name: &str) -> Option<usize> {
    stats.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
}

#[test]
fn outcomes_are_as_many_as_the_kernel_counted() {
    let samples = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples");
    let mut checked = 0;
    for dir in std::fs::read_dir(samples).expect("samples").filter_map(|e| e.ok().map(|e| e.path())) {
        let Ok(stats) = std::fs::read_to_string(dir.join("kvmstats.txt")) else { continue };
        let recordings = ["trace.txt.zst", "mmuscope.perf.data"].map(|f| dir.join(f));
        let file = recordings.into_iter().find(|f| f.exists()).expect("a recording beside the counters");
        let (_, t) = load(&file);
        let n = |o: Outcome| t.faults().filter(|f| f.outcome == o).count();
        let name = dir.display();
        let fixed = counter(&stats, "pf_fixed").expect("a counter");
        checked += 1;
        let Some(taken) = counter(&stats, "pf_taken") else {
            // 5.10 counts MMIO entries as fixed, and what the lockless path fixed not at all.
            assert_eq!(fixed, n(Outcome::Fixed) + n(Outcome::MmioInstalled), "{name}");
            continue;
        };
        assert_eq!(fixed, n(Outcome::Fixed) + n(Outcome::FixedFast), "{name}");
        assert_eq!(counter(&stats, "pf_fast"), Some(n(Outcome::FixedFast)), "{name}");
        assert_eq!(counter(&stats, "pf_mmio_spte_created"), Some(n(Outcome::MmioInstalled)), "{name}");
        assert_eq!(
            counter(&stats, "pf_emulate"),
            Some(n(Outcome::MmioInstalled) + n(Outcome::Emulated)),
            "{name}"
        );
        // An MMIO SPTE that is hit is no page fault to the kernel.
        assert_eq!(taken, t.faults().filter(|f| f.outcome != Outcome::MmioHit).count(), "{name}");
    }
    assert!(checked >= 10, "{checked} samples");
}

/// 6.1, NPT: a guest writes to a page that maps the host's zero page. The host breaks copy-on-write within the fault, which zaps the entry;
/// the guest tries again.
const COPY_ON_WRITE: &str = "
 load-111 [000] d..1. 4.628100: kvm_entry: vcpu 0, rip 0x603f
 load-111 [000] d..1. 4.628107: kvm_exit: vcpu 0 reason npf rip 0x6022 info1 0x0000000100000007 info2 0x0000000000100000 intr_info 0x00000000 error_code 0x00000000
 load-111 [000] ..... 4.628109: kvm_page_fault: vcpu 0 rip 0x6022 address 0x0000000000100000 error_code 0x100000007
 load-111 [000] ...1. 4.628174: kvm_unmap_hva_range: mmu notifier unmap range: 0x007f03a4b00000 -- 0x007f03a4b01000
 load-111 [000] ...1. 4.628191: kvm_tdp_mmu_spte_changed: as id 0 gfn 100 level 1 old_spte 32b1825 new_spte 0
 load-111 [000] ...1. 4.628248: kvm_set_spte_hva: mmu notifier set pte hva: 0x007f03a4b00000
 load-111 [000] d..1. 4.628284: kvm_entry: vcpu 0, rip 0x6022
 load-111 [000] d..1. 4.628308: kvm_exit: vcpu 0 reason npf rip 0x6022 info1 0x0000000100000006 info2 0x0000000000100000 intr_info 0x00000000 error_code 0x00000000
 load-111 [000] ..... 4.628311: kvm_page_fault: vcpu 0 rip 0x6022 address 0x0000000000100000 error_code 0x100000006
 load-111 [000] ...1. 4.628326: kvm_mmu_spte_requested: gfn 100 pfn 7ea1 level 1
 load-111 [000] ...1. 4.628332: kvm_tdp_mmu_spte_changed: as id 0 gfn 100 level 1 old_spte 0 new_spte 7ea1e67
 load-111 [000] ...1. 4.628333: kvm_mmu_set_spte: gfn 100 spte 7ea1e67 (rwxu) level 1 at 9c16a800
 load-111 [000] d..1. 4.628337: kvm_entry: vcpu 0, rip 0x6022
";

#[test]
fn a_zap_within_a_fault_mends_nothing() {
    let f = faults(COPY_ON_WRITE);
    let told: Vec<_> = f.iter().map(|f| (f.outcome, f.level, f.pfn, f.duration())).collect();
    assert_eq!(
        told,
        [(Outcome::Retry, None, None, Some(177_000)), (Outcome::Fixed, Some(1), Some(0x7ea1), Some(29_000)),]
    );
}

#[test]
fn a_fault_that_goes_on_where_the_trace_ends_is_listed() {
    let cut = COPY_ON_WRITE.split_inclusive('\n').take(10).collect::<String>();
    assert!(cut.ends_with("error_code 0x100000006\n"), "{cut}");
    let t = timeline(&cut);
    let f: Vec<Fault> = t.faults().collect();
    assert_eq!(
        f.iter().map(|f| (f.outcome, f.end_ts.is_some())).collect::<Vec<_>>(),
        [(Outcome::Retry, true), (Outcome::Unfinished, false)]
    );
    assert_eq!(t.fault(f[1].id), f[1]);
    let (a, b) = t.range();
    for kind in [SeriesKind::Faults, SeriesKind::FaultsOf(111)] {
        assert_eq!(t.series(&kind, a, b, 4).iter().map(|b| b.count).sum::<u64>(), 2, "{kind:?}");
    }
}

/// 6.12, shadow paging: a write to a page that holds a guest page table is emulated, and nothing else shows so; a switch of CR3
/// synchronises shadow pages, which marks MMIO entries in no fault; and a page that is there already.
const SHADOW: &str = "
 qemu-148 [000] d..1. 9.302300: kvm_entry: vcpu 0, rip 0xffffffff9c095dc4
 qemu-148 [000] d..1. 9.302342: kvm_exit: vcpu 0 reason write_cr3 rip 0xffffffff9c095dc4 info1 0x0000000000000000 info2 0x0000000000000000 intr_info 0x00000000 error_code 0x00000000
 qemu-148 [000] ...1. 9.302439: kvm_mmu_sync_page: sp gen 1 gfn e6dc l1 8-byte q0 wux nxe ad root 0 unsync
 qemu-148 [000] ...1. 9.302481: mark_mmio_spte: sptep:ffff88810dfa5fe0 gfn fec00 access 3 gen 54
 qemu-148 [000] d..1. 9.302502: kvm_entry: vcpu 0, rip 0xffffffff9c095dc7
 qemu-148 [000] d..1. 9.303000: kvm_exit: vcpu 0 reason PF excp rip 0xffffffff9c095100 info1 0x0000000000000003 info2 0xffff89bdce3de008 intr_info 0x00000000 error_code 0x00000000
 qemu-148 [000] ..... 9.303002: kvm_page_fault: vcpu 0 rip 0xffffffff9c095100 address 0xffff89bdce3de008 error_code 0x3
 qemu-148 [000] d..1. 9.303050: kvm_entry: vcpu 0, rip 0xffffffff9c095104
 qemu-148 [000] d..1. 9.303060: kvm_exit: vcpu 0 reason PF excp rip 0xffffffff9ccb0204 info1 0x0000000000000000 info2 0xffffffff9ea03040 intr_info 0x00000000 error_code 0x00000000
 qemu-148 [000] ..... 9.303062: kvm_page_fault: vcpu 0 rip 0xffffffff9ccb0204 address 0xffffffff9ea03040 error_code 0x0
 qemu-148 [000] ...1. 9.303070: kvm_mmu_spte_requested: gfn ea03 pfn 10ea03 level 1
 qemu-148 [000] d..1. 9.303080: kvm_entry: vcpu 0, rip 0xffffffff9ccb0204
";

#[test]
fn shadow_paging_is_read_by_what_is_missing() {
    let f = faults(SHADOW);
    assert_eq!(
        f.iter().map(|f| (f.outcome, f.gva, f.mmio)).collect::<Vec<_>>(),
        [
            (Outcome::Emulated, Some(0xffff_89bd_ce3d_e008), false),
            (Outcome::Spurious, Some(0xffff_ffff_9ea0_3040), false),
        ]
    );
}

/// VMX: an access to MMIO whose page the vCPU remembers shows nothing but its exit and what was emulated.
const MISCONFIG: &str = "
 load-103 [000] d..1. 9.302300: kvm_entry: vcpu 0, rip 0x6022
 load-103 [000] d..1. 9.302342: kvm_exit: vcpu 0 reason EPT_MISCONFIG rip 0x6022 info1 0x0000000000000000 info2 0x0000000000000000 intr_info 0x00000000 error_code 0x00000000
 load-103 [000] ..... 9.302360: kvm_mmio: mmio write len 4 gpa 0xfee000b0 val 0x0
 load-103 [000] d..1. 9.302370: kvm_entry: vcpu 0, rip 0x6025
 load-103 [000] d..1. 9.302400: kvm_exit: vcpu 0 reason EPT_MISCONFIG rip 0x6030 info1 0x0000000000000000 info2 0x0000000000000000 intr_info 0x00000000 error_code 0x00000000
 load-103 [000] d..1. 9.302410: kvm_entry: vcpu 0, rip 0x6033
 load-103 [000] d..1. 9.302420: kvm_exit: vcpu 0 reason CPUID rip 0x6040 info1 0x0000000000000000 info2 0x0000000000000000 intr_info 0x00000000 error_code 0x00000000
 load-103 [000] d..1. 9.302430: kvm_entry: vcpu 0, rip 0x6042
";

#[test]
fn an_ept_misconfiguration_is_a_fault_even_if_little_is_said() {
    let f = faults(MISCONFIG);
    assert_eq!(
        f.iter().map(|f| (f.outcome, f.gfn, f.mmio, f.duration())).collect::<Vec<_>>(),
        [(Outcome::MmioHit, Some(0xfee00), true, Some(28_000)), (Outcome::MmioHit, None, true, Some(10_000)),]
    );
}

/// SVM: the error code of a nested page fault shows that an MMIO SPTE was hit (RSVD). The vCPU remembers the page, so nothing else is shown
/// of it; where the generation is old the SPTE is made anew; and a page of RAM may be there by now.
const RESERVED: &str = "
 load-111 [000] d..1. 4.000007: kvm_exit: vcpu 0 reason npf rip 0x6022 info1 0x000000010000000e info2 0x00000000fee000b0 intr_info 0x00000000 error_code 0x00000000
 load-111 [000] ..... 4.000009: kvm_page_fault: vcpu 0 rip 0x6022 address 0x00000000fee000b0 error_code 0x10000000e
 load-111 [000] ...1. 4.000010: vcpu_match_mmio: gva 0xffffffffff5fc0b0 gpa 0xfee000b0 Write GVA
 load-111 [000] ...1. 4.000011: kvm_mmio: mmio write len 4 gpa 0xfee000b0 val 0x0
 load-111 [000] d..1. 4.000012: kvm_entry: vcpu 0, rip 0x6025
 load-111 [000] d..1. 4.000020: kvm_exit: vcpu 0 reason npf rip 0x6030 info1 0x000000010000000c info2 0x00000000d0000000 intr_info 0x00000000 error_code 0x00000000
 load-111 [000] ..... 4.000021: kvm_page_fault: vcpu 0 rip 0x6030 address 0x00000000d0000000 error_code 0x10000000c
 load-111 [000] d..1. 4.000022: kvm_entry: vcpu 0, rip 0x6034
 load-111 [000] d..1. 4.000030: kvm_exit: vcpu 0 reason npf rip 0x6040 info1 0x000000010000000c info2 0x00000000d0000000 intr_info 0x00000000 error_code 0x00000000
 load-111 [000] ..... 4.000031: kvm_page_fault: vcpu 0 rip 0x6040 address 0x00000000d0000000 error_code 0x10000000c
 load-111 [000] ...1. 4.000032: check_mmio_spte: spte 9200000d0000006 kvm_gen 4 spte-gen 2 valid 0
 load-111 [000] ...1. 4.000033: kvm_mmu_spte_requested: gfn d0000 pfn 7ff0000000000002 level 1
 load-111 [000] ...1. 4.000034: mark_mmio_spte: sptep:ffff88810dfa5000 gfn d0000 access 6 gen 4
 load-111 [000] d..1. 4.000035: kvm_entry: vcpu 0, rip 0x6043
 load-111 [000] d..1. 4.000040: kvm_exit: vcpu 0 reason npf rip 0x6050 info1 0x000000010000000c info2 0x00000000d0001000 intr_info 0x00000000 error_code 0x00000000
 load-111 [000] ..... 4.000041: kvm_page_fault: vcpu 0 rip 0x6050 address 0x00000000d0001000 error_code 0x10000000c
 load-111 [000] ...1. 4.000042: kvm_mmu_spte_requested: gfn d0001 pfn 7ea1 level 1
 load-111 [000] ...1. 4.000043: kvm_tdp_mmu_spte_changed: as id 0 gfn d0001 level 1 old_spte 9200000d0001006 new_spte 7ea1e67
 load-111 [000] ...1. 4.000044: kvm_mmu_set_spte: gfn d0001 spte 7ea1e67 (rwxu) level 1 at 9c16a808
 load-111 [000] d..1. 4.000045: kvm_entry: vcpu 0, rip 0x6050
";

#[test]
fn reserved_bits_in_an_error_code_are_an_mmio_spte() {
    let t = timeline(RESERVED);
    assert_eq!(
        t.faults().map(|f| (f.outcome, f.gfn, f.mmio, f.access.reserved)).collect::<Vec<_>>(),
        [
            (Outcome::MmioHit, Some(0xfee00), true, true),
            (Outcome::MmioHit, Some(0xd0000), true, true),
            (Outcome::MmioInstalled, Some(0xd0000), true, true),
            (Outcome::Fixed, Some(0xd0001), true, true),
        ]
    );
}

/// One access each: a read that user space answers is two `kvm_mmio`, `unsatisfied-read` and then `read`; what hit the MMIO SPTE says
/// nothing of accesses.
const ACCESSES: &str = "
 load-111 [000] ..... 4.000001: kvm_page_fault: vcpu 0 rip 0x6022 address 0x00000000fee000b0 error_code 0x10000000c
 load-111 [000] ...1. 4.000002: handle_mmio_page_fault: addr:0 gfn fee00 access 6
 load-111 [000] ...1. 4.000003: vcpu_match_mmio: gva 0xffffffffff5fc0b0 gpa 0xfee000b0 Read GVA
 load-111 [000] ...1. 4.000004: kvm_mmio: mmio unsatisfied-read len 4 gpa 0xfee000b0 val 0x0
 load-112 [001] ...1. 4.000005: kvm_mmio: mmio read len 4 gpa 0xfee000b0 val 0x0
 load-111 [000] ...1. 4.000006: kvm_mmio: mmio read len 4 gpa 0xfee000b0 val 0x0
 load-111 [000] ...1. 4.000007: kvm_mmio: mmio read len 4 gpa 0xfee000b0 val 0x0
 load-111 [000] ...1. 4.000008: kvm_mmio: mmio write len 4 gpa 0xfec00000 val 0x0
 load-111 [000] ...1. 4.000009: kvm_fast_mmio: fast mmio at gpa 0xfe003000
 load-112 [001] ...1. 4.000010: kvm_mmio: mmio unsatisfied-read len 4 gpa 0xfec00010 val 0x0
";

#[test]
fn an_access_is_counted_once() {
    let t = timeline(ACCESSES);
    let mut seen: Vec<_> = t.top_mmio(9).iter().map(|p| (p.gfn, p.count)).collect();
    seen.sort_unstable();
    assert_eq!(seen, [(0xfe003, 1), (0xfec00, 2), (0xfee00, 3)]);
    assert_eq!(t.mmio_ranges().iter().filter_map(|r| r.accesses).sum::<u64>(), 6);
    // Without kvm_mmio nothing shows how many accesses there were.
    let untold: Vec<&str> =
        ACCESSES.lines().filter(|l| !l.contains("kvm_mmio:") && !l.contains("kvm_fast_mmio:")).collect();
    let t = timeline(&untold.join("\n"));
    let told: Vec<_> = t.mmio_ranges().iter().map(|r| (r.gfn_start, r.accesses, r.faults)).collect();
    assert_eq!(told, [(0xfee00, None, 1)]);
}

#[test]
fn the_host_frame_is_the_one_behind_the_faulting_frame() {
    let f = faults(
        "
 load-111 [000] d..1. 1.000000: kvm_exit: vcpu 0 reason npf rip 0x6022 info1 0x0000000100000006 info2 0x0000000002005000 intr_info 0x00000000 error_code 0x00000000
 load-111 [000] ..... 1.000001: kvm_page_fault: vcpu 0 rip 0x6022 address 0x0000000002005000 error_code 0x100000006
 load-111 [000] ...1. 1.000002: kvm_mmu_spte_requested: gfn 2005 pfn d405 level 2
 load-111 [000] ...1. 1.000003: kvm_tdp_mmu_spte_changed: as id 0 gfn 2000 level 2 old_spte 0 new_spte d400ee7
 load-111 [000] ...1. 1.000004: kvm_mmu_set_spte: gfn 2000 spte d400ee7 (rwxu) level 2 at 5516080
 load-111 [000] d..1. 1.000005: kvm_entry: vcpu 0, rip 0x6022
",
    );
    let told: Vec<_> = f.iter().map(|f| (f.gfn, f.level, f.level_wanted, f.pfn, f.outcome)).collect();
    assert_eq!(told, [(Some(0x2005), Some(2), Some(2), Some(0xd405), Outcome::Fixed)]);
}

/// A host thread that serves a page (userfaultfd) may take its time: 32 bits of nanoseconds are over after 4.29 s.
#[test]
fn a_fault_may_take_longer_than_four_seconds() {
    let text = "
 load-111 [000] d..1. 4.000000: kvm_exit: vcpu 0 reason npf rip 0x6022 info1 0x0000000100000006 info2 0x0000000000100000 intr_info 0x00000000 error_code 0x00000000
 load-111 [000] ..... 4.000001: kvm_page_fault: vcpu 0 rip 0x6022 address 0x0000000000100000 error_code 0x100000006
 load-111 [000] d..1. 34.000000: kvm_entry: vcpu 0, rip 0x6022
";
    let all = faults(text);
    assert_eq!(all.iter().map(Fault::duration).collect::<Vec<_>>(), [Some(30_000_000_000)]);
    assert_eq!(all[0].end_ts, Some(34_000_000_000));
}
