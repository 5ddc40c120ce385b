//! What may happen, and what each kernel tells of it.

use proptest::prelude::*;

/// What a kernel does and tells.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Era {
    pub(crate) layout: &'static str,
    /// `kvm_tdp_mmu_spte_changed`.
    pub(crate) changes: bool,
    /// `kvm_mmu_set_spte` comes twice, the first time (5.11) with the old value.
    pub(crate) doubled: bool,
    /// Atomic zaps are told as a freeze, and the release is not (5.12 to 6.9).
    pub(crate) freezes: bool,
    /// All roots are zapped in place rather than made obsolete (5.11, 5.12).
    pub(crate) in_place: bool,
    /// The lockless path fixes entries, with its own event only.
    pub(crate) fast: bool,
    /// mmu_notifier ranges are told.
    pub(crate) notifiers: bool,
    /// Faults split huge pages in place (6.2); before that they zap them.
    pub(crate) splits: bool,
    /// Memslots may be deleted leaf by leaf (6.12).
    pub(crate) quirk: bool,
    /// Huge pages come back in place of a table (6.13).
    pub(crate) recovers: bool,
    /// Links are told cut after the entries of their table (7.2).
    pub(crate) reversed: bool,
    /// The legacy MMU: zapped pages are told.
    pub(crate) legacy: bool,
    /// TDX: half of the frames are private, in a mirror tree.
    pub(crate) mirror: bool,
}

pub(crate) const E6_1: Era = Era {
    layout: "6.1/npt",
    changes: true,
    doubled: false,
    freezes: true,
    in_place: false,
    fast: true,
    notifiers: true,
    splits: false,
    quirk: false,
    recovers: false,
    reversed: false,
    legacy: false,
    mirror: false,
};
pub(crate) const E6_1_NOAD: Era = Era { layout: "6.1/ept-noad", ..E6_1 };
pub(crate) const E6_6: Era = Era { layout: "6.6/npt", splits: true, ..E6_1 };
pub(crate) const E5_12: Era =
    Era { layout: "5.12/npt", doubled: true, in_place: true, fast: false, notifiers: false, ..E6_1 };
pub(crate) const E5_11: Era = Era { layout: "5.11/npt", freezes: false, ..E5_12 };
pub(crate) const E6_12: Era = Era { layout: "6.12/npt", freezes: false, quirk: true, ..E6_6 };
pub(crate) const E6_12_NOAD: Era = Era { layout: "6.12/ept-noad", ..E6_12 };
pub(crate) const E6_18: Era = Era { layout: "6.18/npt", recovers: true, ..E6_12 };
pub(crate) const E7_2: Era = Era { layout: "7.2/npt", reversed: true, ..E6_18 };
pub(crate) const TDX: Era = Era { layout: "6.18/ept", mirror: true, ..E6_18 };
pub(crate) const E5_10: Era = Era { layout: "5.10/npt", changes: false, doubled: false, ..E5_11 };
pub(crate) const LEGACY: Era = Era { changes: false, legacy: true, ..E6_1 };
pub(crate) const LEGACY_5_10: Era = Era { legacy: true, ..E5_10 };

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
