//! A host that is to be booted, and what comes of it: [`Run`]. The words of the command line are [`command`](crate::command)'s.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    boot, fetch,
    host::{Emulator, Host, Recorder},
    initrd::{self, Extra},
    truth,
};

pub(crate) fn home() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn work() -> Result<PathBuf> {
    let dir = env::var_os("MMUSCOPE_LAB").map_or_else(|| home().join("../../target/lab"), PathBuf::from);
    fs::create_dir_all(&dir)?;
    Ok(dir.canonicalize()?)
}

pub(crate) fn hosts() -> Result<Vec<(String, PathBuf)>> {
    let mut all: Vec<(String, PathBuf)> = fs::read_dir(home().join("hosts"))?
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "toml"))
        .map(|p| (p.file_stem().unwrap_or_default().to_string_lossy().into_owned(), p))
        .collect();
    all.sort();
    Ok(all)
}

/// Builds the program that runs inside a host, statically and apart from the normal build.
pub(crate) fn inside() -> Result<PathBuf> {
    let target = work()?.join("inside");
    let triple = "x86_64-unknown-linux-gnu";
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args([
            "build",
            "--quiet",
            "--release",
            "--package",
            "mmuscope-lab",
            "--bin",
            "mmuscope-lab-inside",
            "--target",
            triple,
            "--target-dir",
        ])
        .arg(&target)
        .env("RUSTFLAGS", "-C target-feature=+crt-static -C relocation-model=static")
        .current_dir(home())
        .status()
        .context("cargo")?;
    if !status.success() {
        bail!("the program for the inside does not build");
    }
    Ok(target.join(triple).join("release/mmuscope-lab-inside"))
}

/// Builds the command line, and says where it is.
fn build_recorder() -> Result<PathBuf> {
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["build", "--quiet", "--release", "--package", "mmuscope-cli"])
        .current_dir(home())
        .status()
        .context("cargo")?;
    if !status.success() {
        bail!("mmuscope does not build");
    }
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(|| home().join("../../target"), PathBuf::from);
    Ok(target.join("release/mmuscope"))
}

/// When the recorder of a run begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Before the VMs are made.
    First,
    /// While the vCPUs race each other.
    Late,
}

/// A host that is to be booted.
#[derive(Clone)]
pub(crate) struct Run {
    pub(crate) name: String,
    pub(crate) host: Host,
    pub(crate) out: PathBuf,
    pub(crate) boots: usize,
    mmuscope: Option<PathBuf>,
    extras: Vec<Extra>,
    limit: Duration,
    keep: bool,
}

impl Run {
    pub(crate) fn parse(name: &str, rest: &[&str]) -> Result<Self> {
        let path = match hosts()?.into_iter().find(|(n, _)| n == name) {
            Some((_, p)) => p,
            None if Path::new(name).is_file() => PathBuf::from(name),
            None => bail!("{name} is neither a host of the lab (`lab list`) nor a file"),
        };
        let name = Path::new(name)
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .trim_end_matches(".toml")
            .to_owned();
        let mut run = Self {
            host: Host::load(&path)?,
            out: work()?.join("out").join(&name),
            name,
            boots: 3,
            mmuscope: None,
            extras: Vec::new(),
            limit: Duration::ZERO,
            keep: false,
        };
        let mut words = rest.iter();
        while let Some(&word) = words.next() {
            let mut value = || words.next().copied().with_context(|| format!("{word} wants a value"));
            match word {
                "--set" => run.host.set(value()?)?,
                "--add" => run.extras.push(value()?.parse()?),
                "--timeout" => run.limit = Duration::from_secs(value()?.parse().context("--timeout")?),
                "--keep" => run.keep = true,
                "--mmuscope" => run.mmuscope = Some(value()?.into()),
                "--boots" => run.boots = value()?.parse().context("--boots")?,
                w if w.starts_with('-') => bail!("{w}: no such option (`cargo xtask lab help` lists them)"),
                out => run.out = PathBuf::from(out),
            }
        }
        if run.limit.is_zero() {
            run.limit = Duration::from_secs(if run.host.emulator == Emulator::Bochs { 1500 } else { 300 });
        }
        Ok(run)
    }

    /// The recorder: the one that the caller named, or one that is built now. It is made small, because emulated hosts unpack it.
    fn recorder(&self) -> Result<PathBuf> {
        let built = if let Some(named) = &self.mmuscope { named.clone() } else { build_recorder()? };
        let small = work()?.join("mmuscope");
        let stripped = Command::new("strip").arg("-o").arg(&small).arg(&built).status();
        // Without binutils the host only takes longer to boot.
        Ok(if stripped.is_ok_and(|s| s.success()) { small } else { built })
    }

    /// Adds mmuscope's own recorder, which then watches the run; `options` are those of `mmuscope record`. Without `btf`, an empty file system
    /// hides the kernel's BTF from it.
    pub(crate) fn record_ourselves(&mut self, options: &str, begin: Begin, btf: bool) -> Result<()> {
        let script = work()?.join("record.sh");
        // The capture begins with facts that an emulated host takes a while to gather; once its file grows, events are being recorded.
        let wait = match begin {
            Begin::First => {
                "(while [ ! -s mmuscope.perf.data ]; do sleep 1; done; sleep 2; touch cmd-ready) &"
            }
            Begin::Late => "touch cmd-ready\nuntil grep -qs race /tmp/phase; do sleep 0.2; done\nsleep 2",
        };
        let hide = if btf { "" } else { "/bin/busybox mount -t tmpfs none /sys/kernel/btf\n" };
        let text = format!(
            "#!/bin/sh\n{hide}/bin/mmuscope doctor > doctor.txt 2>&1\n{wait}\nexec /bin/mmuscope record {options} -o mmuscope.perf.data\n"
        );
        fs::write(&script, text)?;
        self.extras.push(Extra { from: self.recorder()?, to: "/bin/mmuscope".into() });
        self.extras.push(Extra { from: script, to: "/bin/cmd".into() });
        self.host.record.push(Recorder::Cmd);
        Ok(())
    }

    pub(crate) fn boot(&self) -> Result<()> {
        let work = work()?;
        let kernel = fetch::Kernel::get(&self.host.kernel, &work)?;
        let initrd = work.join(format!("{}.initrd", self.name));
        initrd::build(&self.host, &kernel, &inside()?, &self.extras, &initrd)?;
        // Emulated CPUs that run in parallel sometimes fail on code that a booting kernel patches under them, so booting is tried again.
        let tries = 5;
        for attempt in 1..=tries {
            if self.out.exists() {
                fs::remove_dir_all(&self.out)?;
            }
            if boot::boot(&self.host, &kernel, &initrd, &self.out, self.limit)? {
                break;
            }
            let console =
                String::from_utf8_lossy(&fs::read(self.out.join("console.txt")).unwrap_or_default())
                    .into_owned();
            let last = console
                .lines()
                .rev()
                .find(|l| l.contains("LAB-FAILED") || l.contains("panic"))
                .unwrap_or("no last words")
                .to_owned();
            eprintln!("{}: try {attempt} of {tries}: {last}", self.name);
            if attempt == tries || (last.contains("LAB-FAILED") && !self.host.workload.linux) {
                bail!("{} did not get to its end; see {}", self.name, self.out.join("console.txt").display());
            }
        }
        fs::remove_file(initrd)?;
        if self.host.truth {
            let said = truth::of_folder(&self.out)?;
            self.pack()?;
            println!("{}: {said}", self.name);
        }
        Ok(())
    }

    /// Compresses the large files.
    fn pack(&self) -> Result<()> {
        for (name, level) in [("trace.txt", 15), ("perf.data", 3)] {
            let path = self.out.join(name);
            let Ok(content) = fs::read(&path) else { continue };
            fs::write(self.out.join(format!("{name}.zst")), zstd::encode_all(&content[..], level)?)?;
            if !self.keep {
                fs::remove_file(path)?;
            }
        }
        Ok(())
    }
}

/// Runs an example of this package on folders, and fails with this message if its answer is no.
pub(crate) fn example(name: &str, folders: impl IntoIterator<Item = PathBuf>, no: &str) -> Result<()> {
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["run", "--quiet", "--package", "mmuscope-lab", "--example", name, "--"])
        .args(folders)
        .status()
        .context("cargo")?;
    if !status.success() {
        bail!("{no}");
    }
    Ok(())
}
