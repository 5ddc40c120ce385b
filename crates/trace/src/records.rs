//! From the raw record of a tracepoint to an event body, by the formats that the file has. The main type is [`Formats`].

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::describe::{Loc, string};
use crate::event::{Body, Isa, Kind as BodyKind, StrId};
use crate::exits::ExitNames;
use crate::fields::{Base, Fields, Meaning, Names};
use crate::format::{self, Format, Shape};
use crate::info::{Sourced, TraceInfo};
use crate::probed;
use crate::schema::{Tp, from_fields, tracepoint};
use crate::strings::Strings;

/// How the records of one tracepoint are read.
#[derive(Clone, Debug)]
struct Reading {
    /// For a typed body, the places of its fields in the order in which [`from_fields`] asks for them.
    typed: Option<Typed>,
    /// The fields for the text of an untyped body.
    format: Arc<Format>,
    meaning: Meaning,
    /// Of a probe, where the symbols of the kernel are known.
    placed: Option<Placed>,
}

/// The reading of a probe's records that are of a function in [`probed::places`].
#[derive(Clone, Debug)]
struct Placed {
    /// The offset of `__probe_ip`.
    at: usize,
    /// Where each function begins, and the reading of its records.
    functions: Vec<(u64, u16)>,
}

#[derive(Clone, Debug)]
struct Typed {
    tp: Tp,
    plan: Vec<Option<Loc>>,
    /// The least number of bytes of a record.
    len: usize,
}

/// What a record is before it is decoded.
pub(crate) enum Kind {
    /// A record of this number; [`Formats::decode`] can make a body of it at any time.
    Typed(u16),
    /// A body that is cheap to make at once, or that needs the strings.
    Body(Body),
}

/// All formats of a file.
#[derive(Clone, Debug, Default)]
pub(crate) struct Formats {
    readings: Vec<Reading>,
    by_id: Vec<u16>,
    /// The offset of `common_pid`.
    pid: Option<usize>,
}

/// The most formats that a file may have (a whole kernel has about 3,000; ids have 16 bits).
const MAX_FORMATS: usize = 16_384;

impl Formats {
    /// Adds the format text of an event in a system.
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
            self.pid = f.field("common_pid").filter(|f| f.size == 4).map(|f| f.offset as usize);
        }
        let hints = f.hints();
        let meaning = Meaning { role: hints.role.unwrap_or(Meaning::default().role), ret_pf: hints.ret_pf };
        let name = f.name.as_bytes();
        let tp = if f.field("__probe_ip").is_some() { probed::by_name(name) } else { tracepoint(name) };
        let typed = tp.filter(|_| f.system != "syscalls").and_then(|tp| Typed::of(tp, &f, &meaning));
        if self.by_id.len() <= id as usize {
            self.by_id.resize(id as usize + 1, u16::MAX);
        }
        self.by_id[id as usize] = self.readings.len() as u16;
        self.readings.push(Reading { typed, format: Arc::new(f), meaning, placed: None });
        true
    }

    /// Whether events of probes are among them.
    pub(crate) fn has_probes(&self) -> bool {
        self.readings.iter().any(|r| r.format.field("__probe_ip").is_some())
    }

    /// Takes the symbols of the recorded kernel: which function a probe is on is then known by its place, and not by its name.
    pub(crate) fn symbols(&mut self, kallsyms: &[u8]) {
        let places = probed::places(kallsyms);
        if places.is_empty() {
            return;
        }
        for i in 0..self.readings.len() {
            let Reading { format, meaning, .. } = self.readings[i].clone();
            let Some(ip) = format.field("__probe_ip").filter(|f| f.size == 8) else { continue };
            let mut functions = Vec::new();
            for (place, tp) in &places {
                if let Some(t) = Typed::of(*tp, &format, &meaning)
                    && self.readings.len() < MAX_FORMATS
                {
                    functions.push((*place, self.readings.len() as u16));
                    let format = Arc::clone(&format);
                    self.readings.push(Reading { typed: Some(t), format, meaning, placed: None });
                }
            }
            let own = &mut self.readings[i];
            own.typed = None;
            own.placed = Some(Placed { at: ip.offset as usize, functions });
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.readings.is_empty()
    }

    /// The thread of a record.
    #[inline]
    pub(crate) fn tid(&self, record: &[u8]) -> Option<u32> {
        record.get(self.pid?..)?.first_chunk().map(|c| u32::from_le_bytes(*c))
    }

    /// All formats.
    pub(crate) fn all(&self) -> Vec<Format> {
        let own = |i: usize, r: &Reading| self.by_id.get(r.format.id as usize) == Some(&(i as u16));
        let all = self.readings.iter().enumerate().filter(|(i, r)| own(*i, r));
        all.map(|(_, r)| Format::clone(&r.format)).collect()
    }

    #[inline]
    fn reading(&self, record: &[u8]) -> Option<usize> {
        let id = u16::from_le_bytes(*record.first_chunk()?);
        self.by_id.get(id as usize).filter(|i| **i != u16::MAX).map(|i| *i as usize)
    }

    /// Classifies a record; `Err` says what is wrong with it. `names` holds the names of untyped events by the number of their
    /// [`Reading`], and is empty at first.
    #[inline]
    pub(crate) fn classify(
        &self,
        record: &[u8],
        names: &mut Vec<StrId>,
        strings: &mut Strings,
    ) -> Result<Kind, Broken> {
        let mut i = self.reading(record).ok_or(Broken::Unknown)?;
        if let Some(p) = &self.readings[i].placed {
            i = p.reading(record).unwrap_or(i);
        }
        let r = &self.readings[i];
        match &r.typed {
            Some(t) if t.tp.kind != BodyKind::Marker => {
                if record.len() < t.len {
                    Err(Broken::Short)
                } else {
                    Ok(Kind::Typed(i as u16))
                }
            }
            _ => r.body_now(i, record, names, strings).map(Kind::Body),
        }
    }

    /// The body of a record that was [classified](Self::classify) as typed, and that [`SLACK`](crate::describe::SLACK) bytes follow.
    #[inline]
    pub(crate) fn decode(&self, reading: u16, record: &[u8], exits: &ExitNames) -> Body {
        let body = self.readings.get(reading as usize).and_then(|r| {
            let t = r.typed.as_ref()?;
            let mut f = Planned { record, plan: t.plan.iter() };
            from_fields(t.tp, &mut f, &r.meaning, &mut KnownNames(exits))
        });
        // Which fields a body asks for depends on its format only, so everything that was planned is found.
        body.unwrap_or(Body::Damage { index: u32::MAX })
    }

    /// The name of the tracepoint with this number, as `system:name`.
    pub(crate) fn name_of(&self, id: u64) -> Option<String> {
        let i = *self.by_id.get(usize::try_from(id).ok()?).filter(|i| **i != u16::MAX)?;
        let f = &self.readings[i as usize].format;
        Some(if f.system.is_empty() { f.name.clone() } else { format!("{}:{}", f.system, f.name) })
    }

    /// Adds the dialect and the names of the formats to the info.
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

impl Typed {
    /// How a record of this format is read as this tracepoint's; `None` where a field that the body needs is missing, so that it is read by field
    /// names instead.
    fn of(tp: Tp, f: &Format, meaning: &Meaning) -> Option<Self> {
        let mut plan = Plan { format: f, locs: Vec::new() };
        from_fields(tp, &mut plan, meaning, &mut NoNames)?;
        let len = plan.locs.iter().flatten().map(|l| l.end()).max().unwrap_or(0);
        Some(Self { tp, plan: plan.locs, len })
    }
}

impl Placed {
    /// The reading of a record of the function that the probe is on.
    #[cold]
    fn reading(&self, record: &[u8]) -> Option<usize> {
        let ip = u64::from_le_bytes(*record.get(self.at..)?.first_chunk()?);
        self.functions.iter().find(|f| probed::is_at(ip, f.0)).map(|f| usize::from(f.1))
    }
}

impl Reading {
    #[cold]
    fn body_now(
        &self,
        i: usize,
        record: &[u8],
        names: &mut Vec<StrId>,
        strings: &mut Strings,
    ) -> Result<Body, Broken> {
        let f = &self.format;
        if self.typed.as_ref().is_some_and(|t| t.tp.kind == BodyKind::Marker)
            && let Some(buf) = f.field("buf")
        {
            let from = record.get(buf.offset as usize..).ok_or(Broken::Short)?;
            let bytes =
                if buf.size == 0 { from } else { from.get(..buf.size as usize).ok_or(Broken::Short)? };
            let text = string(bytes);
            return Ok(Body::Marker { text: strings.intern_marker(text.trim_end_matches('\n')) });
        }
        if names.len() <= i {
            names.resize(i + 1, StrId::default());
        }
        if names[i] == StrId::default() {
            let full = if f.system.is_empty() { f.name.clone() } else { format!("{}:{}", f.system, f.name) };
            names[i] = strings.intern(&full);
        }
        Ok(Body::Other { name: names[i], fields: strings.keep_record(&self.format, record) })
    }
}

/// A store for plans, which have no strings.
struct NoNames;

impl Names for NoNames {
    fn exit_name(&mut self, _: Option<Isa>, _: u32) -> StrId {
        StrId::default()
    }
    fn text(&mut self, _: &str) -> StrId {
        StrId::default()
    }
}

/// A store for records that are decoded without access to the strings.
struct KnownNames<'a>(&'a ExitNames);

impl Names for KnownNames<'_> {
    #[inline]
    fn exit_name(&mut self, isa: Option<Isa>, reason: u32) -> StrId {
        self.0.get(isa, reason)
    }
    fn text(&mut self, _: &str) -> StrId {
        StrId::default()
    }
}

/// What is wrong with a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// No format has its number.
    Unknown,
    /// The record ends before its last field.
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

/// Notes the places of the fields that a body asks for. Which fields it asks for depends on the format only, never on values.
struct Plan<'a> {
    format: &'a Format,
    locs: Vec<Option<Loc>>,
}

impl Fields for Plan<'_> {
    fn num(&mut self, name: &'static str, _: Base) -> Option<u64> {
        let loc = self.format.field(name).filter(|f| f.shape == Shape::Scalar).and_then(Loc::of);
        self.locs.push(loc);
        loc.map(|_| 0)
    }

    fn text(&mut self, name: &'static str) -> Option<String> {
        self.format.field(name).filter(|f| f.shape == Shape::Array).map(|_| String::new())
    }
}

/// Returns the planned fields in order.
struct Planned<'a> {
    record: &'a [u8],
    plan: std::slice::Iter<'a, Option<Loc>>,
}

impl Fields for Planned<'_> {
    #[inline(always)]
    #[allow(clippy::inline_always, reason = "a call for each field is a third of decoding")]
    fn num(&mut self, _: &'static str, _: Base) -> Option<u64> {
        self.plan.next().copied().flatten().map(|l| l.read(self.record))
    }

    fn text(&mut self, _name: &'static str) -> Option<String> {
        None
    }
}

/// The layout of the head of a ring page.
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
    /// Parses `header_page`. Where that is missing, it assumes the layout of a kernel with 4-byte longs.
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

#[cfg(test)]
mod tests {
    use super::*;

    fn format(name: &str, id: u16) -> String {
        format!(
            "name: {name}\nID: {id}\nformat:\n\tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\
             \tfield:int common_pid;\toffset:4;\tsize:4;\tsigned:1;\n\n\
             \tfield:unsigned long __probe_ip;\toffset:8;\tsize:8;\tsigned:0;\n\
             \tfield:u64 sptep;\toffset:16;\tsize:8;\tsigned:0;\n\tfield:u64 new_spte;\toffset:24;\tsize:8;\tsigned:0;\n\n\
             print fmt: \"(%lx) sptep=0x%Lx new_spte=0x%Lx\", REC->__probe_ip, REC->sptep, REC->new_spte\n"
        )
    }

    /// The body of a record of the event with this number whose probe is at `ip`; `None` for one that is not typed.
    fn body(f: &Formats, id: u16, ip: u64) -> Option<Body> {
        let mut record = id.to_le_bytes().to_vec();
        record.resize(8, 0);
        record.extend([ip, 0x1000, 0x77].into_iter().flat_map(u64::to_le_bytes));
        let kind = f.classify(&record, &mut Vec::new(), &mut Strings::default()).ok()?;
        record.resize(record.len() + crate::describe::SLACK, 0);
        match kind {
            Kind::Typed(r) => Some(f.decode(r, &record, &ExitNames::default())),
            Kind::Body(_) => None,
        }
    }

    #[test]
    fn where_symbols_are_known_the_place_of_a_probe_decides() {
        let mut f = Formats::default();
        assert!(
            f.add_text("probe", &format("mine", 7)) && f.add_text("probe", &format("mmu_spte_update", 8))
        );
        let update =
            Some(Body::ProbeSpteUpdate { no_track: false, kvm: None, sptep: 0x1000, new_spte: 0x77 });
        assert_eq!((body(&f, 7, 0xc000), body(&f, 8, 0xc000)), (None, update), "the name is all there is");
        let before = f.all().len();
        f.symbols(b"000000000000c000 t mmu_spte_update\t[kvm]\n000000000000d000 t drop_spte\t[kvm]\n");
        for id in [7, 8] {
            assert_eq!(body(&f, id, 0xc000), update, "the beginning of the function");
            assert_eq!(body(&f, id, 0xc004), update, "behind ENDBR64");
            assert_eq!(body(&f, id, 0xc008), None, "in the middle of the function");
            assert_eq!(body(&f, id, 0xd000), None, "another function, whatever the event is called");
        }
        assert_eq!(f.all().len(), before, "each format once");
        assert_eq!(f.name_of(7).as_deref(), Some("probe:mine"));
    }
}
