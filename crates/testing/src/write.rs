//! Small writers of trace.dat v6 and perf.data, from the raw records of a trace.dat ([`RawTrace`]).
//!
//! The tests of the trace crate check that `trace-cmd report` and `perf script` read what is written.

use std::fmt::Write as _;
use std::io::{self, Seek, SeekFrom, Write};

use mmuscope_trace::format::{Format, Shape};
use mmuscope_trace::undecoded::{RawRecord, RawTrace};

/// Formats a format file as text.
pub fn format_text(f: &Format) -> String {
    let mut s = format!("name: {}\nID: {}\nformat:\n", f.name, f.id);
    let mut common = true;
    for field in &f.fields {
        if common && !field.name.starts_with("common_") {
            s.push('\n');
            common = false;
        }
        let array = match field.shape {
            Shape::Array if field.size == 0 => "[]".to_owned(),
            Shape::Array => format!("[{}]", field.size),
            _ => String::new(),
        };
        let _ = writeln!(
            s,
            "\tfield:{} {}{array};\toffset:{};\tsize:{};\tsigned:{};",
            field.ctype,
            field.name,
            field.offset,
            field.size,
            u8::from(field.signed)
        );
    }
    let _ = write!(s, "\nprint fmt: {}\n", f.print_fmt);
    s
}

const HEADER_PAGE: &str = "\tfield: u64 timestamp;\toffset:0;\tsize:8;\tsigned:0;\n\tfield: local_t commit;\toffset:8;\tsize:8;\tsigned:1;\n\
    \tfield: int overwrite;\toffset:8;\tsize:1;\tsigned:1;\n\tfield: char data;\toffset:16;\tsize:4080;\tsigned:0;\n";
const HEADER_EVENT: &str = "# compressed entry header\n\ttype_len    :    5 bits\n\ttime_delta  :   27 bits\n\tarray       :   32 bits\n\n\
    \tpadding     : type == 29\n\ttime_extend : type == 30\n\ttime_stamp : type == 31\n\tdata max type_len  == 28\n";
const PAGE: usize = 4096;

/// Makes the block of formats that both kinds of file have.
fn block(formats: &[Format], comms: &[(u32, String)]) -> Vec<u8> {
    let mut b = Vec::new();
    for (name, text) in [("header_page", HEADER_PAGE), ("header_event", HEADER_EVENT)] {
        b.extend(name.bytes());
        b.push(0);
        b.extend((text.len() as u64).to_le_bytes());
        b.extend(text.bytes());
    }
    let one = |b: &mut Vec<u8>, f: &Format| {
        let text = format_text(f);
        b.extend((text.len() as u64).to_le_bytes());
        b.extend(text.bytes());
    };
    let own: Vec<&Format> = formats.iter().filter(|f| f.system == "ftrace").collect();
    b.extend((own.len() as u32).to_le_bytes());
    for f in own {
        one(&mut b, f);
    }
    let mut systems: Vec<&str> =
        formats.iter().map(|f| f.system.as_str()).filter(|s| *s != "ftrace").collect();
    systems.sort_unstable();
    systems.dedup();
    b.extend((systems.len() as u32).to_le_bytes());
    for s in systems {
        b.extend(s.bytes());
        b.push(0);
        let of: Vec<&Format> = formats.iter().filter(|f| f.system == s).collect();
        b.extend((of.len() as u32).to_le_bytes());
        for f in of {
            one(&mut b, f);
        }
    }
    b.extend([0; 8]);
    let mut names = String::new();
    for (pid, c) in comms {
        let _ = writeln!(names, "{pid} {c}");
    }
    b.extend((names.len() as u64).to_le_bytes());
    b.extend(names.bytes());
    b
}

/// Writes a trace.dat v6 with the records of `raw`, repeated `times` times with times that go on.
pub fn dat_v6<W: Write + Seek>(out: &mut W, raw: &RawTrace, times: u64) -> io::Result<()> {
    let cpus = raw.cpus();
    let mut head = b"\x17\x08\x44tracing6\0\0\x08".to_vec();
    head.extend((PAGE as u32).to_le_bytes());
    head.extend(block(&raw.formats, &raw.comms));
    head.extend(u32::from(cpus).to_le_bytes());
    head.extend(b"options  \0");
    let clock = b"[local] global counter\0";
    head.extend(4u16.to_le_bytes());
    head.extend((clock.len() as u32).to_le_bytes());
    head.extend(clock);
    head.extend(0u16.to_le_bytes());
    head.extend(b"flyrecord\0");
    let table = head.len() as u64;
    head.resize(head.len() + cpus as usize * 16, 0);
    head.resize(head.len().next_multiple_of(PAGE), 0);
    out.write_all(&head)?;
    let (first, last) = raw.range();
    let period = last - first + 1000;
    let mut at = head.len() as u64;
    let mut ranges = Vec::new();
    for cpu in 0..cpus {
        let start = at;
        let own: Vec<&RawRecord> = raw.records.iter().filter(|r| r.cpu == cpu).collect();
        let mut page = Page::default();
        for n in 0..times {
            for r in &own {
                let ts = r.ts + n * period;
                if !page.add(ts, &r.data) {
                    at += page.write(out)?;
                    page.add(ts, &r.data);
                }
            }
        }
        if page.used > 0 {
            at += page.write(out)?;
        }
        ranges.push((start, at - start));
    }
    out.seek(SeekFrom::Start(table))?;
    for (start, len) in ranges {
        out.write_all(&start.to_le_bytes())?;
        out.write_all(&len.to_le_bytes())?;
    }
    out.seek(SeekFrom::End(0))?;
    Ok(())
}

/// A ring page that is being filled.
#[derive(Default)]
struct Page {
    first: u64,
    ts: u64,
    data: Vec<u8>,
    used: usize,
}

impl Page {
    fn add(&mut self, ts: u64, record: &[u8]) -> bool {
        if self.used == 0 {
            self.data.clear();
            self.first = ts;
            self.ts = ts;
        }
        let delta = ts.saturating_sub(self.ts);
        let words = record.len().div_ceil(4);
        let long = words > 28 || words == 0;
        let need = words * 4 + 4 + if long { 4 } else { 0 } + if delta >> 27 != 0 { 8 } else { 0 };
        if self.data.len() + need > PAGE - 16 {
            return false;
        }
        let mut put = |w: u32| self.data.extend(w.to_le_bytes());
        let mut delta = delta;
        if delta >> 27 != 0 {
            put(0x1e | (delta as u32) << 5);
            put((delta >> 27) as u32);
            delta = 0;
        }
        if long {
            put((delta as u32) << 5);
            put(words as u32 * 4 + 4);
        } else {
            put(words as u32 | (delta as u32) << 5);
        }
        self.data.extend(record);
        self.data.resize(self.data.len().next_multiple_of(4), 0);
        self.ts = ts;
        self.used += 1;
        true
    }

    fn write(&mut self, out: &mut impl Write) -> io::Result<u64> {
        let mut page = [0; PAGE];
        page[..8].copy_from_slice(&self.first.to_le_bytes());
        page[8..16].copy_from_slice(&(self.data.len() as u64).to_le_bytes());
        page[16..16 + self.data.len()].copy_from_slice(&self.data);
        self.used = 0;
        out.write_all(&page)?;
        Ok(PAGE as u64)
    }
}

/// How a perf.data is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PerfStyle {
    /// Whether to write the pipe form instead of the file form.
    pub pipe: bool,
    /// Whether to put samples into COMPRESSED records.
    pub zstd: bool,
}

/// The parts of a sample: IDENTIFIER, TID, TIME, CPU, RAW.
const SAMPLE_TYPE: u64 = 1 << 16 | 1 << 1 | 1 << 2 | 1 << 7 | 1 << 10;
const ATTR: usize = 112;

fn attr(f: &Format) -> [u8; ATTR] {
    let mut a = [0; ATTR];
    a[0..4].copy_from_slice(&2u32.to_le_bytes());
    a[4..8].copy_from_slice(&(ATTR as u32).to_le_bytes());
    a[8..16].copy_from_slice(&u64::from(f.id).to_le_bytes());
    a[16..24].copy_from_slice(&1u64.to_le_bytes());
    a[24..32].copy_from_slice(&SAMPLE_TYPE.to_le_bytes());
    a[32..40].copy_from_slice(&4u64.to_le_bytes());
    // The bit is sample_id_all.
    a[40..48].copy_from_slice(&(1u64 << 18).to_le_bytes());
    a
}

fn record(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut r = kind.to_le_bytes().to_vec();
    r.extend(0u16.to_le_bytes());
    r.extend(((body.len() + 8) as u16).to_le_bytes());
    r.extend(body);
    r
}

fn tracing_data(raw: &RawTrace) -> Vec<u8> {
    let mut t = b"\x17\x08\x44tracing0.6\0\0\x08".to_vec();
    t.extend((PAGE as u32).to_le_bytes());
    t.extend(block(&raw.formats, &raw.comms));
    t.resize(t.len().next_multiple_of(8), 0);
    t
}

fn feature_string(s: &str) -> Vec<u8> {
    let len = (s.len() + 1).next_multiple_of(64);
    let mut f = (len as u32).to_le_bytes().to_vec();
    f.extend(s.bytes());
    f.resize(4 + len, 0);
    f
}

/// Writes a perf.data whose samples are the records of `raw`, repeated `times` times. The ids of tracepoints are those of the formats plus 1000.
pub fn perf_data<W: Write + Seek>(
    out: &mut W,
    raw: &RawTrace,
    times: u64,
    style: PerfStyle,
) -> io::Result<()> {
    // Of ftrace's own events, perf records only the marker.
    let used: Vec<&Format> =
        raw.formats.iter().filter(|f| f.system != "ftrace" || f.name == "print").collect();
    let mut start = 16u64;
    if style.pipe {
        out.write_all(b"PERFILE2")?;
        out.write_all(&16u64.to_le_bytes())?;
        for f in &used {
            let mut body = attr(f).to_vec();
            body.extend((u64::from(f.id) + 1000).to_le_bytes());
            out.write_all(&record(64, &body))?;
        }
        let t = tracing_data(raw);
        out.write_all(&record(66, &(t.len() as u64).to_le_bytes()))?;
        out.write_all(&t)?;
    } else {
        // The head and the attrs come first, with their ids after them; the head is filled in at the end.
        let mut head = vec![0; 104];
        let ids_at = 104 + used.len() as u64 * (ATTR as u64 + 16);
        for (i, f) in used.iter().enumerate() {
            head.extend(attr(f));
            head.extend((ids_at + i as u64 * 8).to_le_bytes());
            head.extend(8u64.to_le_bytes());
        }
        for f in &used {
            head.extend((u64::from(f.id) + 1000).to_le_bytes());
        }
        start = head.len() as u64;
        out.write_all(&head)?;
    }
    let len = samples(out, raw, times, style)?;
    if style.pipe {
        return Ok(());
    }
    let features = [(1, tracing_data(raw)), (4, feature_string("6.1.0-test")), (27, compressed_feature())];
    let features: Vec<_> = features.into_iter().filter(|(n, _)| *n != 27 || style.zstd).collect();
    let mut at = start + len + features.len() as u64 * 16;
    for (_, f) in &features {
        out.write_all(&at.to_le_bytes())?;
        out.write_all(&(f.len() as u64).to_le_bytes())?;
        at += f.len() as u64;
    }
    for (_, f) in &features {
        out.write_all(f)?;
    }
    let bits: u64 = features.iter().map(|(n, _)| 1u64 << n).sum();
    out.seek(SeekFrom::Start(0))?;
    out.write_all(b"PERFILE2")?;
    for n in
        [104, ATTR as u64 + 16, 104, used.len() as u64 * (ATTR as u64 + 16), start, len, 0, 0, bits, 0, 0, 0]
    {
        out.write_all(&n.to_le_bytes())?;
    }
    out.seek(SeekFrom::End(0))?;
    Ok(())
}

/// Makes HEADER_COMPRESSED: version, type 1 (zstd), level, ratio, mmap length.
fn compressed_feature() -> Vec<u8> {
    [1u32, 1, 1, 5, 1 << 20].iter().flat_map(|n| n.to_le_bytes()).collect()
}

/// Writes the samples in rounds, and returns the number of bytes written.
fn samples<W: Write>(out: &mut W, raw: &RawTrace, times: u64, style: PerfStyle) -> io::Result<u64> {
    let (first, last) = raw.range();
    let period = last - first + 1000;
    // A round is what all rings hold between two looks: the part of each CPU in a stretch of time.
    let stretch = (period / 16).max(1);
    let mut per_cpu: Vec<Vec<&RawRecord>> = vec![Vec::new(); raw.cpus() as usize];
    for r in &raw.records {
        per_cpu[r.cpu as usize].push(r);
    }
    let mut encoder = if style.zstd { Some(zstd::stream::write::Encoder::new(Vec::new(), 1)?) } else { None };
    let mut len = 0u64;
    let mut chunk = Vec::new();
    for n in 0..times {
        for round in 0..=period / stretch {
            let (from, to) = (first + round * stretch, first + (round + 1) * stretch);
            for records in &per_cpu {
                let a = records.partition_point(|r| r.ts < from);
                let b = records.partition_point(|r| r.ts < to);
                for r in &records[a..b] {
                    sample(&mut chunk, r, r.ts + n * period);
                    if chunk.len() > 32 << 10 {
                        len += write_chunk(out, &mut chunk, encoder.as_mut())?;
                    }
                }
            }
            len += write_chunk(out, &mut chunk, encoder.as_mut())?;
            out.write_all(&record(68, &[]))?;
            len += 8;
        }
    }
    Ok(len)
}

fn write_chunk<W: Write>(
    out: &mut W,
    chunk: &mut Vec<u8>,
    e: Option<&mut zstd::stream::write::Encoder<'_, Vec<u8>>>,
) -> io::Result<u64> {
    if chunk.is_empty() {
        return Ok(0);
    }
    let mut len = 0;
    if let Some(e) = e {
        e.write_all(chunk)?;
        e.flush()?;
        let packed = std::mem::take(e.get_mut());
        for part in packed.chunks(60_000) {
            let r = record(81, part);
            out.write_all(&r)?;
            len += r.len() as u64;
        }
    } else {
        out.write_all(chunk)?;
        len = chunk.len() as u64;
    }
    chunk.clear();
    Ok(len)
}

fn sample(out: &mut Vec<u8>, r: &RawRecord, ts: u64) {
    let id = r.data.first_chunk().map_or(0, |c| u16::from_le_bytes(*c));
    let tid = r.data.get(4..).and_then(|d| d.first_chunk()).map_or(0, |c| u32::from_le_bytes(*c));
    // The size word and the data of RAW together are padded to eight bytes.
    let raw = (r.data.len() + 4).next_multiple_of(8) - 4;
    let size = 8 + 8 + 8 + 8 + 8 + 4 + raw;
    out.extend(9u32.to_le_bytes());
    out.extend(0u16.to_le_bytes());
    out.extend((size as u16).to_le_bytes());
    out.extend((u64::from(id) + 1000).to_le_bytes());
    out.extend(tid.to_le_bytes());
    out.extend(tid.to_le_bytes());
    out.extend(ts.to_le_bytes());
    out.extend(u32::from(r.cpu).to_le_bytes());
    out.extend(0u32.to_le_bytes());
    out.extend((raw as u32).to_le_bytes());
    out.extend(&r.data);
    out.resize(out.len() + raw - r.data.len(), 0);
}
