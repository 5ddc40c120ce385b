//! Page-table walks that the kernel dumped: what each entry is, and which one the dump complains about.

use std::io::Write;

use anyhow::Result;
use mmuscope_analysis::pasted::says_reserved;
use mmuscope_spte::explain::{Explanation, NoteKind, bit_list};
use mmuscope_spte::infer::walk_start;
use mmuscope_spte::{Decoded, Resolved, State};
use mmuscope_trace::paste::{Found, Group, Kind};

use super::printer::{Printer, state_colour, summary};

impl<W: Write> Printer<'_, W> {
    /// Prints a dumped walk, entry by entry, and the verdict on it.
    pub(super) fn walk(
        &mut self,
        group: &Group,
        values: &[&Found],
        resolved: &Resolved,
        read: &dyn Fn(&Found) -> Explanation,
    ) -> Result<()> {
        writeln!(self.out)?;
        let at = group.address.map_or_else(String::new, |a| format!(" for guest address {a:#x}"));
        let title = if group.kind == Kind::VeDump {
            "A walk that ended in #VE"
        } else if says_reserved(group, values) {
            "A walk that hit reserved bits"
        } else {
            "A walk of the page tables"
        };
        writeln!(self.out, "{}", self.bold(&format!("{title}{at}")))?;
        let readings: Vec<Explanation> = values.iter().map(|v| read(v)).collect();
        let start = walk_start(&resolved.layout);
        for (v, e) in values.iter().zip(&readings) {
            if e.decoded.level > start {
                let why = format!(
                    "not an SPTE: this walk begins at level {start}, and the slot above was not written"
                );
                let state = self.paint("33", &format!("{:<10}", "unwritten"));
                writeln!(self.out, "  level {}  {:#018x}  {state}  {why}", e.decoded.level, v.value)?;
                continue;
            }
            // The kernel prints the mask of reserved bits of the level; those bits of the value that are under it are wrong.
            let printed = v.rsvd_mask.map_or(0, |mask| v.value & mask);
            let bad = e.refused || printed != 0;
            let code = if bad { "1;31" } else { state_colour(e.decoded.state) };
            let state = self.paint(code, &format!("{:<10}", e.decoded.state.name()));
            writeln!(
                self.out,
                "  level {}  {:#018x}  {state}  {}",
                e.decoded.level,
                v.value,
                summary(&e.decoded, e.refused)
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
        self.verdict(group, values, &readings, resolved)
    }

    fn verdict(
        &mut self,
        group: &Group,
        values: &[&Found],
        readings: &[Explanation],
        resolved: &Resolved,
    ) -> Result<()> {
        let start = walk_start(&resolved.layout);
        if group.kind == Kind::VeDump {
            let said = cause_of_ve(readings, resolved);
            writeln!(self.out, "  {said}")?;
        } else if says_reserved(group, values) {
            writeln!(
                self.out,
                "  The CPU reported a malformed entry, KVM looked for an MMIO SPTE at the end of the walk and checked what it met there."
            )?;
        } else {
            // A debug print of the user's own does not mean that something is wrong.
            return Ok(());
        }
        let mut culprit = None;
        let mut slot = false;
        for (v, e) in values.iter().zip(readings) {
            let d = &e.decoded;
            let printed = v.rsvd_mask.map_or(0, |mask| v.value & mask);
            if d.level > start {
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
            if hit != 0 {
                writeln!(
                    self.out,
                    "  {} The level-{} entry has {} set ({hit:#x}), which must be zero there{}.",
                    self.paint("1;31", "→"),
                    d.level,
                    bit_list(hit),
                    why_reserved(hit, d, resolved)
                )?;
                culprit = Some((*v, e));
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
                culprit = Some((*v, e));
            }
        }
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
        let Some((v, e)) = culprit else {
            writeln!(
                self.out,
                "  No entry has a reserved bit or a bad memory type set under this layout: the entry may have changed between fault and dump,\n  or the kernel, the paging mode or the host's MAXPHYADDR is not the one assumed here."
            )?;
            return Ok(());
        };
        let high = (v.rsvd_mask.unwrap_or(0) | e.decoded.reserved_bits) & v.value & 0x000f_ffff_ffff_f000;
        if high.is_power_of_two() {
            writeln!(
                self.out,
                "    It is a single bit: without it the value would be {:#018x}, pfn {:#x}. A bit that flipped in memory looks like this.",
                v.value & !high,
                (v.value & !high & 0x000f_ffff_ffff_f000) >> 12
            )?;
        } else if high != 0 {
            writeln!(
                self.out,
                "    The host has no memory at a frame number this large: something overwrote the page table, or the frame was wrong from the start."
            )?;
        }
        self.full(group, v, resolved, e)
    }
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
