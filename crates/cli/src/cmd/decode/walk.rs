//! Page-table walks that the kernel dumped: what each entry is, and which one the dump complains about.

use std::io::Write;

use anyhow::Result;
use mmuscope_analysis::pasted::{is_misconfiguration, says_reserved};
use mmuscope_spte::explain::{Explanation, NoteKind, bit_list, bit_verb};
use mmuscope_spte::infer::walk_start;
use mmuscope_spte::{Decoded, Resolved, State};
use mmuscope_trace::paste::{Found, Group, Kind};

use super::Question;
use super::printer::{Printer, state_colour, summary};

impl<W: Write> Printer<'_, W> {
    /// Prints a dumped walk, entry by entry, and the verdict on it.
    pub(super) fn walk(
        &mut self,
        question: &Question,
        group: &Group,
        values: &[&Found],
        resolved: &Resolved,
        read: &dyn Fn(&Found) -> Explanation,
    ) -> Result<()> {
        writeln!(self.out)?;
        let at = group.address.map_or_else(String::new, |a| format!(" for guest address {a:#x}"));
        let title = if group.kind == Kind::VeDump {
            "A walk that ended in #VE"
        } else if is_misconfiguration(&question.pasted, group) {
            "A walk that the CPU refused"
        } else if says_reserved(&question.pasted, group, values) {
            "A walk that hit reserved bits"
        } else {
            "A walk of the page tables"
        };
        writeln!(self.out, "{}", self.bold(&format!("{title}{at}")))?;
        let readings: Vec<Explanation> = values.iter().map(|v| read(v)).collect();
        let start = walk_start(&resolved.layout);
        for (v, e) in values.iter().zip(&readings) {
            if question.is_slot(v, e.decoded.level, resolved) {
                let why = format!(
                    "not an SPTE: this walk begins at level {start}, and the slot above was not written"
                );
                let state = self.paint("33", &format!("{:<10}", "unwritten"));
                writeln!(self.out, "  level {}  {:#018x}  {state}  {why}", e.decoded.level, v.value)?;
                continue;
            }
            // The kernel prints the mask of reserved bits of the level; those bits of the value that are under it are wrong.
            let printed = v.rsvd_mask.map_or(0, |mask| v.value & mask);
            let bad = (e.refused || printed != 0) && question.cause(resolved, &e.decoded).is_none();
            let code = if bad { "1;31" } else { state_colour(e.decoded.state) };
            let state = self.paint(code, &format!("{:<10}", e.decoded.state.name()));
            writeln!(
                self.out,
                "  level {}  {:#018x}  {state}  {}",
                e.decoded.level,
                v.value,
                entry(question, e, resolved)
            )?;
        }
        if let Some(e) = values.iter().zip(&readings).find_map(|(v, e)| {
            let above = e.decoded.level > start && !question.is_slot(v, e.decoded.level, resolved);
            above.then_some(e)
        }) {
            writeln!(
                self.out,
                "  {} walks of this paging mode begin at level {start}, and this one has an entry of level {}: the paging mode or the root's level is another one",
                self.paint("1;31", "!"),
                e.decoded.level
            )?;
        }
        let walked: Vec<&Explanation> = readings.iter().filter(|e| e.decoded.level <= start).collect();
        for pair in walked.windows(2) {
            let (above, below) = (&pair[0].decoded, &pair[1].decoded);
            if above.state != State::Table || above.level != below.level + 1 {
                writeln!(
                    self.out,
                    "  {} the entry of level {} does not lead to that of level {}: lines are missing or mixed up",
                    self.paint("33", "!"),
                    above.level,
                    below.level
                )?;
            }
        }
        if group.kind == Kind::Walk {
            return Ok(());
        }
        writeln!(self.out)?;
        self.verdict(question, group, values, &readings, resolved)
    }

    fn verdict(
        &mut self,
        question: &Question,
        group: &Group,
        values: &[&Found],
        readings: &[Explanation],
        resolved: &Resolved,
    ) -> Result<()> {
        if group.kind == Kind::VeDump {
            let said = cause_of_ve(readings, resolved);
            writeln!(self.out, "  {said}")?;
        } else if is_misconfiguration(&question.pasted, group) {
            writeln!(
                self.out,
                "  The CPU reported an EPT misconfiguration. The kernel prints the walk each time, and names on lines of its own what it finds wrong with an entry."
            )?;
        } else if says_reserved(&question.pasted, group, values) {
            writeln!(
                self.out,
                "  The CPU reported a malformed entry, KVM looked for an MMIO SPTE at the end of the walk and checked what it met there."
            )?;
        } else {
            // A debug print of the user's own does not mean that something is wrong.
            return Ok(());
        }
        let (culprit, slot) = self.wrong_entries(question, group, values, readings, resolved)?;
        if group.kind == Kind::VeDump && culprit.is_none() {
            return Ok(());
        }
        if slot && culprit.is_none() {
            writeln!(self.out, "  The entries of the walk itself are sound.")?;
            return match values.iter().zip(readings).find(|(_, e)| e.decoded.state == State::Mmio) {
                Some((v, e)) => self.full(group, v, resolved, e),
                None => Ok(()),
            };
        }
        let culprit = culprit.and_then(|n| values.get(n).zip(readings.get(n)));
        let Some((v, e)) = culprit else {
            writeln!(
                self.out,
                "  No entry has a reserved bit or a bad memory type set under this layout: the entry may have changed between fault and dump,\n  or the kernel, the paging mode or the host's MAXPHYADDR is not the one assumed here."
            )?;
            return Ok(());
        };
        let high = (v.rsvd_mask.unwrap_or(0) | e.decoded.reserved_bits) & v.value & 0x000f_ffff_ffff_f000;
        if question.cause(resolved, &e.decoded).is_some() {
            return self.full(group, v, resolved, e);
        }
        if high.is_power_of_two() {
            writeln!(
                self.out,
                "    It is a single bit: without it the value would be {:#018x}, pfn {:#x}. A bit that flipped in memory looks like this.",
                v.value & !high,
                resolved.layout.decode(v.value & !high, e.decoded.level).pfn.unwrap_or(0)
            )?;
        } else if high != 0 {
            writeln!(
                self.out,
                "    The host has no memory at a frame number this large: something overwrote the page table, or the frame was wrong from the start."
            )?;
        }
        self.full(group, v, resolved, e)
    }

    /// Prints what is wrong with each entry. Returns the last that is, by its place in the walk, and whether there is a slot that nothing wrote.
    fn wrong_entries(
        &mut self,
        question: &Question,
        group: &Group,
        values: &[&Found],
        readings: &[Explanation],
        resolved: &Resolved,
    ) -> Result<(Option<usize>, bool)> {
        let mut culprit = None;
        let mut slot = false;
        for (n, (v, e)) in values.iter().zip(readings).enumerate() {
            let d = &e.decoded;
            let printed = v.rsvd_mask.map_or(0, |mask| v.value & mask);
            if question.is_slot(v, d.level, resolved) {
                let hit = printed | resolved.layout.reserved_mask(v.value, d.level) & v.value;
                slot = true;
                if hit != 0 {
                    writeln!(
                        self.out,
                        "  {} The check tripped on {} of the level-{} slot, which holds no SPTE.",
                        self.paint("1;31", "→"),
                        bit_list(hit),
                        d.level
                    )?;
                }
                continue;
            }
            let hit = printed | d.reserved_bits;
            if hit != 0 && question.cause(resolved, d).is_some() {
                writeln!(
                    self.out,
                    "  {} In the level-{} entry the check tripped on {}{}.",
                    self.paint("1;33", "→"),
                    d.level,
                    bit_list(hit),
                    of_a_bug(hit, d, group, resolved)
                )?;
                culprit = Some(n);
            } else if hit != 0 {
                writeln!(
                    self.out,
                    "  {} The level-{} entry has {} set ({hit:#x}), which must be zero there{}.",
                    self.paint("1;31", "→"),
                    d.level,
                    bit_list(hit),
                    why_reserved(hit, d, resolved)
                )?;
                culprit = Some(n);
            }
            if d.bad_mt_xwr {
                for note in e.notes.iter().filter(|n| {
                    n.kind == NoteKind::Problem
                        && (n.text.contains("memory type") || n.text.contains("permissions"))
                }) {
                    writeln!(
                        self.out,
                        "  {} In the level-{} entry {}.",
                        self.paint("1;31", "→"),
                        d.level,
                        note.text
                    )?;
                }
                culprit = Some(n);
            }
        }
        Ok((culprit, slot))
    }
}

/// An entry of a walk in a few words.
fn entry(question: &Question, e: &Explanation, resolved: &Resolved) -> String {
    let layout = &resolved.layout;
    if layout.is_mmio_and_present(e.decoded.raw) && question.cause(resolved, &e.decoded).is_some() {
        return format!(
            "the MMIO SPTE of guest frame {:#x}, taken for present",
            layout.mmio_gfn.get(e.decoded.raw)
        );
    }
    summary(&e.decoded, e.refused)
}

/// What the bits are that the check tripped on, where a known bug explains them.
fn of_a_bug(hit: u64, d: &Decoded, group: &Group, resolved: &Resolved) -> String {
    let layout = &resolved.layout;
    if !layout.is_mmio_and_present(d.raw) {
        return String::from(", which the CPU does not count as reserved: see the bug above");
    }
    let frame = layout.mmio_gfn.get(d.raw);
    let faulted = group.address.is_some_and(|a| a >> 12 == frame);
    format!(
        ", which {} the MMIO SPTE of guest frame {frame:#x}{}: see the bug above",
        bit_verb(hit, "marks", "mark"),
        if faulted { ", the one that faulted" } else { "" }
    )
}

/// How the entries explain a #VE.
fn cause_of_ve(readings: &[Explanation], resolved: &Resolved) -> &'static str {
    let bit = resolved.layout.suppress_ve;
    let start = walk_start(&resolved.layout);
    match readings.iter().map(|e| &e.decoded).rfind(|d| d.level <= start) {
        _ if bit == 0 => {
            "The CPU raised #VE, but this layout has no suppress-#VE bit: KVM sets it since 6.10."
        }
        Some(d) if d.raw & bit == 0 => {
            "The CPU raised #VE in the guest: the last entry lacks suppress-#VE (bit 63), which KVM sets in all of them."
        }
        _ => "The last entry has suppress-#VE (bit 63) set: the SPTEs do not explain a #VE at this address.",
    }
}

fn why_reserved(hit: u64, d: &Decoded, resolved: &Resolved) -> String {
    let width = resolved.host.maxphyaddr.value;
    let above = mmuscope_spte::bits::range(51, u32::from(width));
    if hit & above != 0 && hit & !above == 0 {
        format!(": it lies above the host's {width} physical address bits")
    } else if d.large && hit & above == 0 {
        String::from(": the frame of a large page is not aligned to its size")
    } else {
        String::new()
    }
}
