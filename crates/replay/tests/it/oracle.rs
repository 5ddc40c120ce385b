//! The decoder against the kernel itself: what real kernels printed about the SPTEs of real traces.
//!
//! The layout of each trace is computed from the host's release, CPU and module parameters alone; then the masks must be those read
//! from that kernel's memory, and every event must agree: the letters of `kvm_mmu_set_spte`, the frame and generation of every MMIO
//! SPTE, and table entries with the tables their children lie in. `MMUSCOPE_TRACES=DIR` runs it over other folders of the same kind.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::path::{Path, PathBuf};

use mmuscope_spte::infer::{Letters, printed_letters};
use mmuscope_spte::{Kernel, Known, Layout, LayoutSpec, MaskName, Mode, Provenance, State, Vendor};
use mmuscope_trace::{Body, ReadOptions, Trace};

/// What was compared in one trace.
#[derive(Debug, Default)]
struct Checked {
    masks: u32,
    letters: u32,
    mmio: u32,
    generations: u32,
    tables: u32,
    wrong: Vec<String>,
}

impl Checked {
    fn wrong(&mut self, what: String) {
        // The first few tell; a broken layout would fill pages.
        if self.wrong.len() < 20 {
            self.wrong.push(what);
        }
    }
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).unwrap_or_default()
}

fn spec(folder: &Path) -> LayoutSpec {
    let cpuinfo = read(folder, "cpuinfo");
    let field = |name: &str| {
        cpuinfo
            .lines()
            .filter_map(|l| l.split_once(':'))
            .find(|(k, _)| k.trim() == name)
            .map(|(_, v)| v.trim())
    };
    let params = read(folder, "params.txt");
    let param = |name: &str| {
        let line =
            params.lines().find(|l| l.split(':').next().is_some_and(|p| p.ends_with(&format!("/{name}"))))?;
        Some(matches!(line.rsplit(':').next()?.trim(), "Y" | "1"))
    };
    let mut spec = LayoutSpec {
        kernel: Kernel::parse(read(folder, "version").trim()).map(Known::measured),
        ..LayoutSpec::default()
    };
    let name = folder.file_name().and_then(|n| n.to_str()).unwrap_or_default();
    let mode = match (param("ept"), param("eptad"), param("npt")) {
        (Some(true), Some(false), _) => Mode::EptNoAd,
        (Some(true), ..) => Mode::Ept,
        (.., Some(true)) => Mode::Npt,
        _ if name.contains("shadow64") => Mode::Shadow64,
        _ => Mode::ShadowPae,
    };
    spec.mode = Some(Known::measured(mode));
    let host = &mut spec.host;
    host.vendor = field("vendor_id").and_then(Vendor::parse).map(Known::measured);
    let width: Option<u8> =
        field("address sizes").and_then(|s| s.split(' ').next()).and_then(|n| n.parse().ok());
    host.maxphyaddr = width.map(Known::measured);
    let l1tf = field("bugs").is_some_and(|b| b.split_whitespace().any(|b| b == "l1tf"));
    host.l1tf = Some(Known::measured(l1tf));
    if l1tf {
        host.cache_bits = width.map(|w| Known::inferred(w.max(44)));
    }
    host.mmio_caching = param("mmio_caching").map(Known::measured);
    spec
}

fn masks(folder: &Path, layout: &Layout, checked: &mut Checked) {
    for line in read(folder, "kvars.txt").lines() {
        let mut words = line.split_whitespace();
        let (Some(name), Some("ok"), Some(value)) = (words.next(), words.next(), words.next()) else {
            continue;
        };
        let (Some(mask), Ok(value)) = (MaskName::parse(name), u64::from_str_radix(value, 16)) else {
            continue;
        };
        // This one is a single byte, and was read together with the bytes behind it.
        let value = if name == "enable_mmio_caching" { value & 0xff } else { value };
        checked.masks += 1;
        if layout.masks.get(mask) != value {
            checked
                .wrong(format!("{name}: computed {:#x}, the kernel had {value:#x}", layout.masks.get(mask)));
        }
    }
}

fn events(layout: &Layout, trace: &Trace, checked: &mut Checked) {
    // Pages that an entry of (level, first frame) pointed to, ever.
    let mut tables: HashMap<(u8, u64), HashSet<u64>> = HashMap::new();
    let mut last_value: HashMap<u32, (u64, u64)> = HashMap::new();
    let mut marked: HashMap<u32, (u64, u32)> = HashMap::new();
    let mut checked_mmio: HashMap<u32, u64> = HashMap::new();
    for event in &trace.events {
        let tid = event.tid.unwrap_or(0);
        match event.body {
            Body::SetSpte { gfn, spte, sptep, level, r, w, x, u } => {
                let ours = printed_letters(layout, spte);
                checked.letters += 1;
                // Text readers cannot tell an absent letter from a dash.
                let same_user = ours.u.is_none() || u.is_none() || ours.u == u;
                if (ours.r, ours.w, ours.x) != (r, w, x) || !same_user {
                    checked.wrong(format!(
                        "{spte:#x} level {level}: {ours:?}, printed {:?}",
                        Letters { r, w, x, u }
                    ));
                }
                let d = layout.decode(spte, level);
                match d.state {
                    State::Present => {
                        if (d.w, d.x) != (Some(w), Some(x)) || d.is_malformed() {
                            checked.wrong(format!("{spte:#x} level {level}: decoded {d:?}"));
                        }
                    }
                    // Up to 5.12 MMIO SPTEs come as this event, too, after `mark_mmio_spte`.
                    State::Mmio => {
                        if let Some((marked_gfn, generation)) = marked.remove(&tid) {
                            mmio(layout, spte, marked_gfn, Some(generation), checked);
                        }
                    }
                    other => checked.wrong(format!("kvm_mmu_set_spte of a {} value {spte:#x}", other.name())),
                }
                let parent = (level + 1, gfn >> (9 * u32::from(level)));
                if let Some(pages) = tables.get(&parent) {
                    checked.tables += 1;
                    if !pages.contains(&(sptep >> 12)) {
                        checked.wrong(format!(
                            "gfn {gfn:#x} level {level} lies in page {:#x}, its parents point to {pages:x?}",
                            sptep >> 12
                        ));
                    }
                }
            }
            Body::TdpSpteChanged { gfn, level, old_spte, new_spte, .. } => {
                last_value.insert(tid, (gfn, new_spte));
                for value in [old_spte, new_spte] {
                    let d = layout.decode(value, level);
                    if d.nonzero_nonpresent || d.is_malformed() {
                        checked.wrong(format!(
                            "{value:#x} level {level}: no value of this kernel ({})",
                            d.state.name()
                        ));
                    }
                    if d.state == State::Table
                        && let Some(pfn) = d.pfn
                    {
                        tables.entry((level, gfn >> (9 * (u32::from(level) - 1)))).or_default().insert(pfn);
                    }
                }
            }
            Body::MarkMmioSpte { gfn, generation, .. } => match last_value.get(&tid) {
                Some(&(g, value)) if g == gfn => mmio(layout, value, gfn, Some(generation), checked),
                _ => {
                    marked.insert(tid, (gfn, generation));
                }
            },
            Body::CheckMmioSpte { spte, spte_gen, .. } => {
                checked.generations += 1;
                let d = layout.decode(spte, 1);
                if d.mmio_generation != Some(spte_gen) {
                    checked.wrong(format!(
                        "{spte:#x}: generation {:?}, the kernel read {spte_gen:#x}",
                        d.mmio_generation
                    ));
                }
                checked_mmio.insert(tid, spte);
            }
            Body::HandleMmioPageFault { gfn, access, .. } => {
                if let Some(spte) = checked_mmio.remove(&tid) {
                    mmio(layout, spte, gfn, None, checked);
                    if layout.decode(spte, 1).mmio_access.map(u32::from) != Some(access) {
                        checked.wrong(format!("{spte:#x}: access is not {access}"));
                    }
                }
            }
            _ => {}
        }
    }
}

fn mmio(layout: &Layout, spte: u64, gfn: u64, generation: Option<u32>, checked: &mut Checked) {
    checked.mmio += 1;
    let d = layout.decode(spte, 1);
    if d.gfn != Some(gfn) || generation.is_some_and(|g| d.mmio_generation != Some(g)) {
        checked.wrong(format!(
            "MMIO {spte:#x}: frame {:x?} generation {:x?}, the kernel said {gfn:#x} {generation:x?}",
            d.gfn, d.mmio_generation
        ));
    }
}

fn check(folder: &Path) -> Option<Checked> {
    let recordings = [
        "trace.txt.zst",
        "trace.txt",
        "trace.dat",
        "trace.dat.zst",
        "perf.data.zst",
        "perf.data",
        "mmuscope.perf.data",
    ];
    let file = recordings.iter().map(|n| folder.join(n)).find(|p| p.exists())?;
    let resolved = spec(folder).resolve().unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    let mut checked = Checked::default();
    masks(folder, &resolved.layout, &mut checked);
    let trace =
        Trace::load(&[file], &ReadOptions::default()).unwrap_or_else(|e| panic!("{}: {e}", folder.display()));
    events(&resolved.layout, &trace, &mut checked);
    eprintln!(
        "{:<28} {:<14} {} masks, {} letters, {} MMIO, {} generations, {} parents; {} wrong",
        folder.file_name().unwrap_or_default().to_string_lossy(),
        resolved.layout.id(),
        checked.masks,
        checked.letters,
        checked.mmio,
        checked.generations,
        checked.tables,
        checked.wrong.len()
    );
    Some(checked)
}

#[test]
fn real_kernels_agree() {
    let root = std::env::var_os("MMUSCOPE_TRACES")
        .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples"), PathBuf::from);
    let mut folders: Vec<PathBuf> = fs::read_dir(&root)
        .expect("the samples")
        .filter_map(|e| Some(e.ok()?.path()))
        .filter(|p| p.is_dir())
        .collect();
    folders.sort();
    let mut seen = 0;
    let mut wrong = Vec::new();
    for folder in &folders {
        let Some(checked) = check(folder) else { continue };
        seen += 1;
        assert!(checked.letters > 100, "{}: nothing to compare", folder.display());
        wrong.extend(checked.wrong.iter().map(|w| format!("{}: {w}", folder.display())));
    }
    assert!(seen >= 8, "only {seen} traces in {}", root.display());
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn a_wrong_layout_is_noticed() {
    // The oracle would see it: a 6.1 EPT trace read under the layout before the seed series.
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../samples/6.1-ept-ad");
    let mut spec = spec(&folder);
    spec.era = Some(Known { value: "E08".into(), from: Provenance::Given });
    let layout = spec.resolve().expect("resolves").layout;
    let mut checked = Checked::default();
    masks(&folder, &layout, &mut checked);
    let trace = Trace::load(&[folder.join("trace.txt.zst")], &ReadOptions::default()).expect("the sample");
    events(&layout, &trace, &mut checked);
    assert!(checked.wrong.len() >= 20, "{:?}", checked.wrong);
}
