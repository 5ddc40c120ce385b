//! Paging modes: [`Mode`] is the kind of table that an SPTE lives in, [`Format`] the hardware format of its entries.

/// Entry format of the hardware.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Intel's extended page tables.
    Ept,
    /// The x86 page-table format: NPT and every kind of shadow paging.
    Legacy,
}

/// What kind of table an SPTE lives in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Mode {
    /// EPT with accessed/dirty bits.
    Ept,
    /// EPT without accessed/dirty bits.
    EptNoAd,
    /// AMD nested paging.
    Npt,
    /// The shadow of a 64-bit guest's tables (4 or 5 levels).
    Shadow64,
    /// The shadow in PAE format of 32-bit guests, and of all guests on 32-bit hosts.
    ShadowPae,
    /// The shadow of an L1 hypervisor's EPT.
    NestedEpt,
    /// The shadow of an L1 hypervisor's EPT where L1 turned accessed/dirty bits off.
    NestedEptNoAd,
    /// The shadow of an L1 hypervisor's NPT.
    NestedNpt,
    /// The tables for the shared half of a TDX guest's memory.
    TdxShared,
    /// KVM's mirror of the tables for the private half of a TDX guest's memory.
    TdxMirror,
    /// Shadow tables of PVM, the out-of-tree hypervisor that needs no hardware paging support.
    Pvm,
    /// EPT tables of the pKVM hypervisor on Intel (out of tree). They are not the host's KVM's, which makes no SPTEs there; they are decoded only.
    Pkvm,
}

impl Mode {
    /// All modes.
    pub const ALL: [Mode; 12] = [
        Mode::Ept,
        Mode::EptNoAd,
        Mode::Npt,
        Mode::Shadow64,
        Mode::ShadowPae,
        Mode::NestedEpt,
        Mode::NestedEptNoAd,
        Mode::NestedNpt,
        Mode::TdxShared,
        Mode::TdxMirror,
        Mode::Pvm,
        Mode::Pkvm,
    ];

    /// The word for this mode on the command line and in layout names.
    pub const fn name(self) -> &'static str {
        match self {
            Mode::Ept => "ept",
            Mode::EptNoAd => "ept-noad",
            Mode::Npt => "npt",
            Mode::Shadow64 => "shadow64",
            Mode::ShadowPae => "shadow-pae",
            Mode::NestedEpt => "nested-ept",
            Mode::NestedEptNoAd => "nested-ept-noad",
            Mode::NestedNpt => "nested-npt",
            Mode::TdxShared => "tdx-shared",
            Mode::TdxMirror => "tdx-mirror",
            Mode::Pvm => "pvm",
            Mode::Pkvm => "pkvm",
        }
    }

    /// The mode in words, for people.
    pub const fn words(self) -> &'static str {
        match self {
            Mode::Ept => "EPT with A/D bits",
            Mode::EptNoAd => "EPT without A/D bits",
            Mode::Npt => "NPT",
            Mode::Shadow64 => "shadow paging, 64-bit",
            Mode::ShadowPae => "shadow paging, PAE",
            Mode::NestedEpt => "shadow of a nested guest's EPT",
            Mode::NestedEptNoAd => "shadow of a nested guest's EPT, its A/D off",
            Mode::NestedNpt => "shadow of a nested guest's NPT",
            Mode::TdxShared => "TDX, shared half",
            Mode::TdxMirror => "TDX, mirror of the private half",
            Mode::Pvm => "PVM shadow paging",
            Mode::Pkvm => "pKVM (Intel)",
        }
    }

    /// Finds a mode by its name or one of a few other spellings.
    pub fn parse(text: &str) -> Option<Mode> {
        let alias = match text {
            "ept-ad" | "ept_ad" => "ept",
            "ept_noad" => "ept-noad",
            "shadow" | "shadow-64" => "shadow64",
            "shadow32" | "pae" | "shadow_pae" => "shadow-pae",
            "nested-ept-ad" | "ept_nested_ad" => "nested-ept",
            "ept_nested_noad" => "nested-ept-noad",
            "npt_nested" => "nested-npt",
            "tdx-private" | "tdx_private" => "tdx-mirror",
            "tdx_shared" | "tdx" => "tdx-shared",
            other => other,
        };
        Mode::ALL.into_iter().find(|m| m.name() == alias)
    }

    /// The format of its entries.
    pub const fn format(self) -> Format {
        match self {
            Mode::Npt | Mode::Shadow64 | Mode::ShadowPae | Mode::NestedNpt | Mode::Pvm => Format::Legacy,
            _ => Format::Ept,
        }
    }

    /// Whether these are shadows of tables that a nested hypervisor made.
    pub const fn is_nested(self) -> bool {
        matches!(self, Mode::NestedEpt | Mode::NestedEptNoAd | Mode::NestedNpt)
    }

    /// Whether the CPU walks these tables for guest-physical addresses (TDP), as opposed to shadow paging.
    pub const fn is_tdp(self) -> bool {
        matches!(self, Mode::Ept | Mode::EptNoAd | Mode::Npt | Mode::TdxShared | Mode::TdxMirror)
    }
}
