//! What may happen, and the kernels that it happens under.

use mmuscope_spte::LayoutSpec;
use proptest::prelude::*;

/// A kernel, and the MMU it runs. What the kernel traces, and in which order, is in `layouts/traces.toml` of the `spte` crate.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Era {
    /// Name of the layout; of a release, so that what the release traces is known.
    pub(crate) layout: &'static str,
    /// A layout file instead, by its name and its text.
    pub(crate) file: Option<(&'static str, &'static str)>,
    pub(crate) mmu: Mmu,
}

/// Which of KVM's MMUs maps the guest's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mmu {
    /// The TDP MMU.
    Tdp,
    /// The legacy MMU with direct pages, whose zapped pages are traced and whose changes are not.
    Legacy,
    /// The TDP MMU of a TDX guest: half of the frames are private, in a mirror tree.
    Mirror,
}

impl Era {
    const fn tdp(layout: &'static str) -> Self {
        Self { layout, file: None, mmu: Mmu::Tdp }
    }

    /// Where the layout and what is traced come from.
    pub(crate) fn spec(&self) -> LayoutSpec {
        match self.file {
            Some((name, text)) => {
                LayoutSpec { file: Some((name.into(), text.into())), ..LayoutSpec::default() }
            }
            None => LayoutSpec::named(self.layout).expect("a layout"),
        }
    }
}

pub(crate) const E5_10: Era = Era::tdp("5.10/npt");
pub(crate) const E5_11: Era = Era::tdp("5.11/npt");
pub(crate) const E5_12: Era = Era::tdp("5.12/npt");
pub(crate) const E6_1: Era = Era::tdp("6.1/npt");
pub(crate) const E6_1_NOAD: Era = Era::tdp("6.1/ept-noad");
pub(crate) const E6_6: Era = Era::tdp("6.6/npt");
pub(crate) const E6_12: Era = Era::tdp("6.12/npt");
pub(crate) const E6_12_NOAD: Era = Era::tdp("6.12/ept-noad");
pub(crate) const E6_18: Era = Era::tdp("6.18/npt");
pub(crate) const E7_2: Era = Era::tdp("7.2/npt");
/// A kernel that no file of the `spte` crate knows: its layout and its traces are one file.
pub(crate) const E7_9: Era =
    Era { file: Some(("7.9.toml", include_str!("../../kernels/7.9.toml"))), ..Era::tdp("") };
pub(crate) const TDX: Era = Era { mmu: Mmu::Mirror, ..Era::tdp("6.18/ept") };
pub(crate) const LEGACY: Era = Era { mmu: Mmu::Legacy, ..E6_1 };
pub(crate) const LEGACY_5_10: Era = Era { mmu: Mmu::Legacy, ..E5_10 };

/// One thing that happens. Frames are numbers of places that have something of everything.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    Fault { vm: u8, vcpu: u8, place: u8, access: Access, smm: bool },
    Mmio { vm: u8, place: u8 },
    Generation { vm: u8 },
    Unmap { vm: u8, place: u8, pages: u8 },
    Protect { vm: u8, place: u8, pages: u8 },
    Clean { vm: u8, place: u8, pages: u8 },
    Age { vm: u8, place: u8 },
    Touch { vm: u8, place: u8 },
    ZapAll { vm: u8 },
    Teardown { vm: u8, steps: u8 },
    DeleteSlot { vm: u8, place: u8, pages: u8 },
    Split { vm: u8, place: u8 },
    Recover { vm: u8, place: u8 },
    RecoverNx { vm: u8, place: u8 },
    Die { vm: u8 },
}

/// What a fault is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Access {
    Read,
    Write,
    Fetch,
}

pub(crate) fn ops() -> impl Strategy<Value = Vec<Op>> {
    let vm = || 0..2u8;
    let place = || 0..48u8;
    let access = prop_oneof![3 => Just(Access::Read), 4 => Just(Access::Write), 1 => Just(Access::Fetch)];
    let op = prop_oneof![
        24 => (vm(), 0..2u8, place(), access, 0..6u8)
            .prop_map(|(vm, vcpu, place, access, n)| Op::Fault { vm, vcpu, place, access, smm: n == 0 }),
        4 => (vm(), 0..4u8).prop_map(|(vm, place)| Op::Mmio { vm, place }),
        1 => vm().prop_map(|vm| Op::Generation { vm }),
        8 => (vm(), place(), 1..6u8).prop_map(|(vm, place, pages)| Op::Unmap { vm, place, pages }),
        4 => (vm(), place(), 1..12u8).prop_map(|(vm, place, pages)| Op::Protect { vm, place, pages }),
        2 => (vm(), place(), 1..12u8).prop_map(|(vm, place, pages)| Op::Clean { vm, place, pages }),
        2 => (vm(), place()).prop_map(|(vm, place)| Op::Age { vm, place }),
        4 => (vm(), place()).prop_map(|(vm, place)| Op::Touch { vm, place }),
        2 => vm().prop_map(|vm| Op::ZapAll { vm }),
        6 => (vm(), 1..4u8).prop_map(|(vm, steps)| Op::Teardown { vm, steps }),
        1 => (vm(), place(), 1..12u8).prop_map(|(vm, place, pages)| Op::DeleteSlot { vm, place, pages }),
        2 => (vm(), place()).prop_map(|(vm, place)| Op::Split { vm, place }),
        2 => (vm(), place()).prop_map(|(vm, place)| Op::Recover { vm, place }),
        2 => (vm(), place()).prop_map(|(vm, place)| Op::RecoverNx { vm, place }),
        1 => (vm(), 0..6u8).prop_map(|(vm, n)| if n == 0 { Op::Die { vm } } else { Op::Generation { vm } }),
    ];
    prop::collection::vec(op, 1..160)
}

/// Frame of a place: two stretches of small pages, two of huge ones, one far up.
pub(crate) fn frame(place: u8) -> u64 {
    let n = u64::from(place % 12);
    match place / 12 {
        0 => n,
        1 => 0x200 + n,
        2 => 0x400 + n,
        _ => 0x4_0000 + n * 0x200,
    }
}

/// Whether the host backs the 2 MiB around a frame with one page.
pub(crate) fn huge(gfn: u64) -> bool {
    (0x400..0x600).contains(&gfn) || gfn == 0x4_0200
}

/// Whether a frame's memory was never written at first: reads find the host's zero page, which is every VM's.
pub(crate) fn anonymous(gfn: u64) -> bool {
    gfn < 0x200 && gfn.is_multiple_of(3)
}
