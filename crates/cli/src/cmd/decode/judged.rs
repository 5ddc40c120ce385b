//! The parts of the answer of `decode` that judge it: known bugs that it looks like, options that do not fit, and why one reading was chosen.

use std::io::Write;

use anyhow::Result;
use mmuscope_spte::State;
use mmuscope_spte::explain::{Explanation, NoteKind};
use mmuscope_spte::infer::Judgement;
use mmuscope_trace::paste::{Found, Stated};

use super::printer::{Printer, summary};
use super::{Answer, Question};

/// Most readings that are listed where several fit.
const SHOWN: usize = 6;

/// Errors of KVM_RUN that reveal something about the host, with an explanation.
const RUN_ERRORS: [(u32, &str); 2] = [
    (
        14,
        "EFAULT: the host has no page that KVM may map for this address, so KVM_RUN fails and the VMM decides; a VMM that runs the vCPU again loops",
    ),
    (12, "ENOMEM: the host had no memory for a page table or a page"),
];

impl<W: Write> Printer<'_, W> {
    /// Prints the answer where all values are zero, which every layout reads alike.
    pub(super) fn zeroes(&mut self, question: &Question) -> Result<()> {
        let zero = self.bold("0x0000000000000000");
        writeln!(self.out, "{zero}  nonpresent under every layout: zapped, or never filled")?;
        let newer =
            "  kernels 6.10 and later write 0x8000000000000000 instead, and still take zero for not present";
        writeln!(self.out, "{}", self.dim(newer))?;
        let mut places: Vec<(String, usize)> = Vec::new();
        for v in &question.pasted.values {
            let group = question.pasted.groups.get(v.group);
            let event = group.and_then(|g| g.event.as_deref()).unwrap_or_default();
            let place = match (event, v.gfn) {
                ("", None) => continue,
                ("fast_page_fault", Some(gfn)) => {
                    format!("fast_page_fault found nothing mapped at gfn {gfn:#x}")
                }
                (event, gfn) => {
                    let gfn = gfn.map_or_else(String::new, |g| format!(" at gfn {g:#x}"));
                    format!("{event}{gfn}").trim_start().to_owned()
                }
            };
            match places.iter_mut().find(|(p, _)| *p == place) {
                Some((_, n)) => *n += 1,
                None => places.push((place, 1)),
            }
        }
        for (place, n) in places.iter().take(4) {
            let times = if *n > 1 { format!(", {n} times") } else { String::new() };
            writeln!(self.out, "  {place}{times}")?;
        }
        self.run_errors(question)
    }

    /// Prints what an error of KVM_RUN in the text means.
    pub(super) fn run_errors(&mut self, question: &Question) -> Result<()> {
        for (stated, words) in &question.pasted.stated {
            if let Stated::RunError(errno) = stated
                && let Some((_, text)) = RUN_ERRORS.iter().find(|(n, _)| n == errno)
            {
                writeln!(self.out, "  {} {words} = {text}", self.paint("33", "→"))?;
            }
        }
        Ok(())
    }

    /// Prints the known bugs that the values and events look like.
    pub(super) fn bugs(&mut self, question: &Question) -> Result<()> {
        for bug in &question.bugs {
            let lead = self.paint("1;33", "looks like");
            writeln!(self.out, "  {lead} {} ({})", bug.title, bug.kernels())?;
            writeln!(self.out, "    fixed by: {}", bug.fixed)?;
            writeln!(self.out, "    to confirm: {}", bug.confirm.join("; or "))?;
        }
        Ok(())
    }

    /// Prints that the options given do not fit the values, and what would.
    pub(super) fn misfit(&mut self, question: &Question) -> Result<()> {
        if let Some(better) = &question.better {
            writeln!(
                self.out,
                "  {} the layout given does not fit these values; what would: {better}",
                self.paint("1;31", "!")
            )?;
        }
        Ok(())
    }

    /// Prints what in the text is of another release than the layout.
    pub(super) fn contradicted(&mut self, answer: &Answer) -> Result<()> {
        let Answer::Judged(judgement) = answer else { return Ok(()) };
        let Some(said) = judgement.contradiction() else { return Ok(()) };
        let lead = self.paint("1;33", "!");
        writeln!(self.out, "  {lead} {said}")?;
        writeln!(self.out, "    (a tree with backports or with patches of its own looks like this)")?;
        Ok(())
    }

    /// Prints one of many changes on one line: the new value, or the old one where the entry is empty now.
    pub(super) fn brief_change(&mut self, new: &Found, was: &Explanation, is: &Explanation) -> Result<()> {
        let gfn = new.gfn.map_or_else(String::new, |g| format!("gfn {g:<#9x} "));
        let (was_state, is_state) = (was.decoded.state, is.decoded.state);
        let shown = if is_state == State::Nonpresent { was } else { is };
        let states = format!("{} → {}", was_state.name(), is_state.name());
        writeln!(
            self.out,
            "  {gfn}level {}  {:#018x} → {:#018x}  {states}: {}",
            is.decoded.level,
            was.decoded.raw,
            new.value,
            summary(&shown.decoded, shown.refused)
        )?;
        for note in is.notes.iter().filter(|n| n.kind == NoteKind::Problem) {
            writeln!(self.out, "      {} {}", self.paint("1;31", "!"), note.text)?;
        }
        Ok(())
    }

    /// Prints why this reading was chosen, and which other ones fit.
    pub(super) fn alternatives(&mut self, question: &Question, answer: &Answer) -> Result<()> {
        let Answer::Judged(judgement) = answer else { return Ok(()) };
        writeln!(self.out)?;
        let first = judgement.plausible.first().map_or("", |r| r.whose.as_str());
        let given = if question.given.is_empty() {
            "No layout was given".to_owned()
        } else {
            format!("Given: {}", question.given.join(", "))
        };
        let fits = question.fits;
        if judgement.is_settled() {
            let line = if fits {
                format!("{given}. One reading fits: {first}.")
            } else {
                format!("{given}. No reading fits; the least wrong was shown: {first}.")
            };
            writeln!(self.out, "{}", self.dim(&line))?;
            return self.why(judgement);
        }
        let many = judgement.plausible.len();
        let line = if fits {
            format!("{given}: {many} readings fit, the likeliest was shown")
        } else {
            format!("{given}. No reading fits; the first of the {many} least wrong was shown")
        };
        writeln!(self.out, "{}", self.bold(&line))?;
        for (n, reading) in judgement.plausible.iter().take(SHOWN).enumerate() {
            let candidate = reading.candidates.first().and_then(|&at| judgement.candidates.get(at));
            writeln!(self.out, "  {}. {}", n + 1, reading.whose)?;
            if let Some(c) = candidate
                && let Some(d) = c.readings.first()
                && question.pasted.values.len() == 1
            {
                writeln!(
                    self.out,
                    "     {} level {}: {}",
                    d.state.name(),
                    d.level,
                    summary(d, c.resolved.layout.refuses(d))
                )?;
            }
        }
        if judgement.plausible.len() > SHOWN {
            writeln!(self.out, "  and {} more", judgement.plausible.len() - SHOWN)?;
        }
        if judgement.agreed.is_empty() {
            writeln!(self.out, "  They agree on nothing.")?;
        } else {
            writeln!(self.out, "  All agree on: {}.", judgement.agreed.join(", "))?;
        }
        for fact in &judgement.settle {
            writeln!(self.out, "  {} {fact}", self.dim("·"))?;
        }
        self.why(judgement)
    }

    fn why(&mut self, judgement: &Judgement) -> Result<()> {
        let why = &judgement.why;
        for reason in &why.best {
            writeln!(self.out, "  {} {reason}", self.paint("32", "+"))?;
        }
        for reason in &why.doubts {
            writeln!(self.out, "  {} {reason}", self.paint("31", "-"))?;
        }
        if let Some(next) = &why.next
            && !(why.against.is_empty() && why.best.is_empty())
        {
            // Readings that were listed are named by their number.
            if judgement.is_settled() {
                writeln!(self.out, "  Next: {next}.")?;
            } else if !why.against.is_empty() {
                writeln!(self.out, "  Against reading 2:")?;
            }
            for reason in &why.against {
                writeln!(self.out, "  {} {reason}", self.paint("31", "-"))?;
            }
        }
        Ok(())
    }
}
