//! The head of a trace.dat of either version, from the start of the file to the page ranges of the CPUs. [`super::DatReader`] opens it.

use std::path::Path;

use crate::blob::{Blob, Meta};
use crate::dat::options::{Buffer, Options};
use crate::dat::pages::{Budget, Compressor, Pages, decompress};
use crate::dat::rescue::{self, Section, section};
use crate::dat::{Cpu, DatReader};
use crate::error::Error;
use crate::info::FormatKind;
use crate::input::Source;
use crate::reader::{Cx, damage};
use crate::text::TextReader;

/// The number of bytes before the part that depends on the version.
const HEAD: usize = 18;
/// The largest piece of metadata that is read, in bytes. (The formats of a whole kernel are about 3 MB, its symbols 15 MB.)
const MAX_META: u64 = 64 << 20;
/// The number of bytes read first of a v6 file; most metadata fit into it.
const FIRST_META: u64 = 1 << 20;
/// The most CPUs that one buffer may have.
const MAX_CPUS: usize = 8192;
/// The longest chain of options sections that is followed.
const MAX_SECTIONS: usize = 1000;

/// A trace.dat whose head was read.
pub(crate) enum Opened {
    Pages(Box<DatReader>),
    Text(Box<TextReader>),
}

fn bad(path: &Path, offset: u64, expected: &str) -> Error {
    Error::Damaged { path: path.to_path_buf(), offset, expected: expected.to_owned() }
}

pub(crate) fn open(source: &Source, path: &Path, cx: &mut Cx) -> Result<Opened, Error> {
    let mut head = [0; HEAD];
    let n = source.read_at(0, &mut head).map_err(|e| Error::io(path, e))?;
    if n < HEAD {
        return Err(bad(path, n as u64, "the head of a trace.dat, 18 bytes"));
    }
    if head[12] != 0 {
        return Err(Error::Unsupported {
            path: path.to_path_buf(),
            what: "a trace.dat of a big-endian machine".to_owned(),
            next: "KVM's MMU tracepoints are x86: record on the host itself".to_owned(),
        });
    }
    let mut meta = Meta {
        long_size: head[13],
        page_size: u32::from_le_bytes([head[14], head[15], head[16], head[17]]),
        ..Meta::default()
    };
    if !matches!(meta.long_size, 4 | 8) {
        return Err(bad(path, 13, "4 or 8, the bytes in a long"));
    }
    if !page_size_ok(meta.page_size) {
        return Err(bad(path, 14, "a page size"));
    }
    if head[10] == b'6' { v6(source, path, &mut meta, cx) } else { v7(source, path, &mut meta, cx) }
}

fn page_size_ok(n: u32) -> bool {
    (256..=16 << 20).contains(&n)
}

// ---- version 6 ----

fn v6(source: &Source, path: &Path, meta: &mut Meta, cx: &mut Cx) -> Result<Opened, Error> {
    // The metadata do not state their length, so more is read where the first piece does not hold all of them.
    let most = (source.len() - HEAD as u64).min(MAX_META);
    let mut want = most.min(FIRST_META);
    loop {
        let data =
            source.bytes(HEAD as u64, want).ok_or_else(|| bad(path, HEAD as u64, "the rest of the head"))?;
        let result = v6_head(source, path, &data, &mut meta.clone(), cx);
        if result.is_ok() || want == most {
            return result;
        }
        want = want.saturating_mul(8).min(most);
    }
}

fn v6_head(source: &Source, path: &Path, data: &[u8], meta: &mut Meta, cx: &mut Cx) -> Result<Opened, Error> {
    let mut b = Blob::new(data);
    let at = |b: &Blob<'_>| (HEAD + b.at) as u64;
    meta.block(&mut b, true).map_err(|expected| bad(path, at(&b), expected))?;
    let cpus = b.u32().ok_or_else(|| bad(path, at(&b), "the number of CPUs"))?;
    if cpus as usize > MAX_CPUS {
        return Err(bad(path, at(&b) - 4, "a number of CPUs that a machine can have"));
    }
    let mut options = Options::default();
    let mut ranges = Vec::new();
    loop {
        let tag = b.take(10).ok_or_else(|| bad(path, at(&b), "\"options\", \"flyrecord\" or \"latency\""))?;
        match tag {
            b"options  \0" => loop {
                let id = b.u16().ok_or_else(|| bad(path, at(&b), "an option"))?;
                if id == 0 {
                    break;
                }
                let data = b
                    .u32()
                    .and_then(|n| b.take(n.into()))
                    .ok_or_else(|| bad(path, at(&b), "the content of an option"))?;
                options.add(id, data, false);
            },
            b"flyrecord\0" => {
                table(&mut b, cpus, &mut ranges)
                    .ok_or_else(|| bad(path, at(&b), "offset and size of a CPU's pages"))?;
                break;
            }
            b"latency  \0" => {
                let rest = source.section(at(&b), source.len());
                return Ok(Opened::Text(Box::new(TextReader::new(
                    path.to_path_buf(),
                    FormatKind::TraceDatV6,
                    Box::new(rest),
                ))));
            }
            _ => return Err(bad(path, at(&b) - 10, "\"options\", \"flyrecord\" or \"latency\"")),
        }
    }
    // The page tables of other trace instances are elsewhere in the file.
    for buffer in std::mem::take(&mut options.buffers) {
        let n = 10 + u64::from(cpus) * 16;
        let table_bytes = source.bytes(buffer.offset, n.min(source.len().saturating_sub(buffer.offset)));
        let ok = table_bytes.is_some_and(|d| {
            let mut b = Blob::new(&d);
            b.take(10) == Some(b"flyrecord\0") && table(&mut b, cpus, &mut ranges).is_some()
        });
        if !ok {
            let text = format!("the events of instance {:?} were left out", buffer.name);
            let _ = cx.damaged(damage(path, buffer.offset, "the page table of an instance", text, true));
        }
    }
    let budget = Budget::of(source);
    let page_size = meta.page_size as usize;
    let cpus = ranges
        .iter()
        .filter(|r| r.2 > 0)
        .map(|(cpu, at, size)| {
            Cpu::new(*cpu as u16, Pages::new(source.clone(), page_size, *at, *size, None, budget.clone()))
        })
        .collect();
    Ok(Opened::Pages(Box::new(DatReader::new(
        path,
        FormatKind::TraceDatV6,
        std::mem::take(meta),
        cpus,
        options,
        cx,
    ))))
}

fn table(b: &mut Blob<'_>, cpus: u32, out: &mut Vec<(u32, u64, u64)>) -> Option<()> {
    for cpu in 0..cpus {
        out.push((cpu, b.u64()?, b.u64()?));
    }
    Some(())
}

// ---- version 7 ----

/// The bytes of a section, decompressed.
fn content(source: &Source, s: &Section, compressor: Option<Compressor>) -> Option<Vec<u8>> {
    if s.size > MAX_META {
        return None;
    }
    let raw = source.bytes(s.at, s.size)?;
    let Some(c) = compressor.filter(|_| s.compressed) else { return Some(raw) };
    let mut b = Blob::new(&raw);
    let (csize, usize_) = (b.u32()?, b.u32()?);
    let data = b.take(csize.into())?;
    if u64::from(usize_) > (1 << 20) + u64::from(csize) * 256 {
        return None;
    }
    decompress(c, data, usize_ as usize)
}

fn v7(source: &Source, path: &Path, meta: &mut Meta, cx: &mut Cx) -> Result<Opened, Error> {
    let at = HEAD as u64;
    let rest = source.bytes(at, (source.len() - at).min(4096)).unwrap_or_default();
    let mut b = Blob::new(&rest);
    let name = b.cstr().ok_or_else(|| bad(path, at, "the name of a compressor"))?;
    let _version = b.cstr().ok_or_else(|| bad(path, at, "the version of a compressor"))?;
    let first = b.u64().ok_or_else(|| bad(path, at + b.at as u64, "the offset of the options"))?;
    let compressor = match name.as_str() {
        "zstd" => Some(Compressor::Zstd),
        "zlib" => Some(Compressor::Zlib),
        "none" => None,
        other => {
            return Err(Error::Unsupported {
                path: path.to_path_buf(),
                what: format!("a trace.dat compressed with {other:?}"),
                next: "convert it: trace-cmd convert --compression none -i IN -o OUT".to_owned(),
            });
        }
    };
    let mut options = all_options(source, path, first, compressor, cx);
    let sections_at = at + b.at as u64;
    if options.is_none() || options.as_ref().is_some_and(|o| o.buffers.is_empty() && o.text.is_none()) {
        options = Some(rescued(source, path, sections_at, compressor, meta.page_size, options, cx)?);
    }
    let options = options.unwrap_or_default();
    for (id, what, needed) in [
        (16, "page and event heads", true),
        (17, "ftrace formats", false),
        (18, "event formats", true),
        (19, "symbols of the kernel", false),
        (21, "task names", false),
    ] {
        let Some((_, at)) = options.sections.iter().find(|s| s.0 == id) else { continue };
        if id == 19 && !meta.formats.has_probes() {
            continue;
        }
        let data = section(source, *at).filter(|s| s.id == id).and_then(|s| content(source, &s, compressor));
        let result = data.as_deref().ok_or(what).and_then(|d| {
            let mut b = Blob::new(d);
            match id {
                16 => meta.header_info(&mut b),
                17 => meta.ftrace_formats(&mut b),
                18 => meta.event_formats(&mut b),
                19 => meta.symbols(&mut b),
                _ => {
                    let len = b.u64().ok_or("the length of the task names")?;
                    meta.cmdlines(b.take(len).unwrap_or(b.rest()));
                    Ok(())
                }
            }
        });
        if let Err(expected) = result {
            if needed && meta.formats.is_empty() && cx.formats.is_none() {
                return Err(bad(path, *at, expected));
            }
            let _ = cx.damaged(damage(
                path,
                *at,
                expected,
                format!("the section of the {what} is damaged"),
                true,
            ));
        }
    }
    if options.buffers.is_empty()
        && let Some(at) = options.text
        && let Some(data) = section(source, at).and_then(|s| content(source, &s, compressor))
    {
        return Ok(Opened::Text(Box::new(TextReader::new(
            path.to_path_buf(),
            FormatKind::TraceDatV7,
            Box::new(std::io::Cursor::new(data)),
        ))));
    }
    let budget = Budget::of(source);
    let mut cpus = Vec::new();
    for buffer in &options.buffers {
        add_buffer(source, path, buffer, meta, compressor, &budget, &mut cpus, cx);
    }
    if options.buffers.is_empty() {
        let _ = cx.damaged(damage(
            path,
            first,
            "a buffer with events",
            "the file has formats but no events: the recording was not finished",
            false,
        ));
    }
    Ok(Opened::Pages(Box::new(DatReader::new(
        path,
        FormatKind::TraceDatV7,
        std::mem::take(meta),
        cpus,
        options,
        cx,
    ))))
}

/// Follows the chain of options sections and reads all of them.
fn all_options(
    source: &Source,
    path: &Path,
    first: u64,
    compressor: Option<Compressor>,
    cx: &mut Cx,
) -> Option<Options> {
    let mut options = Options::default();
    let mut next = Some(first);
    let mut seen = Vec::new();
    while let Some(at) = next.take() {
        if seen.contains(&at) || seen.len() > MAX_SECTIONS {
            let _ = cx.damaged(damage(
                path,
                at,
                "an options section that was not read before",
                "the chain of options runs in a circle",
                true,
            ));
            break;
        }
        seen.push(at);
        let data = section(source, at).filter(|s| s.id == 0).and_then(|s| content(source, &s, compressor));
        let Some(data) = data else {
            if at == first {
                return None;
            }
            let _ = cx.damaged(damage(path, at, "an options section", "what it describes is missing", false));
            break;
        };
        if let Some(place) = options.add_all(&data) {
            let _ = cx.damaged(damage(
                path,
                at + 16 + place as u64,
                "the content of an option",
                "the options after it are missing",
                false,
            ));
        }
        next = options.next.take();
    }
    Some(options)
}

/// Reads what is left of a file whose end is missing.
fn rescued(
    source: &Source,
    path: &Path,
    at: u64,
    compressor: Option<Compressor>,
    page_size: u32,
    known: Option<Options>,
    cx: &mut Cx,
) -> Result<Options, Error> {
    let sections = rescue::sections(source, at);
    let found = |id| sections.iter().any(|s| s.id == id);
    if (!found(16) || !found(18)) && cx.formats.is_none() {
        return match known {
            Some(options) => Ok(options),
            None => Err(bad(path, at, "the sections of the formats (the file was cut before them)")),
        };
    }
    let mut options = known.unwrap_or_default();
    let has_options = !options.sections.is_empty();
    for s in &sections {
        match s.id {
            0 if !has_options => {
                if let Some(data) = content(source, s, compressor) {
                    let _ = options.add_all(&data);
                    options.next = None;
                }
            }
            16..=18 | 21 if !options.sections.iter().any(|o| o.0 == s.id) => {
                options.sections.push((s.id, s.at - 16));
            }
            3 => {
                let cpus = rescue::cpus(source, s, page_size.into(), compressor.is_some() && s.compressed);
                options.buffers.push(Buffer { offset: s.at - 16, cpus, ..Buffer::default() });
            }
            _ => {}
        }
    }
    if !options.buffers.is_empty() {
        let text = "the file was cut and its index is missing: the events that are there were found by looking; which CPU is which is assumed";
        let _ = cx.damaged(damage(path, source.len(), "the index of the buffers", text, true));
    }
    Ok(options)
}
#[allow(clippy::too_many_arguments, reason = "called once; a struct for it would only rename them")]
fn add_buffer(
    source: &Source,
    path: &Path,
    buffer: &Buffer,
    meta: &Meta,
    compressor: Option<Compressor>,
    budget: &Budget,
    cpus: &mut Vec<Cpu>,
    cx: &mut Cx,
) {
    let page_size = buffer.page_size.unwrap_or(meta.page_size);
    let Some(s) = section(source, buffer.offset).filter(|s| s.id == 3 && page_size_ok(page_size)) else {
        let text = format!("the events of buffer {:?} were left out", buffer.name);
        let _ = cx.damaged(damage(path, buffer.offset, "a buffer section", text, true));
        return;
    };
    let compressor = compressor.filter(|_| s.compressed);
    for (cpu, at, size) in buffer.cpus.iter().filter(|c| c.2 > 0).take(MAX_CPUS) {
        cpus.push(Cpu::new(
            *cpu as u16,
            Pages::new(source.clone(), page_size as usize, *at, *size, compressor, budget.clone()),
        ));
    }
}
