//! What is known about a host, each fact with its origin. [`HostSpec`] may lack any part; [`Host`] has every part decided.

/// The origin of a fact about a layout, from the weakest to the strongest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Provenance {
    /// It is assumed, because nothing says otherwise.
    Assumed,
    /// It was concluded from other facts or from the values seen.
    Inferred,
    /// The user gave it.
    Given,
    /// It was read from the host itself.
    Measured,
}

impl Provenance {
    /// The word for this origin.
    pub const fn name(self) -> &'static str {
        match self {
            Provenance::Assumed => "assumed",
            Provenance::Inferred => "inferred",
            Provenance::Given => "given",
            Provenance::Measured => "measured",
        }
    }
}

/// A fact and its origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known<T> {
    /// The fact.
    pub value: T,
    /// The origin of the fact.
    pub from: Provenance,
}

impl<T> Known<T> {
    /// A fact that the user gave.
    pub const fn given(value: T) -> Self {
        Self { value, from: Provenance::Given }
    }

    /// A fact that was read from the host.
    pub const fn measured(value: T) -> Self {
        Self { value, from: Provenance::Measured }
    }

    /// A fact that was concluded.
    pub const fn inferred(value: T) -> Self {
        Self { value, from: Provenance::Inferred }
    }

    /// A fact that is assumed.
    pub const fn assumed(value: T) -> Self {
        Self { value, from: Provenance::Assumed }
    }
}

/// Maker of the CPU.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Vendor {
    /// Intel, or Zhaoxin, whose CPUs run kvm-intel.
    Intel,
    /// AMD, or Hygon, whose CPUs run kvm-amd.
    Amd,
}

impl Vendor {
    /// The word for this vendor on the command line.
    pub const fn name(self) -> &'static str {
        match self {
            Vendor::Intel => "intel",
            Vendor::Amd => "amd",
        }
    }

    /// Recognises a vendor by the word of the command line or by a CPUID vendor string.
    pub fn parse(text: &str) -> Option<Vendor> {
        const NAMES: [(&str, Vendor); 9] = [
            ("intel", Vendor::Intel),
            ("genuineintel", Vendor::Intel),
            ("centaurhauls", Vendor::Intel),
            ("  shanghai  ", Vendor::Intel),
            ("zhaoxin", Vendor::Intel),
            ("amd", Vendor::Amd),
            ("authenticamd", Vendor::Amd),
            ("hygon", Vendor::Amd),
            ("hygongenuine", Vendor::Amd),
        ];
        NAMES.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|&(_, vendor)| vendor)
    }
}

/// What is known about the host; any part may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct HostSpec {
    /// Maker of the CPU.
    pub vendor: Option<Known<Vendor>>,
    /// The width of physical addresses in bits: CPUID 80000008 EAX bits 7:0.
    pub maxphyaddr: Option<Known<u8>>,
    /// The kernel's `boot_cpu_data.x86_phys_bits`: less than MAXPHYADDR under SME, MKTME or TDX.
    pub phys_bits: Option<Known<u8>>,
    /// The kernel's `boot_cpu_data.x86_cache_bits`: at least 44 on old Intel CPUs with L1TF.
    pub cache_bits: Option<Known<u8>>,
    /// The CPU has the L1TF bug.
    pub l1tf: Option<Known<bool>>,
    /// The position of the memory encryption bit, the C-bit (CPUID 8000001F EBX bits 5:0).
    pub c_bit: Option<Known<u8>>,
    /// SME is active: `sme_me_mask` is not zero.
    pub sme: Option<Known<bool>>,
    /// MSR SYSCFG.MEM_ENCRYPT is set; it is assumed to be set wherever a C-bit is known.
    pub mem_encrypt: Option<Known<bool>>,
    /// EPT supports execute-only entries.
    pub exec_only: Option<Known<bool>>,
    /// Module parameter `kvm.mmio_caching` (5.13 and later).
    pub mmio_caching: Option<Known<bool>>,
    /// The CPU can map 1 GiB pages in these tables.
    pub pages_1g: Option<Known<bool>>,
    /// The level of the root table: 3, 4 or 5.
    pub root_level: Option<Known<u8>>,
    /// The guest may use no-execute (shadow paging).
    pub guest_nx: Option<Known<bool>>,
    /// The host runs a 64-bit kernel.
    pub host_64bit: Option<Known<bool>>,
}

/// A host of which every part is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "as in HostSpec")]
pub struct Host {
    pub vendor: Known<Vendor>,
    pub maxphyaddr: Known<u8>,
    pub phys_bits: Known<u8>,
    pub cache_bits: Known<u8>,
    pub l1tf: Known<bool>,
    pub c_bit: Option<Known<u8>>,
    pub sme: Known<bool>,
    pub mem_encrypt: Known<bool>,
    pub exec_only: Known<bool>,
    pub mmio_caching: Known<bool>,
    pub pages_1g: Known<bool>,
    pub root_level: Known<u8>,
    pub guest_nx: Known<bool>,
    pub host_64bit: Known<bool>,
}
