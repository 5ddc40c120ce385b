//! Fault records: whole samples against the counters of the kernel that ran them, and what real kernels traced in the odd cases.

use std::path::Path;

use mmuscope_replay::{Fault, Outcome, ReplayOptions, SeriesKind, Timeline, replay};
use mmuscope_trace::{ReadOptions, Trace};

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
        let trace =
            Trace::load(&[dir.join("trace.txt.zst")], &ReadOptions::default()).expect("a readable sample");
        let t = replay(&trace, &ReplayOptions::default());
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

/// 6.12, shadow paging: a write to a page that holds a guest page table is emulated, and nothing else tells so; a switch of CR3
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

/// VMX: an access to MMIO whose page the vCPU remembers tells nothing but its exit and what was emulated.
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
        [
            (Outcome::Emulated, Some(0xfee00), true, Some(28_000)),
            (Outcome::Emulated, None, true, Some(10_000)),
        ]
    );
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
