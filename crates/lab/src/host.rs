//! A host as data: one TOML file says which kernel boots, in which emulator, with which module parameters, and what its workload does.

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// A host of the lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// One line for `lab list`.
    pub about: String,
    /// Debian package of the kernel (`linux-image-…`).
    pub kernel: String,
    /// The emulator, which decides the vendor: QEMU runs kvm-amd, Bochs kvm-intel.
    #[serde(default)]
    pub emulator: Emulator,
    /// Memory of the host in MiB.
    #[serde(default = "default_memory")]
    pub memory: u32,
    /// Emulated CPUs (Bochs always has one).
    #[serde(default = "default_cpus")]
    pub cpus: u32,
    /// CPU model, where the emulator's default of the lab does not do.
    #[serde(default)]
    pub cpu: Option<String>,
    /// More words for the kernel's command line.
    #[serde(default)]
    pub cmdline: String,
    /// Parameters of the module `kvm`.
    #[serde(default)]
    pub kvm: BTreeMap<String, String>,
    /// Parameters of `kvm-amd` or `kvm-intel`.
    #[serde(default)]
    pub vendor: BTreeMap<String, String>,
    /// What runs there.
    #[serde(default)]
    pub workload: Workload,
    /// The text trace names processes, not only threads.
    #[serde(default)]
    pub record_tgid: bool,
    /// Which recorders watch the run, all at once. The ftrace text in its own instance always does: truth is taken with it.
    #[serde(default)]
    pub record: Vec<Recorder>,
}

/// Programs that emulate a CPU with virtualization extensions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Emulator {
    /// QEMU's TCG: AMD SVM with nested paging.
    #[default]
    Qemu,
    /// Bochs: Intel VMX with EPT. Minutes, not seconds.
    Bochs,
}

/// A recorder that can watch a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recorder {
    /// `trace-cmd record` in the top-level buffer: `trace.dat`.
    Dat,
    /// `perf record -a`: `perf.data`.
    Perf,
    /// `/bin/cmd`, an extra of the caller's: it is started, sent SIGINT when the run ends, and waited for. Its folder is the result's.
    Cmd,
}

/// What the VMs of a run do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// How the guest pages.
    #[serde(default)]
    pub guest: Guest,
    /// vCPUs of each VM.
    #[serde(default = "default_cpus")]
    pub vcpus: u32,
    /// Phases in order; see `inside/phases.rs` for what each does. Empty: the standard set.
    #[serde(default)]
    pub phases: Vec<String>,
    /// Length of the race phase in milliseconds.
    #[serde(default = "default_race")]
    pub race_ms: u64,
    /// A further VM in a process of its own runs the same phases at the same time.
    #[serde(default)]
    pub second_vm: bool,
    /// A further VM in a process of its own, killed with SIGKILL in the middle of its race.
    #[serde(default)]
    pub killed_vm: bool,
    /// Instead of all that, a whole Linux (the host's own kernel) boots in a VM under QEMU.
    #[serde(default)]
    pub linux: bool,
    /// The Linux in the VM is a KVM host itself and runs the phases in a VM of its own (with `linux`).
    #[serde(default)]
    pub nested: bool,
    /// Quirks of KVM to disable (bits of KVM_CAP_DISABLE_QUIRKS2).
    #[serde(default)]
    pub disable_quirks: u64,
    /// Where guest memory comes from.
    #[serde(default)]
    pub backing: Backing,
}

/// Paging mode of the guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Guest {
    /// Long mode, CPL 0.
    #[default]
    Long,
    /// Long mode, CPL 3: runs natively on PVM hosts too.
    User,
    /// Protected mode, two-level paging.
    Paging32,
    /// Protected mode, PAE.
    Pae,
    /// Protected mode without paging.
    Flat,
}

/// Backing of guest memory.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backing {
    /// Anonymous memory; the upper part asks for transparent huge pages.
    #[default]
    Anonymous,
    /// hugetlbfs pages of 2 MiB.
    Hugetlb2m,
    /// hugetlbfs pages of 1 GiB.
    Hugetlb1g,
}

fn default_memory() -> u32 {
    2500
}
fn default_cpus() -> u32 {
    2
}
fn default_race() -> u64 {
    100
}

impl Default for Workload {
    fn default() -> Self {
        Self {
            guest: Guest::default(),
            vcpus: default_cpus(),
            phases: Vec::new(),
            race_ms: default_race(),
            second_vm: false,
            killed_vm: false,
            linux: false,
            nested: false,
            disable_quirks: 0,
            backing: Backing::default(),
        }
    }
}

impl Host {
    /// Reads a host file.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not a host of the lab", path.display()))
    }

    /// Whether the MMU that traces no zaps serves (some of) the guests: shadow paging, or the TDP MMU switched off, or nested paging inside.
    pub fn shadows(&self) -> bool {
        let off = |params: &BTreeMap<String, String>, name: &str| {
            params.get(name).is_some_and(|v| matches!(v.as_str(), "0" | "N" | "n"))
        };
        off(&self.vendor, "npt")
            || off(&self.vendor, "ept")
            || off(&self.kvm, "tdp_mmu")
            || self.workload.nested
    }

    /// The vendor module that the emulator's CPU wants.
    pub fn vendor_module(&self) -> &'static str {
        match self.emulator {
            Emulator::Qemu => "kvm-amd",
            Emulator::Bochs => "kvm-intel",
        }
    }

    /// Changes one setting: `kvm.NAME=V` and `vendor.NAME=V` are module parameters; `workload.NAME=V` and top-level names are the fields of
    /// this file, their values as in TOML (quotes may be left out around words).
    pub fn set(&mut self, setting: &str) -> Result<()> {
        let Some((key, value)) = setting.split_once('=') else { bail!("{setting}: expected NAME=VALUE") };
        if let Some((table, name)) = key.split_once('.')
            && let Some(params) = match table {
                "kvm" => Some(&mut self.kvm),
                "vendor" => Some(&mut self.vendor),
                _ => None,
            }
        {
            params.insert(name.to_owned(), value.to_owned());
            return Ok(());
        }
        let mut whole = toml::Table::try_from(&*self)?;
        let parsed = format!("v = {value}").parse::<toml::Table>().ok().and_then(|mut t| t.remove("v"));
        let parsed = parsed.unwrap_or_else(|| toml::Value::String(value.to_owned()));
        match key.split_once('.') {
            Some(("workload", name)) => {
                let workload = whole
                    .get_mut("workload")
                    .and_then(toml::Value::as_table_mut)
                    .context("no workload table")?;
                workload.insert(name.to_owned(), parsed);
            }
            Some(_) => bail!("{key}: the tables are kvm, vendor and workload"),
            None => {
                whole.insert(key.to_owned(), parsed);
            }
        }
        *self = whole.try_into().with_context(|| format!("{setting} does not fit"))?;
        Ok(())
    }

    /// The file's text again.
    pub fn to_toml(&self) -> Result<String> {
        Ok(toml::to_string(self)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Host {
        toml::from_str("about = 'x'\nkernel = 'linux-image-6.1'\n[kvm]\nmmio_caching = '0'\n")
            .expect("a minimal host")
    }

    #[test]
    fn what_a_file_leaves_out_has_a_default() {
        let host = sample();
        assert_eq!((host.memory, host.cpus, host.emulator), (2500, 2, Emulator::Qemu));
        assert_eq!(host.workload.guest, Guest::Long);
        assert_eq!(host.kvm["mmio_caching"], "0");
    }

    #[test]
    fn settings_reach_every_table() {
        let mut host = sample();
        for s in [
            "kvm.nx_huge_pages=force",
            "vendor.npt=0",
            "memory=3000",
            "workload.guest=pae",
            "workload.phases=['touch','mmio']",
            "emulator=bochs",
        ] {
            host.set(s).unwrap_or_else(|e| panic!("{s}: {e:#}"));
        }
        assert_eq!(host.kvm["nx_huge_pages"], "force");
        assert_eq!(host.vendor["npt"], "0");
        assert_eq!(host.memory, 3000);
        assert_eq!(host.workload.guest, Guest::Pae);
        assert_eq!(host.workload.phases, ["touch", "mmio"]);
        assert_eq!(host.vendor_module(), "kvm-intel");
        assert_eq!(
            Host::to_toml(&host).and_then(|t| Ok(toml::from_str::<Host>(&t)?)).expect("reads back").memory,
            3000
        );
    }

    #[test]
    fn every_host_of_the_lab_reads() -> Result<()> {
        let mut seen = 0;
        for entry in fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/hosts"))? {
            let host = Host::load(&entry?.path())?;
            assert!(host.kernel.starts_with("linux-image-"), "{}", host.kernel);
            seen += 1;
        }
        assert!(seen > 20, "only {seen} hosts");
        Ok(())
    }

    #[test]
    fn shadow_paging_is_told_from_the_parameters() -> Result<()> {
        let mut host = sample();
        assert!(!host.shadows());
        host.set("vendor.npt=0")?;
        assert!(host.shadows());
        host.set("vendor.npt=1")?;
        assert!(!host.shadows());
        host.set("kvm.tdp_mmu=N")?;
        assert!(host.shadows());
        Ok(())
    }

    #[test]
    fn a_wrong_setting_is_refused() {
        let mut host = sample();
        for s in ["memory", "memory=lots", "workload.gest=pae", "bios.x=1", "nonsense=1"] {
            assert!(host.set(s).is_err(), "{s} was accepted");
        }
        assert!(toml::from_str::<Host>("about='x'\nkernel='y'\ncpus=2\ncolour='red'").is_err());
    }
}
