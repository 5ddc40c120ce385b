//! Directories as input: those that `perf record --threads` writes, and raw ring pages with a folder of formats.
//!
//! ```text
//! perf    data (a perf.data with attrs and features), data.0, data.1, … (records alone, a file a thread)
//! raw     events/SYSTEM/EVENT/format (or SYSTEM/EVENT/format), events/header_page; and pages, of which the name or the folder says the
//!         CPU: per_cpu/cpu0/trace_pipe_raw, cpu0, cpu0.raw, trace_pipe_raw.cpu0; also, if there, trace_clock, saved_cmdlines, saved_tgids
//! ```

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::blob::Meta;
use crate::dat::{Budget, Cpu, DatReader, Options, Pages, selected_clock};
use crate::error::Error;
use crate::format;
use crate::info::{FileInfo, FormatKind, TaskInfo};
use crate::input::Source;
use crate::load::Opened;
use crate::merge::Merge;
use crate::perf::{self, PerfReader};
use crate::reader::{Cx, Reader};
use crate::records::{Formats, PageHead};

/// How deep folders are searched, and the most files that are looked at.
const DEPTH: usize = 6;
const MAX_FILES: usize = 50_000;

fn open_source(path: &Path) -> Result<Source, Error> {
    let file = File::open(path).map_err(|e| Error::io(path, e))?;
    let len = file.metadata().map_err(|e| Error::io(path, e))?.len();
    Ok(Source::File(Arc::new(file), len))
}

/// Opens a directory.
pub(crate) fn open(path: &Path, cx: &mut Cx) -> Result<Opened, Error> {
    let main = path.join("data");
    if main.is_file() { perf_dir(path, &main, cx) } else { raw(path, cx) }
}

fn info(path: PathBuf, kind: FormatKind, source: &Source) -> FileInfo {
    FileInfo { path, kind, size: source.len(), ..FileInfo::default() }
}

fn perf_dir(path: &Path, main: &Path, cx: &mut Cx) -> Result<Opened, Error> {
    let source = open_source(main)?;
    if source.bytes(0, 8).as_deref() != Some(b"PERFILE2") {
        return Err(Error::Directory { path: path.to_path_buf() });
    }
    let mut files = vec![info(path.to_path_buf(), FormatKind::PerfDir, &source)];
    let mut first = perf::open_file(&source, main, FormatKind::PerfDir, cx)?;
    // The main file holds task names and attributes. It is small, and is read before the others.
    first.read_ahead(cx)?;
    let mut parts: Vec<(u32, PathBuf)> = fs::read_dir(path)
        .map_err(|e| Error::io(path, e))?
        .flatten()
        .filter_map(|e| {
            let n = e.file_name().to_str()?.strip_prefix("data.")?.parse().ok()?;
            Some((n, e.path()))
        })
        .collect();
    parts.sort();
    let mut readers: Vec<Box<dyn Reader>> = Vec::new();
    for (_, p) in parts {
        let source = open_source(&p)?;
        files.push(info(p.clone(), FormatKind::PerfDir, &source));
        let mut r = PerfReader::records(Box::new(source.reader()), &p, FormatKind::PerfDir, 0);
        r.state.share(&first.state);
        readers.push(Box::new(r));
    }
    readers.insert(0, Box::new(first));
    Ok(Opened { reader: Box::new(Merge::new(readers)), files })
}

/// The content of a folder of raw pages.
#[derive(Default)]
struct Found {
    formats: Vec<PathBuf>,
    header_page: Option<PathBuf>,
    pages: Vec<(u16, PathBuf)>,
    clock: Option<PathBuf>,
    cmdlines: Option<PathBuf>,
    tgids: Option<PathBuf>,
    seen: usize,
}

impl Found {
    fn read_formats(&self, meta: &mut Meta) {
        for p in &self.formats {
            let system =
                p.ancestors().nth(2).and_then(Path::file_name).and_then(|n| n.to_str()).unwrap_or("");
            if let Ok(text) = fs::read_to_string(p)
                && !meta.formats.add_text(system, &text)
            {
                meta.unread += 1;
            }
        }
    }
}

fn look(dir: &Path, depth: usize, found: &mut Found) {
    let Ok(entries) = fs::read_dir(dir) else { return };
    for e in entries.flatten() {
        found.seen += 1;
        if found.seen > MAX_FILES {
            return;
        }
        let path = e.path();
        let Ok(kind) = e.file_type() else { continue };
        if kind.is_dir() {
            if depth < DEPTH {
                look(&path, depth + 1, found);
            }
            continue;
        }
        if !kind.is_file() {
            continue;
        }
        match e.file_name().to_str().unwrap_or("") {
            "format" => found.formats.push(path),
            "header_page" => found.header_page = Some(path),
            "trace_clock" => found.clock = Some(path),
            "saved_cmdlines" => found.cmdlines = Some(path),
            "saved_tgids" => found.tgids = Some(path),
            name => {
                let folder = dir.file_name().and_then(|n| n.to_str()).unwrap_or("");
                let cpu = if name == "trace_pipe_raw" { cpu_of(folder) } else { cpu_of(name) };
                if let Some(cpu) = cpu {
                    found.pages.push((cpu, path));
                }
            }
        }
    }
}

/// The number that follows `cpu` in a name.
fn cpu_of(name: &str) -> Option<u16> {
    let (_, rest) = name.rsplit_once("cpu")?;
    let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    rest[..digits].parse().ok()
}

/// Reads the formats in a folder; it is an error if there is none.
pub(crate) fn formats(path: &Path) -> Result<Formats, Error> {
    let mut found = Found::default();
    look(path, 0, &mut found);
    let mut meta = Meta::default();
    found.read_formats(&mut meta);
    if meta.formats.is_empty() {
        return Err(Error::Unsupported {
            path: path.to_path_buf(),
            what: "a folder without `format` files of tracepoints".to_owned(),
            next: "copy /sys/kernel/tracing/events of the host that recorded (SYSTEM/EVENT/format) and give that".to_owned(),
        });
    }
    Ok(meta.formats)
}

fn raw(path: &Path, cx: &mut Cx) -> Result<Opened, Error> {
    let mut found = Found::default();
    look(path, 0, &mut found);
    if found.formats.is_empty() && cx.formats.is_none() || found.pages.is_empty() {
        return Err(Error::Directory { path: path.to_path_buf() });
    }
    let mut meta = Meta { long_size: 8, ..Meta::default() };
    let mut page_size = 4096;
    if let Some(text) = found.header_page.as_ref().and_then(|p| fs::read_to_string(p).ok()) {
        let fields = format::header_page(&text).unwrap_or_default();
        if let Some(data) = fields.iter().find(|f| f.name == "data") {
            page_size = (data.offset + data.size).clamp(256, 16 << 20) as usize;
        }
        if fields.iter().any(|f| f.name == "commit" && f.size == 4) {
            meta.long_size = 4;
        }
        meta.page_head = PageHead::parse(&text, meta.long_size);
    }
    found.read_formats(&mut meta);
    if let Some(text) = found.cmdlines.as_ref().and_then(|p| fs::read(p).ok()) {
        meta.cmdlines(&text);
    }
    let mut options = Options::default();
    options.clock =
        found.clock.as_ref().and_then(|p| fs::read_to_string(p).ok()).and_then(|t| selected_clock(&t));
    if let Some(text) = found.tgids.as_ref().and_then(|p| fs::read_to_string(p).ok()) {
        for line in text.lines() {
            let mut w = line.split_whitespace().map(str::parse::<u32>);
            if let (Some(Ok(tid)), Some(Ok(pid))) = (w.next(), w.next()) {
                let provenance = "process by saved_tgids".to_owned();
                options.tasks.push(TaskInfo { tid, pid: Some(pid), provenance, ..TaskInfo::default() });
            }
        }
    }
    found.pages.sort();
    let mut files = Vec::new();
    let mut cpus = Vec::new();
    for (cpu, p) in found.pages {
        let source = open_source(&p)?;
        let budget = Budget::of(&source);
        cpus.push(Cpu::new(cpu, Pages::new(source.clone(), page_size, 0, source.len(), None, budget)));
        files.push(info(p, FormatKind::RawPages, &source));
    }
    Ok(Opened {
        reader: Box::new(DatReader::new(path, FormatKind::RawPages, meta, cpus, options, cx)),
        files,
    })
}
