//! From a tracepoint's raw record to an event body, by the formats that the file carries.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::event::{Body, StrId};
use crate::fields::{self, Fields, Meaning};
use crate::format::{self, Field, Format, Shape};
use crate::info::{Sourced, TraceInfo};
use crate::names::{self, Tp};
use crate::strings::Strings;

/// Place of a field in a record.
#[derive(Clone, Copy, Debug)]
struct Loc {
    offset: u32,
    size: u32,
    signed: bool,
}

impl Loc {
    fn of(f: &Field) -> Self {
        Self { offset: f.offset, size: f.size, signed: f.signed }
    }

    /// The number there; 0 past the end (lengths are checked once before).
    #[inline]
    fn read(self, data: &[u8]) -> u64 {
        let Some(d) = data.get(self.offset as usize..) else { return 0 };
        match self.size {
            8 => d.first_chunk().map_or(0, |c| u64::from_le_bytes(*c)),
            4 => d.first_chunk().map_or(0, |c| {
                let v = u32::from_le_bytes(*c);
                if self.signed { v as i32 as u64 } else { v.into() }
            }),
            2 => d.first_chunk().map_or(0, |c| {
                let v = u16::from_le_bytes(*c);
                if self.signed { v as i16 as u64 } else { v.into() }
            }),
            1 => d.first().map_or(0, |v| if self.signed { *v as i8 as u64 } else { (*v).into() }),
            _ => 0,
        }
    }
}

/// How to read the records of one tracepoint.
#[derive(Clone, Debug)]
struct Reading {
    /// A typed body: the places of its fields in the order in which [`fields::body`] asks for them.
    typed: Option<(Tp, Vec<Option<Loc>>, usize)>,
    /// Fields for the text of an untyped body.
    format: Format,
    name: Option<StrId>,
    meaning: Meaning,
}

/// All formats of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Formats {
    readings: Vec<Reading>,
    by_id: Vec<u16>,
    /// `common_pid`.
    pid: Option<Loc>,
}

/// Most formats that a file may have (a whole kernel has about 3,000; ids are 16 bits).
const MAX_FORMATS: usize = 16_384;

impl Formats {
    /// Adds a format text of a system.
    pub(crate) fn add_text(&mut self, system: &str, text: &str) -> bool {
        let Some(mut f) = Format::parse(text) else { return false };
        system.clone_into(&mut f.system);
        self.add(f)
    }

    pub(crate) fn add(&mut self, f: Format) -> bool {
        let Ok(id) = u16::try_from(f.id) else { return false };
        if self.readings.len() >= MAX_FORMATS {
            return false;
        }
        if self.pid.is_none() {
            self.pid = f.field("common_pid").filter(|f| f.size == 4).map(Loc::of);
        }
        let hints = f.hints();
        let meaning = Meaning { role: hints.role.unwrap_or(Meaning::default().role), ret_pf: hints.ret_pf };
        let typed = names::tracepoint(f.name.as_bytes()).filter(|_| f.system != "syscalls").and_then(|tp| {
            let mut plan = Plan { format: &f, locs: Vec::new() };
            // A missing field that the body needs: it is read by names instead.
            fields::body(tp, &mut plan, &meaning, &mut Strings::new())?;
            let len =
                plan.locs.iter().flatten().map(|l| l.offset as usize + l.size as usize).max().unwrap_or(0);
            Some((tp, plan.locs, len))
        });
        if self.by_id.len() <= id as usize {
            self.by_id.resize(id as usize + 1, u16::MAX);
        }
        self.by_id[id as usize] = self.readings.len() as u16;
        self.readings.push(Reading { typed, format: f, name: None, meaning });
        true
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.readings.is_empty()
    }

    /// The thread that a record belongs to.
    #[inline]
    pub(crate) fn tid(&self, record: &[u8]) -> Option<u32> {
        let loc = self.pid?;
        (record.len() >= loc.offset as usize + 4).then(|| loc.read(record) as u32)
    }

    /// All formats.
    pub(crate) fn all(&self) -> Vec<Format> {
        self.readings.iter().map(|r| r.format.clone()).collect()
    }

    #[inline]
    fn reading(&self, record: &[u8]) -> Option<usize> {
        let id = u16::from_le_bytes(*record.first_chunk()?);
        self.by_id.get(id as usize).filter(|i| **i != u16::MAX).map(|i| *i as usize)
    }

    /// The body of a record; `Err` says what is wrong with it.
    #[inline]
    pub(crate) fn body(&mut self, record: &[u8], strings: &mut Strings) -> Result<Body, Broken> {
        let i = self.reading(record).ok_or(Broken::Unknown)?;
        let r = &mut self.readings[i];
        if let Some((tp, plan, len)) = &r.typed {
            if record.len() < *len {
                return Err(Broken::Short);
            }
            let mut f = Planned { record, plan, next: 0 };
            if let Some(b) = fields::body(*tp, &mut f, &r.meaning, strings) {
                return Ok(b);
            }
        }
        let name = *r.name.get_or_insert_with(|| {
            let f = &r.format;
            let full = if f.system.is_empty() { f.name.clone() } else { format!("{}:{}", f.system, f.name) };
            strings.intern(&full)
        });
        let text = describe(&r.format, record);
        Ok(Body::Other { name, fields: strings.intern_passing(&text) })
    }

    /// Name of the tracepoint with this number, `system:name`.
    pub(crate) fn name_of(&self, id: u64) -> Option<String> {
        let i = *self.by_id.get(usize::try_from(id).ok()?).filter(|i| **i != u16::MAX)?;
        let f = &self.readings[i as usize].format;
        Some(if f.system.is_empty() { f.name.clone() } else { format!("{}:{}", f.system, f.name) })
    }

    /// Dialect and names of the formats.
    pub(crate) fn describe(&self, info: &mut TraceInfo) {
        let mut out = BTreeMap::new();
        for r in &self.readings {
            let f = &r.format;
            let own =
                f.fields.iter().filter(|f| !f.name.starts_with("common_")).map(|f| f.name.clone()).collect();
            out.insert(f.name.clone(), own);
            let h = f.hints();
            let from = || format!("print format of {}", f.name);
            let d = &mut info.dialect;
            if let (Some(value), None) = (h.role, &d.role) {
                d.role = Some(Sourced { value, from: from() });
            }
            match f.name.as_str() {
                "fast_page_fault" => d.ret_pf = h.ret_pf.map(|value| Sourced { value, from: from() }),
                "kvm_mmu_set_spte" => d.set_spte_user = h.user.map(|value| Sourced { value, from: from() }),
                "kvm_page_fault" => {
                    d.long_page_fault = Some(Sourced {
                        value: f.field("guest_rip").is_some(),
                        from: format!("fields of {}", f.name),
                    });
                }
                _ => {}
            }
        }
        info.formats.append(&mut out);
    }
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// No format has its number.
    Unknown,
    /// It ends before its last field.
    Short,
}

impl Broken {
    /// What was expected instead.
    pub(crate) fn expected(self) -> &'static str {
        match self {
            Self::Unknown => "the number of a tracepoint whose format the file has",
            Self::Short => "a record as long as its format says",
        }
    }
}

/// Notes where the fields are that a body asks for; which it asks for depends on the format alone, never on values.
struct Plan<'a> {
    format: &'a Format,
    locs: Vec<Option<Loc>>,
}

impl Fields for Plan<'_> {
    fn num(&mut self, name: &'static str) -> Option<u64> {
        let f =
            self.format.field(name).filter(|f| f.shape == Shape::Scalar && matches!(f.size, 1 | 2 | 4 | 8));
        self.locs.push(f.map(Loc::of));
        f.map(|_| 0)
    }

    fn text(&mut self, name: &'static str) -> Option<String> {
        let f = self.format.field(name).filter(|f| f.shape == Shape::Array);
        self.locs.push(f.map(Loc::of));
        f.map(|_| String::new())
    }
}

/// Gives the planned fields in order.
struct Planned<'a> {
    record: &'a [u8],
    plan: &'a [Option<Loc>],
    next: usize,
}

impl Planned<'_> {
    #[inline]
    fn loc(&mut self) -> Option<Loc> {
        let l = self.plan.get(self.next).copied().flatten();
        self.next += 1;
        l
    }
}

impl Fields for Planned<'_> {
    #[inline]
    fn num(&mut self, _name: &'static str) -> Option<u64> {
        self.loc().map(|l| l.read(self.record))
    }

    fn text(&mut self, _name: &'static str) -> Option<String> {
        let l = self.loc()?;
        let from = self.record.get(l.offset as usize..)?;
        let bytes = if l.size == 0 { from } else { from.get(..l.size as usize)? };
        Some(string(bytes))
    }
}

/// Bytes up to the first NUL.
fn string(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// Longest text of one event's fields.
const MAX_TEXT: usize = 4096;

/// `name=value …` of a record's own fields: addresses and 64-bit numbers in hexadecimal, the rest in decimal.
fn describe(f: &Format, record: &[u8]) -> String {
    let mut out = String::new();
    for field in f.fields.iter().filter(|f| !f.name.starts_with("common_")) {
        if out.len() > MAX_TEXT {
            out.push_str(" …");
            break;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        let _ = write!(out, "{}=", field.name);
        let loc = Loc::of(field);
        let at = field.offset as usize;
        let bytes = match field.shape {
            Shape::Scalar => {
                let v = loc.read(record);
                let _ = if field.signed {
                    write!(out, "{}", v as i64)
                } else if field.size == 8 || field.ctype.ends_with('*') {
                    write!(out, "{v:#x}")
                } else {
                    write!(out, "{v}")
                };
                continue;
            }
            Shape::Array if field.size == 0 => record.get(at..),
            Shape::Array => record.get(at..at.saturating_add(field.size as usize)),
            Shape::DataLoc | Shape::RelLoc => {
                let v = loc.read(record) as usize;
                let base = if field.shape == Shape::RelLoc { at.saturating_add(4) } else { 0 };
                let start = base.saturating_add(v & 0xffff);
                record.get(start..start.saturating_add(v >> 16 & 0xffff))
            }
        };
        let Some(bytes) = bytes else {
            out.push('?');
            continue;
        };
        if field.ctype.contains("char") && !field.ctype.contains("unsigned") {
            out.push_str(&string(bytes));
        } else {
            for b in bytes.iter().take(256) {
                let _ = write!(out, "{b:02x}");
            }
        }
    }
    out
}

/// Head of a ring page.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PageHead {
    pub(crate) commit: usize,
    pub(crate) commit_size: usize,
    pub(crate) data: usize,
}

impl Default for PageHead {
    fn default() -> Self {
        Self { commit: 8, commit_size: 8, data: 16 }
    }
}

impl PageHead {
    /// From `header_page`; a kernel with 4-byte longs where that is not there.
    pub(crate) fn parse(text: &str, long_size: u8) -> Self {
        let fallback =
            if long_size == 4 { Self { commit: 8, commit_size: 4, data: 12 } } else { Self::default() };
        let Some(fields) = format::header_page(text) else { return fallback };
        let get = |n: &str| fields.iter().find(|f| f.name == n);
        let (Some(commit), Some(data)) = (get("commit"), get("data")) else { return fallback };
        if !matches!(commit.size, 4 | 8) || commit.offset > 64 || data.offset < 12 || data.offset > 128 {
            return fallback;
        }
        Self { commit: commit.offset as usize, commit_size: commit.size as usize, data: data.offset as usize }
    }
}
