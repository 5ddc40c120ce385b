//! Properties that hold for every value, level and layout.

use std::sync::OnceLock;

use mmuscope_spte::infer::{self, Evidence, Value};
use mmuscope_spte::layouts::Library;
use mmuscope_spte::{
    AdType, Format, HostSpec, Known, Layout, LayoutSpec, Leaf, MaskName, Mode, PresentRule, Provenance,
    State, Vendor, changes, explain,
};
use proptest::prelude::*;

/// Every shipped layout, on hosts that differ in everything that layouts depend on.
fn layouts() -> &'static [mmuscope_spte::Resolved] {
    static ALL: OnceLock<Vec<mmuscope_spte::Resolved>> = OnceLock::new();
    ALL.get_or_init(|| {
        let library = Library::new();
        let intel = HostSpec {
            vendor: Some(Known::given(Vendor::Intel)),
            maxphyaddr: Some(Known::given(39)),
            cache_bits: Some(Known::given(44)),
            l1tf: Some(Known::given(true)),
            ..HostSpec::default()
        };
        let sme = HostSpec {
            vendor: Some(Known::given(Vendor::Amd)),
            maxphyaddr: Some(Known::given(48)),
            phys_bits: Some(Known::given(43)),
            c_bit: Some(Known::given(47)),
            sme: Some(Known::given(true)),
            ..HostSpec::default()
        };
        let wide = HostSpec { maxphyaddr: Some(Known::given(52)), ..HostSpec::default() };
        let mut all = Vec::new();
        for name in library.names().expect("the shipped files") {
            for host in [HostSpec::default(), intel, sme, wide] {
                let spec = LayoutSpec { host, ..LayoutSpec::named(&name).expect("its own name") };
                all.push(spec.resolve_in(&library).unwrap_or_else(|e| panic!("{name}: {e}")));
            }
        }
        assert!(all.len() > 400, "{} layouts", all.len());
        all
    })
}

fn any_layout() -> impl Strategy<Value = &'static mmuscope_spte::Resolved> {
    (0..layouts().len()).prop_map(|at| &layouts()[at])
}

/// Words close to what tables hold, and arbitrary words.
fn any_value() -> impl Strategy<Value = u64> {
    prop_oneof![
        any::<u64>(),
        (any::<u64>(), any::<u64>()).prop_map(|(a, b)| a & b),
        (0u64..64, 0u64..64).prop_map(|(a, b)| 1 << a | 1 << b),
        (any::<u32>(), any::<u16>(), 0u64..4096)
            .prop_map(|(pfn, high, low)| { u64::from(pfn) << 12 | u64::from(high) << 48 | low }),
    ]
}

fn any_leaf() -> impl Strategy<Value = Leaf> {
    let bits = any::<[bool; 12]>();
    (0u64..1 << 30, bits, 0u8..3, 0u8..8).prop_map(|(pfn, b, ad, memtype)| Leaf {
        pfn,
        r: b[0],
        w: b[1],
        x: b[2],
        xu: b[3],
        u: b[4],
        accessed: b[5],
        dirty: b[6],
        host_writable: b[7],
        mmu_writable: b[8],
        large: false,
        ad_type: [AdType::Enabled, AdType::Disabled, AdType::WrprotOnly][usize::from(ad)],
        memtype,
        ignore_pat: b[9],
        suppress_ve: b[10],
        encrypted: b[11],
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_value_panics(resolved in any_layout(), raw in any_value(), level in any::<u8>()) {
        let d = resolved.layout.decode(raw, level);
        prop_assert_eq!(d.raw, raw);
        prop_assert_eq!(d.state, resolved.layout.state(raw, level));
        // Attributes are read only from shadow-present entries.
        if !matches!(d.state, State::Present | State::Table) {
            prop_assert!(d.pfn.is_none() && d.accessed.is_none() && d.ad_type.is_none() && d.host_writable.is_none());
            prop_assert_eq!(d.reserved_bits, 0);
        }
        prop_assert_eq!(d.gfn.is_some(), d.state == State::Mmio);
        let _ = explain(resolved, raw, level);
    }

    #[test]
    fn no_pair_panics(resolved in any_layout(), a in any_value(), b in any_value(), level in any::<u8>()) {
        let c = changes(resolved, a, b, level, level % 2 == 0);
        prop_assert!(!c.headline.is_empty());
    }

    #[test]
    fn leaves_come_back(resolved in any_layout(), leaf in any_leaf()) {
        let layout = &resolved.layout;
        let mut leaf = leaf;
        let ept = layout.format == Format::Ept;
        // The type field of family A has one bit; pKVM has none, and is present only with a permission.
        if layout.ad_type.mask < 2 && leaf.ad_type == AdType::WrprotOnly {
            leaf.ad_type = AdType::Disabled;
        }
        leaf.r |= layout.mode == Mode::Pkvm;
        // Write without read is an EPT misconfiguration, and also the mark of MMIO SPTEs.
        leaf.r |= leaf.w;
        // On hosts with 52 address bits, only an A/D type marks MMIO SPTEs; legacy tables never use that type.
        if !ept {
            leaf.ad_type = AdType::Enabled;
        }
        // Where presence has no bit of its own, an all-zero word is not a leaf; one bit is set so that the word is not zero.
        leaf.host_writable |= layout.present == PresentRule::NotSpecial;
        leaf.pfn &= layout.masks.base_addr_mask >> 12;
        let raw = layout.leaf(&leaf);
        let d = layout.decode(raw, 1);
        prop_assert_eq!(d.state, State::Present, "{} {:#x}", layout.id(), raw);
        prop_assert_eq!(d.pfn, Some(leaf.pfn));
        prop_assert_eq!((d.r, d.w, d.x), (Some(leaf.r), Some(leaf.w), Some(leaf.x)));
        prop_assert_eq!(d.u, (!ept).then_some(leaf.u));
        prop_assert_eq!(d.xu, (layout.masks.xu_mask != 0).then_some(leaf.xu));
        prop_assert_eq!(d.memtype, ept.then_some(leaf.memtype));
        prop_assert_eq!(d.ignore_pat, ept.then_some(leaf.ignore_pat));
        if layout.mode != Mode::Pkvm {
            prop_assert_eq!(d.ad_type, Some(leaf.ad_type));
            prop_assert_eq!(d.host_writable, Some(leaf.host_writable));
            prop_assert_eq!(d.mmu_writable, Some(leaf.mmu_writable));
        }
        let bits = layout.ad_rule == mmuscope_spte::AdRule::Bits;
        if layout.masks.accessed_mask != 0 && (bits || leaf.ad_type != AdType::Disabled || layout.mode == Mode::Pkvm) {
            prop_assert_eq!(d.accessed, Some(leaf.accessed));
            prop_assert_eq!(d.dirty, Some(leaf.dirty));
        }
        if layout.suppress_ve != 0 {
            prop_assert_eq!(d.suppress_ve, Some(leaf.suppress_ve));
        }
        if layout.masks.me_value != 0 && !ept {
            prop_assert_eq!(d.encrypted, Some(leaf.encrypted));
        }
    }

    #[test]
    fn tables_come_back(resolved in any_layout(), pfn in 0u64..1 << 27, level in 2u8..=5) {
        let layout = &resolved.layout;
        let d = layout.decode(layout.table(pfn, AdType::Enabled), level);
        prop_assert_eq!(d.state, State::Table);
        prop_assert_eq!(d.pfn, Some(pfn));
        if level <= layout.root_level && layout.root_level > 3 {
            prop_assert!(!d.is_malformed(), "{} {:#x} at {}", layout.id(), d.raw, level);
        }
    }

    #[test]
    fn mmio_comes_back(resolved in any_layout(), gfn in 0u64..1 << 27, access in 0u8..8, generation in any::<u32>()) {
        let layout = &resolved.layout;
        if !layout.masks.enable_mmio_caching {
            return Ok(());
        }
        let raw = layout.mmio(gfn, access, generation);
        prop_assert_eq!(layout.state(raw, 1), State::Mmio, "{} {:#x}", layout.id(), raw);
        let d = layout.decode(raw, 1);
        // Kernels from 5.2 to 5.6 read a wrong frame back under SME; a vector holds that case.
        let clash = match layout.mmio_gfn {
            mmuscope_spte::GfnRule::Split { lower, .. } => lower & layout.masks.vm_mmio_value,
            mmuscope_spte::GfnRule::Plain { .. } => 0,
        };
        if clash == 0 {
            prop_assert_eq!(d.gfn, Some(gfn));
        }
        if layout.generation.is_buggy() {
            let kept = generation & 0x1ff;
            prop_assert_eq!(layout.generation.get(layout.generation.put(kept)), kept);
        } else {
            prop_assert_eq!(d.mmio_generation, Some(generation & layout.generation.kept()));
        }
        prop_assert_eq!(
            u64::from(d.mmio_access.unwrap_or(0)) & layout.masks.mmio_access_mask,
            u64::from(access) & layout.masks.mmio_access_mask & !layout.mmio_test_mask
        );
    }

    #[test]
    fn tracking_and_back(resolved in any_layout(), leaf in any_leaf()) {
        let layout = &resolved.layout;
        if layout.masks.acc_track_mask == 0 || layout.mode == Mode::Pkvm {
            return Ok(());
        }
        let leaf = Leaf { ad_type: AdType::Disabled, host_writable: true, accessed: false, ..leaf };
        let raw = layout.leaf(&leaf);
        let tracked = layout.track(raw);
        let d = layout.decode(tracked, 1);
        prop_assert_eq!(d.access_tracked, Some(true));
        prop_assert_eq!((d.r, d.w, d.x), (Some(false), Some(false), Some(false)));
        // Every permission except Write is restored.
        prop_assert_eq!(d.restored, Some(raw & !2));
    }

    #[test]
    fn an_unused_mask_changes_nothing(raw in any_value(), level in 1u8..6, value in any::<u64>()) {
        // The nonpresent_or_rsvd masks only serve MMIO SPTEs. These kernels use none, so the masks must not change the answer.
        let host = HostSpec { mmio_caching: Some(Known::given(false)), ..HostSpec::default() };
        let plain = LayoutSpec { host, ..LayoutSpec::named("E11/npt").expect("shipped") };
        let mut other = plain.clone();
        other.masks.push((MaskName::NonpresentOrRsvd, Known::given(value)));
        other.masks.push((MaskName::NonpresentOrRsvdLowerGfn, Known::given(!value)));
        other.masks.push((MaskName::MmioAccess, Known::given(value)));
        let (a, b) = (plain.resolve().expect("resolves").layout, other.resolve().expect("resolves").layout);
        prop_assert_eq!(a.decode(raw, level), b.decode(raw, level));
    }

    #[test]
    fn every_bit_is_drawn_once(resolved in any_layout(), level in 1u8..6) {
        for state in [State::Present, State::Table, State::Mmio, State::Removed, State::Nonpresent] {
            let runs = resolved.layout.bit_runs(state, level);
            let mut next = 64;
            for run in &runs {
                prop_assert_eq!(u32::from(run.high) + 1, next);
                next = u32::from(run.low);
            }
            prop_assert_eq!(next, 0);
        }
    }

    #[test]
    fn layout_files_never_panic(text in "(\\PC|\n|\\[|\\]|\"|=|\\|){0,200}") {
        let spec = LayoutSpec { file: Some(("x.toml".into(), format!("layout = 1\n{text}"))), ..LayoutSpec::default() };
        let _ = spec.resolve();
    }

    #[test]
    fn kernel_strings_never_panic(text in "\\PC{0,60}") {
        let _ = mmuscope_spte::Kernel::parse(&text);
        let _ = LayoutSpec::named(&text);
        let mut spec = LayoutSpec::default();
        spec.set_variables(&text, Provenance::Given);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 32, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn judging_never_panics(values in proptest::collection::vec((any_value(), proptest::option::of(1u8..6)), 1..5)) {
        let library = Library::new();
        let values = Evidence::of(values.into_iter().map(|(raw, level)| Value { level, ..Value::bare(raw) }));
        let judgement = infer::judge(&LayoutSpec::default(), &values, &library).expect("shipped files");
        prop_assert!(!judgement.plausible.is_empty());
    }
}

/// The words of the reference: a value that is present in one era means something else in the next.
#[test]
fn one_word_under_five_eras() {
    let read = |name: &str, raw: u64| -> Layout {
        let layout = mmuscope_spte::LayoutSpec::find(name).expect("shipped").layout;
        assert_eq!(layout.id(), name);
        let _ = layout.decode(raw, 1);
        layout
    };
    let raw = 0x0800_0000_0000_0000;
    assert_eq!(read("E08/ept", raw).state(raw, 1), State::Present);
    assert_eq!(read("E09/ept", raw).state(raw, 1), State::Removed);
    assert_eq!(read("E10/ept", raw).state(raw, 1), State::Nonpresent);
}

/// An entry of a host without EPT A/D bits that is writable but not dirty. Kernels since 6.13 maintain Dirty in software there and set it in
/// every writable entry they make, so it comes from an older kernel.
#[test]
fn writable_and_clean_without_ad_bits_is_older_than_6_13() {
    let library = Library::new();
    let first = |raw: u64| {
        let j = infer::judge(&LayoutSpec::default(), &Evidence::of([Value::bare(raw)]), &library)
            .expect("shipped files");
        j.candidates[0].resolved.layout.id().to_owned()
    };
    assert_eq!(first(0x8610_0000_02ad_5877), "E12/ept-noad");
    assert_eq!(first(0x8610_0000_02ad_5b77), "E13/ept-noad");
}
