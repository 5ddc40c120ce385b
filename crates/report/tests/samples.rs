//! Reports of the samples against what the kernel held when they ended.

#[path = "../../replay/tests/it/replayed.rs"]
mod replayed;

use std::path::{Path, PathBuf};

use mmuscope_replay::{MemoryKind, Shade};
use mmuscope_report::{Options, Report, render_html, render_markdown};
use replayed::load;

fn sample(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples").join(path)
}

fn report(path: &str, options: &Options) -> Report {
    let (trace, timeline) = load(&sample(path));
    Report::new(trace, timeline, options)
}

/// KVM's own counters at the end of the text trace: 4 KiB and 2 MiB pages present.
fn kvmstats(folder: &str) -> (u64, u64) {
    let text = std::fs::read_to_string(sample(folder).join("kvmstats.txt")).expect("kvmstats.txt");
    let sum = |name: &str| {
        let end = format!("/{name}");
        text.lines()
            .filter_map(|l| l.split_once(|c: char| c == ':' || c.is_whitespace()))
            .filter(|(k, _)| *k == name || k.ends_with(&end))
            .filter_map(|(_, v)| v.trim().parse::<u64>().ok())
            .max()
            .unwrap_or(0)
    };
    (sum("pages_4k"), sum("pages_2m"))
}

#[test]
fn present_memory_at_the_end_is_what_kvm_counted() {
    for folder in ["6.1-npt", "6.1-ept-ad", "6.1-ept-noad", "6.18-npt", "7.3-npt"] {
        let (small, large) = kvmstats(folder);
        assert!(small > 0, "{folder}: the kernel's counters are read");
        let r =
            report(&format!("{folder}/trace.txt.zst"), &Options { pictures: false, ..Options::default() });
        let spaces = || r.vms.iter().flat_map(|v| &v.spaces).map(|s| &s.over_time);
        let of = |level: u8| -> u64 {
            spaces()
                .flat_map(|o| &o.present_bytes)
                .filter(|l| l.level == level)
                .filter_map(|l| l.bytes.last())
                .sum()
        };
        assert_eq!((of(1) / 4096, of(2) >> 21), (small, large), "{folder}");
        // The same sum by ranges of frames.
        let ranges: u64 = r
            .vms
            .iter()
            .flat_map(|v| &v.spaces)
            .flat_map(|s| &s.memory)
            .filter(|m| m.kind == MemoryKind::Ram)
            .map(|m| m.frames.bytes)
            .sum();
        assert_eq!(ranges, small * 4096 + (large << 21), "{folder}: ranges");
        assert_eq!(spaces().map(|o| o.end_stale_bytes).sum::<u64>(), 0, "{folder}: nothing is silent here");
    }
}

#[test]
fn the_boot_is_told() {
    let r = report("linux-boot/trace.dat", &Options::default());
    assert_eq!(r.vms.len(), 1);
    let vm = &r.vms[0];
    // `trace-cmd report` of the same file: 2,097 kvm_page_fault, 1,774 kvm_mmio, 26 kvm_mmu_zap_all_fast.
    let count = |name: &str| r.events.iter().find(|e| e.event == name).map(|e| e.count);
    assert_eq!(count("kvm_page_fault"), Some(2097));
    assert_eq!(count("kvm_mmio"), Some(1774));
    assert_eq!(count("kvm_mmu_zap_all_fast"), Some(26));
    assert_eq!(r.recording.events, 44_682);
    // Faults are events joined: never more than there were.
    assert!((2000..=2097).contains(&vm.faults.total), "{}", vm.faults.total);
    assert!(!vm.faults.timed, "kvm_entry is not in this trace");
    assert_eq!(vm.faults.latency.p50, None);
    // What the guest's devices are, by their addresses.
    let devices: Vec<&str> = vm.mmio.iter().filter_map(|m| m.usually.as_deref()).collect();
    for d in ["I/O APIC", "HPET", "local APIC", "PCIe config space"] {
        assert!(devices.iter().any(|n| n.contains(d)), "{d} in {devices:?}");
    }
    let html = render_html(&r);
    for word in ["6.12.107", "qemu-system-x86", "SMM address space", "HPET"] {
        assert!(html.contains(word), "{word}");
    }
    assert!(html.len() < 3 << 20, "{} bytes", html.len());
    assert!(render_markdown(&r).contains("## MMIO"));
}

#[test]
fn sums_over_time_agree_with_the_replay() {
    let (trace, timeline) = load(&sample("6.1-npt/trace.txt.zst"));
    let r = Report::new(trace, timeline, &Options { pictures: false, ..Options::default() });
    let (t0, _) = timeline.range();
    let step = r.vms[0].spaces[0].over_time.step;
    for shade in [Shade::Writable, Shade::ReadOnly, Shade::Mmio] {
        for i in [10u64, 100, 200, 300, 400] {
            // Buckets hold the state just before the next one begins.
            let at = timeline.counts_at(t0 + (i + 1) * step - 1).total(shade);
            let mine: u64 = r
                .vms
                .iter()
                .flat_map(|v| &v.spaces)
                .flat_map(|s| &s.over_time.entries)
                .filter(|e| e.shade == shade)
                .map(|e| e.counts[i as usize])
                .sum();
            assert_eq!(mine, at, "{shade:?} in stretch {i}");
        }
    }
}

#[test]
fn every_sample_has_a_report() {
    for folder in
        ["5.10-ept-ad", "5.10-npt-tdp", "5.10-shadow64", "5.10pae-shadow", "6.1-shadow32", "6.1-npt-nommio"]
    {
        let r = report(&format!("{folder}/trace.txt.zst"), &Options::default());
        let html = render_html(&r);
        assert!(r.vms.iter().any(|v| v.faults.total > 1000), "{folder}: faults");
        assert!(html.contains("data:image/png;base64,"), "{folder}: a map");
        assert!(html.len() < 3 << 20, "{folder}: {} bytes", html.len());
        assert!(r.phases.iter().any(|p| p.text == "fork-cow"), "{folder}: phases");
    }
}

/// The page on which a vCPU ran into an open invalidation 253 times (`check` on the sample says so): one line of the story says it.
#[test]
fn the_same_fault_again_and_again_is_one_line() {
    let r = report("6.1-npt-nommio/trace.txt.zst", &Options { pictures: false, ..Options::default() });
    let pages = r.vms.iter().flat_map(|v| &v.top_faults);
    let p = pages.clone().find(|p| p.gfn == 0x1515).expect("the page is among the busiest");
    let folded: Vec<&str> =
        p.story.iter().map(|l| l.text.as_str()).filter(|t| t.contains(": retry × ")).collect();
    assert!(!folded.is_empty(), "{:#?}", p.story);
    let shown = |t: &&str| t.contains(": retry, try ");
    assert!(p.story.iter().map(|l| l.text.as_str()).filter(shown).count() < 4, "{:#?}", p.story);
    assert!(p.omitted_after as usize <= p.story.len());
}
