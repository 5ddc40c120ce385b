//! Layout files: the shipped ones are real TOML and mean the same to a TOML parser; a mistake is reported with its line and the reason.

use std::collections::BTreeMap;

use mmuscope_spte::layouts::{self, Library};
use mmuscope_spte::{
    Error, Kernel, Known, LayoutSpec, MarkMmio, MaskName, Mode, PageLevel, Provenance, Resize, SetSpte,
    State, Unlink, Vendor, ZapAll,
};

fn user(text: &str) -> Result<mmuscope_spte::Resolved, Error> {
    LayoutSpec { file: Some(("mine.toml".into(), text.into())), ..LayoutSpec::default() }.resolve()
}

fn why(text: &str) -> String {
    user(text).expect_err("should be refused").to_string()
}

#[test]
fn shipped_files_are_toml() {
    for (name, text) in layouts::files() {
        let table: toml::Table = text.parse().unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(table["layout"].as_integer(), Some(1), "{name}");
        let (family, mode) = name.split_once('/').expect("family and mode");
        assert_eq!(table["family"].as_str(), Some(family));
        assert_eq!(Mode::parse(table["paging"].as_str().expect("paging")).map(Mode::name), Some(mode));
    }
    let eras: BTreeMap<String, toml::Table> =
        toml::from_str(include_str!("../layouts/eras.toml")).expect("eras.toml is TOML");
    include_str!("../layouts/traces.toml").parse::<toml::Table>().expect("traces.toml is TOML");
    let library = Library::new();
    let read = library.eras().expect("eras");
    assert_eq!(read.len(), eras.len());
    assert_eq!(read.len(), 14);
    for era in read {
        assert_eq!(eras[era.id]["starts"].as_str(), Some(era.starts));
        assert_eq!(eras[era.id]["subjects"].as_array().map(Vec::len), Some(era.subjects.len()));
    }
}

#[test]
fn eras_follow_each_other() {
    let library = Library::new();
    let eras = library.eras().expect("eras");
    for pair in eras.windows(2) {
        let (a, b) = (pair[0].last, pair[1].first);
        let follows = b == (a.0, a.1 + 1) || b == (a.0 + 1, 0);
        assert!(follows, "{} ends with {a:?}, {} begins with {b:?}", pair[0].id, pair[1].id);
    }
}

#[test]
fn a_file_of_ones_own() {
    let text = "# our tree moved MMU-writable\nlayout = 1\nkernels = \"6.6 of ours\"\nname = \"our-6.6\"\nextends = \"E11/ept\"\n\n[masks]\nmmu_writable = \"b59\"\n";
    let resolved = user(text).expect("a good file");
    assert_eq!(resolved.layout.id(), "our-6.6");
    assert_eq!(resolved.layout.mode, Mode::Ept);
    assert_eq!(resolved.layout.masks.mmu_writable_mask, 1 << 59);
    assert_eq!(resolved.layout.masks.host_writable_mask, 1 << 57, "the rest is E11's");
    assert_eq!(resolved.layout.removed, Some(0x5a0));
}

#[test]
fn mistakes_have_a_line_and_a_reason() {
    let base = "layout = 1\nextends = \"E11/ept\"\n";
    assert_eq!(why("extends = \"E11/ept\"\n"), "mine.toml: not a layout file: it has no line `layout = 1`");
    assert_eq!(why("layout = 2\n"), "mine.toml:1: layout = 1 is the only version of this format");
    assert!(
        why(&format!("{base}[masks]\naccesed = \"b8\"\n"))
            .starts_with("mine.toml:4: unknown key `accesed` in [masks]: there are user, nx")
    );
    assert!(
        why(&format!("{base}[mask]\n\naccessed = \"b8\"\n")).starts_with("mine.toml:3: unknown table [mask]")
    );
    assert_eq!(
        why(&format!("{base}[masks]\nwidth = \"phys\"\n")),
        "mine.toml:4: `width` belongs in [host], not in [masks]"
    );
    assert!(
        why(&format!("{base}[masks]\naccessed = \"b64\"\n"))
            .starts_with("mine.toml:4: accessed takes a mask: `b64` is not a bit")
    );
    assert!(
        why(&format!("{base}[masks]\naccessed = \"b8 | (b9\"\n"))
            .starts_with("mine.toml:4: accessed takes a mask")
    );
    assert_eq!(
        why(&format!("{base}[masks]\naccessed = b8\n")),
        "mine.toml:4: `b8` is neither a text in quotes, a number, true, false nor a list"
    );
    assert_eq!(
        why(&format!("{base}[masks]\ndirty = \"b9\"\ndirty = \"b9\"\n")),
        "mine.toml:5: dirty is set twice in one table"
    );
    assert_eq!(why("layout = 1\nextends = \"E99/ept\"\n"), "mine.toml:2: no layout is called `E99/ept`");
    assert!(
        why(&format!("{base}[rules]\nfast_fix = \"always\"\n"))
            .starts_with("mine.toml:4: fast_fix takes \"host-and-mmu\"")
    );
    assert!(
        why(&format!("{base}[mmio]\ngeneration_store = [\"g[7:0] -> b[9:3]\"]\n"))
            .contains("not `g[7:0] -> b[9:3]`"),
        "widths differ"
    );
    assert!(
        why(&format!("{base}[era.E77.masks]\ndirty = \"b9\"\n"))
            .starts_with("mine.toml:4: no era is called `E77`")
    );
    assert!(
        why(&format!("{base}[since.\"6\".masks]\ndirty = \"b9\"\n"))
            .starts_with("mine.toml:3: `6` should have 2 numbers")
    );
    assert!(
        why("layout = 1\npaging = \"ept\"\nfamily = \"C\"\n")
            .contains("is missing; `extends` another layout")
    );
}

#[test]
fn releases_and_what_they_leave_open() {
    let resolve = |kernel: &str, mode: Mode| {
        let spec = LayoutSpec {
            kernel: Some(Known::given(Kernel::parse(kernel).expect("a release"))),
            mode: Some(Known::given(mode)),
            ..LayoutSpec::default()
        };
        spec.resolve().expect("resolves")
    };
    for (kernel, id) in [
        ("4.14", "E01/ept"),
        ("4.19.1", "E02/ept"),
        ("5.0", "E02/ept"),
        ("5.3.18", "E03/ept"),
        ("5.4", "E04/ept"),
        ("5.6", "E05/ept"),
        ("5.10.262-1-amd64", "E08/ept"),
        ("v5.12", "E09/ept"),
        ("5.15.0-91-generic", "E10/ept"),
        ("6.1.192", "E11/ept"),
        (
            "Linux version 6.1.0-55-cloud-amd64 (gcc-12 (Debian 12.2.0-14+deb12u1) 12.2.0) #1 SMP Debian 6.1.192-1 (2026-11-14)",
            "E11/ept",
        ),
        ("6.12.107+deb13-cloud-amd64", "E12/ept"),
        ("6.18.15", "E13/ept"),
        ("7.1.5", "E13/ept"),
        ("7.3.4+deb13-cloud-amd64", "E14/ept"),
        ("4.18.0-240.el8.x86_64", "E07/ept"),
        ("4.18.0-348.el8.x86_64", "E10/ept"),
    ] {
        assert_eq!(resolve(kernel, Mode::Ept).layout.id(), id, "{kernel}");
    }
    // 5.4.286 stores generations correctly, 5.4 does not; 4.19.222 splits only on CPUs with the bug.
    assert!(resolve("5.4", Mode::Ept).layout.generation.is_buggy());
    assert!(!resolve("5.4.286", Mode::Ept).layout.generation.is_buggy());
    assert_ne!(resolve("4.19.1", Mode::Ept).layout.masks.nonpresent_or_rsvd_mask, 0);
    assert_eq!(resolve("4.19.222", Mode::Ept).layout.masks.nonpresent_or_rsvd_mask, 0);
    let newer = resolve("8.0", Mode::Ept);
    assert_eq!(newer.layout.id(), "E14/ept");
    assert!(newer.notes.iter().any(|n| n.contains("newer than any kernel known here")), "{:?}", newer.notes);
    assert!(resolve("4.18.0-348.el8.x86_64", Mode::Npt).notes.iter().any(|n| n.contains("RHEL 8")));
}

/// The masks that real kernels computed, read from their memory, also follow from release and host alone. (The function is a table of hosts.)
#[test]
#[expect(clippy::too_many_lines, reason = "a table of hosts")]
fn masks_of_real_hosts() {
    // (release, mode, vendor, MAXPHYADDR, cache bits, L1TF, variables as the kernel held them)
    type Host = (&'static str, Mode, Vendor, u8, u8, bool, &'static [(&'static str, u64)]);
    const HOSTS: &[Host] = &[
        (
            "5.10.262",
            Mode::Ept,
            Vendor::Intel,
            40,
            44,
            true,
            &[
                ("shadow_mmio_access_mask", 0),
                ("shadow_x_mask", 4),
                ("shadow_acc_track_mask", 7),
                ("shadow_accessed_mask", 0x100),
                ("shadow_present_mask", 0),
                ("shadow_nonpresent_or_rsvd_lower_gfn_mask", 0x7f_ffff_f000),
                ("shadow_mmio_value", 0x30_0000_0000_0006),
                ("shadow_nonpresent_or_rsvd_mask", 0xf80_0000_0000),
                ("shadow_nx_mask", 0),
                ("shadow_dirty_mask", 0x200),
                ("shadow_me_mask", 0),
                ("shadow_user_mask", 1),
            ],
        ),
        (
            "5.10.262",
            Mode::Npt,
            Vendor::Amd,
            40,
            40,
            false,
            &[
                ("shadow_mmio_access_mask", 6),
                ("shadow_x_mask", 0),
                ("shadow_acc_track_mask", 0),
                ("shadow_accessed_mask", 0x20),
                ("shadow_present_mask", 1),
                ("shadow_nonpresent_or_rsvd_lower_gfn_mask", 0xff_ffff_f000),
                ("shadow_mmio_value", 0x38_0000_0000_0001),
                ("shadow_nonpresent_or_rsvd_mask", 0),
                ("shadow_nx_mask", 1 << 63),
                ("shadow_dirty_mask", 0x40),
                ("shadow_user_mask", 4),
            ],
        ),
        (
            "6.1.192",
            Mode::Ept,
            Vendor::Intel,
            40,
            44,
            true,
            &[
                ("shadow_host_writable_mask", 1 << 57),
                ("shadow_mmu_writable_mask", 1 << 58),
                ("shadow_mmio_value", 6),
                ("shadow_mmio_mask", 7),
                ("shadow_nonpresent_or_rsvd_mask", 0xf80_0000_0000),
                ("shadow_accessed_mask", 0x100),
            ],
        ),
        (
            "6.1.192",
            Mode::EptNoAd,
            Vendor::Intel,
            40,
            44,
            true,
            &[("shadow_accessed_mask", 0), ("shadow_dirty_mask", 0)],
        ),
        (
            "6.1.192",
            Mode::Npt,
            Vendor::Amd,
            40,
            40,
            false,
            &[
                ("shadow_host_writable_mask", 0x200),
                ("shadow_mmu_writable_mask", 0x400),
                ("shadow_mmio_value", 0x8_0000_0000_0001),
                ("shadow_mmio_mask", 0x8_0000_0000_0001),
                ("shadow_present_mask", 1),
            ],
        ),
        (
            "7.3.4",
            Mode::Npt,
            Vendor::Amd,
            40,
            40,
            false,
            &[
                ("shadow_xu_mask", 0),
                ("shadow_xs_mask", 0),
                ("shadow_mmio_value", 0x8_0000_0000_0001),
                ("shadow_user_mask", 4),
                ("shadow_host_writable_mask", 0x200),
                ("shadow_nonpresent_or_rsvd_lower_gfn_mask", 0xff_ffff_f000),
            ],
        ),
    ];
    for (release, mode, vendor, width, cache, l1tf, variables) in HOSTS {
        let mut spec = LayoutSpec {
            kernel: Some(Known::given(Kernel::parse(release).expect("a release"))),
            mode: Some(Known::given(*mode)),
            ..LayoutSpec::default()
        };
        spec.host.vendor = Some(Known::given(*vendor));
        spec.host.maxphyaddr = Some(Known::given(*width));
        spec.host.cache_bits = Some(Known::given(*cache));
        spec.host.l1tf = Some(Known::given(*l1tf));
        let layout = spec.resolve().expect("resolves").layout;
        for (name, value) in *variables {
            let mask = MaskName::parse(name).expect("a mask");
            assert_eq!(layout.masks.get(mask), *value, "{release} {}: {name}", mode.name());
        }
    }
}

#[test]
fn measured_masks_tell_family_and_mode() {
    let mut spec = LayoutSpec::default();
    let kvars = "shadow_timekeeper ok ffffffff82a2dcc0\nshadow_x_mask ok 0000000000000004\nshadow_nx_mask ok 0000000000000000\n\
                 shadow_accessed_mask ok 0000000000000100\nshadow_acc_track_mask ok 0000000000000007\n\
                 shadow_host_writable_mask ok 0200000000000000\nshadow_mmu_writable_mask ok 0400000000000000\n\
                 shadow_mmio_mask ok 0000000000000007\nshadow_mmio_value ok 0000000000000006\nshadow_phys_bits ok 0000000000010128\n";
    assert_eq!(spec.set_variables(kvars, Provenance::Measured), 9);
    let resolved = spec.resolve().expect("resolves");
    assert_eq!(resolved.layout.id(), "E11/ept");
    assert_eq!(resolved.host.maxphyaddr.value, 40);
    assert_eq!(resolved.mask_from(MaskName::MmioValue), Provenance::Measured);
    assert_eq!(resolved.layout.state(0x0600_0000_029b_5b77, 1), State::Present);
}

#[test]
fn mmio_caching_off() {
    let mut spec = LayoutSpec::named("6.1/npt").expect("a name");
    spec.host.mmio_caching = Some(Known::given(false));
    let layout = spec.resolve().expect("resolves").layout;
    // A kernel with kvm.mmio_caching=0 held the value 0 and kept the mask.
    assert_eq!(layout.masks.mmio_value, 0);
    assert_eq!(layout.masks.mmio_mask, 0x8_0000_0000_0001);
    assert_eq!(layout.state(0x8_0000_fee0_0001, 1), State::Nonpresent);
    assert!(layout.decode(0x8_0000_fee0_0001, 1).nonzero_nonpresent);
}

/// The facts of each kernel, as `trace-abi` and the kernels' sources have them.
#[test]
fn what_a_kernel_traces_follows_its_release() {
    let of = |name: &str| LayoutSpec::named(name).and_then(|s| s.resolve()).expect(name).traces;
    let releases =
        ["4.14", "5.4", "5.10", "5.11", "5.12", "5.13", "5.15", "5.18", "6.1", "6.2", "6.9", "6.12"];
    let all: Vec<_> = releases.iter().map(|r| of(&format!("{r}/npt"))).collect();
    let since = |what: fn(&mmuscope_spte::Traces) -> bool| -> Vec<&str> {
        releases.iter().zip(&all).filter(|(_, t)| what(t)).map(|(r, _)| *r).collect()
    };
    assert_eq!(since(|t| t.changes), releases[3..]);
    assert_eq!(since(|t| t.page_zaps), releases[3..]);
    assert_eq!(since(|t| t.mark_mmio == MarkMmio::After), releases[4..]);
    assert_eq!(since(|t| t.mmio_set_spte), releases[1..5]);
    assert!(since(|t| t.release).is_empty());
    assert_eq!(since(|t| t.freeze), releases[4..11]);
    assert_eq!(since(mmuscope_spte::Traces::releases_untraced), releases[4..11]);
    assert_eq!(since(|t| t.notifiers), releases[5..]);
    assert_eq!(since(|t| t.change_pte), releases[5..11]);
    assert_eq!(since(|t| t.fast_faults), releases[6..]);
    assert_eq!(since(|t| t.eager_splits), releases[7..]);
    assert_eq!(since(|t| t.fault_splits == Resize::InPlace), releases[9..]);
    assert_eq!(since(|t| t.slot_leaves), releases[11..]);
    assert_eq!(since(|t| t.page_level == PageLevel::Above), ["5.10"]);
    assert_eq!(since(|t| t.set_spte == SetSpte::Never), ["4.14"]);
    assert_eq!(since(|t| t.set_spte == SetSpte::BeforeAndAfter), ["5.11"]);
    assert_eq!(since(|t| t.set_spte == SetSpte::Twice), ["5.12"]);
    assert_eq!(since(|t| t.zap_all == ZapAll::Obsolete), releases[5..]);
    assert_eq!(of("6.12/ept").recovery, Resize::Zap);
    assert_eq!(of("6.18/ept").recovery, Resize::InPlace);
    assert_eq!((of("7.1/ept").unlink, of("7.2/ept").unlink), (Unlink::First, Unlink::Last));
    // Where only the era is known, its last release counts.
    assert_eq!(of("E10/npt"), of("5.18/npt"));
    assert_eq!(of("E08/npt"), of("5.11/npt"));
}

#[test]
fn a_file_of_ones_own_says_what_its_kernel_traces() {
    let text = "layout = 1\nextends = \"E14/npt\"\n\n[traces]\nunlink = \"first\"\nfreeze = true\n";
    let traces = user(text).expect("a good file").traces;
    assert_eq!((traces.unlink, traces.freeze, traces.slot_leaves), (Unlink::First, true, true));
    let bad = |line: &str| why(&format!("layout = 1\nextends = \"E14/npt\"\n[traces]\n{line}\n"));
    assert_eq!(bad("unlink = \"later\""), "mine.toml:4: unlink takes \"first\" or \"last\"");
    assert_eq!(bad("freeze = 1"), "mine.toml:4: freeze takes true or false");
    assert!(
        bad("order = 1").starts_with("mine.toml:4: unknown key `order` in [traces]: there are changes, ")
    );
}

#[test]
fn tdx_begins_with_its_era() {
    let eras = mmuscope_spte::eras().expect("eras");
    let begins: Vec<&str> =
        eras.iter().filter(|e| e.new_modes.contains(&Mode::TdxMirror)).map(|e| e.id).collect();
    assert_eq!(begins, ["E13"]);
}
