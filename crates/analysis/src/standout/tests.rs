use super::*;
use mmuscope_replay::{ReplayOptions, replay};

fn of(trace: &Trace) -> Vec<StandOut> {
    find(trace, &replay(trace, &ReplayOptions::default()))
}

fn facts(text: &str) -> Vec<StandOut> {
    of(&Trace::from_text(text).expect("a trace"))
}

/// The only fact there is.
fn only(text: &str) -> StandOut {
    let all = facts(text);
    assert_eq!(all.len(), 1, "{all:#?}");
    all.into_iter().next().expect("one")
}

/// Lines of one thread, a microsecond apart.
fn lines(bodies: &[&str]) -> String {
    let one = |(n, b): (usize, &&str)| format!("vmm-7  [001] ..... 5.{n:06}: {b}\n");
    bodies.iter().enumerate().map(one).collect()
}

const VIOLATION: &str = "kvm_exit: vcpu 1 reason EPT_VIOLATION rip 0x1000 info1 0x0000000000000181 info2 0x0000000000000000 intr_info 0x00000000 error_code 0x00000000";

#[test]
fn errors_to_user_space() {
    let round = [
        "kvm_entry: vcpu 1, rip 0x1000",
        VIOLATION,
        "kvm_page_fault: vcpu 1 rip 0x1000 address 0x0000000abc000 error_code 0x181",
        "kvm_userspace_exit: reason error (14)",
    ];
    let fact = only(&lines(&round.repeat(3)));
    assert_eq!(
        (fact.id, fact.severity, fact.gfn, fact.count),
        ("fault-error", Severity::Error, Some(0xabc), 3)
    );
    assert_eq!(fact.events, [2, 6, 10]);
    assert!(fact.title.starts_with("3 read faults of vCPU 1 on gfn 0xabc"), "{}", fact.title);
    assert!(fact.title.contains("-EFAULT to user space"), "{}", fact.title);
}

#[test]
fn faults_in_vain() {
    let round = [
        VIOLATION,
        "kvm_page_fault: vcpu 1 rip 0x1000 address 0x0000000abc000 error_code 0x181",
        "kvm_entry: vcpu 1, rip 0x1000",
    ];
    let fact = only(&lines(&round.repeat(2)));
    assert_eq!((fact.id, fact.gfn, fact.count), ("fault-loop", Some(0xabc), 2));
    assert!(fact.title.contains("no event shows an install"), "{}", fact.title);
    // Twice, and then the guest goes on: a race.
    let on = "kvm_exit: vcpu 1 reason HLT rip 0x1004 info1 0x0 info2 0x0 intr_info 0x00000000 error_code 0x00000000";
    assert_eq!(facts(&lines(&[&round.repeat(2)[..], &[on]].concat())), []);
    // Once is no loop.
    assert_eq!(facts(&lines(&round)), []);
    let spurious = "fast_page_fault: vcpu 1 gva abc000 error_code U sptep 00000000fd98c937 old 0x61000034d4fe877 new 61000034d4fe877 spurious 1 fixed 0";
    let fact = only(&lines(&[round[0], round[1], spurious, round[2]].repeat(4)));
    assert!(fact.title.contains("is spurious") && fact.count == 4, "{fact:?}");
}

#[test]
fn requests_for_what_is_there() {
    let request = "kvm_mmu_spte_requested: gfn fffff pfn 8be2171 level 1";
    let set = "kvm_mmu_set_spte: gfn fffff spte 8be2171025 (r-xu) level 1 at 8a53b01ff8";
    let fact = only(&lines(&[request, set, request, request, request]));
    assert_eq!((fact.id, fact.gfn, fact.count), ("request-loop", Some(0xfffff), 4));
    // Each request is answered, or the entry is taken away between: no loop.
    assert_eq!(facts(&lines(&[request, set].repeat(6))), []);
    let unmap = "kvm_unmap_hva_range: mmu notifier unmap range: 0x007fbe64017000 -- 0x007fbe64018000";
    assert_eq!(facts(&lines(&[request, set, request, unmap, request, unmap, request, unmap, request])), []);
}

#[test]
fn storms_of_the_notifier() {
    let unmap = "kvm_unmap_hva_range: mmu notifier unmap range: 0x007fbe64017000 -- 0x007fbe64018000";
    let set = "kvm_set_spte_hva: mmu notifier set pte hva: 0x007fbe64017000";
    let fact = only(&lines(&[unmap, set].repeat(9)));
    assert_eq!((fact.id, fact.count, fact.events.len()), ("notifier-storm", 18, 18));
    assert!(fact.title.contains("9 kvm_unmap_hva_range, 9 kvm_set_spte_hva"), "{}", fact.title);
    // Many pages are no storm on one.
    let many: Vec<String> = (0..40)
        .map(|n| {
            format!("kvm_unmap_hva_range: mmu notifier unmap range: 0x7fbe640{n:02}000 -- 0x7fbe64100000")
        })
        .collect();
    assert_eq!(facts(&lines(&many.iter().map(String::as_str).collect::<Vec<_>>())), []);
}

#[test]
fn ends_of_guests() {
    let fact = only(&lines(&[
        "kvm_mmu_pagetable_walk: addr fffffe0000201040 pferr 2 W",
        "kvm_mmu_walker_error: pferr 3 P|W",
        "kvm_inj_exception: #PF (0x3)",
        "kvm_entry: vcpu 1, rip 0x10",
        "kvm_exit: vcpu 1 reason TRIPLE_FAULT rip 0x10 info1 0x0 info2 0x0 intr_info 0x00000000 error_code 0x00000000",
    ]));
    assert_eq!((fact.id, fact.count), ("triple-fault", 1));
    assert!(fact.title.contains("refused a write to 0xfffffe0000201040 by permission"), "{}", fact.title);
    assert!(fact.title.contains("exception was injected"), "{}", fact.title);
    let fact = only(&lines(&[
        "kvm_entry: vcpu 1, rip 0xfc95a",
        "kvm_emulate_insn: 0:fc95a: (prot32)",
        "kvm_emulate_insn: 0:fc95a: (prot32) failed",
        "kvm_userspace_exit: reason KVM_EXIT_INTERNAL_ERROR (17)",
    ]));
    assert_eq!(fact.id, "internal-error");
    assert!(fact.title.contains("after a failed emulation at rip 0xfc95a"), "{}", fact.title);
}

#[test]
fn addresses_that_no_table_reaches() {
    let fact =
        only("12481.879 qemu-system-x8/27004 kvm:kvm_page_fault:address 8000002000000 error_code 181\n");
    assert_eq!((fact.id, fact.gfn), ("beyond-tables", Some(0x80_0000_2000)));
    assert!(fact.title.contains("bit 51"), "{}", fact.title);
}

#[test]
fn intercepted_page_faults() {
    let fact = only(&lines(&[
        "kvm_exit: reason EXCEPTION_NMI rip 0x1007 info 66 80000b0e",
        "kvm_page_fault: address 66 error_code 9",
        "kvm_emulate_insn: 0:1007:ee (real)",
        "kvm_entry: vcpu 0",
    ]));
    assert_eq!((fact.id, fact.severity), ("pf-intercepts", Severity::Info));
    assert!(
        fact.title.contains("error code 0x9 (RSVD), hit an MMIO SPTE, and was emulated"),
        "{}",
        fact.title
    );
}

/// A guest that works as it should stands out by nothing.
#[test]
fn nothing_stands_out_in_a_clean_run() {
    let samples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples");
    let mut seen = 0;
    for entry in std::fs::read_dir(samples).expect("samples").flatten() {
        for name in ["trace.txt.zst", "trace.dat", "perf.data.zst"] {
            let path = entry.path().join(name);
            if !path.is_file() {
                continue;
            }
            let trace = Trace::load(std::slice::from_ref(&path), &mmuscope_trace::ReadOptions::default())
                .expect("a sample");
            assert_eq!(of(&trace), [], "{}", path.display());
            seen += 1;
        }
    }
    assert!(seen >= 12, "{seen}");
}
