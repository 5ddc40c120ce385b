//! The answer of `decode` as text for people: what is printed of it, and in which order. How one value is printed is in
//! [`printer`](super::printer).
#![allow(clippy::format_push_string, reason = "text for people; `write!` would only add results to ignore")]

use std::collections::HashMap;
use std::io::Write;

use anyhow::Result;
use mmuscope_spte::explain::{Explanation, NoteKind, explain};
use mmuscope_spte::{Mode, Provenance, Resolved, State, changes};
use mmuscope_trace::paste::{Found, Group, Kind, Role};
use mmuscope_units::counted;

use super::printer::Printer;
use super::{Answer, Question, by_group, level_of};

/// Most values of one group that are explained in full; more are printed one per line.
const FULL: usize = 4;

impl<W: Write> Printer<'_, W> {
    pub(super) fn answer(&mut self, question: &Question, answer: &Answer) -> Result<()> {
        let resolved = answer.resolved()?;
        if matches!(answer, Answer::Judged(_)) && question.pasted.values.iter().all(|v| v.value == 0) {
            self.zeroes(question)?;
            return self.bugs(question);
        }
        self.layout_line(question, answer, resolved)?;
        self.misfit(question)?;
        self.contradicted(answer)?;
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
                    self.walk(question, group, values, resolved, &read)?;
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
            Answer::Judged(_) if question.better.is_some() => ", the least wrong under what was given",
            Answer::Judged(_) if !question.fits => ", the least wrong (see below)",
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
            self.bold(&format!(
                "{} of a page table{at}: {}",
                counted(values.len() as u64, "word", "words"),
                counts.join(", ")
            ))
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
            let skipped = counted(skipped, "empty entry is not listed", "empty entries are not listed");
            writeln!(self.out, "{}", self.dim(&format!("  {skipped}")))?;
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
                "  The TDP MMU warned: one non-present value became another; neither is an MMIO SPTE, and the new one is not a removed one."
            )?,
            _ => {}
        }
        writeln!(self.out, "{}", self.paint("1", &format!("  {}", c.headline)))?;
        for f in &c.fields {
            writeln!(self.out, "    {:<15} {} → {}", f.field, f.old, f.new)?;
        }
        // The error of the TDP MMU has said it already.
        if let Some(problem) = c.problem.filter(|_| group.kind != Kind::InvalidChange) {
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
    if h.root_level.value != if resolved.layout.mode == Mode::ShadowPae { 3 } else { 4 } {
        let kernel = if h.host_64bit.value { "" } else { ", 32-bit kernel" };
        let from = word(h.root_level.from);
        facts.push(format!("root level {} {from}", h.root_level.value).trim_end().to_owned() + kernel);
    }
    if h.l1tf.value {
        facts.push("L1TF".to_owned());
    }
    if let Some(c) = h.c_bit {
        let sme = if h.sme.value { ", SME on" } else { "" };
        facts.push(format!("C-bit {} {}", c.value, word(c.from)).trim_end().to_owned() + sme);
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
