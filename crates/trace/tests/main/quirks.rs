//! Peculiar texts, line by line. The lines were printed by the kernel, trace-cmd and perf.

use mmuscope_trace::{Body, ClockUnit, Event, FastPfResult, Isa, Trace};

fn one(line: &str) -> (Event, Trace) {
    let t = Trace::from_text(&format!("{line}\n")).unwrap_or_else(|e| panic!("{line}: {e}"));
    assert_eq!((t.events.len(), t.info.damage.len()), (1, 0), "{line}: {:?}", t.info.damage);
    (t.events.get(0), t)
}

fn body(rest: &str) -> Body {
    one(&format!("            load-1     [000] ...1.     4.000001: {rest}")).0.body
}

#[test]
fn pages_of_every_text() {
    let page = |b: Body| match b {
        Body::GetPage { page, .. } | Body::PrepareZapPage { page } | Body::SyncPage { page } => page,
        b => panic!("{b:?}"),
    };
    let kernel =
        page(body("kvm_mmu_get_page: sp gen 0 gfn 3a l4 8-byte q0 direct wux nxe ad root 0 sync new"));
    assert_eq!(
        (kernel.gfn, kernel.role.level, kernel.role.gpte_bytes, kernel.role.direct),
        (Some(0x3a), 4, Some(8), true)
    );
    let seven =
        page(body("kvm_mmu_get_page: sp gen 0 gfn 0 l4 8-byte q0 direct rwux !nxe !ad root 0 sync existing"));
    assert_eq!((seven.role.r, seven.role.nxe, seven.role.ad_disabled), (true, Some(false), true));
    let old = page(body("kvm_mmu_get_page: sp gen 1f gfn 2 l1 pae q1 w-x nxe ad root 0 unsync new"));
    assert_eq!(
        (old.mmu_valid_gen, old.role.gpte_bytes, old.role.quadrant, old.unsync),
        (Some(0x1f), Some(8), 1, true)
    );
    assert_eq!((old.role.w, old.role.u, old.role.x), (true, false, true));
    let without_gen = page(body("kvm_mmu_sync_page: sp gfn 2 l1 4-byte q0 wux invalid nxe ad root 0 sync"));
    assert_eq!((without_gen.mmu_valid_gen, without_gen.role.invalid), (None, true));
    let plugin = page(body("kvm_mmu_prepare_zap_page: 1 q0 direct wux !pae nxe wp root 0 sync"));
    assert_eq!((plugin.gfn, plugin.role.level, plugin.role.direct), (None, 1, true));
    // The numbers are decimal: 8192 = 0x2000, 14209 = 0x3781.
    let unparsed = page(body(
        "kvm_mmu_prepare_zap_page: [FAILED TO PARSE] mmu_valid_gen=0 gfn=8192 role=14209 root_count=0 unsync=0",
    ));
    assert_eq!(
        (unparsed.gfn, unparsed.role.raw, unparsed.role.level, unparsed.role.direct),
        (Some(8192), Some(14209), 1, true)
    );
}

#[test]
fn a_plugin_that_drops_gfns_is_reported() {
    let (_, t) =
        one("load-1   [000]     8.196902: kvm_mmu_prepare_zap_page: 1 q0 direct wux !pae nxe wp root 0 sync");
    assert!(t.info.notes.iter().any(|n| n.contains("dropped the gfn of 1 ")), "{:?}", t.info.notes);
}

#[test]
fn exits_of_every_text() {
    let exit = |s| match body(s) {
        Body::Exit { vcpu, reason, isa, rip, info1, info2, .. } => (vcpu, reason, isa, rip, info1, info2),
        b => panic!("{b:?}"),
    };
    let npf = (Some(0x400), Some(Isa::Svm), 0x6000, Some(0x2_0000_0006), Some(0x2000));
    let with = |v, (r, i, p, a, b)| (v, r, i, p, a, b);
    assert_eq!(
        exit(
            "kvm_exit: vcpu 0 reason npf rip 0x6000 info1 0x0000000200000006 info2 0x0000000000002000 intr_info 0x00000000 error_code 0x00000000"
        ),
        with(Some(0), npf)
    );
    assert_eq!(exit("kvm_exit: reason EXIT_NPF rip 0x6000 info 200000006 2000"), with(None, npf));
    assert_eq!(
        exit(
            "kvm_exit: exit_reason=1024 guest_rip=0x6000 isa=2 info1=0x0000000200000006 info2=0x0000000000002000 vcpu_id=0"
        ),
        with(Some(0), npf)
    );
    assert_eq!(exit("kvm_exit: vcpu 1 reason PF excp rip 0x10 info1 0x10 info2 0x6000").1, Some(0x4e));
    let failed = exit("kvm_exit: vcpu 1 reason EPT_VIOLATION FAILED_VMENTRY rip 0x10 info1 0x10 info2 0x0");
    assert_eq!((failed.1, failed.2), (Some(0x8000_0030), Some(Isa::Vmx)));
}

/// Since 5.10 the event prints what `kvm_exit` prints; before, it has a form of its own.
#[test]
fn nested_exits() {
    let exit = |s: &str| match body(&format!("kvm_nested_vmexit: {s}")) {
        Body::NestedVmexit { vcpu, reason, isa, rip, info1, info2 } => (vcpu, reason, isa, rip, info1, info2),
        b => panic!("{b:?}"),
    };
    let npf =
        |vcpu| (vcpu, Some(0x400), Some(Isa::Svm), Some(0x40_0433), Some(0x2_0000_0006), Some(0x16_0000));
    assert_eq!(
        exit(
            "vcpu 0 reason npf rip 0x400433 info1 0x0000000200000006 info2 0x0000000000160000 intr_info 0x00000000 error_code 0x00000000"
        ),
        npf(Some(0))
    );
    assert_eq!(
        exit(
            "rip: 0x0000000000400433 reason: npf ext_inf1: 0x0000000200000006 ext_inf2: 0x0000000000160000 ext_int: 0x00000000 ext_int_err: 0x00000000"
        ),
        npf(None)
    );
    let failed = exit("vcpu 1 reason EPT_VIOLATION FAILED_VMENTRY rip 0x10 info1 0x10 info2 0x0");
    assert_eq!((failed.1, failed.2), (Some(0x8000_0030), Some(Isa::Vmx)));
}

#[test]
fn pointers() {
    let sptep = |s: &str| match body(&format!("mark_mmio_spte: sptep:{s} gfn d0000 access 7 gen 2")) {
        Body::MarkMmioSpte { sptep, .. } => sptep,
        b => panic!("{b:?}"),
    };
    assert_eq!(sptep("ffff888008a57000"), Some(0xffff_8880_08a5_7000));
    assert_eq!(sptep("0xffff8880094cb000"), Some(0xffff_8880_094c_b000));
    assert_eq!(sptep("000000001d8c585e"), None);
    assert_eq!(sptep("(____ptrval____)"), None);
    assert_eq!(sptep("c805f000"), Some(0xc805_f000));
}

#[test]
fn fast_faults() {
    let get = |s| match body(s) {
        Body::FastPageFault { error_code, old_spte, new_spte, result, .. } => {
            (error_code, old_spte, new_spte, result)
        }
        b => panic!("{b:?}"),
    };
    assert_eq!(
        get(
            "fast_page_fault: vcpu 0 gva 400000 error_code P|W|U|0x100000000 sptep 00000000e6ff57a6 old 0x3c58825 new 3c58827 spurious 0 fixed 1"
        ),
        (0x1_0000_0007, 0x3c5_8825, 0x3c5_8827, FastPfResult::Fixed)
    );
    assert_eq!(get("fast_page_fault: vcpu 0 gva 2000 error_code  sptep 00000000d017d220 old 0x0 new 0 spurious 0 fixed 0").3, FastPfResult::Invalid);
    // 6.1 gives INVALID the number 3, which the value that still forbids writing shows.
    assert_eq!(
        get("fast_page_fault: vcpu_id=0 cr2_or_gpa=400000 error_code=7 sptep=0xffff8880094cd000 old_spte=0x32b1825 new_spte=32b1825 ret=3").3,
        FastPfResult::Invalid
    );
}

#[test]
fn losses() {
    let t = Trace::from_text(
        "# tracer: nop\n a-1 [001] ..... 1.000000: kvm_pml_full: vcpu 0: PML full\nCPU:1 [LOST 1234 EVENTS]\n\
         a-1 [001] ..... 2.000000: kvm_pml_full: vcpu 0: PML full\nCPU:0 [LOST EVENTS]\nCPU:3 [7 EVENTS DROPPED]\n",
    )
    .unwrap();
    let lost: Vec<(u64, u16, Option<u64>)> = t
        .events
        .iter()
        .filter_map(|e| match e.body {
            Body::Lost { count, .. } => Some((e.ts / 1_000_000_000, e.cpu, count)),
            _ => None,
        })
        .collect();
    assert_eq!(lost, [(2, 1, Some(1234)), (2, 0, None), (2, 3, Some(7))]);
    assert!(t.info.is_partial());
    let (e, _) = one("            load   138 [000]    14.141612: PERF_RECORD_LOST lost 20");
    assert_eq!(e.body, Body::Lost { count: Some(20), event: None });
}

#[test]
fn marks_that_lines_were_left_out_are_losses() {
    let pml = |ts: u32, quote: &str| {
        format!("{quote} a-1 [001] ..... {ts}.000000: kvm_pml_full: vcpu 0: PML full\n")
    };
    let lost = |t: &Trace| -> Vec<u64> {
        let at = |e: mmuscope_trace::Event| {
            matches!(e.body, Body::Lost { count: None, .. }).then_some(e.ts / 1_000_000_000)
        };
        t.events.iter().filter_map(at).collect()
    };
    for mark in ["...", "....", "[...]", "<snip>", "[snip]", "…", "--"] {
        for quote in ["", ">"] {
            let line = format!("{quote} {mark}\n");
            // Before the first event and after the last, nothing is left out of the trace.
            let text = [&line, &*pml(1, quote), &*pml(2, quote), &line, &line, &*pml(3, quote), &line]
                .map(|s| s as &str)
                .concat();
            let t = Trace::from_text(&text).unwrap();
            assert_eq!(lost(&t), [3], "{text}");
            assert!(t.info.is_partial() && t.info.lost.known);
            assert!(t.info.notes.iter().any(|n| n.contains("left out, at 1 place")), "{:?}", t.info.notes);
        }
    }
    // What separates parts of a mail is no such mark.
    for line in ["---", "====", "***", "______", "some words ...", "=> __handle_changed_spte"] {
        let t = Trace::from_text(&format!("{}{line}\n{}", pml(1, ""), pml(2, ""))).unwrap();
        assert_eq!(lost(&t), [0; 0], "{line}");
    }
    // Lines that a filter chose do not show that nothing was lost.
    let whole = format!("cpus=2\n{}{}", pml(1, ""), pml(2, ""));
    assert!(Trace::from_text(&whole).unwrap().info.lost.known);
    let chosen = Trace::from_text(&format!("# trace-cmd report | grep kvm\n{whole}")).unwrap();
    assert!(!chosen.info.lost.known || chosen.info.lost.moments > 0);
}

#[test]
fn clocks_that_are_none() {
    let (e, t) = one("            load-1     [000] ...1.     4296383: kvm_entry: vcpu 0");
    assert_eq!((e.ts, t.info.clock.unit), (4_296_383, ClockUnit::Ordinal));
    let (_, t) = one("            load-1     [000]     4.296383123: kvm_entry: vcpu 0");
    assert_eq!(t.info.resolution_ns, 1);
}

#[test]
fn set_spte_letters() {
    let get = |s: &str| match body(&format!("kvm_mmu_set_spte: gfn 2 spte 25e7f77 ({s}) level 1 at 8a72010"))
    {
        Body::SetSpte { r, w, x, u, .. } => (r, w, x, u),
        b => panic!("{b:?}"),
    };
    assert_eq!(get("rwxu"), (true, true, true, Some(true)));
    assert_eq!(get("r-x-"), (true, false, true, Some(false)));
    assert_eq!(get("rwx"), (true, true, true, None));
}

#[test]
fn strings_that_the_kernel_dropped() {
    let t = Trace::from_text(
        "load-1 [000] ...1. 1.0: kvm_mmu_get_page:   vcpu0-91 [000] d..1. 2.9: kvm_entry: vcpu 0, rip 0x1\n\
         load-1 [000] ...1. 3.0: kvm_mmu_set_spte: gfn 6 spte 1c06427 (-xu) level 1 at b6e9030\n",
    )
    .unwrap();
    assert_eq!((t.events.len(), t.info.damage.len()), (3, 0));
    assert!(matches!(t.events.get(1).body, Body::Entry { vcpu: 0, .. }));
    assert!(matches!(t.events.get(2).body, Body::SetSpte { r: true, w: true, x: true, u: Some(true), .. }));
}

#[test]
fn pasted_without_a_line_end() {
    let t = Trace::from_text("load-1 [000] d..1. 4.296383: kvm_entry: vcpu 0, rip 0x6000").unwrap();
    assert_eq!(t.events.len(), 1);
}

#[test]
fn several_files_are_one_trace() {
    let scratch = tempfile::tempdir().unwrap();
    let dir = scratch.path();
    let line =
        |cpu: u32, s: u32| format!("a-{cpu} [00{cpu}] ..... {s}.000000: kvm_pml_full: vcpu {s}: PML full\n");
    std::fs::write(dir.join("cpu0"), line(0, 1) + &line(0, 4) + &line(0, 5)).unwrap();
    std::fs::write(dir.join("cpu1"), line(1, 2) + &line(1, 3) + &line(1, 6)).unwrap();
    let t = crate::support::load_paths(&[dir.join("cpu0"), dir.join("cpu1")]);
    let order: Vec<u64> = t.events.iter().map(|e| e.ts / 1_000_000_000).collect();
    assert_eq!(order, [1, 2, 3, 4, 5, 6]);
}

/// The kvm plugin of libtraceevent prints some events in its own words, which differ from version to version.
#[test]
fn the_plugins_own_words() {
    let failed = |rest: &str| match body(&format!("kvm_emulate_insn: {rest}")) {
        Body::EmulateInsn { rip, failed } => (rip, failed),
        b => panic!("{b:?}"),
    };
    assert_eq!(failed("0:133025: ec FAIL"), (0x13_3025, true));
    assert_eq!(failed("    0:fffff80000001000: f3 a5"), (0xffff_f800_0000_1000, false));
    assert_eq!(failed("0:133025:ec (real) failed"), (0x13_3025, true));

    let nested = |rest: &str| match body(&format!("kvm_nested_vmexit: {rest}")) {
        Body::NestedVmexit { vcpu, reason, isa, rip, info1, info2 } => (vcpu, reason, isa, rip, info1, info2),
        b => panic!("{b:?}"),
    };
    // Kernels before 5.10.
    assert_eq!(
        nested("rip fffff80000001000 reason EPT_VIOLATION info1 181 info2 0 int_info 0 int_info_err 0"),
        (None, Some(48), Some(Isa::Vmx), Some(0xffff_f800_0000_1000), Some(0x181), Some(0))
    );
    // It looks for fields that later kernels do not have, and the kernel's own text follows.
    assert_eq!(
        nested(
            "CAN'T FIND FIELD \"rip\"<CANT FIND FIELD exit_code>vcpu 2 reason EPT_MISCONFIG rip 0x1000 info1 0x0000000000000003 \
             info2 0x0000000000000000 intr_info 0x00000000 error_code 0x00000000"
        ),
        (Some(2), Some(49), Some(Isa::Vmx), Some(0x1000), Some(3), Some(0))
    );
}

/// A role that a plugin split in a layout that no known kernel has is not damage, and no fact either.
#[test]
fn roles_of_a_forgotten_layout_are_kept_as_text() {
    for text in [
        "kvm_mmu_get_page: existing sp gfn 3a22e 1/4 q3 direct --x !pge !nxe root 6 sync",
        "kvm_mmu_get_page: new sp gfn 10 2/3 q3 --- pge nxe root 0 unsync",
        "kvm_mmu_prepare_zap_page: 1/4 q0 direct wux !pge nxe root 0 sync",
    ] {
        let (event, t) = one(&format!("vmm-1   [000]     8.196902: {text}"));
        let Body::Other { name, fields } = event.body else { panic!("{event:?}") };
        assert_eq!(format!("{}: {}", t.strings.get(name), t.strings.text(fields)), text);
        assert!(
            t.info.notes.iter().any(|n| n.contains("the role of 1 shadow-page event ")),
            "{:?}",
            t.info.notes
        );
    }
}

/// A count of one is one thing.
#[test]
fn one_event_without_its_vcpu() {
    let exit = "vmm-1   [000]     8.196902: kvm_exit: reason HLT rip 0x1000 info 0 0\n";
    for (n, says) in
        [(1, "1 kvm_exit event does not say its vCPU"), (2, "2 kvm_exit events do not say their vCPU")]
    {
        let t = Trace::from_text(&exit.repeat(n)).expect("a trace");
        assert!(t.info.notes.iter().any(|n| n.starts_with(says)), "{:?}", t.info.notes);
    }
}

/// What a text lacks is named by what it is.
#[test]
fn lines_without_their_heads_are_named() {
    for (text, what) in [
        ("179.182896: kvm_entry:  PC: 0x802c1f24\n", "the events of KVM on ARM"),
        (
            "179.18: kvm_guest_fault: ipa 0x1c010000, hsr 0x93800006, hxfar 0xf80100a8, pc 0x802c21c8\n",
            "KVM on ARM",
        ),
        ("179.182896: kvm:kvm_entry: vcpu 0\n", "perf script text without the names"),
        ("179.182896: kvm_entry: vcpu 0\n", "with their times but without tasks and CPUs"),
        (
            "kvm_entry: vcpu 0, rip 0x1000\nkvm_page_fault: address 1000 error_code 14\n",
            "2 lines of kvm_entry and kvm_page_fault without task, CPU and time",
        ),
        ("\x1b[32mkvm_entry\x1b[0m: vcpu 0\n", "1 line of kvm_entry without task, CPU and time"),
    ] {
        let error = Trace::from_text(text).expect_err("no trace").to_string();
        assert!(error.contains(what), "{error}");
    }
    // An event that has values sends to decode.
    let error = Trace::from_text("kvm_mmu_set_spte: gfn 2 spte 7e6fe67 (rwxu) level 1 at 9c16a010\n")
        .expect_err("no trace");
    assert!(error.to_string().contains("mmuscope decode FILE"), "{error}");
}
