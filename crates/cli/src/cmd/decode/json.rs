//! The answer of `decode` as JSON, for programs. The first fields are the contract, in its order; further ones follow.

use std::io::Write;

use anyhow::Result;
use mmuscope_spte::explain::{NoteKind, explain};
use mmuscope_spte::{AdType, Decoded, Resolved};
use mmuscope_trace::paste::Found;

use super::{Answer, Question, level_of};

/// A JSON object under construction, whose fields keep their order.
struct Object(String);

impl Object {
    fn new() -> Self {
        Self(String::from("{"))
    }

    fn raw(&mut self, key: &str, value: &str) {
        if self.0.len() > 1 {
            self.0.push(',');
        }
        self.0.push('"');
        self.0.push_str(key);
        self.0.push_str("\":");
        self.0.push_str(value);
    }

    fn text(&mut self, key: &str, value: Option<&str>) {
        self.raw(key, &value.map_or_else(|| "null".to_owned(), string));
    }

    fn hex(&mut self, key: &str, value: Option<u64>) {
        self.raw(key, &value.map_or_else(|| "null".to_owned(), |v| format!("\"{v:#x}\"")));
    }

    fn flag(&mut self, key: &str, value: Option<bool>) {
        self.raw(key, value.map_or("null", |v| if v { "true" } else { "false" }));
    }

    fn number(&mut self, key: &str, value: Option<u64>) {
        self.raw(key, &value.map_or_else(|| "null".to_owned(), |v| v.to_string()));
    }

    fn list(&mut self, key: &str, values: &[String]) {
        let all: Vec<String> = values.iter().map(|v| string(v)).collect();
        self.raw(key, &format!("[{}]", all.join(",")));
    }

    fn done(mut self) -> String {
        self.0.push('}');
        self.0
    }
}

/// A text as a JSON string.
fn string(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

pub(super) fn lines(out: &mut impl Write, question: &Question, answer: &Answer) -> Result<()> {
    let resolved = answer.resolved()?;
    for found in &question.pasted.values {
        writeln!(out, "{}", object(found, question, answer, resolved))?;
    }
    Ok(())
}

pub(super) fn array(out: &mut impl Write, question: &Question, answer: &Answer) -> Result<()> {
    let resolved = answer.resolved()?;
    writeln!(out, "[")?;
    let last = question.pasted.values.len().saturating_sub(1);
    for (n, found) in question.pasted.values.iter().enumerate() {
        writeln!(out, "  {}{}", object(found, question, answer, resolved), if n == last { "" } else { "," })?;
    }
    writeln!(out, "]")?;
    Ok(())
}

fn object(found: &Found, question: &Question, answer: &Answer, resolved: &Resolved) -> String {
    let (level, given) = level_of(found, question, answer, resolved);
    let explanation = explain(resolved, found.value, level);
    let mut notes: Vec<String> = Vec::new();
    for note in &explanation.notes {
        if note.kind != NoteKind::Layout {
            notes.push(note.text.clone());
        }
    }
    if question.is_slot(found, level, resolved) {
        notes
            .push("not an SPTE: a slot of the array above the root, which the walk did not write".to_owned());
    }
    notes.extend(question.bugs.iter().map(|b| format!("looks like {} ({})", b.title, b.kernels())));
    notes.extend(
        question
            .better
            .iter()
            .map(|b| format!("the layout given does not fit these values; what would: {b}")),
    );
    if !given {
        notes.push(format!("the level was not given: read as level {level}"));
    }
    let mut alternatives = Vec::new();
    if let Answer::Judged(judgement) = answer {
        if let Some(first) = judgement.plausible.first() {
            let how = if question.fits { "inferred from the values" } else { "the least wrong, none fits" };
            notes.push(format!("the layout was {how}: {}", first.whose));
        }
        notes.extend(judgement.contradiction());
        alternatives.extend(judgement.plausible.iter().skip(1).map(|r| r.whose.clone()));
        if !alternatives.is_empty() {
            notes.push(format!("{} other readings fit; {}", alternatives.len(), judgement.settle.join("; ")));
        }
    }
    for note in &explanation.notes {
        if note.kind == NoteKind::Layout {
            notes.push(note.text.clone());
        }
    }
    let mut o = Object::new();
    contract(&mut o, &explanation.decoded, resolved, &notes);
    let d = &explanation.decoded;
    let present = d.pfn.is_some();
    o.text("headline", Some(&explanation.headline));
    o.flag("large", present.then_some(d.large));
    o.flag("xu", d.xu);
    o.flag("suppress_ve", d.suppress_ve);
    o.flag("encrypted", d.encrypted);
    o.hex("restored", d.restored);
    o.flag("fast_write_fixable", d.host_writable.map(|_| d.fast_write_fixable));
    o.flag("bad_mt_xwr", present.then_some(d.bad_mt_xwr));
    o.flag("nonpresent_nonzero", Some(d.nonzero_nonpresent));
    o.number("page_state", d.page_state.map(u64::from));
    o.hex("entry_gfn", found.gfn);
    o.text("era", resolved.era.map(|e| e.value));
    o.text("paging", Some(resolved.layout.mode.name()));
    o.list("alternatives", &alternatives);
    o.done()
}

/// The fields the contract names.
fn contract(o: &mut Object, d: &Decoded, resolved: &Resolved, notes: &[String]) {
    o.hex("value", Some(d.raw));
    o.text("layout", Some(resolved.layout.id()));
    o.text("state", Some(d.state.name()));
    o.number("level", Some(u64::from(d.level)));
    o.hex("pfn", d.pfn);
    o.hex("gfn", d.gfn);
    o.flag("r", d.r);
    o.flag("w", d.w);
    o.flag("x", d.x);
    o.flag("u", d.u);
    o.flag("accessed", d.accessed);
    o.flag("dirty", d.dirty);
    o.text("ad_type", d.ad_type.map(AdType::name));
    o.flag("host_writable", d.host_writable);
    o.flag("mmu_writable", d.mmu_writable);
    o.flag("access_tracked", d.access_tracked);
    o.number("memtype", d.memtype.map(u64::from));
    o.flag("ignore_pat", d.ignore_pat);
    o.number("mmio_generation", d.mmio_generation.map(u64::from));
    o.number("mmio_access", d.mmio_access.map(u64::from));
    o.hex("reserved_bits", d.pfn.map(|_| d.reserved_bits));
    o.list("notes", notes);
}
