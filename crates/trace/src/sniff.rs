//! Recognises the format of a file by its first bytes, never by its name.

use std::path::Path;

use crate::error::Error;
use crate::info::{Compression, FormatKind};
use crate::paste;
use crate::text::scan::find;
use crate::text::{clean, escapes, head, repair, skipped};

/// The kinds of content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    PerfFile,
    PerfPipe,
    Dat6,
    Dat7,
    Text(FormatKind),
}

impl Kind {
    /// Whether the content can only be read with random access.
    pub(crate) fn needs_seek(self) -> bool {
        matches!(self, Self::PerfFile | Self::Dat6 | Self::Dat7)
    }
}

const DAT: &[u8] = b"\x17\x08\x44tracing";

/// The compression around the content.
pub(crate) fn compression(head: &[u8]) -> Compression {
    if head.starts_with(&[0x1f, 0x8b, 8]) {
        Compression::Gzip
    } else if head.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        Compression::Zstd
    } else if head.starts_with(&[0xfd, b'7', b'z', b'X', b'Z', 0]) {
        Compression::Xz
    } else {
        Compression::None
    }
}

/// Whether the first bytes are those of a binary format.
pub(crate) fn is_binary(head: &[u8]) -> bool {
    head.starts_with(b"PERFILE2")
        || head.starts_with(DAT)
        || compression(head) != Compression::None
        || head.contains(&0)
}

/// Whether one of the (whole) lines is an event as it stands.
pub(crate) fn has_event(head: &[u8]) -> bool {
    head.split(|b| *b == b'\n').any(|l| head::parse(l).is_some())
}

/// Recognises the content.
pub(crate) fn kind(head: &[u8], path: &Path) -> Result<Kind, Error> {
    let unsupported = |what: &str, next: &str| {
        Err(Error::Unsupported { path: path.to_path_buf(), what: what.to_owned(), next: next.to_owned() })
    };
    if head.is_empty() {
        return Err(Error::Empty { path: path.to_path_buf() });
    }
    if let Some(rest) = head.strip_prefix(b"PERFILE2") {
        return Ok(match rest.first_chunk() {
            Some(n) if u64::from_le_bytes(*n) == 16 => Kind::PerfPipe,
            _ => Kind::PerfFile,
        });
    }
    if head.starts_with(b"2ELIFREP") {
        return unsupported(
            "a perf.data of a big-endian machine",
            "KVM's MMU tracepoints are x86: record on the host itself",
        );
    }
    if head.starts_with(b"PERFFILE") {
        return unsupported("a perf.data of the format before 2010", "record again with a current perf");
    }
    if let Some(rest) = head.strip_prefix(DAT) {
        return match rest {
            [b'6', 0, ..] => Ok(Kind::Dat6),
            [b'7', 0, ..] => Ok(Kind::Dat7),
            _ => unsupported(
                "a trace.dat of a version that is not 6 or 7",
                "convert it: trace-cmd convert --file-version 7 -i IN -o OUT",
            ),
        };
    }
    let nul = head.iter().map(|b| usize::from(*b == 0)).sum::<usize>();
    // The kernel's role text once ended in a NUL, so a text may have a few of them.
    if nul * 64 > head.len() {
        return Err(Error::Unrecognised { path: path.to_path_buf(), found: found(head) });
    }
    text(head, path)
}

fn text(head: &[u8], path: &Path) -> Result<Kind, Error> {
    let head = &*escapes::plain(head);
    if find(head, b"latency trace v1").is_some() || find(head, b"_------=> CPU#").is_some() {
        return Err(Error::Unsupported {
            path: path.to_path_buf(),
            what: "text in tracefs' latency format, whose times are relative".to_owned(),
            next: "record without it: echo nolatency-format > /sys/kernel/tracing/trace_options".to_owned(),
        });
    }
    for line in head.split(|b| *b == b'\n') {
        if line.starts_with(b"# tracer:") || line.starts_with(b"# entries-in-buffer") {
            return Ok(Kind::Text(FormatKind::FtraceText));
        }
        if line.starts_with(b"cpus=") || line.starts_with(b"version = ") {
            return Ok(Kind::Text(FormatKind::TraceCmdText));
        }
        if let Some(h) = head::parse(line) {
            return Ok(Kind::Text(printed_by(&h)));
        }
    }
    // The text is not as a tool prints it: it may be quoted, wrapped, or have other blanks.
    if let Some(h) = repair::first_head(head).as_deref().and_then(|l| head::parse(l.as_bytes())) {
        return Ok(Kind::Text(printed_by(&h)));
    }
    // A text that has only notes of loss (`CPU:1 [LOST 12 EVENTS]`) is a trace, too.
    let lost = || head.split(|b| *b == b'\n').any(|l| l.starts_with(b"CPU:") && l.ends_with(b"]"));
    if lost() {
        return Ok(Kind::Text(FormatKind::FtraceText));
    }
    if let Some((what, next)) = known_but_unread(head) {
        return Err(Error::Unsupported {
            path: path.to_path_buf(),
            what: what.to_owned(),
            next: next.to_owned(),
        });
    }
    let pasted = paste::scan(head);
    let values = !pasted.values.is_empty();
    if let Some(events) = pasted.headless() {
        return Err(Error::Headless { path: path.to_path_buf(), events, values });
    }
    if values {
        return Err(Error::OnlyValues { path: path.to_path_buf() });
    }
    Err(Error::Unrecognised { path: path.to_path_buf(), found: found(head) })
}

/// The tool that prints such a head.
fn printed_by(h: &head::Head<'_>) -> FormatKind {
    if h.relative {
        FormatKind::PerfTraceText
    } else if h.system.is_some() || !h.dash {
        FormatKind::PerfScriptText
    } else if h.flags > 0 {
        FormatKind::FtraceText
    } else {
        FormatKind::TraceCmdText
    }
}

/// For a text without a readable event: what it is, if that is known, and what to do.
fn known_but_unread(head: &[u8]) -> Option<(&'static str, &'static str)> {
    let lines = clean::lines(head, &mut clean::Mended::default());
    // Such a line is `14.141612: kvm:kvm_entry: vcpu 2`.
    let bare = |l: &str| -> Option<(bool, bool)> {
        let mut words = l.split_whitespace().skip_while(|w| w.starts_with('['));
        words.next().and_then(|w| w.strip_suffix(':'))?.parse::<f64>().ok()?;
        let name = words.next().filter(|w| w.len() > 2)?.strip_suffix(':')?;
        // KVM on ARM has events of the same names, and prints the program counter in them.
        let arm =
            name.ends_with("kvm_guest_fault") || name.ends_with("kvm_exchvc") || words.next() == Some("PC:");
        Some((name.contains(':'), arm))
    };
    let found: Vec<(bool, bool)> = lines.iter().filter_map(|l| bare(&l.text)).collect();
    if found.iter().any(|(_, arm)| *arm) {
        return Some((
            "text of the events of KVM on ARM, without tasks and CPUs",
            "mmuscope knows the page tables of KVM on x86 only",
        ));
    }
    if found.iter().any(|(perf, _)| *perf) {
        return Some((
            "perf script text without the names and numbers of tasks, so that its events belong to nobody",
            "print them too: perf script -F comm,pid,tid,cpu,time,event,trace",
        ));
    }
    if !found.is_empty() {
        return Some((
            "text of events with their times but without tasks and CPUs, so that its events belong to nobody",
            "give whole lines, as tracefs, trace-cmd report or perf script prints them",
        ));
    }
    if lines.iter().any(|l| skipped::is_graph(l.text.trim())) {
        return Some((
            "text of the function graph tracer, in which events have neither a task nor a time",
            "record the events alone: echo nop > /sys/kernel/tracing/current_tracer",
        ));
    }
    None
}

/// A few words about what the content seems to be.
fn found(head: &[u8]) -> String {
    let start = &head[..head.len().min(24)];
    if start.starts_with(b"\x7fELF") {
        return "it is an ELF program".to_owned();
    }
    if start.starts_with(b"\xff\xfe") || start.starts_with(b"\xfe\xff") {
        return "it is text in UTF-16: iconv -f UTF-16 -t UTF-8 FILE makes it readable".to_owned();
    }
    if start.iter().all(|b| b.is_ascii_graphic() || b.is_ascii_whitespace()) {
        return format!(
            "it is text without a line that looks like a trace event (it begins with {:?})",
            String::from_utf8_lossy(start).trim()
        );
    }
    let hex: Vec<String> = start.iter().take(8).map(|b| format!("{b:02x}")).collect();
    format!("it begins with the bytes {}", hex.join(" "))
}
