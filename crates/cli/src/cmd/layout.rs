//! `mmuscope layout`: lists layouts, shows one with its diagrams, and compares two.

pub(crate) mod diagram;

use std::ffi::OsStr;
use std::io::{self, Write};

use anyhow::{Context, Result};
use clap::Subcommand;
use clap_complete::engine::{ArgValueCompleter, CompletionCandidate};
use mmuscope_spte::layouts::{self, Library};
use mmuscope_spte::{Distro, LayoutSpec, MaskName, Resolved, State};

use crate::Outcome;
use crate::layout_args::LayoutArgs;

/// The layouts: what the bits of an SPTE mean under each kernel and paging mode
#[derive(clap::Args, Debug)]
pub(crate) struct Args {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand, Debug)]
enum What {
    /// List all layouts, by era
    List {
        /// Print only the names, one per line
        #[arg(long)]
        names: bool,
    },
    /// Show one layout: bit diagrams, rules and masks
    Show {
        /// Name of the layout (E10/ept, C/npt, 6.1/npt), or a layout file of your own
        #[arg(value_name = "NAME|FILE", add = ArgValueCompleter::new(complete))]
        name: String,
        /// Print the diagrams as SVG
        #[arg(long)]
        svg: bool,
        /// Print the layout file that it comes from, as a start for your own
        #[arg(long, conflicts_with = "svg")]
        source: bool,
        #[command(flatten)]
        layout: Box<LayoutArgs>,
    },
    /// Compare two layouts (exit status 1 if they differ)
    Diff {
        /// Name or file of the first layout
        #[arg(value_name = "A", add = ArgValueCompleter::new(complete))]
        a: String,
        /// Name or file of the second layout
        #[arg(value_name = "B", add = ArgValueCompleter::new(complete))]
        b: String,
        #[command(flatten)]
        layout: Box<LayoutArgs>,
    },
}

/// Names of layouts that begin with `current`, for shell completion.
pub(crate) fn complete(current: &OsStr) -> Vec<CompletionCandidate> {
    let current = current.to_string_lossy();
    let names = Library::new().names().unwrap_or_default();
    names.into_iter().filter(|n| n.starts_with(current.as_ref())).map(CompletionCandidate::new).collect()
}

pub(crate) fn run(a: &Args) -> Result<Outcome> {
    let library = Library::new();
    let mut out = io::BufWriter::new(io::stdout().lock());
    let outcome = match &a.what {
        What::List { names } => list(&mut out, &library, *names)?,
        What::Show { name, svg, source, layout } => show(&mut out, &library, name, *svg, *source, layout)?,
        What::Diff { a, b, layout } => diff(&mut out, &library, a, b, layout)?,
    };
    out.flush()?;
    Ok(outcome)
}

fn list(out: &mut impl Write, library: &Library, names: bool) -> Result<Outcome> {
    if names {
        for name in library.names()? {
            writeln!(out, "{name}")?;
        }
        return Ok(Outcome::Fine);
    }
    for era in library.eras()? {
        writeln!(out, "{}  kernels {:<12} family {}  {}", era.id, era.releases(), era.family, era.starts)?;
        let modes: Vec<&str> = mmuscope_spte::Mode::ALL
            .iter()
            .filter(|m| library.has(era.family, **m))
            .map(|m| m.name())
            .collect();
        writeln!(out, "     {}", modes.join(" "))?;
    }
    writeln!(
        out,
        "\nA layout is called ERA/MODE, such as E10/ept; FAMILY/MODE and RELEASE/MODE (C/npt, 6.1/npt) name layouts too."
    )?;
    Ok(Outcome::Fine)
}

/// The layout of a name, for the host that the options describe.
fn resolve(library: &Library, name: &str, args: &LayoutArgs) -> Result<Resolved> {
    let mut args = args.clone();
    args.layout = Some(name.to_owned());
    let spec: LayoutSpec = args.spec()?;
    spec.resolve_in(library).with_context(|| format!("layout {name}"))
}

/// The diagrams of a layout: a caption and the fields of each kind of entry.
fn rows(resolved: &Resolved) -> Vec<(String, Vec<mmuscope_spte::BitRun>)> {
    let layout = &resolved.layout;
    let mut rows = vec![
        ("leaf, level 1".to_owned(), layout.bit_runs(State::Present, 1)),
        ("leaf, level 2 and 3".to_owned(), layout.bit_runs(State::Present, 2)),
        ("points to a table".to_owned(), layout.bit_runs(State::Table, 2)),
    ];
    if layout.masks.enable_mmio_caching {
        rows.push(("MMIO".to_owned(), layout.bit_runs(State::Mmio, 1)));
    }
    if let Some(removed) = layout.removed {
        rows.push((format!("removed: {removed:#x}"), layout.bit_runs(State::Removed, 1)));
    }
    rows.push((format!("zapped: {:#x}", layout.zapped), layout.bit_runs(State::Nonpresent, 1)));
    rows
}

fn title(resolved: &Resolved) -> String {
    format!("{}: {}", resolved.layout.id(), resolved.layout.mode.words())
}

fn show(
    out: &mut impl Write,
    library: &Library,
    name: &str,
    svg: bool,
    source: bool,
    args: &LayoutArgs,
) -> Result<Outcome> {
    let resolved = resolve(library, name, args)?;
    let layout = &resolved.layout;
    if source {
        let era = resolved.era.map(|e| e.value);
        let family = library.eras()?.iter().find(|e| Some(e.id) == era).map(|e| e.family);
        let wanted = family.map(|f| format!("{f}/{}", layout.mode.name()));
        let file = layouts::files().iter().find(|(file, _)| Some(*file) == wanted.as_deref());
        let (_, text) = file.with_context(|| format!("{name} does not come from a shipped file"))?;
        write!(out, "{text}")?;
        return Ok(Outcome::Fine);
    }
    if svg {
        write!(out, "{}", diagram::svg(&title(&resolved), &rows(&resolved)))?;
        return Ok(Outcome::Fine);
    }
    writeln!(out, "{}", title(&resolved))?;
    if let Some(era) = library.eras()?.iter().find(|e| resolved.era.is_some_and(|r| r.value == e.id)) {
        writeln!(out, "kernels {}, family {}: {}", era.releases(), era.family, era.starts)?;
    }
    if let Some(kernel) = resolved.kernel
        && kernel.value.distro != Distro::Mainline
    {
        writeln!(out, "kernel {}", kernel.value)?;
    }
    for note in &resolved.notes {
        writeln!(out, "note: {note}")?;
    }
    let zapped = (layout.zapped == 0).then_some("zapped: 0x0");
    for (caption, runs) in rows(&resolved) {
        writeln!(out, "\n{caption}")?;
        if Some(caption.as_str()) == zapped {
            continue;
        }
        for line in diagram::text(&runs, None) {
            writeln!(out, "  {line}")?;
        }
    }
    writeln!(out, "\nRules")?;
    let is_mask = |name: &str| MaskName::ALL.iter().any(|m| m.name() == name);
    for fact in layout.facts().iter().filter(|f| !is_mask(f.name)) {
        writeln!(out, "  {:<24} {}", fact.name, fact.value)?;
    }
    writeln!(out, "\nMasks")?;
    for &mask in MaskName::ALL {
        writeln!(
            out,
            "  {:<42} {:#018x}  {:<8}  {}",
            mask.name(),
            layout.masks.get(mask),
            resolved.mask_from(mask).name(),
            mask.meaning()
        )?;
    }
    Ok(Outcome::Fine)
}

fn diff(out: &mut impl Write, library: &Library, a: &str, b: &str, args: &LayoutArgs) -> Result<Outcome> {
    let (left, right) = (resolve(library, a, args)?, resolve(library, b, args)?);
    let pairs: Vec<_> =
        left.layout.facts().into_iter().zip(right.layout.facts()).filter(|(x, y)| x != y).collect();
    writeln!(out, "{}  →  {}", title(&left), title(&right))?;
    if pairs.is_empty() {
        writeln!(out, "no difference")?;
        return Ok(Outcome::Fine);
    }
    let width = pairs.iter().map(|(x, _)| x.value.chars().count()).max().unwrap_or(0).min(44);
    for (x, y) in &pairs {
        writeln!(out, "  {:<42} {:<width$}  →  {}", x.name, x.value, y.value)?;
    }
    let ids = (left.era.map(|e| e.value), right.era.map(|e| e.value));
    if let (Some(from), Some(to)) = ids
        && from < to
    {
        writeln!(out, "\nWhat came between")?;
        for era in library.eras()?.iter().filter(|e| e.id > from && e.id <= to) {
            writeln!(out, "  {} ({}): {}", era.id, era.releases(), era.starts)?;
            for subject in &era.subjects {
                writeln!(out, "      {subject}")?;
            }
        }
    }
    Ok(Outcome::No)
}
