//! A cursor over little-endian numbers and strings ([`Blob`]), and the block of formats that trace.dat v6 begins with and perf.data
//! has as TRACING_DATA ([`Meta`]):
//!
//! ```text
//! "header_page\0" u64 len, text    "header_event\0" u64 len, text    u32 n { u64 len, format text }                (ftrace's own)
//! u32 systems { name\0 u32 n { u64 len, format text } }              u32 len, kallsyms   u32 len, printk formats
//! u64 len, "PID comm\n" …                                            (perf: since version 0.6)
//! ```

use crate::records::{Formats, PageHead};

/// A cursor that reads forward and never past the end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Blob<'a> {
    pub(crate) data: &'a [u8],
    pub(crate) at: usize,
}

impl<'a> Blob<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, at: 0 }
    }

    pub(crate) fn take(&mut self, n: u64) -> Option<&'a [u8]> {
        let end = self.at.checked_add(usize::try_from(n).ok()?)?;
        let d = self.data.get(self.at..end)?;
        self.at = end;
        Some(d)
    }

    pub(crate) fn u8(&mut self) -> Option<u8> {
        self.take(1).map(|d| d[0])
    }

    pub(crate) fn u16(&mut self) -> Option<u16> {
        self.take(2)?.first_chunk().map(|c| u16::from_le_bytes(*c))
    }

    pub(crate) fn u32(&mut self) -> Option<u32> {
        self.take(4)?.first_chunk().map(|c| u32::from_le_bytes(*c))
    }

    pub(crate) fn u64(&mut self) -> Option<u64> {
        self.take(8)?.first_chunk().map(|c| u64::from_le_bytes(*c))
    }

    /// Reads a string that ends in NUL.
    pub(crate) fn cstr(&mut self) -> Option<String> {
        let rest = self.data.get(self.at..)?;
        let n = rest.iter().take(4096).position(|b| *b == 0)?;
        self.at += n + 1;
        Some(String::from_utf8_lossy(&rest[..n]).into_owned())
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.data.get(self.at..).unwrap_or(&[])
    }
}

/// The content of the block of formats.
#[derive(Clone, Debug, Default)]
pub(crate) struct Meta {
    pub(crate) page_head: PageHead,
    pub(crate) formats: Formats,
    /// The pairs `PID comm` of saved_cmdlines.
    pub(crate) cmdlines: Vec<(u32, String)>,
    pub(crate) long_size: u8,
    pub(crate) page_size: u32,
    /// How many format texts could not be read.
    pub(crate) unread: u32,
}

impl Meta {
    /// Reads `header_page` and `header_event`.
    pub(crate) fn header_info(&mut self, b: &mut Blob<'_>) -> Result<(), &'static str> {
        if b.cstr().as_deref() != Some("header_page") {
            return Err("\"header_page\"");
        }
        let len = b.u64().ok_or("the length of header_page")?;
        let text = b.take(len).ok_or("the text of header_page")?;
        self.page_head = PageHead::parse(&String::from_utf8_lossy(text), self.long_size);
        if b.cstr().as_deref() != Some("header_event") {
            return Err("\"header_event\"");
        }
        let len = b.u64().ok_or("the length of header_event")?;
        b.take(len).ok_or("the text of header_event")?;
        Ok(())
    }

    fn one_format(&mut self, b: &mut Blob<'_>, system: &str) -> Result<(), &'static str> {
        let len = b.u64().ok_or("the length of a format text")?;
        let text = b.take(len).ok_or("a format text")?;
        if !self.formats.add_text(system, &String::from_utf8_lossy(text)) {
            self.unread += 1;
        }
        Ok(())
    }

    /// Reads the formats of ftrace's own events (`print` among them).
    pub(crate) fn ftrace_formats(&mut self, b: &mut Blob<'_>) -> Result<(), &'static str> {
        for _ in 0..b.u32().ok_or("the number of ftrace formats")? {
            self.one_format(b, "ftrace")?;
        }
        Ok(())
    }

    /// Reads the formats of the events, system by system.
    pub(crate) fn event_formats(&mut self, b: &mut Blob<'_>) -> Result<(), &'static str> {
        for _ in 0..b.u32().ok_or("the number of event systems")? {
            let system = b.cstr().ok_or("the name of an event system")?;
            for _ in 0..b.u32().ok_or("the number of formats of an event system")? {
                self.one_format(b, &system)?;
            }
        }
        Ok(())
    }

    /// Reads the kernel's symbols, which only tell the functions of probes. The formats come before them.
    pub(crate) fn symbols(&mut self, b: &mut Blob<'_>) -> Result<(), &'static str> {
        let len = b.u32().ok_or("the length of kallsyms")?;
        let text = b.take(len.into()).ok_or("kallsyms")?;
        if self.formats.has_probes() {
            self.formats.symbols(text);
        }
        Ok(())
    }

    /// Reads lines `PID comm`.
    pub(crate) fn cmdlines(&mut self, text: &[u8]) {
        for line in String::from_utf8_lossy(text).lines() {
            if let Some((pid, comm)) = line.trim_start().split_once(' ')
                && let Ok(pid) = pid.parse()
            {
                self.cmdlines.push((pid, comm.trim_end_matches('\0').to_owned()));
            }
        }
    }

    /// Reads the whole block; its last part, the task names, may be missing unless they are `always` there.
    pub(crate) fn block(&mut self, b: &mut Blob<'_>, always: bool) -> Result<(), &'static str> {
        self.header_info(b)?;
        self.ftrace_formats(b)?;
        self.event_formats(b)?;
        self.symbols(b)?;
        let len = b.u32().ok_or("the length of the printk formats")?;
        b.take(len.into()).ok_or("the printk formats")?;
        // Up to seven bytes of padding may follow in their place (pipe mode).
        if always || b.rest().len() >= 8 {
            let len = b.u64().ok_or("the length of the task names")?;
            let text = b.take(len).ok_or("the task names")?;
            self.cmdlines(text);
        }
        Ok(())
    }
}
