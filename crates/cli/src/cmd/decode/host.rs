//! The layout that a capture or this machine implies, for `decode --from` and `decode --host`.

use std::path::Path;

use anyhow::Result;
use mmuscope_replay::{ReplayOptions, VmId};
use mmuscope_spte::{Kernel, Known, LayoutSpec, Mode, Provenance, Vendor};
use mmuscope_trace::{ReadOptions, Trace};

/// Fills the parts of `spec` that are open from `other`.
pub(super) fn fill(spec: &mut LayoutSpec, other: LayoutSpec) {
    let dated = spec.kernel.is_some() || spec.era.is_some() || spec.file.is_some();
    if !dated {
        spec.kernel = other.kernel;
        spec.era = other.era;
    }
    spec.mode = spec.mode.or(other.mode);
    let (mine, theirs) = (&mut spec.host, other.host);
    macro_rules! take {
        ($($part:ident),+ $(,)?) => { $( mine.$part = mine.$part.or(theirs.$part); )+ };
    }
    take!(
        vendor,
        maxphyaddr,
        phys_bits,
        cache_bits,
        l1tf,
        c_bit,
        sme,
        mem_encrypt,
        exec_only,
        mmio_caching,
        pages_1g,
        root_level,
        guest_nx,
        host_64bit,
    );
    for (name, value) in other.masks {
        if !spec.masks.iter().any(|(n, _)| *n == name) {
            spec.masks.push((name, value));
        }
    }
}

/// The layout of the host of a trace, as the replay concludes it.
pub(super) fn of_capture(path: &Path) -> Result<LayoutSpec> {
    let trace = Trace::load(&[path.to_path_buf()], &ReadOptions::default())?;
    let timeline = mmuscope_replay::replay(&trace, &ReplayOptions::default());
    Ok(timeline.layout(VmId(0)).spec.clone())
}

/// The layout of this machine: from its kernel, CPU and module parameters, and from the masks themselves where kernel memory can be read.
pub(super) fn of_this_machine() -> LayoutSpec {
    let host = mmuscope_collector::host::gather(mmuscope_collector::host::Gather::default());
    of_facts(&host.facts)
}

fn of_facts(facts: &[(String, String)]) -> LayoutSpec {
    let get = |key: &str| facts.iter().find(|(k, _)| k == key).map(|(_, v)| v.as_str());
    let hex = |text: &str| u64::from_str_radix(text.trim_start_matches("0x"), 16).ok();
    let on = |key: &str| get(key).map(|v| matches!(v, "Y" | "1" | "y"));
    let mut spec = LayoutSpec::default();
    // On Debian only `version` contains the stable release.
    let release = get("kernel.release").unwrap_or_default();
    let long = format!("Linux version {release} {}", get("kernel.version").unwrap_or_default());
    spec.kernel = Kernel::parse(&long).map(Known::measured);
    let h = &mut spec.host;
    h.vendor = get("cpu.vendor").and_then(Vendor::parse).map(Known::measured);
    h.maxphyaddr = get("cpu.maxphyaddr").and_then(|v| v.parse().ok()).map(Known::measured);
    h.phys_bits = get("cpu.phys_bits").and_then(|v| v.parse().ok()).map(Known::measured);
    if let Some(bugs) = get("cpu.bugs") {
        let l1tf = bugs.split_whitespace().any(|b| b == "l1tf");
        h.l1tf = Some(Known::measured(l1tf));
        // On Nehalem to Kaby Lake the L1 cache compares at least 44 bits, whatever CPUID says.
        if l1tf && let Some(width) = h.maxphyaddr.or(h.phys_bits) {
            h.cache_bits = Some(Known { value: width.value.max(44), from: Provenance::Inferred });
        }
    }
    if let (Some(eax), Some(ebx)) =
        (get("cpuid.0x8000001f.eax").and_then(hex), get("cpuid.0x8000001f.ebx").and_then(hex))
        && eax & 3 != 0
    {
        h.c_bit = Some(Known::measured((ebx & 0x3f) as u8));
        h.sme = Some(Known::assumed(false));
    }
    h.mmio_caching = on("param.kvm.mmio_caching").map(Known::measured);
    if let Some(flags) = get("cpu.vmx_flags") {
        h.exec_only = Some(Known::measured(flags.split_whitespace().any(|f| f == "ept_x_only")));
    }
    spec.mode = match (on("param.kvm_intel.ept"), on("param.kvm_intel.eptad"), on("param.kvm_amd.npt")) {
        (Some(true), Some(false), _) => Some(Known::measured(Mode::EptNoAd)),
        (Some(true), ..) => Some(Known::measured(Mode::Ept)),
        (.., Some(true)) => Some(Known::measured(Mode::Npt)),
        (Some(false), ..) | (.., Some(false)) => Some(Known::measured(Mode::Shadow64)),
        _ => None,
    };
    for (key, value) in facts {
        if let Some(name) = key.strip_prefix("mask.")
            && let Some(value) = hex(value)
        {
            spec.set_variable(name, value, Provenance::Measured);
        } else if let Some(name) = key.strip_prefix("var.")
            && let Ok(value) = value.parse()
        {
            spec.set_variable(name, value, Provenance::Measured);
        }
    }
    spec
}

#[cfg(test)]
mod tests {
    use super::of_facts;
    use mmuscope_spte::{Layout, MaskName, Mode, Provenance};

    fn layout(facts: &[(&str, &str)]) -> Layout {
        let facts: Vec<_> = facts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        of_facts(&facts).resolve().expect("resolves").layout
    }

    #[test]
    fn a_haswell_with_l1tf() {
        // What 5.10.262 computed on such a host: read from its memory.
        let l = layout(&[
            ("kernel.release", "5.10.0-46-cloud-amd64"),
            ("kernel.version", "#1 SMP Debian 5.10.262-1 (2026-07-31)"),
            ("cpu.vendor", "GenuineIntel"),
            ("cpu.maxphyaddr", "40"),
            ("cpu.phys_bits", "40"),
            ("cpu.bugs", "cpu_meltdown spectre_v1 l1tf mds"),
            ("cpu.vmx_flags", "vnmi ept_x_only ept_ad ept_1gb"),
            ("param.kvm_intel.ept", "Y"),
            ("param.kvm_intel.eptad", "Y"),
        ]);
        assert_eq!(l.id(), "E08/ept");
        assert_eq!(l.masks.get(MaskName::NonpresentOrRsvd), 0xf80_0000_0000);
        assert_eq!(l.masks.get(MaskName::NonpresentOrRsvdLowerGfn), 0x7f_ffff_f000);
        assert_eq!(l.masks.get(MaskName::MmioValue), 0x0030_0000_0000_0006);
    }

    #[test]
    fn measured_masks_win() {
        let facts = [
            ("kernel.release", "6.1.192"),
            ("cpu.vendor", "AuthenticAMD"),
            ("param.kvm_amd.npt", "Y"),
            ("mask.shadow_mmio_value", "0x0008000000000001"),
            ("mask.shadow_mmio_mask", "0x0008000000000001"),
        ];
        let facts: Vec<_> = facts.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let resolved = of_facts(&facts).resolve().expect("resolves");
        assert_eq!(resolved.layout.mode, Mode::Npt);
        assert_eq!(resolved.mask_from(MaskName::MmioValue), Provenance::Measured);
    }
}
