//! Makes the RAM disk from which a host boots: the lab's own program as init, busybox, the modules, recorders, and files of the caller.

use std::{
    collections::{BTreeMap, BTreeSet},
    env, fs,
    fs::File,
    io::{BufWriter, Write as _},
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};
use flate2::{Compression, write::GzEncoder};

use crate::{
    cpio::Archive,
    fetch::Kernel,
    host::{Host, Recorder},
    modules,
};

/// A file of the caller and where it goes (`target/release/mmuscope=/bin/mmuscope`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extra {
    /// The path on this machine.
    pub from: PathBuf,
    /// The absolute path in the host.
    pub to: String,
}

impl std::str::FromStr for Extra {
    type Err = anyhow::Error;

    fn from_str(s: &str) -> Result<Self> {
        match s.split_once('=') {
            Some((from, to)) if to.starts_with('/') => Ok(Self { from: from.into(), to: to.into() }),
            _ => bail!("{s}: expected FILE=/path/in/the/host"),
        }
    }
}

/// Drivers for the disk on which results come back; those that are built in are skipped.
const DRIVERS: [&str; 3] = ["virtio-pci", "virtio-blk", "zram"];
/// The commands of busybox that scripts may call.
const APPLETS: [&str; 30] = [
    "sh", "cat", "cp", "cut", "dd", "dmesg", "echo", "find", "grep", "gzip", "head", "kill", "ln", "ls",
    "mkdir", "mv", "ps", "rm", "sed", "sleep", "sort", "tail", "tar", "timeout", "touch", "tr", "uname",
    "wc", "mkswap", "swapon",
];

/// Writes the RAM disk of `host` to `to`.
pub fn build(host: &Host, kernel: &Kernel, inside: &Path, extras: &[Extra], to: &Path) -> Result<()> {
    let gz = GzEncoder::new(BufWriter::new(File::create(to)?), Compression::fast());
    let mut out = Filler { archive: Archive::new(gz), there: BTreeSet::new() };
    for folder in ["/proc", "/sys", "/dev", "/tmp", "/root", "/etc"] {
        out.archive.folder(folder)?;
    }
    out.add(inside, "/init")?;
    out.archive.link("/bin/mmuscope-lab-inside", "/init")?;
    out.add(&program("busybox")?, "/bin/busybox")?;
    for applet in APPLETS {
        out.archive.link(&format!("/bin/{applet}"), "busybox")?;
    }
    if host.record.contains(&Recorder::Dat) {
        out.add(&program("trace-cmd")?, "/bin/trace-cmd")?;
    }
    if host.record.contains(&Recorder::Perf) {
        out.add(&program("perf")?, "/bin/perf")?;
    }
    let mut list = Vec::new();
    let wanted: Vec<&str> = DRIVERS.into_iter().chain(["kvm", host.vendor_module()]).collect();
    for module in modules::with_dependencies(&kernel.modules, &wanted)? {
        let path = format!("/lab/modules.d/{}.ko", module.name);
        out.archive.file(&path, 0o644, &module.image)?;
        list.push(path);
    }
    out.archive.file("/lab/modules", 0o644, list.join("\n").as_bytes())?;
    out.archive.file("/lab/host.toml", 0o644, host.to_toml()?.as_bytes())?;
    if host.workload.linux {
        linux_guest(&mut out, host, kernel, inside)?;
    }
    for extra in extras {
        out.add(&extra.from, &extra.to)?;
    }
    out.archive.finish()?.finish()?.flush()?;
    Ok(())
}

/// Adds QEMU with its firmware, the kernel, and a RAM disk that has only the lab's program.
fn linux_guest(out: &mut Filler, host: &Host, kernel: &Kernel, inside: &Path) -> Result<()> {
    out.add(&program("qemu-system-x86_64")?, "/bin/qemu-system-x86_64")?;
    let bios = ["/usr/share/seabios", "/usr/share/qemu"];
    for name in ["bios-256k.bin", "linuxboot_dma.bin", "kvmvapic.bin", "multiboot_dma.bin"] {
        if let Some(found) = bios.iter().map(|d| Path::new(d).join(name)).find(|p| p.exists()) {
            out.archive.file(&format!("/lab/bios/{name}"), 0o644, &fs::read(found)?)?;
        }
    }
    out.archive.file("/lab/bzImage", 0o644, &fs::read(&kernel.image)?)?;
    let mut guest = Archive::new(Vec::new());
    guest.folder("/proc")?;
    guest.folder("/dev")?;
    guest.file("/init", 0o755, &fs::read(inside)?)?;
    if host.workload.nested {
        let mut list = Vec::new();
        for module in modules::with_dependencies(&kernel.modules, &["kvm", host.vendor_module()])? {
            let path = format!("/lab/modules.d/{}.ko", module.name);
            guest.file(&path, 0o644, &module.image)?;
            list.push(path);
        }
        guest.file("/lab/modules", 0o644, list.join("\n").as_bytes())?;
        // The inner host does not have the module parameters of the outer one.
        let inner = Host { kvm: BTreeMap::new(), vendor: BTreeMap::new(), ..host.clone() };
        guest.file("/lab/host.toml", 0o644, inner.to_toml()?.as_bytes())?;
    }
    out.archive.file("/lab/guest.cpio", 0o644, &guest.finish()?)?;
    Ok(())
}

struct Filler {
    archive: Archive<GzEncoder<BufWriter<File>>>,
    there: BTreeSet<String>,
}

impl Filler {
    /// Adds a file and, if it is a dynamic program, its libraries.
    fn add(&mut self, from: &Path, to: &str) -> Result<()> {
        if !self.there.insert(to.to_owned()) {
            return Ok(());
        }
        let content = fs::read(from).with_context(|| from.display().to_string())?;
        self.archive.file(to, 0o755, &content)?;
        if content.starts_with(b"\x7fELF") {
            let listed = Command::new("ldd").arg(from).output().context("ldd")?;
            for library in libraries(&String::from_utf8_lossy(&listed.stdout)) {
                self.add(Path::new(&library), &library)?;
            }
        }
        Ok(())
    }
}

/// The absolute paths in the output of `ldd`: after `=>`, or alone (the loader).
fn libraries(ldd: &str) -> Vec<String> {
    ldd.lines()
        .filter_map(|l| l.split_ascii_whitespace().find(|w| w.starts_with('/')).map(str::to_owned))
        .collect()
}

/// Finds a program of this machine by its name.
pub fn program(name: &str) -> Result<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    env::split_paths(&path)
        .chain(more)
        .map(|d| d.join(name))
        .find(|p| p.is_file())
        .with_context(|| format!("{name} is not installed (docs/lab.md names the packages)"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extras_say_where_they_go() {
        assert_eq!(
            "a/b=/bin/b".parse::<Extra>().expect("fits"),
            Extra { from: "a/b".into(), to: "/bin/b".into() }
        );
        assert!("a/b".parse::<Extra>().is_err());
        assert!("a/b=bin/b".parse::<Extra>().is_err());
    }

    #[test]
    fn ldd_is_understood() {
        let text = "\tlinux-vdso.so.1 (0x00007ffe)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x0)\n";
        assert_eq!(libraries(text), ["/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"]);
        assert!(libraries("\tstatically linked\n").is_empty());
    }
}
