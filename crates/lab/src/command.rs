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
    boot, fetch,
    host::{Emulator, Host, Recorder},
    initrd::{self, Extra},
    truth,
};

const USAGE: &str = "\
cargo xtask lab list                          the hosts
cargo xtask lab boot HOST [OUT] [options]     boots one; its trace and the truth land in OUT (default: the lab's work folder)
cargo xtask lab record HOST [OUT] [options]   the same with mmuscope's own recorder watching: its capture comes back too
cargo xtask lab matrix [HOST …] [options]     records hosts so, one after the other, and prints what is known of each, as a table
cargo xtask lab check [DIR …]                 replays traces and compares the result with the truth beside them
cargo xtask lab load [--set NAME=VALUE]       the workload alone, on this machine's /dev/kvm
cargo xtask lab kernels                       kernels that Debian's pool has today

options of boot, record and matrix:
  --set NAME=VALUE     change the host: kvm.NAME and vendor.NAME are module parameters, workload.NAME and plain names its fields
  --add FILE=/PATH     put a file into the host (programs bring their libraries); /bin/cmd runs with --set record=['cmd']
  --timeout SECONDS    end the emulator after that (default 300; Bochs 1500)
  --keep               keep trace.txt and perf.data uncompressed as well

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
            run.record_ourselves()?;
            run.boot()
        }
        ["matrix", ref rest @ ..] => matrix(rest),
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

fn work() -> Result<PathBuf> {
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

struct Run {
    name: String,
    host: Host,
    out: PathBuf,
    extras: Vec<Extra>,
    limit: Duration,
    keep: bool,
}

impl Run {
    fn parse(name: &str, rest: &[&str]) -> Result<Self> {
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
                w if w.starts_with('-') => bail!("{w}: no such option\n{USAGE}"),
                out => run.out = PathBuf::from(out),
            }
        }
        if run.limit.is_zero() {
            run.limit = Duration::from_secs(if run.host.emulator == Emulator::Bochs { 1500 } else { 300 });
        }
        Ok(run)
    }

    /// Adds mmuscope's own recorder, which then watches the run.
    fn record_ourselves(&mut self) -> Result<()> {
        let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
            .args(["build", "--quiet", "--release", "--package", "mmuscope-cli"])
            .current_dir(home())
            .status()
            .context("cargo")?;
        if !status.success() {
            bail!("mmuscope does not build");
        }
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| home().join("../../target"), PathBuf::from);
        let script = work()?.join("record.sh");
        fs::write(
            &script,
            // The capture begins with facts that an emulated host takes a while to gather; once its file grows, events are being recorded.
            "#!/bin/sh\n\
             /bin/mmuscope doctor > doctor.txt 2>&1\n\
             (while [ ! -s mmuscope.perf.data ]; do sleep 1; done; sleep 2; touch cmd-ready) &\n\
             exec /bin/mmuscope record --events all -o mmuscope.perf.data\n",
        )?;
        self.extras.push(Extra { from: target.join("release/mmuscope"), to: "/bin/mmuscope".into() });
        self.extras.push(Extra { from: script, to: "/bin/cmd".into() });
        self.host.record.push(Recorder::Cmd);
        Ok(())
    }

    fn boot(&self) -> Result<()> {
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
        let said = truth::of_folder(&self.out)?;
        self.pack()?;
        println!("{}: {said}", self.name);
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

/// The hosts of the matrix where none is named: each kernel, and each MMU that it has. A host with a nested guest goes on working after its
/// recording has ended, so that it has no end to compare with.
const MATRIX: &[&str] = &[
    "5.10-npt",
    "5.10-shadow64",
    "6.1-npt",
    "6.1-shadow64",
    "6.1-killed",
    "6.12-npt",
    "6.12-legacy",
    "6.12-shadow32",
    "6.12-two-vms",
    "6.12-slots",
    "6.16-npt",
    "6.18-shadow-pae",
    "7.3-npt",
    "7.3-shadow64",
];

/// Records hosts one after the other and prints the table of what is known of them. A host that cannot be recorded is named, and the others go on.
fn matrix(rest: &[&str]) -> Result<()> {
    let named = rest.iter().take_while(|w| !w.starts_with('-')).count();
    let (names, options) = rest.split_at(named);
    let names = if names.is_empty() { MATRIX } else { names };
    let (mut folders, mut failed) = (Vec::new(), Vec::new());
    for name in names {
        let mut run = Run::parse(name, options)?;
        run.out = work()?.join("matrix").join(&run.name);
        run.record_ourselves()?;
        match run.boot() {
            Ok(()) => folders.push(run.out),
            Err(e) => {
                eprintln!("{name}: {e:#}");
                failed.push(*name);
            }
        }
    }
    example("matrix", folders, "a recording does not know what the kernel's memory held")?;
    if !failed.is_empty() {
        bail!("not recorded: {}", failed.join(", "));
    }
    Ok(())
}

/// Runs an example of this package on folders, and fails with this message if its answer is no.
fn example(name: &str, folders: impl IntoIterator<Item = PathBuf>, no: &str) -> Result<()> {
    let status = Command::new(env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
        .args(["run", "--quiet", "--release", "--package", "mmuscope-lab", "--example", name, "--"])
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
