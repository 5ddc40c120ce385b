//! `decode` and the replay ask one judge: they agree on every sample, and on pasted texts `decode` says the point first.

#[path = "support/run.rs"]
mod run;

use run::run;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

/// What `decode` says of a text.
fn decode(options: &[&str], text: &str) -> String {
    let output = run(&[&["decode"], options].concat(), text);
    assert!(output.status.success(), "{}\nof:\n{text}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// The first ten lines, which must hold the point.
fn head(options: &[&str], text: &str) -> String {
    decode(options, text).lines().take(10).collect::<Vec<_>>().join("\n")
}

/// Asserts that each of `parts` is in the first ten lines.
fn says(options: &[&str], text: &str, parts: &[&str]) {
    let said = head(options, text);
    for part in parts {
        assert!(said.contains(part), "no `{part}` in the first ten lines:\n{said}\nof:\n{text}");
    }
}

fn layout_of(jsonl: &str) -> String {
    let first: Value = serde_json::from_str(jsonl.lines().next().expect("a line")).expect("an object");
    first["layout"].as_str().expect("a layout").to_owned()
}

/// The layout that the replay concludes of a trace.
fn replayed(file: &Path) -> String {
    let file = file.to_str().expect("UTF-8");
    layout_of(&decode(&["--format", "jsonl", "--from", file, "0x1"], ""))
}

fn samples() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples");
    let mut list: Vec<PathBuf> = std::fs::read_dir(folder)
        .expect("samples")
        .map(|e| e.expect("an entry").path().join("trace.txt.zst"))
        .filter(|p| p.exists())
        .collect();
    list.sort();
    assert!(list.len() >= 11, "samples are missing");
    list
}

#[test]
fn decode_and_replay_agree_on_every_sample() {
    for sample in samples() {
        let packed = std::fs::read(&sample).expect("read");
        let text = zstd::decode_all(packed.as_slice()).expect("zstd");
        let text = String::from_utf8_lossy(&text);
        // The whole of it for the replay's answer, a stretch from its middle for what people paste.
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len() / 2;
        let folder = tempfile::tempdir().expect("a folder");
        for (name, part) in [
            ("start", &lines[..lines.len().min(3000)]),
            ("middle", &lines[from..lines.len().min(from + 3000)]),
        ] {
            let mut cut = String::new();
            for line in part {
                let _ = writeln!(cut, "{line}");
            }
            let file = folder.path().join(name);
            std::fs::write(&file, &cut).expect("written");
            let pasted = run(&["decode", "--format", "jsonl"], &cut);
            // A stretch without a value has nothing to decode.
            if pasted.status.code() == Some(2) && !cut.contains("spte") {
                continue;
            }
            let pasted = layout_of(&String::from_utf8_lossy(&pasted.stdout));
            assert_eq!(pasted, replayed(&file), "{} of {}", name, sample.display());
        }
    }
}

#[test]
fn cuts_of_a_sample_are_read_as_the_whole() {
    // The kernels that recorded them, as each sample's README and version file say.
    let known = [
        ("5.10-ept-ad", "E08/ept"),
        ("5.10-npt-tdp", "E08/npt"),
        ("5.10-shadow64", "E08/shadow64"),
        ("5.10pae-shadow", "E08/shadow-pae"),
        ("6.1-ept-ad", "E11/ept"),
        ("6.1-ept-noad", "E11/ept-noad"),
        ("6.1-npt", "E11/npt"),
        ("6.1-npt-nommio", "E11/npt"),
        ("6.1-shadow32", "E11/shadow-pae"),
        ("6.18-npt", "E13/npt"),
        ("7.3-npt", "E14/npt"),
    ];
    for sample in samples() {
        let name = sample.parent().and_then(Path::file_name).and_then(|n| n.to_str()).expect("a name");
        let Some((_, want)) = known.iter().find(|(n, _)| *n == name) else { continue };
        assert_eq!(replayed(&sample), *want, "{name}");
    }
}

#[test]
fn many_changes_are_a_line_each() {
    let mut text = String::new();
    for (gfn, level, new) in [
        (0, 4, 0x1_0a1b_2827_u64),
        (0, 3, 0x1_0a1b_3827),
        (0, 2, 0x1_0a1b_4827),
        (0x200, 2, 0x2e_7640_0ee7),
        (0x1f, 1, 0x31_2437_3e67),
    ] {
        let _ =
            writeln!(text, "TP_SPTE tid=15 gfn={gfn:#x} level={level} old=0x8000000000000000 new={new:#x}");
    }
    says(
        &[],
        &text,
        &[
            "/npt",
            "nonpresent → table",
            "pfn 0x2e76400 rwxu A D host-writable MMU-writable 2 MiB",
            "pfn 0x3124373",
        ],
    );
}

/// A 32-bit guest on a CPU without EPT: PAE walks begin at level 2, and what 5.10 prints as level 3 is whatever the stack held. The frame
/// that faulted, 0xfed00, is in the MMIO SPTE under an L1TF split at 39 bits: `3<<52 | 1<<51 | b38:34 | gpa | generation 0x10 | W U P`.
const PAE_DUMP: &str = "\
get_mmio_spte: detect reserved bits on spte, addr 0xfed00000, dump hierarchy:
------ spte 0x4100000106 level 3.
------ spte 0x1b3f027 level 2.
------ spte 0x38007cfed00087 level 1.
CPU: 0 PID: 811 Comm: qemu-system-i38 Not tainted 5.10.2-arch1 #1
";

#[test]
fn a_slot_that_no_walk_wrote_is_no_entry() {
    says(
        &[],
        PAE_DUMP,
        &[
            "E08/shadow-pae",
            "MAXPHYADDR 39 inferred, L1TF",
            "looks like a false alarm",
            "unwritten",
            "gfn 0xfed00 generation 0x10",
        ],
    );
    assert!(decode(&[], PAE_DUMP).contains("The entries of the walk itself are sound"));
    // The same on a CPU with 5-level paging and a 4-level EPT walk.
    let four = "\
        get_mmio_spte: detect reserved bits on spte, addr 0xfee00000, dump hierarchy:\n\
        ------ spte 0xffffc9000123fd48 level 5.\n------ spte 0x10a1b2107 level 4.\n------ spte 0x10a1b3107 level 3.\n\
        ------ spte 0x10a1b4107 level 2.\n------ spte 0x300000fee00046 level 1.\n";
    says(&[], four, &["E08/ept", "looks like a false alarm", "level 5  0xffffc9000123fd48  unwritten"]);
}

#[test]
fn the_mask_that_is_printed_tells_width_and_offender() {
    // Bits 51:43 reserved: MAXPHYADDR 43. Bit 63 among them: a kernel up to 5.19.
    let nx = "spte = 0x80000001c0200ee7, level = 2, rsvd bits = 0x800ff800001fe000\n\
              WARNING: CPU: 3 PID: 700 at arch/x86/kvm/mmu/spte.c:200 make_spte+0x2f7/0x310 [kvm]\n\
              npf_interception+0x55/0x90 [kvm_amd]\n";
    says(
        &[],
        nx,
        &[
            "/npt",
            "MAXPHYADDR 43 inferred",
            "looks like a false alarm",
            "value & rsvd bits = 0x8000000000000000",
            "pfn 0x1c0200",
        ],
    );
    assert!(!decode(&[], nx).contains("malformed"), "to the CPU it is NX");
    // A PAE mask reserves everything from the width up to bit 62.
    let pae = "spte = 0x40000000abcde67, level = 1, rsvd bits = 0x7ffff00000000000\n";
    says(&[], pae, &["shadow-pae", "MAXPHYADDR 44 inferred", "bit 58 is what the check refused"]);
}

#[test]
fn values_count_more_than_the_release() {
    // Suppress-#VE in every entry and an empty entry of 1<<63: 6.10 and later, whatever the tree calls itself.
    let text = "CPU: 5 PID: 99 Comm: vmm Not tainted 6.6.9-fleet #3\n\
                kvm: #VE fee01000, spte[4] = 0x8000000107b1e907, spte[3] = 0x8000000107b1f907, spte[2] = 0x8000000107b20907, spte[1] = 0x8600000123456b77\n";
    says(&[], text, &["/ept ", "looks like a #VE that the SPTEs do not explain"]);
    let said = decode(&[], text);
    let era = said.split('/').next().expect("an era");
    assert!(matches!(era, "E12" | "E13"), "{said}");
    assert!(said.contains("the text names kernel 6.6.9 (trees carry backports"), "{said}");
    // Without bit 63 in the last entry the #VE is explained.
    let clear = text.replace("0x8600000123456b77", "0x600000123456b77");
    let said = decode(&[], &clear);
    assert!(said.contains("the last entry lacks suppress-#VE"), "{said}");
    assert!(!said.contains("do not explain"), "{said}");
}

#[test]
fn installs_are_leaves() {
    // Read as 5.13 and later, bit 11 clear, it would be no entry at all; the event installs leaves.
    let text = "vm-7 [001] 5.000001: kvm_mmu_set_spte: gfn 1f0 spte 12345025 (r-xu) level 1 at 9a010f80\n";
    says(&[], text, &["E08/npt", "present: maps a 4 KiB page at pfn 0x12345"]);
    // #PF exits and no EPT violation: the tables shadow the guest's.
    let shadow = "vm-7 [001] d... 5.000001: kvm_exit: reason EXCEPTION_NMI rip 0x1000 info 1000 80000b0e\n\
                  vm-7 [001] .... 5.000002: kvm_page_fault: address 1000 error_code 14\n\
                  vm-7 [001] .... 5.000003: kvm_mmu_set_spte: gfn 1 spte 12345c67 (rwxu) level 1 at 9a010008\n";
    says(&[], shadow, &["shadow paging", "pfn 0x12345"]);
}

#[test]
fn zero_is_nonpresent_everywhere() {
    says(&["0x0"], "", &["nonpresent under every layout", "6.10 and later"]);
    let loop_ = "vm-9 [003] .... 7.000001: kvm_page_fault: address 7f0000 error_code 182\n\
                 vm-9 [003] d... 7.000002: fast_page_fault: vcpu 0 gva 7f0000 error_code W sptep 0000000011111111 old 0x0 new 0 spurious 0 fixed 0\n\
                 vm-9 [003] .... 7.000003: kvm_userspace_exit: reason error (14)\n";
    says(&[], loop_, &["nonpresent under every layout", "gfn 0x7f0", "EFAULT"]);
    for mode in ["tdx", "pvm", "pkvm"] {
        assert!(!decode(&[], loop_).to_lowercase().contains(mode));
    }
}

#[test]
fn two_answers_at_once_are_both_told() {
    // EPT: low bits 110 (the MMIO mark), frame 0xfee00, and bit 11 set.
    let text = "kvm: get_mmio_spte: reserved bits set on MMU-present spte, addr 0xfee00000, hierarchy:\n\
                kvm: ------ spte = 0x10a1b2907 level = 4, rsvd bits = 0xfc000000000f8\n\
                kvm: ------ spte = 0x10a1b3907 level = 3, rsvd bits = 0xfc00000000078\n\
                kvm: ------ spte = 0x10a1b4907 level = 2, rsvd bits = 0xfc00000000078\n\
                kvm: ------ spte = 0xfee00806 level = 1, rsvd bits = 0xfc00000000000\n";
    let said = decode(&[], text);
    assert!(said.contains("two answers at once"), "{said}");
    assert!(said.contains("an MMIO SPTE of frame 0xfee00"), "{said}");
}

#[test]
fn loops_look_like_their_bugs() {
    let mut stale = String::new();
    for n in 0..4 {
        let _ = write!(
            stale,
            "vm-5 [002] 9.00000{n}: kvm_exit: reason EXIT_NPF rip 0xffffffff81000000 info 200000006 1234000\n\
             vm-5 [002] 9.00000{n}: kvm_page_fault: vcpu 0 rip 0xffffffff81000000 address 0x0000000001234000 error_code 0x200000006\n\
             vm-5 [002] 9.00000{n}: kvm_entry: vcpu 0, rip 0xffffffff81000000\n"
        );
    }
    says(&[], &stale, &["looks like mmu_notifier's sequence count passed 2^31", "mmu_invalidate_seq"]);
    // One retry, and then the fault is served: nothing of the kind.
    let served = "vm-5 [002] 9.0: kvm_exit: reason EXIT_NPF rip 0x1 info 200000006 1234000\n\
                  vm-5 [002] 9.1: kvm_page_fault: vcpu 0 rip 0x1 address 0x0000000001234000 error_code 0x200000006\n\
                  vm-5 [002] 9.2: kvm_entry: vcpu 0, rip 0x1\n\
                  vm-5 [002] 9.3: kvm_page_fault: vcpu 0 rip 0x1 address 0x0000000001234000 error_code 0x200000006\n\
                  vm-5 [002] 9.4: kvm_mmu_set_spte: gfn 1234 spte 55555e67 (rwxu) level 1 at 9a0109a0\n\
                  vm-5 [002] 9.5: kvm_entry: vcpu 0, rip 0x1\n";
    assert!(!decode(&[], served).contains("looks like"));
    let mut spurious = String::new();
    for n in 0..4 {
        let _ = write!(
            spurious,
            "vm-6 [002] ..... 9.00000{n}: kvm_page_fault: vcpu 1 rip 0x55 address 0x0000000000055000 error_code 0x184\n\
             vm-6 [002] ..... 9.00000{n}: fast_page_fault: vcpu 1 gva 55000 error_code F sptep 00000000aaaaaaaa old 0x61000012345f877 new 61000012345f877 spurious 1 fixed 0\n"
        );
    }
    says(&[], &spurious, &["E11/ept-noad", "looks like a stale translation below KVM"]);
}

#[test]
fn what_is_given_rules_and_is_doubted() {
    let output = run(&["decode", "0x8600000123456b77", "--vendor", "amd", "--paging", "ept"], "");
    assert_eq!(output.status.code(), Some(2));
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("vendor amd") && said.contains("paging mode ept"), "{said}");
    let values = ["0x8600000123456b77", "0x8000000107b1e907", "--kernel", "5.10", "--paging", "ept"];
    let said = decode(&values, "");
    assert!(said.starts_with("E08/ept"), "{said}");
    assert!(
        said.contains(
            "the layout given does not fit these values; what would: EPT with A/D bits, kernels 6.1"
        ),
        "{said}"
    );
    assert!(
        !decode(&["0x600000123456b77", "--kernel", "6.1", "--paging", "ept"], "").contains("does not fit")
    );
}

/// A 4-level walk of a 64-bit AMD host, as 5.10 to 5.12 word the dump: bit 58 of the leaf is set.
const NPT_DUMP: &str = "\
get_mmio_spte: detect reserved bits on spte, addr 0x7fe02a10, dump hierarchy:
------ spte 0x2044a1027 level 4.
------ spte 0x20449a027 level 3.
------ spte 0x265bf1027 level 2.
------ spte 0xc0001a0012c67 level 1.
";

#[test]
fn a_walk_proves_the_level_of_its_root() {
    for options in [&[][..], &["--kernel", "5.10"], &["--kernel", "5.11"], &["--kernel", "5.12"]] {
        let said = decode(options, NPT_DUMP);
        assert!(said.contains("/npt  NPT"), "{options:?}\n{said}");
        assert!(said.contains("level 4  0x00000002044a1027  table"), "{options:?}\n{said}");
        assert!(!said.contains("unwritten") && !said.contains("holds no SPTE"), "{options:?}\n{said}");
    }
    // Other releases print what they walked only, so that a level-4 line rules out the shadow of a 32-bit guest. Bit 52 belongs to the type of
    // A/D-off entries from 5.4 on; under 5.0 nothing fits, and least of all a walk that begins at level 2.
    let older = "walk_shadow_page_get_mmio_spte: detect reserved bits on spte, addr 0x3a8fe10, dump hierarchy:\n\
        ------ spte 0x100000412b1007 level 4.\n------ spte 0x100000412b2007 level 3.\n\
        ------ spte 0x100000412b3007 level 2.\n------ spte 0x10000055d48c76 level 1.\n";
    for options in [&[][..], &["--kernel", "5.0"], &["--kernel", "4.19"]] {
        let said = decode(options, older);
        assert!(!said.contains("unwritten") && !said.contains("/shadow-pae"), "{options:?}\n{said}");
    }
    // What was given rules, and the walk says that it cannot be.
    let said = decode(&["--kernel", "5.14", "--paging", "shadow-pae"], &NPT_DUMP.replace("027", "827"));
    assert!(said.contains("walks of this paging mode begin at level 2"), "{said}");
    // Five levels: the root of a host that runs with LA57.
    let five = "kvm: get_mmio_spte: reserved bits set on MMU-present spte, addr 0x7fe02a10, hierarchy:\n\
        kvm: ------ spte = 0x1044a0827 level = 5, rsvd bits = 0xff80000000180\n\
        kvm: ------ spte = 0x1044a1827 level = 4, rsvd bits = 0xff80000000180\n\
        kvm: ------ spte = 0x10449a827 level = 3, rsvd bits = 0xff80000000000\n\
        kvm: ------ spte = 0x165bf1827 level = 2, rsvd bits = 0xff80000000000\n\
        kvm: ------ spte = 0x80001a0012e67 level = 1, rsvd bits = 0xff80000000000\n";
    says(&[], five, &["/npt  NPT", "MAXPHYADDR 43 inferred, root level 5 inferred"]);
}

#[test]
fn a_32_bit_host_runs_npt_with_three_levels() {
    // Reserved in a PAE entry: bits 62 down to the width, 40, and NX up to 5.19.
    let text = "[ 2.1] spte = 0x1ff0041c25e67, level = 1, rsvd bits = 0xffffff0000000000\n\
                [ 2.2] WARNING: CPU: 0 PID: 45 at arch/x86/kvm/mmu/spte.c:182 make_spte+0x2d1/0x319 [kvm]\n\
                [ 2.3]  npf_interception+0x89/0x91 [kvm_amd]\n\
                [ 2.4] get_mmio_spte: reserved bits set on MMU-present spte, addr 0xffe02000, hierarchy:\n\
                [ 2.5] ------ spte = 0x8a13827 level = 2, rsvd bits = 0xffffff0000000000\n\
                [ 2.6] ------ spte = 0x1ff0041c25e67 level = 1, rsvd bits = 0xffffff0000000000\n";
    says(
        &[],
        text,
        &["/npt  NPT", "amd inferred, MAXPHYADDR 40 inferred, root level 3 inferred, 32-bit kernel"],
    );
    // The vendor that a text names is that of a shadowing host, too.
    let shadow = "spte = 0x1000abcde67, level = 1, rsvd bits = 0x7fffff0000000000\n\
                  WARNING: CPU: 0 PID: 45 at arch/x86/kvm/mmu/spte.c:182 make_spte+0x2d1/0x319 [kvm]\n\
                  Modules linked in: kvm_amd kvm\n pf_interception+0x12/0x40 [kvm_amd]\n";
    says(&[], shadow, &["shadow-pae", "amd inferred, MAXPHYADDR 40 inferred"]);
}

#[test]
fn pkvm_is_offered_only_where_nothing_else_can_be() {
    // No bit 11: an entry of 5.12 or older. RHEL 8.5's KVM is that of 5.13, and no RHEL has pKVM.
    let line =
        "vm-7 [001] 5.000001: kvm_mmu_set_spte: gfn fffff spte 41c2171025 (r-xu) level 1 at 8a53b01ff8\n";
    for options in [&["--kernel", "4.18.0-348.el8"][..], &["--kernel", "6.1"], &[]] {
        let said = decode(options, line);
        assert!(!said.to_lowercase().contains("pkvm"), "{options:?}\n{said}");
        assert_eq!(
            said.contains("the layout given does not fit"),
            !options.is_empty(),
            "{options:?}\n{said}"
        );
        assert_eq!(said.contains("No reading fits"), !options.is_empty(), "{options:?}\n{said}");
    }
    let said = decode(&["07 00 00 01 33 45 6b 77"], "");
    assert!(!said.to_lowercase().contains("pkvm"), "{said}");
    says(&["0x10000123456037", "--paging", "pkvm"], "", &["/pkvm", "pfn 0x123456"]);
}

#[test]
fn a_known_bug_governs_what_follows() {
    // EPYC with 43 address bits: MMIO SPTEs are marked by bits 51:43 and P. Generation 0x102, of which bit 8 stands in bit 11; frame 0xfed00.
    let text = NPT_DUMP
        .replace("027", "827")
        .replace("0xc0001a0012c67", "0xff800fed00817")
        .replace("0x7fe02a10", "0xfed00074");
    let kernel = "CPU: 1 PID: 5 Comm: vmm Not tainted 5.12.0-rc1-next #1\n";
    let said = decode(&[], &format!("{text}{kernel}"));
    for part in [
        "/npt",
        "looks like an MMIO SPTE whose generation reached bit 11",
        "MAXPHYADDR 43 inferred",
        "bits 51:43, which mark the MMIO SPTE of guest frame 0xfed00, the one that faulted",
    ] {
        assert!(said.contains(part), "no `{part}`:\n{said}");
    }
    for part in ["no memory at a frame", "pfn,", "MALFORMED", "means nothing", "0xf800fed00"] {
        assert!(!said.contains(part), "`{part}`:\n{said}");
    }
    // A frame number that is too large has bit 51 set as well, and that is no such bug.
    let large = text.replace("0xff800fed00817", "0xfffffc4465e67");
    let said = decode(&[], &large);
    assert!(!said.contains("generation reached"), "{said}");
    assert!(said.contains("no memory at a frame"), "{said}");
}

#[test]
fn old_dumps_do_not_say_that_bits_were_found() {
    let text = "EPT: Misconfiguration.\nEPT: GPA: 0x208ca4538\n\
                ept_misconfig_inspect_spte: spte 0x44c236107 level 4\nept_misconfig_inspect_spte: spte 0x2515c7107 level 3\n\
                ept_misconfig_inspect_spte: spte 0x3e4657107 level 2\nept_misconfig_inspect_spte: spte 0x428125d77 level 1\n";
    let said = decode(&[], text);
    says(&[], text, &["E01/ept", "kernels up to 4.2, older than any kernel known here"]);
    assert!(!said.contains("reserved bits were found") && !said.contains("hit reserved bits"), "{said}");
    // Memory type 7 is what the CPU refuses.
    let bad = decode(&[], &text.replace("0x428125d77", "0x428125d7f"));
    assert!(bad.contains("In the level-1 entry memory type 7 does not exist"), "{bad}");
}

#[test]
fn the_end_repeats_neither_the_options_wrongly_nor_a_reading() {
    let said = decode(&["0x123456b77", "--kernel", "5.11"], "");
    assert!(said.contains("Given: kernel 5.11. One reading fits: EPT"), "{said}");
    assert!(!said.contains("No layout was given"), "{said}");
    let said = decode(&["0x45171025"], "");
    assert!(said.contains("No layout was given: "), "{said}");
    let listed = said.split("\n  2. ").nth(1).and_then(|rest| rest.lines().next()).expect("a second reading");
    assert!(said.contains("Against reading 2:"), "{said}");
    assert_eq!(said.matches(listed).count(), 1, "{said}");
    // A word that no kernel writes fits nothing.
    let said = decode(&["0x123456789abcdef1"], "");
    assert!(said.contains("No reading fits"), "{said}");
}

#[test]
fn a_report_of_a_bug_lacks_no_event() {
    let text = "Invalid SPTE change: cannot replace a present leaf\nSPTE with another present leaf SPTE mapping a\ndifferent PFN!\n\
                as_id: 0 gfn: 4a00 old_spte: 600000212400bf3 new_spte: 600000212600bf3 level: 2\n";
    let said = decode(&[], text);
    assert!(said.contains("The TDP MMU stopped here") && said.contains("0x212400 → 0x212600"), "{said}");
    assert!(!said.contains("missing") && !said.contains("two entries"), "{said}");
    // Two bare values may be of two moments.
    let said = decode(&["0x600000212400bf3", "0x600000212600bf3", "--level", "2"], "");
    assert!(said.contains("zapped between the two values, or they are of two entries"), "{said}");
}

#[test]
fn a_tree_that_is_older_than_its_entries_is_named() {
    // Suppress-#VE in every entry since 6.10; irq flags of four characters up to 5.15.
    let line = |flags: &str| {
        format!(
            "vm-6 [059] {flags} 234.587042: kvm_tdp_mmu_spte_changed: as id 0 gfn 8a00 level 2 old_spte 8000000107b97907 new_spte 80000000000005a0\n"
        )
    };
    says(
        &[],
        &line("...."),
        &["/ept", "other releases than the text shows", "irq flags has four characters (up to 5.15)"],
    );
    for newer in [line("....."), line("d..1."), format!("cpus=8\n{}", line("...."))] {
        assert!(!decode(&[], &newer).contains("irq flags"), "{newer}");
    }
    // A value of 5.14 agrees with it.
    let same = line("....").replace("8000000107b97907", "107b97907").replace("80000000000005a0", "5a0");
    assert!(!decode(&[], &same).contains("other releases"), "{same}");
}

#[test]
fn one_bit_means_and_no_permission_is_a_dash() {
    let said = decode(&["0x600000123456b67", "--kernel", "6.1", "--paging", "npt"], "");
    assert!(
        said.contains("bits 58:57, 8 mean nothing") || said.contains("bits 58:57 mean nothing"),
        "{said}"
    );
    let said = decode(&["0x123456e77", "--kernel", "6.1", "--paging", "npt"], "");
    assert!(said.contains("bit 4 means nothing"), "{said}");
    let said = decode(&["0x0", "0x600000123456b77", "--kernel", "6.1", "--paging", "ept"], "");
    assert!(said.contains("permissions     – → rwx"), "{said}");
}

/// The vectors v029, v051 and v063 of the references: leaves of hosts with SME, whose C-bit is 47 or 51.
#[test]
fn the_bit_of_memory_encryption_is_no_frame() {
    for (value, era) in [("0x800123456c67", "E08"), ("0x800123456e67", "E11"), ("0x8000123456e67", "E11")] {
        let said = decode(&[value, "--format", "jsonl"], "");
        let d: Value = serde_json::from_str(said.lines().next().expect("a line")).expect("an object");
        assert_eq!(d["layout"], format!("{era}/npt"), "{said}");
        assert_eq!((&d["pfn"], &d["encrypted"]), (&Value::from("0x123456"), &Value::from(true)), "{said}");
        assert_eq!(d["reserved_bits"], "0x0", "{said}");
        assert!(!said.contains("two answers"), "{said}");
    }
    // Tables of such a host have the bit, too: where they lack it, one entry that has it is wrong.
    let walk = "0x100000827 level 4 0x100001827 level 3 0x100002827 level 2 0x8000123456e67 level 1";
    assert!(!decode(&[], walk).contains("SME on"), "a leaf alone");
    assert!(decode(&[], &walk.replace("0x1000", "0x80001000")).contains("C-bit 51 inferred, SME on"), "all");
    // Bit 48 of a leaf flipped, on a host whose tables have C-bit 47: without both the frame is 0x1a0012.
    let flipped = "kvm: get_mmio_spte: reserved bits set on MMU-present spte, addr 0x7fe02a10, hierarchy:\n\
        kvm: ------ spte = 0x8001044a1827 level = 4, rsvd bits = 0xf000000000180\n\
        kvm: ------ spte = 0x80010449a827 level = 3, rsvd bits = 0xf000000000000\n\
        kvm: ------ spte = 0x800165bf1827 level = 2, rsvd bits = 0xf000000000000\n\
        kvm: ------ spte = 0x18001a0012e67 level = 1, rsvd bits = 0xf000000000000\n";
    let said = decode(&[], flipped);
    assert!(said.contains("C-bit 47 inferred, SME on"), "{said}");
    assert!(said.contains("has bit 48 set") && said.contains("0x00008001a0012e67, pfn 0x1a0012."), "{said}");
}

#[test]
fn values_of_events_that_are_not_read_are_judged() {
    // A probe that somebody named; nothing but its value is known of it.
    let text = "vm-7 [001] d..1. 5.000001: my_mmio_spte: gfn fec00 spte ff800fec00027\n";
    says(&[], text, &["/npt", "gfn 0xfec00", "mmio: guest frame 0xfec00"]);
}

#[test]
fn what_the_tdp_mmu_warns_of_is_no_finished_zap() {
    let text = "Unexpected SPTE change! Nonpresent SPTEs\nshould not be replaced with another,\n\
                different nonpresent SPTE, unless one or both\nare MMIO SPTEs, or the new SPTE is\na temporary removed SPTE.\n\
                as_id: 0 gfn: 8a00 old_spte: 5a0 new_spte: 123456000 level: 1\n";
    let said = decode(&[], text);
    assert!(said.contains("becomes neither present nor empty"), "{said}");
    assert!(!said.contains("the zap is finished") && !said.contains("No reading fits"), "{said}");
}
