//! Fetches kernels from Debian's package pool through apt, without changing the machine's own apt configuration. The main type is [`Kernel`].

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result, bail};

/// The releases whose kernels are looked at, and the security archives of those that have one.
const SUITES: [&str; 7] =
    ["bullseye", "bookworm", "bookworm-updates", "bookworm-backports", "trixie", "trixie-backports", "sid"];
const SECURITY: [&str; 3] = ["bullseye-security", "bookworm-security", "trixie-security"];

/// An unpacked kernel.
#[derive(Clone, Debug)]
pub struct Kernel {
    /// The path of the bootable image.
    pub image: PathBuf,
    /// The folder of its modules (`…/lib/modules/RELEASE`).
    pub modules: PathBuf,
}

impl Kernel {
    /// The kernel of a Debian package, from `work/kernels` if it is there, else fetched into it.
    pub fn get(package: &str, work: &Path) -> Result<Self> {
        let dir = work.join("kernels").join(package);
        if let Some(k) = Self::find(&dir) {
            return Ok(k);
        }
        fetch(package, work, &dir)?;
        Self::find(&dir).with_context(|| format!("{package} arrived without an image or without KVM's modules (has it aged out of the pool? `lab kernels` lists today's)"))
    }

    fn find(dir: &Path) -> Option<Self> {
        let release = ["lib/modules", "usr/lib/modules"]
            .iter()
            .find_map(|m| fs::read_dir(dir.join(m)).ok()?.flatten().next().map(|e| e.path()))?;
        if !release.join("kernel/arch/x86/kvm").is_dir() {
            return None;
        }
        let booted = fs::read_dir(dir.join("boot"))
            .ok()
            .and_then(|d| d.flatten().map(|e| e.path()).find(|p| p.to_string_lossy().contains("/vmlinuz-")));
        let image = booted.or_else(|| Some(release.join("vmlinuz")).filter(|p| p.exists()))?;
        Some(Self { image, modules: release })
    }
}

/// The options with which apt uses a state of its own under `work/apt`.
fn apt_options(work: &Path) -> Result<Vec<String>> {
    let apt = work.join("apt");
    fs::create_dir_all(apt.join("lists/partial"))?;
    let apt = apt.canonicalize()?;
    let (main, security) = mirrors();
    let key = "[signed-by=/usr/share/keyrings/debian-archive-keyring.gpg]";
    let lines = SUITES
        .iter()
        .map(|s| (&main, s))
        .chain(SECURITY.iter().map(|s| (&security, s)))
        .map(|(m, s)| format!("deb {key} {m} {s} main"));
    fs::write(apt.join("sources.list"), lines.collect::<Vec<_>>().join("\n") + "\n")?;
    let mut options = Vec::new();
    for o in [
        format!("Dir::Etc::sourcelist={}", apt.join("sources.list").display()),
        "Dir::Etc::sourceparts=/dev/null".into(),
        format!("Dir::State::Lists={}", apt.join("lists").display()),
        "APT::Architecture=amd64".into(),
        "APT::Architectures=amd64".into(),
    ] {
        options.extend(["-o".into(), o]);
    }
    Ok(options)
}

/// The archive and the security archive for which this machine is configured; Debian's own where that is not known.
fn mirrors() -> (String, String) {
    let mut all = fs::read_to_string("/etc/apt/sources.list").unwrap_or_default();
    for entry in fs::read_dir("/etc/apt/sources.list.d").into_iter().flatten().flatten() {
        if entry.path().extension().is_some_and(|e| e == "sources" || e == "list") {
            all += &fs::read_to_string(entry.path()).unwrap_or_default();
        }
    }
    choose_mirrors(&all)
}

fn choose_mirrors(sources: &str) -> (String, String) {
    let urls = sources
        .lines()
        .filter(|l| !l.trim_start().starts_with('#'))
        .flat_map(str::split_ascii_whitespace)
        .filter(|w| w.starts_with("http") && w.contains("debian"));
    let (mut main, mut security) = (None, None);
    for url in urls {
        let slot = if url.contains("security") { &mut security } else { &mut main };
        slot.get_or_insert_with(|| url.trim_end_matches('/').to_owned());
    }
    (
        main.unwrap_or_else(|| "http://deb.debian.org/debian".into()),
        security.unwrap_or_else(|| "http://deb.debian.org/debian-security".into()),
    )
}

fn update(work: &Path, options: &[String]) -> Result<()> {
    let lists = work.join("apt/lists");
    if fs::read_dir(&lists)?.flatten().any(|e| e.file_name().to_string_lossy().contains("Packages")) {
        return Ok(());
    }
    // If the mirror does not have a suite, the others are still used.
    Command::new("apt-get")
        .args(options)
        .arg("update")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("apt-get")?;
    Ok(())
}

fn fetch(package: &str, work: &Path, dir: &Path) -> Result<()> {
    let options = apt_options(work)?;
    update(work, &options)?;
    fs::create_dir_all(dir)?;
    let release =
        package.strip_prefix("linux-image-").with_context(|| format!("{package}: expected linux-image-…"))?;
    // Newer Debian splits the image: linux-binary has the kernel, linux-modules the modules.
    for part in [package.to_owned(), format!("linux-binary-{release}"), format!("linux-modules-{release}")] {
        let got = Command::new("apt-get")
            .args(&options)
            .args(["download", &part])
            .current_dir(dir)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()
            .context("apt-get")?;
        if !got.success() && part == package {
            bail!("{package} is not in the pool (`lab kernels` lists what is)");
        }
    }
    for entry in fs::read_dir(dir)?.flatten() {
        let deb = entry.path();
        if deb.extension().is_some_and(|e| e == "deb") {
            let done = Command::new("dpkg").arg("-x").args([&deb, dir]).status().context("dpkg")?;
            if !done.success() {
                bail!("cannot unpack {}", deb.display());
            }
            fs::remove_file(&deb)?;
        }
    }
    Ok(())
}

/// The names of the cloud kernels in the pool today.
pub fn available(work: &Path) -> Result<Vec<String>> {
    let options = apt_options(work)?;
    update(work, &options)?;
    let out = Command::new("apt-cache")
        .args(&options)
        .args(["search", "--names-only", "^linux-image-[0-9].*cloud-amd64$"])
        .output()
        .context("apt-cache")?;
    let mut names: Vec<String> = String::from_utf8_lossy(&out.stdout)
        .lines()
        .filter_map(|l| Some(l.split(' ').next()?.to_owned()))
        .collect();
    names.sort();
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mirrors_come_from_either_kind_of_source_list() {
        let deb822 = "Types: deb\n# http://snapshot.debian.org/x\nURIs: http://m.example/debian/\nSuites: bookworm\n\nURIs: http://m.example/debian-security\n";
        assert_eq!(
            choose_mirrors(deb822),
            ("http://m.example/debian".into(), "http://m.example/debian-security".into())
        );
        let line = "deb [arch=amd64] https://ftp.example/debian trixie main\n";
        assert_eq!(
            choose_mirrors(line),
            ("https://ftp.example/debian".into(), "http://deb.debian.org/debian-security".into())
        );
    }
}
