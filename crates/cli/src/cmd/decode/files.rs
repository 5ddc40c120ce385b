//! Files among the arguments of `decode`: text, or a trace of any format, whose events are turned into the text that the kernel prints.

use std::fmt::Write as _;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use mmuscope_analysis::pasted::argument;
use mmuscope_replay::Gathered;
use mmuscope_trace::{Body, ReadOptions, Trace};

use super::MOST_INPUT;

/// Contents of the files among the arguments.
#[derive(Default)]
pub(super) struct Files {
    /// Text of the files. A binary trace contributes its events with SPTE values, as the kernel prints them.
    pub(super) text: Vec<u8>,
    /// Evidence of a binary trace on its host and layout.
    pub(super) events: Option<Gathered>,
}

/// Reads the files that the arguments name; `None` where no argument is a file.
pub(super) fn read(values: &[String]) -> Result<Option<Files>> {
    let is_file = |v: &String| argument(v).is_none() && Path::new(v).is_file();
    if !values.iter().any(is_file) {
        return Ok(None);
    }
    if let Some(other) = values.iter().find(|v| !is_file(v)) {
        bail!("`{other}` is not a file, but another argument is: give either files or values and text");
    }
    let mut files = Files::default();
    for path in values {
        add(&mut files, Path::new(path))?;
        files.text.push(b'\n');
    }
    Ok(Some(files))
}

fn add(files: &mut Files, path: &Path) -> Result<()> {
    let cannot = || format!("{}: cannot read it", path.display());
    let mut text = Vec::new();
    File::open(path)
        .with_context(cannot)?
        .take(MOST_INPUT + 1)
        .read_to_end(&mut text)
        .with_context(cannot)?;
    if is_text(&text[..text.len().min(4096)]) {
        if text.len() as u64 > MOST_INPUT {
            bail!(
                "{}: longer than {} MiB: give only the part with SPTE values",
                path.display(),
                MOST_INPUT >> 20
            );
        }
        files.text.extend(text);
        return Ok(());
    }
    // The file is not plain text, so it is a trace or a compressed text.
    let trace = Trace::load(&[PathBuf::from(path)], &ReadOptions::default())?;
    files.text.extend(lines(&trace));
    files.events.get_or_insert_with(|| mmuscope_replay::evidence(&trace));
    Ok(())
}

/// Whether bytes are UTF-8; a character may be cut at their end.
fn is_text(bytes: &[u8]) -> bool {
    !bytes.contains(&0) && std::str::from_utf8(bytes).err().is_none_or(|e| e.error_len().is_none())
}

/// The events that hold SPTE values, as the kernel prints them.
fn lines(trace: &Trace) -> Vec<u8> {
    let mut out = String::new();
    let mut values = 0;
    for e in &trace.events {
        let text = match e.body {
            Body::TdpSpteChanged { as_id, gfn, level, old_spte, new_spte } => format!(
                "kvm_tdp_mmu_spte_changed: as id {as_id} gfn {gfn:x} level {level} old_spte {old_spte:x} new_spte {new_spte:x}"
            ),
            Body::SetSpte { gfn, spte, sptep, level, r, w, x, u } => {
                let letter = |on: bool, c: char| if on { c } else { '-' };
                let u = u.map_or_else(String::new, |u| letter(u, 'u').to_string());
                let (r, w, x) = (letter(r, 'r'), letter(w, 'w'), letter(x, 'x'));
                format!(
                    "kvm_mmu_set_spte: gfn {gfn:x} spte {spte:x} ({r}{w}{x}{u}) level {level} at {sptep:x}"
                )
            }
            Body::FastPageFault { vcpu, cr2_or_gpa, old_spte, new_spte, .. } => format!(
                "fast_page_fault: vcpu {vcpu} gva {cr2_or_gpa:x} error_code  sptep 0 old {old_spte:#x} new {new_spte:x} spurious 0 fixed 0"
            ),
            Body::CheckMmioSpte { spte, kvm_gen, spte_gen } => format!(
                "check_mmio_spte: spte {spte:x} kvm_gen {kvm_gen:x} spte-gen {spte_gen:x} valid {}",
                u8::from(kvm_gen == spte_gen)
            ),
            Body::SplitHugePage { gfn, spte, level, errno } => {
                format!("kvm_mmu_split_huge_page: gfn {gfn:x} spte {spte:x} level {level} errno {errno}")
            }
            _ => continue,
        };
        let (tid, cpu) = (e.tid.unwrap_or(0), e.cpu);
        let _ = writeln!(
            out,
            "<...>-{tid} [{cpu:03}] ..... {}.{:09}: {text}",
            e.ts / 1_000_000_000,
            e.ts % 1_000_000_000
        );
        values += 1;
        if values >= mmuscope_trace::paste::MOST {
            break;
        }
    }
    out.into_bytes()
}
