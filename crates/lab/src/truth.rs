//! The truth of a run: the live trees of the TDP MMU, found by walking the page-table pages that were copied while the VMs were alive.

use std::{collections::BTreeMap, fmt::Write as _, fs, path::Path};

use anyhow::{Context, Result};

/// A non-empty leaf entry of a live tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Leaf {
    /// The process of its VM; 0 where the trace's threads are not known.
    pub pid: u32,
    /// The address space (`as_id`).
    pub as_id: u32,
    /// The level of the entry.
    pub level: u8,
    /// The first guest frame.
    pub gfn: u64,
    /// The value of the entry.
    pub spte: u64,
}

/// The result of a walk.
#[derive(Debug, Default)]
pub struct Truth {
    /// The leaves in order.
    pub leaves: Vec<Leaf>,
    /// The number of tables to which a live entry points but which were not copied; with any, the walk is incomplete.
    pub missing: usize,
}

const ADDRESS: u64 = 0x000f_ffff_ffff_f000;

/// Whether the MMU-present bit is set (since 5.13). An access-tracked entry has no permission bit but is present.
fn present(spte: u64) -> bool {
    spte & 1 << 11 != 0
}

/// Page-table pages by physical address, each with its 512 entries.
pub type Pages = BTreeMap<u64, Vec<u64>>;
/// The process of each thread.
pub type Tasks = BTreeMap<u32, u32>;

/// Reads the page-table pages in a `ptpages.bin`, by physical address.
pub fn read_pages(bytes: &[u8]) -> Pages {
    let word = |b: &[u8]| u64::from_le_bytes(b.try_into().unwrap_or_default());
    bytes
        .chunks_exact(8 + 4096)
        .map(|r| (word(&r[..8]), r[8..].chunks_exact(8).map(word).collect()))
        .collect()
}

/// Reads the process of each thread from the lines `tid pid comm` of `tasks.txt`.
pub fn read_tasks(text: &str) -> Tasks {
    text.lines()
        .filter_map(|l| {
            l.split_once(' ')
                .and_then(|(t, rest)| Some((t.parse().ok()?, rest.split(' ').next()?.parse().ok()?)))
        })
        .collect()
}

/// Walks the live trees. Their tops are where the trace's last events of the uppermost level point.
pub fn walk(trace: &str, pages: &Pages, tasks: &Tasks) -> Truth {
    let changes: Vec<Change> = trace.lines().filter_map(|l| Change::parse(l, tasks)).collect();
    let top = changes.iter().map(|c| c.level).max().unwrap_or(0);
    let mut tops: BTreeMap<(u32, u32, u64), u64> = BTreeMap::new();
    for c in changes.iter().filter(|c| c.level == top) {
        let key = (c.pid, c.as_id, c.gfn);
        if present(c.new) {
            tops.insert(key, c.new);
        } else if tops.get(&key).is_some_and(|t| (t ^ c.old) & ADDRESS == 0) {
            // This does not hold where a new tree has taken the place of the one that is torn down.
            tops.remove(&key);
        }
    }
    let mut truth = Truth::default();
    for ((pid, as_id, gfn), spte) in tops {
        descend(Leaf { pid, as_id, level: top, gfn, spte }, pages, &mut truth);
    }
    truth.leaves.sort_unstable();
    truth
}

fn descend(entry: Leaf, pages: &Pages, truth: &mut Truth) {
    let Leaf { level, gfn, spte, .. } = entry;
    if !present(spte) || level == 1 || spte & 0x80 != 0 {
        // The entry is empty, or has only the bit "suppress #VE".
        if spte & !(1 << 63) != 0 {
            truth.leaves.push(entry);
        }
        return;
    }
    let Some(table) = pages.get(&(spte & ADDRESS)) else {
        truth.missing += 1;
        return;
    };
    for (i, &spte) in table.iter().enumerate() {
        let child = level - 1;
        descend(
            Leaf { level: child, gfn: gfn + ((i as u64) << (9 * (child - 1))), spte, ..entry },
            pages,
            truth,
        );
    }
}

struct Change {
    pid: u32,
    as_id: u32,
    gfn: u64,
    level: u8,
    old: u64,
    new: u64,
}

impl Change {
    fn parse(line: &str, tasks: &Tasks) -> Option<Self> {
        let (head, fields) = line.split_once("kvm_tdp_mmu_spte_changed: as id ")?;
        let words: Vec<&str> = fields.split_ascii_whitespace().collect();
        let [as_id, "gfn", gfn, "level", level, "old_spte", old, "new_spte", new, ..] = words[..] else {
            return None;
        };
        let hex = |w| u64::from_str_radix(w, 16).ok();
        // The thread's number is between the last '-' and the CPU's bracket.
        let tid = head
            .split_once('[')
            .and_then(|(task, _)| task.trim_end().rsplit_once('-')?.1.parse::<u32>().ok());
        let pid = tid.and_then(|t| tasks.get(&t)).copied().unwrap_or(0);
        Some(Self {
            pid,
            as_id: as_id.parse().ok()?,
            gfn: hex(gfn)?,
            level: level.parse().ok()?,
            old: hex(old)?,
            new: hex(new)?,
        })
    }
}

/// Walks the pages in `dir` (`trace.txt`, `ptpages.bin`, `tasks.txt`) and writes `truth-leaves.csv` and `truth-trees.csv` beside them. It
/// returns a line that says how the result agrees with KVM's own counters.
pub fn of_folder(dir: &Path) -> Result<String> {
    let trace = fs::read(dir.join("trace.txt")).context("trace.txt")?;
    let pages = read_pages(&fs::read(dir.join("ptpages.bin")).context("ptpages.bin")?);
    let tasks = read_tasks(&fs::read_to_string(dir.join("tasks.txt")).unwrap_or_default());
    let truth = walk(&String::from_utf8_lossy(&trace), &pages, &tasks);
    if truth.leaves.is_empty() {
        return Ok(format!("{} page-table pages; no tree of the TDP MMU", pages.len()));
    }
    let mut plain: Vec<(u8, u64, u64)> = truth.leaves.iter().map(|l| (l.level, l.gfn, l.spte)).collect();
    plain.sort_unstable();
    let mut leaves = String::new();
    for (level, gfn, spte) in plain {
        writeln!(leaves, "{level},{gfn:#x},{spte:#x}")?;
    }
    let mut trees = "pid,as_id,level,gfn,spte\n".to_owned();
    for l in &truth.leaves {
        writeln!(trees, "{},{},{},{:#x},{:#x}", l.pid, l.as_id, l.level, l.gfn, l.spte)?;
    }
    fs::write(dir.join("truth-leaves.csv"), leaves)?;
    fs::write(dir.join("truth-trees.csv"), trees)?;
    let stats = fs::read_to_string(dir.join("kvmstats.txt")).unwrap_or_default();
    let counter = |name: &str| {
        stats.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(':')?.parse::<usize>().ok())
    };
    let mut line = format!("{} leaves", truth.leaves.len());
    for (level, name) in [(1, "pages_4k"), (2, "pages_2m"), (3, "pages_1g")] {
        let walked = truth.leaves.iter().filter(|l| l.level == level && present(l.spte)).count();
        let kvm = counter(name).map_or("?".to_owned(), |n| n.to_string());
        write!(
            line,
            ", {name} {walked} (KVM: {kvm}){}",
            if kvm == walked.to_string() { "" } else { " DISAGREE" }
        )?;
    }
    if truth.missing > 0 {
        write!(line, ", {} tables not copied", truth.missing)?;
    }
    Ok(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(tid: u32, rest: &str) -> String {
        format!(
            "           vcpu0-{tid}     [001] d..1.     2.{tid:06}: kvm_tdp_mmu_spte_changed: as id {rest}\n"
        )
    }

    #[test]
    fn a_new_tree_outlives_the_one_torn_down_later() {
        let trace = line(7, "0 gfn 0 level 4 old_spte 0 new_spte 1827")
            + &line(7, "0 gfn 0 level 4 old_spte 0 new_spte 2827")
            + &line(8, "0 gfn 0 level 4 old_spte 1827 new_spte 5a0")
            + &line(9, "0 gfn 0 level 4 old_spte 0 new_spte 9827")
            + &line(9, "0 gfn 0 level 4 old_spte 9827 new_spte 5a0");
        let mut table = vec![0; 512];
        (table[0], table[1]) = (0x3827, 1 << 63);
        let mut leaf = vec![0; 512];
        (leaf[3], leaf[4]) = (0x8867, 0x5a0);
        let pages = Pages::from([
            (0x2000, table.clone()),
            (0x3000, {
                table[0] = 0x4827;
                table
            }),
            (0x4000, leaf),
        ]);
        let truth = walk(&trace, &pages, &read_tasks("7 7 vm\n8 7 vcpu0\n9 9 killed"));
        assert_eq!(truth.missing, 0);
        assert_eq!(
            truth.leaves,
            [
                Leaf { pid: 7, as_id: 0, level: 1, gfn: 3, spte: 0x8867 },
                Leaf { pid: 7, as_id: 0, level: 1, gfn: 4, spte: 0x5a0 }
            ]
        );
    }
}
