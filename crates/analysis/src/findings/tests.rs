use super::*;
use mmuscope_replay::{ReplayOptions, replay};
use mmuscope_testing::probed::with_probes;
use std::fmt::Write as _;

fn of(trace: &Trace) -> Vec<Finding> {
    find(trace, &replay(trace, &ReplayOptions::default()))
}

fn facts(text: &str) -> Vec<Finding> {
    of(&Trace::from_text(text).expect("a trace"))
}

/// The only fact there is.
fn only(text: &str) -> Finding {
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
        fact.title.contains("error code 0x9 (RSVD), hit an MMIO SPTE and was emulated"),
        "{}",
        fact.title
    );
}

/// What the samples' own READMEs say of their workload: dirty logging, huge pages that are split for it and come back, memory that is read before
/// it is written, a memory slot that is deleted and read as MMIO, memory that the host does not have or gives late, vCPUs that race the host's zaps, MMIO caching that is off, and the boot of a PC.
/// Each finding was compared with the raw events.
const SAMPLES: &[(&str, &str)] = &[
    ("5.10-ept-ad/trace.txt.zst", "shared-page-first ram-to-mmio"),
    ("5.10-npt-tdp/trace.txt.zst", "shared-page-first ram-to-mmio"),
    ("5.10-npt-tdp/perf.data.zst", "shared-page-first ram-to-mmio"),
    ("5.10-shadow64/trace.txt.zst", "shared-page-first ram-to-mmio"),
    ("5.10pae-shadow/trace.txt.zst", "shared-page-first ram-to-mmio"),
    ("6.1-ept-ad/trace.txt.zst", "shared-page-first huge-lost ram-to-mmio dirty-logging huge-won"),
    ("6.1-ept-ad/trace.dat", "shared-page-first huge-lost ram-to-mmio dirty-logging huge-won vm-torn-down"),
    ("6.1-ept-noad/trace.txt.zst", "shared-page-first ram-to-mmio dirty-logging huge-lost huge-won"),
    (
        "6.1-ept-noad/perf.data.zst",
        "shared-page-first ram-to-mmio dirty-logging huge-lost huge-won vm-torn-down",
    ),
    (
        "6.1-npt-nommio/trace.txt.zst",
        "shared-page-first mmio-uncached retry-invalidation huge-lost dirty-logging huge-won",
    ),
    ("6.1-npt/trace.txt.zst", "shared-page-first ram-to-mmio dirty-logging huge-lost huge-won"),
    (
        "6.1-npt/trace.dat",
        "shared-page-first retry-invalidation ram-to-mmio dirty-logging huge-lost huge-won vm-torn-down",
    ),
    (
        "6.1-npt/perf.data.zst",
        "shared-page-first ram-to-mmio dirty-logging retry-invalidation huge-lost huge-won vm-torn-down",
    ),
    (
        "6.1-npt/perf-pipe.data.zst",
        "shared-page-first retry-invalidation ram-to-mmio dirty-logging huge-lost huge-won vm-torn-down",
    ),
    ("6.1-shadow32/trace.txt.zst", "shared-page-first ram-to-mmio"),
    ("6.1-shadow32/trace.dat", "shared-page-first ram-to-mmio vm-torn-down"),
    ("6.1-shadow64-probes/mmuscope.perf.data", "shared-page-first ram-to-mmio dirty-logging"),
    (
        "6.12-absent/mmuscope.perf.data",
        "fault-error fault-error host-page-slow shared-page-first slot-misaligned async-fault-late",
    ),
    (
        "6.18-npt/trace.txt.zst",
        "shared-page-first ram-to-mmio dirty-logging retry-invalidation huge-lost huge-won",
    ),
    (
        "7.3-npt/trace.txt.zst",
        "shared-page-first retry-invalidation ram-to-mmio dirty-logging huge-lost huge-won",
    ),
    ("linux-boot/trace.dat", "zap-all huge-lost mmio-hot vm-torn-down"),
];

/// Recordings by rule, as Markdown: a column for each folder.
fn samples_table() -> String {
    let folder = |file: &str| file.split_once('/').map_or("", |f| f.0).to_owned();
    let mut folders: Vec<String> = SAMPLES.iter().map(|s| folder(s.0)).collect();
    folders.dedup();
    let mut out = format!("| finding | {} |\n|{}\n", folders.join(" | "), " --- |".repeat(folders.len() + 1));
    for r in RULES {
        let cell = |f: &String| {
            let of: Vec<&(&str, &str)> = SAMPLES.iter().filter(|s| folder(s.0) == *f).collect();
            let hits = of.iter().filter(|s| s.1.split(' ').any(|id| id == r.id)).count();
            match hits {
                0 => String::new(),
                n if n == of.len() => "fires".into(),
                n => format!("{n} of {} recordings", of.len()),
            }
        };
        let cells: Vec<String> = folders.iter().map(cell).collect();
        if cells.iter().any(|c| !c.is_empty()) {
            let _ = writeln!(out, "| `{}` | {} |", r.id, cells.join(" | "));
        }
    }
    out
}

#[test]
fn samples_show_what_their_workload_does() {
    let samples = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples");
    let mut wrong = Vec::new();
    for (file, expected) in SAMPLES {
        let path = samples.join(file);
        let trace = Trace::load(std::slice::from_ref(&path), &mmuscope_trace::ReadOptions::default())
            .expect("a sample");
        let ids: Vec<&str> = of(&trace).iter().map(|f| f.id).collect();
        if ids.join(" ") != *expected {
            wrong.push(format!("{file}: {}", ids.join(" ")));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Every rule has texts, an id of its own and an entry in the catalogue.
#[test]
fn the_catalogue_is_complete() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/guide/findings.md");
    let text = std::fs::read_to_string(&path).expect("the catalogue");
    let start = "<!-- Made of the rules: UPDATE=1 cargo test -p mmuscope-analysis -->\n";
    let (head, _) = text.split_once(start).expect("the place of the catalogue");
    let mut whole = format!("{head}{start}");
    for severity in [Severity::Error, Severity::Warning, Severity::Info] {
        for r in RULES.iter().filter(|r| r.severity == severity) {
            assert!(RULES.iter().filter(|o| o.id == r.id).count() == 1, "{}", r.id);
            for t in [r.seen, r.why, r.remedy, r.refuted] {
                assert!(t.len() > 10 && !t.ends_with('.') && !t.contains("  "), "{}: {t}", r.id);
            }
            let _ = write!(
                whole,
                "\n### `{}` ({})\n\n- **Found when** {}.\n- **Why:** {}.\n- **What to do:** {}.\n- **Refuted if** {}.\n",
                r.id,
                severity.name(),
                r.seen,
                r.why,
                r.remedy,
                r.refuted
            );
        }
    }
    whole.push_str(
        "\n## What the samples show\n\n`mmuscope check` on each recording of `samples/`: an empty cell is silence. The recordings of a folder are of one run in several formats, or of several runs. \
         Rules that no sample shows have no row. The test that holds the list compares it with what the rules find.\n\n",
    );
    whole.push_str(&samples_table());
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &whole).expect("writing the catalogue");
    }
    let same = text == whole || std::env::var_os("UPDATE").is_some();
    assert!(
        same,
        "docs/guide/findings.md is not what the rules say: UPDATE=1 cargo test -p mmuscope-analysis"
    );
}

/// Where a kprobe stands in for the kernel's own event of a change, or stands beside it, the same is found: by the same rules, as often, and on the
/// same frames.
#[test]
fn changes_that_are_probed_are_found_like_those_that_are_traced() {
    let sample = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/6.1-npt/trace.txt.zst");
    let traced = Trace::load(&[sample], &mmuscope_trace::ReadOptions::default()).expect("a sample");
    let spec = mmuscope_spte::LayoutSpec::named("6.1/npt").expect("ours");
    let layout = mmuscope_replay::LayoutOverride { spec };
    let options = ReplayOptions { layout, ..ReplayOptions::default() };
    let found = |trace: &Trace| -> Vec<(&str, u64, Option<u64>, String)> {
        let all = find(trace, &replay(trace, &options));
        all.into_iter().map(|f| (f.id, f.count, f.gfn, f.title)).collect()
    };
    let expected = found(&traced);
    assert!(expected.iter().any(|f| f.0 == "huge-lost"), "{expected:#?}");
    assert_eq!(found(&with_probes(&traced, false)), expected, "the probe stands in");
    assert_eq!(found(&with_probes(&traced, true)), expected, "the probe stands beside it");
}
