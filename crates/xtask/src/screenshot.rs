//! `cargo xtask screenshot`: the pictures of the viewer in the README and the guide.

use crate::run::{at_root, cargo, root, show};
use anyhow::{Context, Result, bail};
use mmuscope_needs::need;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Each picture: its name, the trace, and what is shown of it.
const PICTURES: [(&str, &str, &[&str]); 3] = [
    ("viewer", "samples/linux-boot/trace.dat", &[]),
    (
        "dirty-logging",
        "samples/6.1-npt/trace.txt.zst",
        &["--from", "200ms", "--to", "325ms", "--at", "250ms", "--gfn", "0x2005", "--tab", "huge"],
    ),
    (
        "a-to-b",
        "samples/6.1-npt/trace.txt.zst",
        &["--from", "200ms", "--to", "325ms", "--cursor", "212ms", "--cursor", "300ms", "--tab", "a-to-b"],
    ),
];
/// Most bytes of a picture: a clone of the repository carries each version of it.
const MOST: u64 = 300_000;

/// Opens the viewer on samples under a virtual display and stores pictures of its window; with a program, with that instead of one that is built
/// for it.
pub(crate) fn screenshot(program: Option<&str>) -> Result<()> {
    let display = need("xvfb");
    if let Err(why) = display.probe() {
        bail!("needs a virtual display: {why}; {}", display.install());
    }
    let program = if let Some(p) = program {
        std::path::absolute(p)?
    } else {
        show(&mut cargo(&["build", "--release", "--package", "mmuscope-cli"]))?;
        root().join("target/release/mmuscope")
    };
    let folder = root().join("docs/images");
    std::fs::create_dir_all(&folder)?;
    for (name, trace, place) in PICTURES {
        let mut c = view(&program);
        c.arg(trace).args(place);
        take(c, &folder.join(name).with_extension("png"))?;
    }
    let growing = growing()?;
    let mut c = view(&program);
    c.arg("--follow").arg(&growing);
    take(c, &folder.join("live.png"))
}

/// The viewer on a screen of its own.
fn view(program: &Path) -> Command {
    let mut c = at_root("xvfb-run", &["-a", "-s", "-screen 0 1600x1000x24"]);
    c.arg(program).arg("view").env("LIBGL_ALWAYS_SOFTWARE", "1");
    c
}

fn take(mut c: Command, picture: &Path) -> Result<()> {
    show(c.arg("--screenshot").arg(picture))?;
    let size = std::fs::metadata(picture).with_context(|| picture.display().to_string())?.len();
    eprintln!("wrote {} ({size} bytes)", picture.display());
    if size > MOST {
        bail!("{} has {size} bytes; at most {MOST} are wanted", picture.display());
    }
    Ok(())
}

/// A text that is followed as a recorder leaves it in the middle of its work: the first half of a sample.
fn growing() -> Result<PathBuf> {
    let text = Command::new("zstd")
        .args(["--decompress", "--stdout", "samples/6.1-npt/trace.txt.zst"])
        .current_dir(root())
        .output()
        .context("zstd decompresses the sample")?
        .stdout;
    let lines: Vec<&[u8]> = text.split_inclusive(|b| *b == b'\n').collect();
    if lines.is_empty() {
        bail!("zstd gave no text");
    }
    let file = root().join("target/live.txt");
    std::fs::create_dir_all(root().join("target"))?;
    std::fs::write(&file, lines[..lines.len() / 2].concat())?;
    Ok(file)
}
