//! The kernel's mask variables: their values in [`Masks`], their names in [`MaskName`].

/// KVM's global masks under the kernel's names (without `shadow_`). A variable that a kernel does not have holds what that kernel uses in its
/// place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[allow(missing_docs, reason = "names of kernel variables; MaskName::meaning has the sentence for each")]
pub struct Masks {
    pub nonpresent_or_rsvd_mask: u64,
    pub nonpresent_or_rsvd_lower_gfn_mask: u64,
    pub me_value: u64,
    pub me_mask: u64,
    pub base_addr_mask: u64,
    pub user_mask: u64,
    pub nx_mask: u64,
    pub x_mask: u64,
    pub xu_mask: u64,
    pub accessed_mask: u64,
    pub dirty_mask: u64,
    pub present_mask: u64,
    pub acc_track_mask: u64,
    pub host_writable_mask: u64,
    pub mmu_writable_mask: u64,
    pub mmio_mask: u64,
    pub mmio_value: u64,
    pub vm_mmio_value: u64,
    pub mmio_access_mask: u64,
    pub enable_mmio_caching: bool,
}

macro_rules! mask_names {
    ($($variant:ident $field:ident $name:literal $meaning:literal),+ $(,)?) => {
        /// The name of a mask variable.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[allow(missing_docs, reason = "names of kernel variables")]
        pub enum MaskName { $($variant),+, EnableMmioCaching }

        impl MaskName {
            /// All mask variables.
            pub const ALL: &'static [MaskName] = &[$(MaskName::$variant),+, MaskName::EnableMmioCaching];

            /// The kernel's name for it.
            pub const fn name(self) -> &'static str {
                match self { $(MaskName::$variant => $name),+, MaskName::EnableMmioCaching => "enable_mmio_caching" }
            }

            /// What the kernel uses the variable for.
            pub const fn meaning(self) -> &'static str {
                match self {
                    $(MaskName::$variant => $meaning),+,
                    MaskName::EnableMmioCaching => "whether MMIO SPTEs are used at all (module parameter mmio_caching)",
                }
            }
        }

        impl Masks {
            /// The value of a mask (a flag is 0 or 1).
            pub const fn get(&self, name: MaskName) -> u64 {
                match name {
                    $(MaskName::$variant => self.$field),+,
                    MaskName::EnableMmioCaching => self.enable_mmio_caching as u64,
                }
            }

            /// Sets a mask.
            pub const fn set(&mut self, name: MaskName, value: u64) {
                match name {
                    $(MaskName::$variant => self.$field = value),+,
                    MaskName::EnableMmioCaching => self.enable_mmio_caching = value & 0xff != 0,
                }
            }
        }
    };
}

mask_names! {
    NonpresentOrRsvd nonpresent_or_rsvd_mask "shadow_nonpresent_or_rsvd_mask"
        "physical address bits set in MMIO SPTEs against L1TF",
    NonpresentOrRsvdLowerGfn nonpresent_or_rsvd_lower_gfn_mask "shadow_nonpresent_or_rsvd_lower_gfn_mask"
        "frame number bits an MMIO SPTE keeps in place",
    MeValue me_value "shadow_me_value" "memory encryption bits set in entries (SME)",
    Me me_mask "shadow_me_mask" "bits memory encryption may use (SME C-bit, MKTME KeyIDs)",
    BaseAddr base_addr_mask "base_addr_mask" "address bits of an entry",
    User user_mask "shadow_user_mask" "user-accessible",
    Nx nx_mask "shadow_nx_mask" "no-execute",
    X x_mask "shadow_x_mask" "execute",
    Xu xu_mask "shadow_xu_mask" "user-execute (7.2 and later)",
    Accessed accessed_mask "shadow_accessed_mask" "Accessed",
    Dirty dirty_mask "shadow_dirty_mask" "Dirty",
    Present present_mask "shadow_present_mask" "set in every present entry",
    AccTrack acc_track_mask "shadow_acc_track_mask" "permissions taken away by access tracking",
    HostWritable host_writable_mask "shadow_host_writable_mask" "the host maps the page writable",
    MmuWritable mmu_writable_mask "shadow_mmu_writable_mask" "may be made writable without the MMU lock",
    Mmio mmio_mask "shadow_mmio_mask" "bits compared to recognise an MMIO SPTE",
    MmioValue mmio_value "shadow_mmio_value" "what they hold in an MMIO SPTE",
    VmMmioValue vm_mmio_value "kvm->arch.shadow_mmio_value" "the same, of the VM (6.10 and later)",
    MmioAccess mmio_access_mask "shadow_mmio_access_mask" "access bits an MMIO SPTE keeps",
}

impl MaskName {
    /// Finds a mask by the kernel's name. `shadow_xs_mask` is the name of `shadow_x_mask` since 7.2; `physical_mask` narrows the address bits.
    pub fn parse(name: &str) -> Option<MaskName> {
        let name = match name {
            "shadow_xs_mask" => "shadow_x_mask",
            "sme_me_mask" => "shadow_me_value",
            "shadow_base_addr_mask" | "physical_mask" => "base_addr_mask",
            "vm_mmio_value" | "kvm.mmio_value" => "kvm->arch.shadow_mmio_value",
            other => other,
        };
        MaskName::ALL
            .iter()
            .copied()
            .find(|m| m.name() == name || m.name().strip_prefix("shadow_").is_some_and(|short| short == name))
    }
}
