//! [`Printer`]: the answer of `decode` as text for people. It never decodes; `mmuscope_spte::explain` does.
#![allow(clippy::format_push_string, reason = "text for people; `write!` would only add results to ignore")]

use std::collections::HashMap;
use std::io::{self, IsTerminal, Write};

use anyhow::Result;
use mmuscope_spte::explain::{Explanation, NoteKind, explain, permissions};
use mmuscope_spte::{AdType, Decoded, Provenance, Resolved, State, changes};
use mmuscope_trace::paste::{Found, Group, Kind, Role};

use super::{Answer, Question, by_group, level_of};
use crate::cmd::layout::diagram;

/// Prints the answer, with colours if standard output is a terminal.
pub(super) struct Printer<'o, W: Write> {
    pub(super) out: &'o mut W,
    colour: bool,
}

/// Most readings that are listed where several fit.
pub(super) const SHOWN: usize = 6;

/// Most values of one group that are explained in full; more are printed one per line.
const FULL: usize = 4;

impl<'o, W: Write> Printer<'o, W> {
    pub(super) fn new(out: &'o mut W) -> Self {
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        Self { out, colour: io::stdout().is_terminal() && !plain }
    }

    pub(super) fn paint(&self, code: &str, text: &str) -> String {
        if self.colour { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    }

    pub(super) fn bold(&self, text: &str) -> String {
        self.paint("1", text)
    }

    pub(super) fn dim(&self, text: &str) -> String {
        self.paint("2", text)
    }

    pub(super) fn answer(&mut self, question: &Question, answer: &Answer) -> Result<()> {
        let resolved = answer.resolved()?;
        if matches!(answer, Answer::Judged(_)) && question.pasted.values.iter().all(|v| v.value == 0) {
            self.zeroes(question)?;
            return self.bugs(question);
        }
        self.layout_line(question, answer, resolved)?;
        self.misfit(question)?;
        self.bugs(question)?;
        self.run_errors(question)?;
        let distinct = distinct(question);
        for (values, times) in &distinct {
            let group = &question.pasted.groups[values[0].group];
            let read = |v: &Found| {
                let (level, _) = level_of(v, question, answer, resolved);
                explain(resolved, v.value, level)
            };
            match group.kind {
                Kind::ReservedDump | Kind::VeDump | Kind::Walk => {
                    self.walk(group, values, resolved, &read)?;
                }
                Kind::Memory => self.memory(group, values, &read)?,
                Kind::Event | Kind::Bare
                    if distinct.len() > FULL
                        && matches!(values.as_slice(), [a, b] if a.role == Role::Old && b.role == Role::New) =>
                {
                    self.brief_change(values[1], &read(values[0]), &read(values[1]))?;
                }
                _ if matches!(values.as_slice(), [a, b] if a.role == Role::Old && b.role == Role::New) => {
                    self.change(group, values[0], values[1], resolved, &read, distinct.len() <= 2)?;
                }
                Kind::Bare if question.bare && values.len() == 2 => {
                    self.full(group, values[0], resolved, &read(values[0]))?;
                    self.full(group, values[1], resolved, &read(values[1]))?;
                    // Values of two levels belong to two entries, so that there is no change to show.
                    if read(values[0]).decoded.level == read(values[1]).decoded.level {
                        self.change(group, values[0], values[1], resolved, &read, false)?;
                    }
                }
                _ if values.len() <= FULL && distinct.len() <= FULL => {
                    for v in values {
                        self.full(group, v, resolved, &read(v))?;
                    }
                }
                _ => {
                    for v in values {
                        self.brief(v, &read(v))?;
                    }
                }
            }
            if *times > 1 {
                let more = format!("  the same {} more time{}", times - 1, if *times > 2 { "s" } else { "" });
                writeln!(self.out, "{}", self.dim(&more))?;
            }
        }
        for note in &question.pasted.left_alone {
            writeln!(self.out, "\n{} {note}", self.dim("·"))?;
        }
        self.alternatives(question, answer)
    }

    fn layout_line(&mut self, question: &Question, answer: &Answer, resolved: &Resolved) -> Result<()> {
        let layout = &resolved.layout;
        let kernel = resolved.kernel.map(|k| {
            let from = match k.from {
                Provenance::Inferred if question.pasted.kernel.is_none() => " (concluded)",
                Provenance::Inferred => " (named in the text)",
                Provenance::Measured => " (this host)",
                _ => "",
            };
            format!(", kernel {}{from}", k.value)
        });
        let how = match answer {
            Answer::Known(_) => "",
            Answer::Judged(j) if j.is_settled() => ", inferred from the values",
            Answer::Judged(_) => ", the likeliest of several (see below)",
        };
        let words = layout.mode.words();
        let name = self.bold(layout.id());
        writeln!(self.out, "{name}  {words}{}{how}", kernel.unwrap_or_default())?;
        let assumed: Vec<String> = host_facts(resolved);
        if !assumed.is_empty() {
            writeln!(self.out, "{}", self.dim(&format!("  {}", assumed.join(", "))))?;
        }
        for note in &resolved.notes {
            writeln!(self.out, "  {} {note}", self.paint("33", "note:"))?;
        }
        Ok(())
    }

    fn headline(&self, e: &Explanation) -> String {
        let code =
            if e.refused || e.decoded.nonzero_nonpresent { "1;31" } else { state_colour(e.decoded.state) };
        self.paint(code, &e.headline)
    }

    /// Prints one value in full: diagram, fields, effects, notes.
    pub(super) fn full(
        &mut self,
        group: &Group,
        v: &Found,
        resolved: &Resolved,
        e: &Explanation,
    ) -> Result<()> {
        writeln!(self.out)?;
        let mut place = format!("level {}", e.decoded.level);
        if let Some(gfn) = v.gfn {
            place += &format!(", gfn {gfn:#x}");
        }
        if let Some(event) = &group.event {
            place += &format!(", {event}");
        }
        writeln!(self.out, "{}  {}", self.bold(&format!("{:#018x}", v.value)), self.dim(&place))?;
        writeln!(self.out, "{}", self.headline(e))?;
        self.printed_mask(v)?;
        writeln!(self.out)?;
        for line in diagram::text(&e.runs, Some(v.value)) {
            writeln!(self.out, "  {line}")?;
        }
        writeln!(self.out)?;
        self.fields(e)?;
        self.effects(e)?;
        self.notes(e)?;
        self.letters(v, resolved)
    }

    fn fields(&mut self, e: &Explanation) -> Result<()> {
        let value_width = e.fields.iter().map(|f| f.value.len()).max().unwrap_or(0);
        for f in &e.fields {
            let bits = if f.run.high == f.run.low {
                format!("{}", f.run.high)
            } else {
                format!("{}:{}", f.run.high, f.run.low)
            };
            let name = f.run.kind.name();
            let mut line = format!("  {bits:>5}  {name:<22}{:>value_width$}  {}", f.value, f.meaning);
            if f.odd {
                line = self.paint("31", &line);
            }
            let kernel = f.run.kind.kernel_name();
            if kernel.is_empty() {
                writeln!(self.out, "{line}")?;
            } else {
                writeln!(self.out, "{line}  {}", self.dim(kernel))?;
            }
        }
        Ok(())
    }

    fn effects(&mut self, e: &Explanation) -> Result<()> {
        if e.effects.is_empty() {
            return Ok(());
        }
        writeln!(self.out)?;
        for effect in &e.effects {
            let sign = if effect.allowed { self.paint("32", "✓") } else { self.paint("31", "✗") };
            writeln!(self.out, "  {sign} {:<5}  {}", effect.access, effect.text)?;
        }
        Ok(())
    }

    fn notes(&mut self, e: &Explanation) -> Result<()> {
        let mut first = true;
        for note in e.notes.iter().filter(|n| n.kind != NoteKind::Layout) {
            if first {
                writeln!(self.out)?;
                first = false;
            }
            let sign = match note.kind {
                NoteKind::Problem => self.paint("1;31", "!"),
                NoteKind::KernelBug => self.paint("33", "!"),
                _ => self.dim("·"),
            };
            writeln!(self.out, "  {sign} {}", note.text)?;
        }
        Ok(())
    }

    fn letters(&mut self, v: &Found, resolved: &Resolved) -> Result<()> {
        let Some(letters) = v.letters else { return Ok(()) };
        let ours = mmuscope_spte::infer::printed_letters(&resolved.layout, v.value);
        if (ours.r, ours.w, ours.x) != (letters.r, letters.w, letters.x) {
            writeln!(
                self.out,
                "  {} the permissions that the event printed differ from those under this layout: the kernel or the paging mode is likely another one",
                self.paint("1;31", "!")
            )?;
        }
        Ok(())
    }

    /// Prints one value on one line.
    fn brief(&mut self, v: &Found, e: &Explanation) -> Result<()> {
        let code = if e.refused { "1;31" } else { state_colour(e.decoded.state) };
        let place = match (v.index, v.gfn) {
            (Some(index), _) => format!("[{index:>3}] "),
            (None, Some(gfn)) => format!("gfn {gfn:<#9x} "),
            _ => String::new(),
        };
        let state = self.paint(code, &format!("{:<10}", e.decoded.state.name()));
        let rest = summary(&e.decoded, e.refused);
        writeln!(self.out, "  {place}{:#018x}  level {}  {state}  {rest}", v.value, e.decoded.level)?;
        for note in e.notes.iter().filter(|n| n.kind == NoteKind::Problem) {
            writeln!(self.out, "      {} {}", self.paint("1;31", "!"), note.text)?;
        }
        Ok(())
    }

    /// Prints a page table from a debugger's memory dump.
    fn memory(
        &mut self,
        group: &Group,
        values: &[&Found],
        read: &dyn Fn(&Found) -> Explanation,
    ) -> Result<()> {
        writeln!(self.out)?;
        let readings: Vec<Explanation> = values.iter().map(|v| read(v)).collect();
        let count = |s: State| readings.iter().filter(|e| e.decoded.state == s).count();
        let at = group.address.map_or_else(String::new, |a| format!(" at {:#x}", a & !0xfff));
        let counts: Vec<String> =
            [State::Present, State::Table, State::Mmio, State::Removed, State::Nonpresent]
                .into_iter()
                .filter(|&s| count(s) > 0)
                .map(|s| format!("{} {}", count(s), s.name()))
                .collect();
        writeln!(
            self.out,
            "{}",
            self.bold(&format!("{} words of a page table{at}: {}", values.len(), counts.join(", ")))
        )?;
        let mut skipped = 0;
        for (v, e) in values.iter().zip(&readings) {
            if e.decoded.state == State::Nonpresent && !e.decoded.nonzero_nonpresent {
                skipped += 1;
                continue;
            }
            self.brief(v, e)?;
        }
        if skipped > 0 {
            writeln!(self.out, "{}", self.dim(&format!("  {skipped} empty entries are not listed")))?;
        }
        Ok(())
    }

    /// Prints what changed between two values of one entry.
    fn change(
        &mut self,
        group: &Group,
        old: &Found,
        new: &Found,
        resolved: &Resolved,
        read: &dyn Fn(&Found) -> Explanation,
        full: bool,
    ) -> Result<()> {
        let (a, b) = (read(old), read(new));
        // A zero has no level of its own, so the level of the other value counts.
        let level = if old.value == 0 || new.value != 0 { b.decoded.level } else { a.decoded.level };
        let c = changes(resolved, old.value, new.value, level, group.is_of_tdp_mmu());
        writeln!(self.out)?;
        let mut place = String::new();
        if let Some(event) = &group.event {
            place += &format!("{event}, ");
        }
        if let Some(gfn) = old.gfn {
            place += &format!("gfn {gfn:#x}, ");
        }
        place += &format!("level {level}");
        writeln!(
            self.out,
            "{}  {}",
            self.bold(&format!("{:#018x} → {:#018x}", old.value, new.value)),
            self.dim(&place)
        )?;
        match group.kind {
            Kind::InvalidChange => writeln!(
                self.out,
                "  The TDP MMU stopped here: a present leaf must be zapped before it maps another page. The kernel calls BUG() if it is not."
            )?,
            Kind::UnexpectedChange => writeln!(
                self.out,
                "  The TDP MMU warned: one non-present value became another, and neither is an MMIO or removed SPTE."
            )?,
            _ => {}
        }
        writeln!(self.out, "{}", self.paint("1", &format!("  {}", c.headline)))?;
        for f in &c.fields {
            writeln!(self.out, "    {:<15} {} → {}", f.field, f.old, f.new)?;
        }
        if let Some(problem) = c.problem {
            writeln!(self.out, "  {} {problem}", self.paint("1;31", "!"))?;
        }
        for (n, path) in c.paths.iter().enumerate() {
            let lead = if n == 0 { "who does this:" } else { "or:" };
            writeln!(self.out, "  {} {path}", self.dim(&format!("{lead:<14}")))?;
        }
        for (v, e) in [(old, &a), (new, &b)] {
            for note in e.notes.iter().filter(|n| n.kind == NoteKind::Problem) {
                writeln!(self.out, "  {} {:#x}: {}", self.paint("1;31", "!"), v.value, note.text)?;
            }
        }
        if full {
            let shown = if b.decoded.state == State::Nonpresent { (old, &a) } else { (new, &b) };
            self.full(group, shown.0, resolved, shown.1)?;
        }
        Ok(())
    }
}

/// The groups of a text, each with the number of its occurrences. Trace events that show the same values of the same entry are one group.
fn distinct(question: &Question) -> Vec<(Vec<&Found>, usize)> {
    let mut list: Vec<(Vec<&Found>, usize)> = Vec::new();
    let mut said: HashMap<Vec<_>, usize> = HashMap::new();
    for (group, values) in question.pasted.groups.iter().zip(by_group(&question.pasted)) {
        if values.is_empty() {
            continue;
        }
        if group.kind == Kind::Event {
            let key: Vec<_> = values.iter().map(|v| (v.value, v.gfn, v.level)).collect();
            if let Some(&at) = said.get(&key) {
                list[at].1 += 1;
                continue;
            }
            said.insert(key, list.len());
        }
        list.push((values, 1));
    }
    list
}

/// The terminal's colour of a state, as close as possible to the colour in pictures.
pub(super) fn state_colour(state: State) -> &'static str {
    match state {
        State::Present => "1;34",
        State::Table => "1",
        State::Mmio => "1;33",
        State::Removed => "1;35",
        State::Nonpresent => "2",
    }
}

fn host_facts(resolved: &Resolved) -> Vec<String> {
    let h = &resolved.host;
    let mut facts = Vec::new();
    let word = |p: Provenance| if p == Provenance::Given { "" } else { p.name() };
    facts.push(format!("{} {}", h.vendor.value.name(), word(h.vendor.from)).trim_end().to_owned());
    facts
        .push(format!("MAXPHYADDR {} {}", h.maxphyaddr.value, word(h.maxphyaddr.from)).trim_end().to_owned());
    if h.phys_bits.value != h.maxphyaddr.value {
        facts.push(format!("{} physical bits", h.phys_bits.value));
    }
    if h.l1tf.value {
        facts.push("L1TF".to_owned());
    }
    if let Some(c) = h.c_bit {
        facts.push(format!("C-bit {}{}", c.value, if h.sme.value { ", SME on" } else { "" }));
    }
    let measured = resolved.masks_from.iter().filter(|f| **f == Provenance::Measured).count();
    if measured > 0 {
        facts.push(format!("{measured} masks measured"));
    }
    let given = resolved.masks_from.iter().filter(|f| **f == Provenance::Given).count();
    if given > 0 {
        facts.push(format!("{given} masks given"));
    }
    facts
}

/// A value in a few words, for one line.
pub(super) fn summary(d: &Decoded, refused: bool) -> String {
    match d.state {
        State::Present => {
            let mut text = format!("pfn {:#x} {}", d.pfn.unwrap_or(0), permissions(d));
            // Without A/D bits in hardware, "accessed" and "dirty" are conclusions from the permissions, which the line shows already.
            let off = d.ad_type == Some(AdType::Disabled);
            let flags = [
                (d.access_tracked, "access-tracked"),
                (d.accessed.filter(|_| !off), "A"),
                (d.dirty.filter(|_| !off), "D"),
                (Some(off), "A/D-off"),
                (d.host_writable, "host-writable"),
                (d.mmu_writable, "MMU-writable"),
            ];
            for (on, name) in flags {
                if on == Some(true) {
                    text += " ";
                    text += name;
                }
            }
            if d.large {
                text += " ";
                text += mmuscope_spte::explain::size_name(d.level);
            }
            if refused {
                text += " MALFORMED";
            }
            text
        }
        State::Table => {
            format!("→ table at {:#x}{}", d.pfn.unwrap_or(0) << 12, if refused { " MALFORMED" } else { "" })
        }
        State::Mmio => {
            format!("gfn {:#x} generation {:#x}", d.gfn.unwrap_or(0), d.mmio_generation.unwrap_or(0))
        }
        State::Removed => String::from("being changed or torn down"),
        State::Nonpresent if d.nonzero_nonpresent => {
            String::from("non-present but not zero: no value that KVM is known to write")
        }
        State::Nonpresent => String::from("empty"),
    }
}
