//! [`Printer`] writes text for people: one value in full or on one line. What of an answer is printed, and in which order, is in
//! [`text`](super::text). It never decodes; `mmuscope_spte::explain` does.

#![allow(clippy::format_push_string, reason = "text for people; `write!` would only add results to ignore")]

use std::io::{self, IsTerminal, Write};

use anyhow::Result;
use mmuscope_spte::explain::{Explanation, NoteKind, bit_list, permissions};
use mmuscope_spte::{AdType, Decoded, Resolved, State};
use mmuscope_trace::paste::{Found, Group};

use crate::cmd::layout::diagram;

/// Prints the answer, with colours if standard output is a terminal.
pub(super) struct Printer<'o, W: Write> {
    pub(super) out: &'o mut W,
    colour: bool,
}

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

    /// Prints which bits of the value the printed mask of reserved bits covers.
    fn printed_mask(&mut self, v: &Found) -> Result<()> {
        let Some(mask) = v.rsvd_mask else { return Ok(()) };
        let hit = v.value & mask;
        let said = match hit {
            0 => "none of the reserved bits is set: the memory type or the permissions are what the check refused"
                .to_owned(),
            _ => format!("{} {} what the check refused", bit_list(hit), if hit.is_power_of_two() { "is" } else { "are" }),
        };
        let nx = if hit == 1 << 63 { ", NX where the format has it" } else { "" };
        writeln!(self.out, "  {} value & rsvd bits = {hit:#x}: {said}{nx}", self.paint("1;31", "→"))?;
        Ok(())
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
    pub(super) fn brief(&mut self, v: &Found, e: &Explanation) -> Result<()> {
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
