//! A host as data. One TOML file says which kernel boots in which emulator, with which module parameters, and what its workload does. The main
//! type is [`Host`].

use std::{collections::BTreeMap, fs, path::Path};

use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};

/// A host of the lab.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// A description of one line, for `lab list`.
    pub about: String,
    /// The Debian package of the kernel (`linux-image-…`).
    pub kernel: String,
    /// The emulator, which decides the vendor: QEMU runs kvm-amd, Bochs kvm-intel.
    #[serde(default)]
    pub emulator: Emulator,
    /// The memory of the host in MiB.
    #[serde(default = "default_memory")]
    pub memory: u32,
    /// The number of emulated CPUs (Bochs always has one).
    #[serde(default = "default_cpus")]
    pub cpus: u32,
    /// The CPU model, where the lab's default for the emulator is not suitable.
    #[serde(default)]
    pub cpu: Option<String>,
    /// Additional words for the kernel's command line.
    #[serde(default)]
    pub cmdline: String,
    /// Parameters of the module `kvm`.
    #[serde(default)]
    pub kvm: BTreeMap<String, String>,
    /// Parameters of `kvm-amd` or `kvm-intel`.
    #[serde(default)]
    pub vendor: BTreeMap<String, String>,
    /// The workload that runs on the host.
    #[serde(default)]
    pub workload: Workload,
    /// Whether the text trace names processes in addition to threads.
    #[serde(default)]
    pub record_tgid: bool,
    /// The recorders that watch the run at the same time.
    #[serde(default)]
    pub record: Vec<Recorder>,
    /// Whether ftrace's text is recorded in an instance of its own and the truth is taken with it. Without it, nothing but the recorders watches.
    #[serde(default = "yes")]
    pub truth: bool,
    /// Whether QEMU lets time pass by the instructions that its CPUs execute, one after the other, a nanosecond for each. Then what a run takes does
    /// not depend on how busy this machine is.
    #[serde(default)]
    pub count_instructions: bool,
}

/// The programs that emulate a CPU with virtualization extensions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Emulator {
    /// QEMU's TCG, which emulates AMD SVM with nested paging.
    #[default]
    Qemu,
    /// Bochs, which emulates Intel VMX with EPT. A boot takes minutes instead of seconds.
    Bochs,
}

/// A recorder that can watch a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recorder {
    /// `trace-cmd record` in the top-level buffer, which writes `trace.dat`.
    Dat,
    /// `perf record -a`, which writes `perf.data`.
    Perf,
    /// `/bin/cmd`, which the caller adds. It is started, gets SIGINT when the run ends, and is waited for. Its folder is that of the results.
    Cmd,
}

/// What the VMs of a run do.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Workload {
    /// The paging mode of the guest.
    #[serde(default)]
    pub guest: Guest,
    /// The number of vCPUs of each VM, also of one in which a Linux boots.
    #[serde(default = "default_cpus")]
    pub vcpus: u32,
    /// The phases in order; `inside/phases.rs` describes each. If it is empty, the standard set runs.
    #[serde(default)]
    pub phases: Vec<String>,
    /// The length of the race phase in milliseconds.
    #[serde(default = "default_race")]
    pub race_ms: u64,
    /// Whether another VM, in a process of its own, runs the same phases at the same time.
    #[serde(default)]
    pub second_vm: bool,
    /// Whether another VM, in a process of its own, is killed with SIGKILL in the middle of its race.
    #[serde(default)]
    pub killed_vm: bool,
    /// Whether instead of all that a whole Linux (the host's own kernel) boots in a VM under QEMU.
    #[serde(default)]
    pub linux: bool,
    /// Whether the Linux in the VM is itself a KVM host that runs the phases in a VM of its own (with `linux`).
    #[serde(default)]
    pub nested: bool,
    /// Quirks of KVM to disable (bits of KVM_CAP_DISABLE_QUIRKS2).
    #[serde(default)]
    pub disable_quirks: u64,
    /// Where guest memory comes from.
    #[serde(default)]
    pub backing: Backing,
    /// Whether KVM emulates the interrupt controllers, and the guest takes interrupts: then KVM waits for the host's pages asynchronously.
    #[serde(default)]
    pub irqchip: bool,
}

/// The paging mode of a guest.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Guest {
    /// Long mode at CPL 0.
    #[default]
    Long,
    /// Long mode at CPL 3, which also runs natively on PVM hosts.
    User,
    /// Protected mode with two-level paging.
    Paging32,
    /// Protected mode with PAE.
    Pae,
    /// Protected mode without paging.
    Flat,
}

/// Where guest memory comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Backing {
    /// Anonymous memory; its upper part asks for transparent huge pages.
    #[default]
    Anonymous,
    /// Pages of 2 MiB from hugetlbfs.
    Hugetlb2m,
    /// Pages of 1 GiB from hugetlbfs.
    Hugetlb1g,
}

fn yes() -> bool {
    true
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
            irqchip: false,
        }
    }
}

impl Host {
    /// Reads a host file.
    pub fn load(path: &Path) -> Result<Self> {
        let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
        toml::from_str(&text).with_context(|| format!("{} is not a host of the lab", path.display()))
    }

    /// Whether (some of) the guests run on an MMU that does not trace zaps: shadow paging, a TDP MMU that is switched off, or nested paging.
    pub fn shadows(&self) -> bool {
        let off = |params: &BTreeMap<String, String>, name: &str| {
            params.get(name).is_some_and(|v| matches!(v.as_str(), "0" | "N" | "n"))
        };
        off(&self.vendor, "npt")
            || off(&self.vendor, "ept")
            || off(&self.kvm, "tdp_mmu")
            || self.workload.nested
    }

    /// The vendor module for the emulator's CPU.
    pub fn vendor_module(&self) -> &'static str {
        match self.emulator {
            Emulator::Qemu => "kvm-amd",
            Emulator::Bochs => "kvm-intel",
        }
    }

    /// Changes one setting: `kvm.NAME=V` and `vendor.NAME=V` are module parameters; `workload.NAME=V` and top-level names are the fields of this
    /// file, with values as in TOML (quotes around words may be left out).
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

    /// Formats the host as the text of a file.
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
