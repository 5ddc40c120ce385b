use super::*;

fn values(text: &str) -> Vec<(u64, Option<u8>)> {
    scan(text.as_bytes()).values.iter().map(|v| (v.value, v.level)).collect()
}

#[test]
fn dumps_of_every_era() {
    let old = "walk_shadow_page_get_mmio_spte: detect reserved bits on spte, addr 0xfed00000, dump hierarchy:\n\
               ------ spte 0x80000000b1e8107 level 4.\n------ spte 0x123456f77 level 1.";
    let p = scan(old.as_bytes());
    assert_eq!(values(old), [(0x0800_0000_0b1e_8107, Some(4)), (0x1_2345_6f77, Some(1))]);
    assert_eq!(p.groups.len(), 1);
    assert_eq!(p.groups[0].address, Some(0xfed0_0000));
    assert_eq!(p.releases(), Some(OLDEST..=(5, 9)));

    // printk joins messages without a newline, and syslog adds its own prefix.
    let new = "Nov  3 12:00:01 host kernel: [  99.123456] kvm: get_mmio_spte: reserved bits set on MMU-present spte, addr 0x1000, hierarchy:\n\
               Nov  3 12:00:01 host kernel: [  99.123457] kvm: ------ spte = 0x107b1e907 level = 4, rsvd bits = 0xfc000000000f8------ spte = 0x600000123456b77 level = 1, rsvd bits = 0xfc00000000000";
    let p = scan(new.as_bytes());
    assert_eq!(p.values.len(), 2);
    assert_eq!((p.values[0].level, p.values[0].rsvd_mask), (Some(4), Some(0xf_c000_0000_00f8)));
    assert_eq!((p.values[1].level, p.values[1].rsvd_mask), (Some(1), Some(0xf_c000_0000_0000)));
    assert_eq!(p.groups.len(), 1);
    assert_eq!(p.groups[0].kind, Kind::ReservedDump);
    assert_eq!(p.releases(), Some((5, 13)..=NEWEST));
}

#[test]
fn changes_of_the_tdp_mmu() {
    let text = "Invalid SPTE change: cannot replace a present leaf\nSPTE with another present leaf SPTE mapping a\ndifferent PFN!\n\
                as_id: 0 gfn: 7c00 old_spte: 600000123456b77 new_spte: 600000123457b77 level: 1";
    let p = scan(text.as_bytes());
    assert_eq!(values(text), [(0x0600_0001_2345_6b77, Some(1)), (0x0600_0001_2345_7b77, Some(1))]);
    assert_eq!((p.groups[0].kind, p.groups[0].line), (Kind::InvalidChange, 1));
    assert_eq!(p.values[0].gfn, Some(0x7c00));
    assert_eq!((p.values[0].role, p.values[1].role), (Role::Old, Role::New));
}

#[test]
fn ve_and_warnings() {
    let p = scan(b"kvm: #VE fee00000, spte[4] = 0x8000000107b1e907, spte[3] = 0x8000000107b1f907, spte[1] = 0x8000000000000000");
    assert_eq!(p.values.iter().map(|v| v.level).collect::<Vec<_>>(), [Some(4), Some(3), Some(1)]);
    assert_eq!(p.groups[0].address, Some(0xfee0_0000));
    let p = scan(b"kvm: MMU-writable SPTE is not Host-writable: 400000123456975\nspte = 0x1, level = 2, rsvd bits = 0x3");
    assert_eq!(p.values[0].value, 0x0400_0001_2345_6975);
    assert_eq!((p.values[1].value, p.values[1].level, p.values[1].rsvd_mask), (1, Some(2), Some(3)));
}

#[test]
fn trace_lines_of_all_tools() {
    let text = "            load-111     [000] ...1.     4.304062: kvm_mmu_set_spte: gfn 2 spte 7e6fe67 (rwxu) level 1 at 9c16a010\n\
                load-111 [000] 4.298216: kvm_tdp_mmu_spte_changed: as id 0 gfn 0 level 4 old_spte 0 new_spte 9c168827\n\
                load-103 [000] .....    69.445577: fast_page_fault: vcpu 0 gva 2000 error_code U sptep 00000000d017d220 old 0x0 new 0 spurious 0 fixed 0\n\
                x-1 [000] 1.0: check_mmio_spte: spte 8000000fee00027 kvm_gen 4 spte-gen 4 valid 1\n\
                x-1 [000] 1.0: kvm_mmu_spte_requested: gfn 2 pfn 7e6f level 1\n\
                x-1 [000] 1.0: mark_mmio_spte: sptep:00000000d017d220 gfn fee00 access 3 gen 4";
    let p = scan(text.as_bytes());
    let all: Vec<_> = p.values.iter().map(|v| (v.value, v.level, v.gfn, v.role)).collect();
    assert_eq!(
        all,
        [
            (0x7e6_fe67, Some(1), Some(2), Role::Leaf),
            (0, Some(4), Some(0), Role::Old),
            (0x9c16_8827, Some(4), Some(0), Role::New),
            (0, None, Some(2), Role::Old),
            (0x0800_0000_fee0_0027, None, None, Role::Mmio),
        ]
    );
    assert_eq!(p.values[0].letters, Some(Letters { r: true, w: true, x: true, u: Some(true) }));
    assert_eq!(p.values[4].generation, Some(4));
    // trace-cmd without the plugin prints decimal numbers.
    let p = scan(b"q-1 [0] 1.0: kvm_mmu_set_spte: [FAILED TO PARSE] gfn=74240 spte=432345565227567991 sptep=1 level=1 r=1 x=1 u=-1");
    assert_eq!(
        (p.values[0].value, p.values[0].gfn, p.values[0].level),
        (432_345_565_227_567_991, Some(74240), Some(1))
    );
}

#[test]
fn debuggers() {
    let text = "0xffff888004b1c000:\t0x8000000000000000\t0x8600000123456b77\n0xffff888004b1c010 <foo+16>:\t0x0000000000000000\t0x8600000123457b77\n\
                ffff888004b1d000:  0000000000000000 8600000123456b77   ........wkE#....";
    let p = scan(text.as_bytes());
    assert_eq!(p.values.len(), 6);
    assert_eq!(p.values[1].index, Some(1));
    assert_eq!(p.values[3].index, Some(3));
    assert_eq!(p.groups.len(), 2, "two pages, two tables");
}

#[test]
fn bare_numbers_and_what_is_none() {
    assert_eq!(values("0x600000123456b77"), [(0x0600_0001_2345_6b77, None)]);
    assert_eq!(values("600000123456b77 -> 0"), [(0x0600_0001_2345_6b77, None), (0, None)]);
    assert_eq!(values("(gdb) $1 = 0x5a0"), [(0x5a0, None)]);
    assert_eq!(values("RAX: 0000000000000000 RBX: ffff888004b1c000 RCX: 0000000000000001"), []);
    assert_eq!(values("RIP: 0010:handle_ept_misconfig+0x42/0x90 [kvm_intel]"), []);
    assert_eq!(
        values("kvm_intel: SEAMCALL TDH_MEM_PAGE_AUG failed: entry 0x8000000123456b77, level_state 0x1"),
        []
    );
    assert_eq!(values("BUG: unable to handle page fault for address: ffffc90000b37000"), []);
    assert_eq!(values("spte = 0x12345678123456789 level = 1"), [], "too long for a word");
}

#[test]
fn the_kernel_a_dump_names() {
    let p = scan(b"CPU: 3 PID: 4711 Comm: qemu-system-x86 Tainted: G        W          6.1.0-13-amd64 #1  Debian 6.1.55-1");
    assert_eq!(p.kernel.as_deref(), Some("Linux version 6.1.0-13-amd64 Debian 6.1.55-1"));
    let p = scan(b"CPU: 3 PID: 4711 Comm: qemu Not tainted 6.12.9 #7");
    assert_eq!(p.kernel.as_deref(), Some("6.12.9"));
}

fn kinds(p: &Pasted) -> Vec<Kind> {
    p.groups.iter().map(|g| g.kind).collect()
}

#[test]
fn walks_that_people_write() {
    let walk = [(0x8a_a3a9_d027, Some(4)), (0x8a_a3af_9027, Some(3)), (0x8a_a111_e025, Some(1))];
    for text in [
        "level 4: 0x8aa3a9d027\nlevel 3: 0x8aa3af9027\nlevel 1: 0x8aa111e025",
        "L4 0x8aa3a9d027\nL3 0x8aa3af9027\nL1 0x8aa111e025",
        "L4: 8aa3a9d027, L3: 8aa3af9027, L1: 8aa111e025",
        "PML4E: 0x8aa3a9d027\nPDPTE: 0x8aa3af9027\nPTE: 0x8aa111e025",
        "PML4E[0] = 0x8aa3a9d027\nPDPTE[3] = 0x8aa3af9027\nPTE[511] = 0x8aa111e025",
        "0x8aa3a9d027 level 4 0x8aa3af9027 level 3 0x8aa111e025 level 1",
        "0x8aa3a9d027@4 0x8aa3af9027@3 0x8aa111e025@1",
        "0x8aa3a9d027 (level 4)\n0x8aa3af9027 (level 3)\n0x8aa111e025 (level 1)",
        "level=4 spte=0x8aa3a9d027\nlevel=3 spte=0x8aa3af9027\nlevel=1 spte=0x8aa111e025",
        "gfn fffff level 4: 8aa3a9d027\ngfn fffff level 3: 8aa3af9027\ngfn fffff level 1: 8aa111e025",
        "|level|index|addr|val|\n|--|--|--|--|\n|4|0|0xff2d950aa3a9c000|8aa3a9d027|\n|3|3|0xff2d950aa3a9d018|8aa3af9027|\n|1|0x1FF|0xff2d950aa3afaff8|8aa111e025|",
        "> level 4: 0x8aa3a9d027\n> level 3: 0x8aa3af9027\n> level 1: 0x8aa111e025",
    ] {
        let p = scan(text.as_bytes());
        assert_eq!(values(text), walk, "{text}");
        if !text.contains("spte") {
            assert_eq!(kinds(&p), [Kind::Walk], "{text}");
        }
    }
    // Two walks are two groups.
    let two =
        scan(b"level 2: 0x8aa3afa027\nlevel 1: 0x8aa111e025\nlevel 2: 0x8aa3afb027\nlevel 1: 0x8aa111f025");
    assert_eq!(kinds(&two), [Kind::Walk, Kind::Walk]);
    // Neither a row of pointers nor a sentence with a level is an entry.
    assert_eq!(values("|a|0xff2d950aa3a9c000|0xff2d950aa3a9c008|"), []);
    assert_eq!(values("see level 4 of 0x8aa3a9d027 for that"), []);
}

#[test]
fn what_developers_print() {
    let p = scan(
        b"kvm: VM-Enter 109fff8, spte[4] = 0x8000000000000000\n\
          kvm: VM-Enter 109fff8, spte[4] = 0x80100040becb6807, spte[3] = 0x80100040911ed807\n\
          kvm: #VE 109fff8, spte[4] = 0x8010000136b61807",
    );
    assert_eq!(kinds(&p), [Kind::Walk, Kind::Walk, Kind::VeDump]);
    assert!(p.groups.iter().all(|g| g.address == Some(0x109_fff8)), "{:?}", p.groups);
    assert_eq!(values("kvm: foo *sptep = 0x600000123456b77"), [(0x0600_0001_2345_6b77, None)]);
    assert_eq!(values("it.sptep ffff888004b1c000 *sptep: 0x123456b77 level 1"), [(0x1_2345_6b77, Some(1))]);
    let p = scan(
        b"TP_SPTE tid=1527195 gfn=0x4c00 level=2 old=0x8000000000000000 new=0x2e76400ee7\n\
                   HVA_TO_PFN tid=1527195 gfn=0x4d19 hva=0x7fb16cd19000 flags=0x801 pin=0 pfn=0x2e76519",
    );
    let all: Vec<_> = p.values.iter().map(|v| (v.value, v.level, v.gfn, v.role)).collect();
    assert_eq!(
        all,
        [
            (0x8000_0000_0000_0000, Some(2), Some(0x4c00), Role::Old),
            (0x2e_7640_0ee7, Some(2), Some(0x4c00), Role::New),
        ]
    );
    assert_eq!(values("sched: old=0x1 new=0x2"), [], "old and new of something else");
}

#[test]
fn dumps_of_ept_misconfig() {
    let p = scan(
        b"EPT: Misconfiguration.\nEPT: GPA: 0xfee00000\n\
          ept_misconfig_inspect_spte: spte 0x107b1e907 level 4\n\
          ept_misconfig_inspect_spte: spte 0x6fee00077 level 1\n\
          ept_misconfig_inspect_spte: rsvd_bits = 0x600000000",
    );
    let all: Vec<_> = p.values.iter().map(|v| (v.value, v.level)).collect();
    assert_eq!(all, [(0x1_07b1_e907, Some(4)), (0x6_fee0_0077, Some(1))]);
    assert_eq!((kinds(&p), p.groups[0].address), (vec![Kind::ReservedDump], Some(0xfee0_0000)));
    assert_eq!(p.vendor, Some("intel"));
}

/// A mail breaks lines of any program in front of a value.
#[test]
fn wrapped_lines_of_other_programs() {
    let own = |sep: &str| {
        let one = |n| {
            format!("TP_SPTE tid=1527195 gfn=0x{n} level=1 old=0x8000000000000000{sep}new=0x3124{n}73e67\n")
        };
        let lines: String = (0..4).map(one).collect();
        format!("HVA_TO_PFN tid=1527195 gfn=0x4d19 flags=0x801 pin=0 name=something\n{lines}")
    };
    let whole = values(&own(" "));
    assert_eq!(whole.iter().filter(|v| v.1 == Some(1)).count(), 8, "{whole:x?}");
    assert_eq!(values(&own("\n")), whole);
    // Rows of numbers are lines of their own.
    let rows = "0x0000008aa3a9d027 0x0000008aa3af9027 0x0000008aa3afa027\n".repeat(2);
    assert_eq!(scan(rows.as_bytes()).values.len(), 6);
}

/// A number alone on a line is the rest of the line before it if that is an event or a dump.
#[test]
fn wrapped_lines() {
    let event = "qemu-5786    [029] ..... 3602162.971194: fast_page_fault: vcpu 4 gva\n20fe612 error_code F sptep 00000000fd98c937 old 0x61000034d4fe877 new\n61000034d4fe877 spurious 1 fixed 0\nqemu-5786    [029] d.... 3602162.971194: kvm_entry: vcpu 4, rip\n0xffffffff820fe612\n";
    assert_eq!(values(event), [(0x0610_0003_4d4f_e877, None)]);
    let dump = "kvm: get_mmio_spte: reserved bits set on MMU-present spte, addr 0x1000,\nhierarchy:\n\
                kvm: ------ spte = 0x107b1e907 level = 4, rsvd bits =\n0xfc000000000f8\n\
                kvm: ------ spte = 0x600000123456b77 level = 1, rsvd bits =\n0xfc00000000000\n";
    let p = scan(dump.as_bytes());
    assert_eq!(values(dump), [(0x1_07b1_e907, Some(4)), (0x0600_0001_2345_6b77, Some(1))]);
    assert_eq!(p.values[0].rsvd_mask, Some(0xf_c000_0000_00f8));
    assert_eq!(kinds(&p), [Kind::ReservedDump]);
    // A debugger prints decimal.
    assert_eq!(values("$1 = 594273623079"), [(594_273_623_079, None)]);
    assert_eq!(values("(u64)594273623079"), [(594_273_623_079, None)]);
}

/// `rmap_printk` prints the address of an entry before its value.
#[test]
fn the_value_behind_an_address() {
    for (line, value) in [
        ("spte_write_protect: spte 00000000a1b2c3d4 600000112400bf3", 0x0600_0001_1240_0bf3),
        ("kvm: rmap_write_protect: spte ffff88007a88a008 1000005d48fc77", 0x10_0000_5d48_fc77),
        ("kvm_zap_rmapp: spte ffff88007a88a008 1000005d48fc77.", 0x10_0000_5d48_fc77),
        ("spte_clear_dirty: spte (ptrval) 123456b77", 0x1_2345_6b77),
        ("spte_clear_dirty: spte f5a88008 123456b77", 0x1_2345_6b77),
        ("rmap_add: ffff88007a88a008 123456b77 0->1", 0x1_2345_6b77),
        ("pte_list_add: 00000000a1b2c3d4 123456b77 many->many", 0x1_2345_6b77),
    ] {
        assert_eq!(values(line), [(value, None)], "{line}");
    }
    assert_eq!(values("pte_list_remove:  00000000a1b2c3d4 0->BUG"), [], "addresses alone");
    // Values are no addresses, also where two follow each other.
    let one = [(0x8600_0001_2345_6b77, None)];
    assert_eq!(values("spte 8600000123456b77 8600000123457b77"), one);
    assert_eq!(values("mmu_set_spte: spte 7e6fe67 write_fault 1 gfn 2")[0].0, 0x7e6_fe67);
}

/// Programs and languages write numbers in their own ways.
#[test]
fn numbers_of_other_tools() {
    let value = 0x0600_0001_2345_6b77;
    for text in [
        "pte=0x600000123456b77 lvl=2",
        "lvl=2 pte=0x600000123456b77",
        "PTE=0x600000123456b77 level=2",
        "2:0x600000123456b77",
        "2: 0x600000123456b77",
    ] {
        assert_eq!(values(text), [(value, Some(2))], "{text}");
    }
    for text in [
        "pte=0x600000123456b77",
        "new=0x600000123456b77",
        "new_spte=600000123456b77",
        "kvm: new_spte=0x600000123456b77,",
        "0x06000001`23456b77",
        "0x0600_0001_2345_6b77",
        "spte = 0x06000001`23456b77",
        "spte=0x0600_0001_2345_6b77",
        "600000123456b77h",
        "600000123456b77UL",
        "0x600000123456b77ull",
        "12:0x600000123456b77",
        "spte is 0x600000123456b77",
        "SPTE: 600000123456b77",
    ] {
        assert_eq!(values(text), [(value, None)], "{text}");
    }
    // In a walk, `pte` is its lowest entry.
    let walk = values("pde=0x123457007\npte=0x600000123456b77");
    assert_eq!(walk, [(0x1_2345_7007, Some(2)), (value, Some(1))]);
    for text in ["beach", "new=maybe", "cpu=0x600000123456b77 new=0x1", "0x12345678`", "a:0x600000123456b77"]
    {
        assert_eq!(values(text).iter().filter(|v| v.0 > 0xffff_ffff).count(), 0, "{text}");
        assert!(text.starts_with("0x") || values(text).is_empty(), "{text}");
    }
    let guest = "x-1 [000] 1.0: kvm_mmu_paging_element: pte=2929067 level=4";
    assert_eq!(values(guest), [], "an entry of the guest's own table");
    // libtraceevent's numbers are decimal there.
    let raw = "x-1 [000] 1.0: kvm_mmu_set_spte: [FAILED TO PARSE] gfn=2 spte=9895936 sptep=1 level=1";
    assert_eq!(values(raw), [(9_895_936, Some(1))]);
}

/// The end of a fast_page_fault is known although its beginning was left out.
#[test]
fn events_without_their_first_words() {
    let p = scan(b">    [...] new 610006048d25877 spurious 0 fixed 0  <--- should be 1");
    assert_eq!(
        p.values.iter().map(|v| (v.value, v.role)).collect::<Vec<_>>(),
        [(0x0610_0060_48d2_5877, Role::New)]
    );
    assert_eq!(p.groups[0].event.as_deref(), Some("fast_page_fault"));
    assert_eq!(values("a new 610006048d25877 that is spurious"), []);
}

/// Mail programs break lines in front of the release as well.
#[test]
fn the_kernel_of_a_wrapped_dump() {
    for (text, kernel) in [
        ("CPU: 1 PID: 7 Comm: vmm Tainted: G        W          6.1.0-rc4+ #64", "6.1.0-rc4+"),
        ("CPU: 1 PID: 7 Comm: vmm Tainted: G        W         \n6.1.0-rc4+ #64", "6.1.0-rc4+"),
        ("CPU: 1 PID: 7 Comm: vmm Tainted: P           \nOE      5.4.0-42-generic #46", "5.4.0-42-generic"),
        ("CPU: 1 PID: 7 Comm: vmm Not\ntainted 6.12.9 #7", "6.12.9"),
        ("CPU: 1 PID: 7 Comm: vmm Not tainted\n6.12.9 #7", "6.12.9"),
        ("Linux version\n6.12.9 (x@y)", "Linux version 6.12.9 (x@y)"),
    ] {
        assert_eq!(scan(text.as_bytes()).kernel.as_deref(), Some(kernel), "{text}");
    }
    // The line behind may be about something else, for instance since 6.11 the flags in words.
    for text in ["Tainted: [W]=WARN\nHardware name: Some Board 1.2.3", "this is tainted\n1.5 GiB"] {
        assert_eq!(scan(text.as_bytes()).kernel, None, "{text}");
    }
}

/// Lines of events without their heads, as in a commit message or from `uniq -c`, wrapped by a mail.
#[test]
fn wrapped_events_without_heads() {
    let lines = [
        "     12 fast_page_fault: vcpu 7 gva 1386001 error_code F sptep 00000000e955370b old 0x61000012eb86877 new 61000012eb86877 spurious 1 fixed 0",
        "    711 fast_page_fault: vcpu 3 gva 20fe612 error_code F sptep 00000000fd98c937 old 0x61000034d4fe877 new 61000034d4fe877 spurious 1 fixed 0",
        "      2 kvm_mmu_set_spte: gfn 31a00 spte 600000123456b77 (rwxu) level 1 at 9c16a010",
    ];
    let want =
        [(0x0610_0001_2eb8_6877, None), (0x0610_0003_4d4f_e877, None), (0x0600_0001_2345_6b77, Some(1))];
    assert_eq!(values(&lines.join("\n")), want);
    for width in 50..=80 {
        let mut wrapped = String::from("Counted over an hour:\n\n");
        for line in lines {
            let mut column = 0;
            for word in line.split_whitespace() {
                let gap = if column == 0 {
                    ""
                } else if column + 1 + word.len() > width {
                    "\n"
                } else {
                    " "
                };
                column = if gap == " " { column + 1 } else { 0 } + word.len();
                wrapped += gap;
                wrapped += word;
            }
            wrapped += "\n";
        }
        assert_eq!(values(&wrapped), want, "{wrapped}");
        let p = scan(wrapped.as_bytes());
        assert_eq!(
            p.headless().as_deref(),
            Some("3 lines of fast_page_fault and kvm_mmu_set_spte"),
            "{wrapped}"
        );
    }
}

/// `grep --color` and loggers colour parts of lines.
#[test]
fn colours_of_a_terminal() {
    let plain = "[ 9.123456] kvm: ------ spte = 0x600000123456b77 level = 1, rsvd bits = 0xfc00000000000";
    for (on, off) in [
        ("\x1b[01;31m\x1b[K", "\x1b[m\x1b[K"),
        ("\x1b[32m", "\x1b[0m"),
        ("^[[1m", "^[[0m"),
        ("\x1b]8;;file:///x\x07", "\x1b]8;;\x1b\\"),
    ] {
        for part in ["spte", "0x600000123456b77", "0xfc00000000000", "level", plain] {
            let text = plain.replace(part, &format!("{on}{part}{off}"));
            let p = scan(text.as_bytes());
            assert_eq!(values(&text), [(0x0600_0001_2345_6b77, Some(1))], "{text:?}");
            assert_eq!(p.values[0].rsvd_mask, Some(0xf_c000_0000_0000), "{text:?}");
        }
        let stated = format!("{on}kvm_in{off}tel: spte = 0x1 level = 1");
        assert_eq!(scan(stated.as_bytes()).vendor, Some("intel"));
    }
}

/// The width of the column of irq flags shows the kernel of a text of tracefs, and nothing in a report of trace-cmd, whose head may have been cut.
#[test]
fn the_column_of_irq_flags() {
    let line = |flags: &str, gap: &str| format!("vmm-7  [001] {flags}  5.000001: kvm_entry:{gap}vcpu 0\n");
    let long = |flags: &str| {
        format!(
            "vmm-7  [001] {flags}  5.000001: kvm_tdp_mmu_spte_changed: as id 0 gfn 1 level 1 old_spte 0 new_spte 0\n"
        )
    };
    let of = |lines: &[String]| irq_flags(lines.concat().as_bytes());
    assert_eq!(of(&[line("d..1", " "), long("d..1")]), Some(4));
    assert_eq!(of(&[line("d..1.", " ")]), Some(5));
    assert_eq!(of(&[format!("> {}", line("d..1", " "))]), Some(4), "in a mail");
    assert_eq!(of(&[line("d..1", " "), line("d..1.", " ")]), None, "two kernels");
    assert_eq!(of(&[line("", " ")]), None);
    // trace-cmd pads names.
    assert_eq!(of(&[long("d..1"), line("d..1", "            ")]), None);
}
