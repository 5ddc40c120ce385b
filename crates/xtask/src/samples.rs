//! `cargo xtask samples`: provenance, size and integrity of the real traces in `samples/`.

use crate::run::{at_root, output, root};
use anyhow::{Context, Result, bail};
use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::path::Path;

/// All samples together; a clone of the repository carries them.
const MAX_BYTES: u64 = 12_000_000;
/// The headings and rows that a sample's README must contain.
const PROVENANCE: [&str; 4] = ["| host |", "| paging |", "## Workload", "## How the truth was taken"];

/// Checks every sample and reports everything that is wrong in one error.
pub(crate) fn check() -> Result<()> {
    let mut wrong = Vec::new();
    let files = files()?;
    let recorded = fs::read_to_string(sums()).context("samples/SHA256SUMS")?;
    let recorded: BTreeMap<&str, &str> =
        recorded.lines().filter_map(|l| l.split_once("  ")).map(|(s, f)| (f, s)).collect();
    let actual = checksums(&files)?;
    for (file, sum) in &actual {
        match recorded.get(file.as_str()) {
            None => wrong.push(format!("samples/{file} is not in samples/SHA256SUMS")),
            Some(r) if r != sum => {
                wrong.push(format!("samples/{file} is not the file that samples/SHA256SUMS describes"));
            }
            Some(_) => {}
        }
    }
    for file in recorded.keys().filter(|f| !actual.contains_key(**f)) {
        wrong.push(format!("samples/{file} is in samples/SHA256SUMS and missing"));
    }
    let index = fs::read_to_string(root().join("samples/README.md")).context("samples/README.md")?;
    let mut folders: Vec<&str> = files.keys().filter_map(|f| f.split_once('/')).map(|(d, _)| d).collect();
    folders.dedup();
    for d in folders {
        let readme = fs::read_to_string(root().join("samples").join(d).join("README.md")).unwrap_or_default();
        for p in PROVENANCE.iter().filter(|p| !readme.contains(**p)) {
            wrong.push(format!("samples/{d}/README.md does not say `{p}`"));
        }
        if !index.contains(&format!("({d})")) {
            wrong.push(format!("samples/README.md does not link {d}"));
        }
    }
    let bytes: u64 = files.values().sum();
    if bytes > MAX_BYTES {
        wrong.push(format!("samples/ holds {bytes} bytes, more than {MAX_BYTES}"));
    }
    if wrong.is_empty() {
        eprintln!(
            "samples: {} files, {:.1} of {} MB, as recorded",
            files.len(),
            bytes as f64 / 1e6,
            MAX_BYTES / 1_000_000
        );
        return Ok(());
    }
    bail!("{}\nafter a wanted change: cargo xtask samples --update", wrong.join("\n"))
}

/// Writes the list of checksums again.
pub(crate) fn update() -> Result<()> {
    let mut out = String::new();
    for (file, sum) in checksums(&files()?)? {
        writeln!(out, "{sum}  {file}")?;
    }
    fs::write(sums(), out).context("samples/SHA256SUMS")
}

fn sums() -> std::path::PathBuf {
    root().join("samples/SHA256SUMS")
}

/// Every file below `samples/` with its size, except the list itself.
fn files() -> Result<BTreeMap<String, u64>> {
    fn walk(top: &Path, dir: &Path, out: &mut BTreeMap<String, u64>) -> Result<()> {
        for e in fs::read_dir(dir).with_context(|| dir.display().to_string())? {
            let e = e?;
            let path = e.path();
            if e.file_type()?.is_dir() {
                walk(top, &path, out)?;
            } else if let Ok(name) = path.strip_prefix(top) {
                out.insert(name.to_string_lossy().into_owned(), e.metadata()?.len());
            }
        }
        Ok(())
    }
    let top = root().join("samples");
    let mut out = BTreeMap::new();
    walk(&top, &top, &mut out)?;
    out.remove("SHA256SUMS");
    Ok(out)
}

fn checksums(files: &BTreeMap<String, u64>) -> Result<BTreeMap<String, String>> {
    let mut c = at_root("sha256sum", &["--"]);
    c.current_dir(root().join("samples")).args(files.keys());
    let text = output(&mut c)?;
    Ok(text
        .lines()
        .filter_map(|l| l.split_once("  "))
        .map(|(sum, f)| (f.to_string(), sum.to_string()))
        .collect())
}
