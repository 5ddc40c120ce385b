//! [`LayoutArgs`]: the options that say under which layout values are decoded. Every command that decodes or replays has them.

use anyhow::{Context, Result, bail};
use clap::Args;
use mmuscope_spte::{Kernel, Known, LayoutSpec, Mode, Provenance, Vendor};
use std::path::PathBuf;

/// Options about the layout. They override what the trace itself says; for `decode` they may be all that is known.
#[derive(Args, Clone, Debug, Default)]
#[command(next_help_heading = "Layout (what the bits mean)")]
pub(crate) struct LayoutArgs {
    /// Kernel release of the host: 6.1, 5.10.262, 4.18.0-348.el8
    #[arg(long, value_name = "RELEASE")]
    pub(crate) kernel: Option<String>,
    /// Paging mode: ept, ept-noad, npt, shadow64, shadow-pae, nested-ept, nested-ept-noad, nested-npt, tdx-shared, tdx-mirror, pvm, pkvm
    #[arg(long, value_name = "MODE")]
    pub(crate) paging: Option<String>,
    /// CPU vendor of the host: intel, amd
    #[arg(long)]
    pub(crate) vendor: Option<String>,
    /// MAXPHYADDR of the host's CPU (CPUID 0x80000008, bits 7:0 of EAX)
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u8).range(32..=52))]
    pub(crate) maxphyaddr: Option<u8>,
    /// Physical address bits the kernel uses (fewer than MAXPHYADDR under SME, MKTME or TDX)
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u8).range(32..=52))]
    pub(crate) phys_bits: Option<u8>,
    /// Physical address bits of the host's caches (boot_cpu_data.x86_cache_bits), which decide where the L1TF mitigation puts its bits
    #[arg(long, value_name = "BITS", value_parser = clap::value_parser!(u8).range(32..=64))]
    pub(crate) cache_bits: Option<u8>,
    /// The CPU has the L1TF bug (or has it not: --l1tf=no)
    #[arg(long, value_name = "yes|no", num_args = 0..=1, require_equals = true, default_missing_value = "yes", value_parser = yes_no)]
    pub(crate) l1tf: Option<bool>,
    /// Bit number of AMD's C-bit (CPUID 0x8000001f, bits 5:0 of EBX)
    #[arg(long, value_name = "BIT", value_parser = clap::value_parser!(u8).range(32..=63))]
    pub(crate) c_bit: Option<u8>,
    /// The host runs with SME (or not: --sme=no)
    #[arg(long, value_name = "yes|no", num_args = 0..=1, require_equals = true, default_missing_value = "yes", value_parser = yes_no)]
    pub(crate) sme: Option<bool>,
    /// The CPU's EPT has no execute-only entries
    #[arg(long)]
    pub(crate) no_exec_only: bool,
    /// MMIO caching is off (module parameter kvm.mmio_caching=0)
    #[arg(long)]
    pub(crate) no_mmio_caching: bool,
    /// A mask of the host, by the kernel's name: shadow_mmio_value=0x8000000000000001 (repeatable)
    #[arg(long = "mask", value_name = "NAME=VALUE")]
    pub(crate) masks: Vec<String>,
    /// Read masks from a file of lines `name value`
    #[arg(long = "masks", value_name = "FILE")]
    pub(crate) masks_file: Option<PathBuf>,
    /// Level of the root page table: 3, 4 or 5
    #[arg(long, value_name = "LEVEL", value_parser = clap::value_parser!(u8).range(2..=5))]
    pub(crate) root_level: Option<u8>,
    /// A layout by name (E10/ept, C/npt, 6.1/npt: see `mmuscope layout list`), or a layout file of your own
    #[arg(long, value_name = "NAME|FILE")]
    pub(crate) layout: Option<String>,
}

fn yes_no(s: &str) -> Result<bool, String> {
    match s {
        "yes" | "y" | "true" | "1" | "on" => Ok(true),
        "no" | "n" | "false" | "0" | "off" => Ok(false),
        _ => Err("yes or no".into()),
    }
}

/// Reads the value of a mask: hex with 0x, else decimal.
fn parse_mask(s: &str) -> Option<u64> {
    match s.strip_prefix("0x").or_else(|| s.strip_prefix("0X")) {
        Some(hex) => u64::from_str_radix(&hex.replace('_', ""), 16).ok(),
        None => s.parse().ok(),
    }
}

impl LayoutArgs {
    /// The options as a layout spec; what no option says is left open.
    pub(crate) fn spec(&self) -> Result<LayoutSpec> {
        let mut spec = match &self.layout {
            None => LayoutSpec::default(),
            // A layout's name contains a slash as a path does, so a name that exists as a file is taken for the file.
            Some(name) if std::path::Path::new(name).is_file() => {
                let text = std::fs::read_to_string(name)
                    .with_context(|| format!("{name}: cannot read the layout file"))?;
                LayoutSpec { file: Some((name.clone(), text)), ..LayoutSpec::default() }
            }
            Some(name) if std::path::Path::new(name).extension().is_some_and(|e| e == "toml") => {
                bail!("{name}: there is no such layout file")
            }
            Some(name) => LayoutSpec::named(name)?,
        };
        if let Some(k) = &self.kernel {
            let kernel = Kernel::parse(k)
                .with_context(|| format!("--kernel {k}: a release looks like 6.1 or 5.10.262-1"))?;
            spec.kernel = Some(Known::given(kernel));
        }
        if let Some(m) = &self.paging {
            let names = || Mode::ALL.map(Mode::name).join(", ");
            let mode = Mode::parse(m).with_context(|| format!("--paging {m}: one of {}", names()))?;
            spec.mode = Some(Known::given(mode));
        }
        let host = &mut spec.host;
        if let Some(v) = &self.vendor {
            let vendor = Vendor::parse(v).with_context(|| format!("--vendor {v}: intel or amd"))?;
            host.vendor = Some(Known::given(vendor));
        }
        host.maxphyaddr = self.maxphyaddr.map(Known::given).or(host.maxphyaddr);
        host.phys_bits = self.phys_bits.map(Known::given).or(host.phys_bits);
        host.cache_bits = self.cache_bits.map(Known::given).or(host.cache_bits);
        host.l1tf = self.l1tf.map(Known::given).or(host.l1tf);
        host.c_bit = self.c_bit.map(Known::given).or(host.c_bit);
        host.sme = self.sme.map(Known::given).or(host.sme);
        host.root_level = self.root_level.map(Known::given).or(host.root_level);
        if self.no_exec_only {
            host.exec_only = Some(Known::given(false));
        }
        if self.no_mmio_caching {
            host.mmio_caching = Some(Known::given(false));
        }
        if let Some(path) = &self.masks_file {
            let text = std::fs::read_to_string(path)
                .with_context(|| format!("{}: cannot read the masks", path.display()))?;
            if spec.set_variables(&text, Provenance::Given) == 0 {
                bail!(
                    "{}: no mask in it; its lines are `name value`, as `shadow_mmio_value 8000000000000001`",
                    path.display()
                );
            }
        }
        for m in &self.masks {
            let (name, value) = m.split_once('=').with_context(|| format!("--mask {m}: write NAME=VALUE"))?;
            let value = parse_mask(value.trim())
                .with_context(|| format!("--mask {m}: the value is a number, 0x… for hex"))?;
            if !spec.set_variable(name.trim(), value, Provenance::Given) {
                return Err(mmuscope_spte::Error::UnknownMask(name.to_string()).into());
            }
        }
        Ok(spec)
    }
}

impl LayoutArgs {
    /// Options of a replay under this layout.
    pub(crate) fn replay_options(&self) -> Result<mmuscope_replay::ReplayOptions> {
        Ok(mmuscope_replay::ReplayOptions {
            layout: mmuscope_replay::LayoutOverride { spec: self.spec()? },
            ..Default::default()
        })
    }
}
