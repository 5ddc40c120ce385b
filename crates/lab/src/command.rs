//! The command line of the lab, `cargo xtask lab …`. The main function is [`main`].

use std::{
    env,
    ffi::OsString,
    fs,
    io::{self, Write as _},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, bail};

use crate::{
    boot, cost, fetch,
    host::{Emulator, Host, Recorder},
    initrd::{self, Extra},
    matrix, truth,
};

const USAGE: &str = "\
cargo xtask lab list                          the hosts
cargo xtask lab boot HOST [OUT] [options]     boots one; its trace and the truth land in OUT (default: the lab's work folder)
cargo xtask lab record HOST [OUT] [options]   the same with mmuscope's own recorder watching: its capture comes back too
cargo xtask lab matrix [ROW …] [options]      records hosts so, one after the other, and prints what is known of each, as a table
cargo xtask lab cost [HOST …] [options]       what recording costs the guest, and the recorder, as a table
cargo xtask lab check [DIR …]                 replays traces and compares the result with the truth beside them
cargo xtask lab load [--set NAME=VALUE]       the workload alone, on this machine's /dev/kvm
cargo xtask lab kernels                       kernels that Debian's pool has today

options of boot, record, matrix and cost:
  --set NAME=VALUE     change the host: kvm.NAME and vendor.NAME are module parameters, workload.NAME and plain names its fields
  --add FILE=/PATH     put a file into the host (programs bring their libraries); /bin/cmd runs with --set record=['cmd']
  --timeout SECONDS    end the emulator after that (default 300; Bochs 1500)
  --keep               keep trace.txt and perf.data uncompressed as well
  --mmuscope FILE      the recorder, instead of one that is built first
  --boots N            of cost: how many times each is booted (default 3)

ROW is a host with settings, and `late` for a recorder that begins in the middle: 6.18-npt+vendor.npt=0+late
HOST is a name from the list or a file. The work folder is target/lab, or $MMUSCOPE_LAB.";

/// Runs the lab's command line (without the word `lab`).
pub fn main(args: impl IntoIterator<Item = OsString>) -> Result<()> {
    let args: Vec<String> = args
        .into_iter()
        .map(OsString::into_string)
        .collect::<Result<_, _>>()
        .map_err(|a| anyhow::anyhow!("{} is not text", a.display()))?;
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words[..] {
        ["list"] => list(),
        ["kernels"] => {
            let names = fetch::available(&work()?)?.join("\n");
            Ok(writeln!(io::stdout(), "{names}")?)
        }
        ["boot", host, ref rest @ ..] => Run::parse(host, rest)?.boot(),
        ["record", host, ref rest @ ..] => {
            let mut run = Run::parse(host, rest)?;
            run.record_ourselves("--events all", Begin::First)?;
            run.boot()
        }
        ["matrix", ref rest @ ..] => matrix::run(rest),
        ["cost", ref rest @ ..] => cost::run(rest),
        ["check", ref dirs @ ..] => check(dirs),
        ["load", ref rest @ ..] => load(rest),
        ["help" | "--help" | "-h"] | [] => {
            println!("{USAGE}");
            Ok(())
        }
        _ => bail!("{USAGE}"),
    }
}

fn home() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn work() -> Result<PathBuf> {
    let dir = env::var_os("MMUSCOPE_LAB").map_or_else(|| home().join("../../target/lab"), PathBuf::from);
    fs::create_dir_all(&dir)?;
    Ok(dir.canonicalize()?)
}

fn hosts() -> Result<Vec<(String, PathBuf)>> {
    let mut all: Vec<(String, PathBuf)> = fs::read_dir(home().join("hosts"))?
        .flatten()
        .map(|e| e.path())
        .filter(|p| p.extension().is_some_and(|e| e == "toml"))
        .map(|p| (p.file_stem().unwrap_or_default().to_string_lossy().into_owned(), p))
        .collect();
    all.sort();
    Ok(all)
}

fn list() -> Result<()> {
    let mut out = io::stdout().lock();
    for (name, path) in hosts()? {
        writeln!(out, "{name:<22} {}", Host::load(&path)?.about)?;
    }
    Ok(())
}

/// Builds the program that runs inside a host, statically and apart from the normal build.
fn inside() -> Result<PathBuf> {
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
                w if w.starts_with('-') => bail!("{w}: no such option\n{USAGE}"),
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
        let built = match &self.mmuscope {
            Some(named) => named.clone(),
            None => {
                let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
                    .args(["build", "--quiet", "--release", "--package", "mmuscope-cli"])
                    .current_dir(home())
                    .status()
                    .context("cargo")?;
                if !status.success() {
                    bail!("mmuscope does not build");
                }
                env::var_os("CARGO_TARGET_DIR")
                    .map_or_else(|| home().join("../../target"), PathBuf::from)
                    .join("release/mmuscope")
            }
        };
        let small = work()?.join("mmuscope");
        let stripped = Command::new("strip").arg("-o").arg(&small).arg(&built).status();
        // Without binutils the host only takes longer to boot.
        Ok(if stripped.is_ok_and(|s| s.success()) { small } else { built })
    }

    /// Adds mmuscope's own recorder, which then watches the run; `options` are those of `mmuscope record`.
    pub(crate) fn record_ourselves(&mut self, options: &str, begin: Begin) -> Result<()> {
        let script = work()?.join("record.sh");
        // The capture begins with facts that an emulated host takes a while to gather; once its file grows, events are being recorded.
        let wait = match begin {
            Begin::First => {
                "(while [ ! -s mmuscope.perf.data ]; do sleep 1; done; sleep 2; touch cmd-ready) &"
            }
            Begin::Late => "touch cmd-ready\nuntil grep -qs race /tmp/phase; do sleep 0.2; done\nsleep 2",
        };
        let text = format!(
            "#!/bin/sh\n/bin/mmuscope doctor > doctor.txt 2>&1\n{wait}\nexec /bin/mmuscope record {options} -o mmuscope.perf.data\n"
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

/// Runs the comparison, which is an example of this package so that the lab itself need not build the replay.
fn check(dirs: &[&str]) -> Result<()> {
    let folders = if dirs.is_empty() {
        vec![home().join("../../samples")]
    } else {
        dirs.iter().map(PathBuf::from).collect()
    };
    example("check_truth", folders, "the replay and the kernel's truth differ")
}

fn load(rest: &[&str]) -> Result<()> {
    let mut host: Host = toml::from_str("about = 'this machine'\nkernel = 'its own'")?;
    // A PVM host runs only guests at CPL 3; every other host runs those, too.
    host.set("workload.guest=user")?;
    let mut words = rest.iter();
    while let Some(&word) = words.next() {
        match (word, words.next()) {
            ("--set", Some(setting)) => host.set(setting)?,
            _ => bail!("{USAGE}"),
        }
    }
    let file = work()?.join("load.toml");
    fs::write(&file, host.to_toml()?)?;
    let status = Command::new(inside()?).arg("load").arg(&file).status()?;
    if !status.success() {
        bail!("the workload failed: {status}");
    }
    Ok(())
}
