//! Forms in which people and their tools print entries: walks with names of levels, `key=value` of a printf, tables, a debugger's numbers.

use super::scanner::Scanner;
use super::words::{hex, is_other_event, is_pointer, is_suffix, number};
use super::{Found, Kind, Role};

/// The columns of a table, by what they hold.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Columns {
    level: Option<usize>,
    value: Option<usize>,
    index: Option<usize>,
    gfn: Option<usize>,
}

/// The meaning of a word in a walk.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Word {
    Value(u64),
    /// The level of the value before or after it, and perhaps an index in the table.
    Level(u8, Option<u16>),
    /// The word `level`: the next word is its number.
    LevelNext,
    /// The next number is the guest frame.
    Gfn,
    /// The next number is the address of the entry, or its index in the table.
    Address,
    /// The word has no meaning here: an arrow, a prompt, the word spte.
    Nothing,
}

/// The names of levels: those of x86's own tables, and `L4`.
fn level_name(word: &str) -> Option<(u8, Option<u16>)> {
    let word = word.trim_end_matches([':', '=', ',']);
    let (name, index) = match word.split_once(['[', '(']) {
        Some((name, index)) => (name, Some(place(index.trim_end_matches([']', ')']))?)),
        None => (word, None),
    };
    let level = match name.to_ascii_uppercase().as_str() {
        "PML5" | "PML5E" | "L5" | "LVL5" | "LEVEL5" => 5,
        "PML4" | "PML4E" | "L4" | "LVL4" | "LEVEL4" => 4,
        "PDPT" | "PDPTE" | "PDP" | "PDPE" | "L3" | "LVL3" | "LEVEL3" => 3,
        "PD" | "PDE" | "L2" | "LVL2" | "LEVEL2" => 2,
        "PT" | "PTE" | "L1" | "LVL1" | "LEVEL1" => 1,
        _ => return None,
    };
    Some((level, index))
}

/// An index in a table, in hex with 0x, else in decimal.
fn place(text: &str) -> Option<u16> {
    let n = match text.strip_prefix("0x") {
        Some(hex) => u16::from_str_radix(hex, 16).ok()?,
        None => text.parse().ok()?,
    };
    (n < 512).then_some(n)
}

fn word(text: &str) -> Option<Word> {
    let key = text.trim_end_matches([':', '=', ',']);
    // `0x…@4` was split before, so anything else after `@` is an address.
    if let Some(level) = key.strip_prefix('@') {
        return match level.parse() {
            Ok(level @ 1..=5) => Some(Word::Level(level, None)),
            _ => level.is_empty().then_some(Word::Address),
        };
    }
    Some(match key {
        "level" | "lvl" | "Level" | "LEVEL" => Word::LevelNext,
        "gfn" => Word::Gfn,
        "at" | "addr" | "address" | "index" | "idx" | "sptep" => Word::Address,
        "" | "->" | "→" | "=>" | "to" | "is" | "spte" | "SPTE" | "entry" | "=" | ":" | "crash>" | ">>>"
        | "(gdb)" | "|" => Word::Nothing,
        _ => match level_name(text) {
            Some((level, index)) => Word::Level(level, index),
            None => Word::Value(number(key)?),
        },
    })
}

impl Scanner {
    /// Reads a line that has only values with their levels: `level 4: 0x…`, `L4 0x…`, `PDE[3] = 0x…`, `0x… level 4`, `0x…@4`.
    pub(super) fn levels(&mut self, line: &str, n: u32) -> bool {
        let line = line.replace('@', " @");
        let Some(found) = walk(&line) else { return false };
        // `pte=` alone is any entry: it is the lowest one only in a walk.
        let in_walk = matches!(self.open, Some((_, Kind::Walk | Kind::ReservedDump)));
        if found.len() == 1 && !in_walk && line.trim_start().starts_with("pte=") {
            return false;
        }
        let group = self.walk_group(None, found.first().and_then(|f| f.level), n);
        for f in found {
            self.out.values.push(Found { line: n, group, ..f });
        }
        true
    }

    /// The group of a walk: the open one while levels decrease, else a new one.
    pub(super) fn walk_group(&mut self, address: Option<u64>, level: Option<u8>, n: u32) -> usize {
        if let Some((group, kind @ (Kind::Walk | Kind::ReservedDump))) = self.open {
            let last = self.out.values.iter().rev().find(|v| v.group == group).and_then(|v| v.level);
            let falls = last.is_none() || level.zip(last).is_some_and(|(level, last)| level < last);
            if falls && (kind == Kind::ReservedDump || address.is_none()) {
                return group;
            }
        }
        let group = self.group(Kind::Walk, n);
        self.out.groups[group].address = address;
        self.open = Some((group, Kind::Walk));
        group
    }

    /// Reads `old=0x… new=0x…` and other pairs that developers and `printf` of bpftrace print.
    pub(super) fn pairs(&mut self, line: &str, n: u32) -> bool {
        // Numbers are decimal in the one, and entries of the guest's own tables in the other.
        if line.contains("FAILED TO PARSE") || is_other_event(line) {
            return false;
        }
        let mut common = Found { line: n, ..Found::default() };
        let mut values = Vec::new();
        // Whether a key says that its value is an entry, and whether the line has anything but pairs of an entry.
        let (mut named, mut other) = (false, false);
        for pair in line.split([' ', '\t', ',', ';']).filter(|w| !w.is_empty()) {
            let read = |(key, text): (&str, &str)| {
                let (value, rest) = hex(text)?;
                let whole = is_suffix(rest.trim_matches([')', ']']));
                whole.then(|| (key.to_ascii_lowercase(), value))
            };
            let Some((key, value)) = pair.split_once('=').and_then(read) else {
                other = true;
                continue;
            };
            named |= key.contains("spte");
            match key.as_str() {
                "old" | "old_spte" | "old_val" | "old_pte" => values.push((Role::Old, value)),
                "new" | "new_spte" | "new_val" | "new_pte" => values.push((Role::New, value)),
                "spte" | "sptev" | "spte_val" | "pte" => values.push((Role::Unknown, value)),
                "level" | "lvl" => common.level = u8::try_from(value).ok().filter(|l| (1..=5).contains(l)),
                "gfn" => common.gfn = Some(value),
                _ => other = true,
            }
        }
        // `old=`, `new=` and `pte=` may belong to anything, so a level or the word spte must show that they are entries, or nothing else may be there.
        let entries = common.level.is_some() || named || !other || line.to_ascii_lowercase().contains("spte");
        if values.is_empty() || !entries {
            return false;
        }
        let group = self.group(Kind::Event, n);
        self.open = None;
        for (role, value) in values {
            self.out.values.push(Found { value, role, group, ..common });
        }
        true
    }

    /// Reads numbers that have their level before a colon: `2:0x…`. A greater number there is no level. (The numbers of lines were taken away before.)
    pub(super) fn numbered(&mut self, line: &str, n: u32) -> bool {
        let mut words = line.split([' ', '\t', ',', ';']).filter(|w| !w.is_empty());
        let mut found = Vec::new();
        while let Some(word) = words.next() {
            let Some((place, value)) = word.split_once(':') else { return false };
            let value = if value.is_empty() { words.next().unwrap_or_default() } else { value };
            let place = Some(place).filter(|p| p.len() <= 5).and_then(|p| p.parse::<u32>().ok());
            let read = number(value).filter(|v| value.starts_with("0x") && !is_pointer(*v));
            let (Some(place), Some(value)) = (place, read) else { return false };
            found.push((u8::try_from(place).ok().filter(|l| (1..=5).contains(l)), value));
        }
        let any = !found.is_empty();
        for (level, value) in found {
            let (group, role) = match level {
                Some(_) => (self.walk_group(None, level, n), Role::Walk),
                None => (self.join(Kind::Bare, n), Role::Unknown),
            };
            self.out.values.push(Found { value, level, role, line: n, group, ..Found::default() });
        }
        any
    }

    /// Reads a row of a Markdown table, or its head.
    pub(super) fn table(&mut self, line: &str, n: u32) -> bool {
        let row = line.trim();
        if !row.starts_with('|') || row.matches('|').count() < 3 {
            self.columns = None;
            return false;
        }
        let cells: Vec<&str> = row.trim_matches('|').split('|').map(str::trim).collect();
        if cells.iter().all(|c| c.bytes().all(|b| matches!(b, b'-' | b':' | b' '))) {
            return true;
        }
        let column = |names: &[&str]| {
            cells.iter().rposition(|c| names.contains(&c.to_ascii_lowercase().trim_matches('`')))
        };
        let head = Columns {
            level: column(&["level", "lvl"]),
            value: column(&["val", "value", "spte", "entry", "pte"]),
            index: column(&["index", "idx"]),
            gfn: column(&["gfn"]),
        };
        if head.value.is_some() {
            self.columns = Some(head);
            return true;
        }
        let columns = self.columns.unwrap_or_default();
        let cell = |n: Option<usize>| n.and_then(|n| cells.get(n)).map(|c| c.trim_matches('`'));
        let value = if columns.value.is_some() {
            cell(columns.value).and_then(hex).map(|(v, _)| v)
        } else {
            // The table has no column names: take the number if only one can be an entry.
            let mut all = cells.iter().filter_map(|c| number(c)).filter(|v| *v > 0xffff && !is_pointer(*v));
            all.next().filter(|_| all.next().is_none())
        };
        let Some(value) = value.filter(|v| !is_pointer(*v)) else { return false };
        let level = cell(columns.level)
            .and_then(|c| level_name(c).map(|(l, _)| l).or_else(|| c.parse().ok()))
            .filter(|l| (1..=5).contains(l));
        let group = self.walk_group(None, level, n);
        self.out.values.push(Found {
            value,
            level,
            role: Role::Walk,
            index: cell(columns.index).and_then(place),
            gfn: cell(columns.gfn).and_then(hex).map(|(v, _)| v),
            line: n,
            group,
            ..Found::default()
        });
        true
    }

    /// Reads drgn's `(u64)594273623079` and `*(u64 *)0xffff888004b1c000 = 0x…`, and gdb's `$1 = 594273623079`, which are decimal without 0x.
    pub(super) fn printed(&mut self, line: &str, n: u32) -> bool {
        let mut line = line.trim();
        for prompt in [">>>", "(gdb)", "crash>"] {
            line = line.strip_prefix(prompt).unwrap_or(line).trim_start();
        }
        let typed = ["(u64)", "(unsigned long)", "(unsigned long long)", "(uint64_t)"];
        let text = if let Some(rest) = typed.iter().find_map(|t| line.strip_prefix(t)) {
            rest
        } else if line.starts_with('$') || line.starts_with("*(u64 *)") {
            let Some((_, rest)) = line.split_once(" = ") else { return false };
            typed.iter().find_map(|t| rest.strip_prefix(t)).unwrap_or(rest)
        } else {
            return false;
        };
        let text = text.trim();
        let value = match text.strip_prefix("0x") {
            Some(digits) => u64::from_str_radix(digits, 16).ok(),
            None => text.parse().ok(),
        };
        let Some(value) = value else { return false };
        let group = self.join(Kind::Bare, n);
        self.out.values.push(Found { value, line: n, group, ..Found::default() });
        true
    }
}

/// The values of a line in which each has a level; `None` if the line has any other word.
fn walk(line: &str) -> Option<Vec<Found>> {
    let mut out: Vec<Found> = Vec::new();
    let mut words = line.split([' ', '\t', ',', ';', '(', ')']).filter(|w| !w.is_empty()).peekable();
    // A level that was read before its value.
    let mut ahead: Option<(u8, Option<u16>)> = None;
    // Whether levels stand before values, decided by the first one.
    let mut before = None;
    let mut gfn = None;
    // Where the level has a word of its own, `pte` is what people call any entry.
    let spelled = line.split([' ', '\t', ',', ';', '(', ')', '=', ':']).any(|w| matches!(w, "level" | "lvl"));
    while let Some(text) = words.next() {
        // This splits `level=4` and `gfn:2`.
        let (text, joined) = match text.split_once(['=', ':']) {
            Some((key, value)) if !key.is_empty() && !value.is_empty() => (key, Some(value)),
            _ => (text, None),
        };
        let mut next = || joined.or_else(|| words.next());
        let level = match word(text)? {
            Word::Nothing if joined.is_none() => continue,
            Word::Nothing => {
                let value = number(joined?)?;
                out.push(entry(value, ahead.take(), gfn.take()));
                continue;
            }
            Word::Gfn => {
                gfn = Some(hex(next()?)?.0);
                continue;
            }
            Word::Address => {
                hex(next()?.trim_end_matches([':', '=']))?;
                continue;
            }
            Word::Value(value) => {
                out.push(entry(value, ahead.take(), gfn.take()));
                if let Some(more) = joined {
                    // The last number was an address, and this is the value there.
                    out.last_mut()?.value = number(more)?;
                }
                continue;
            }
            Word::LevelNext => {
                let digit: u8 = next()?.trim_end_matches([':', '=', ',']).parse().ok()?;
                ((1..=5).contains(&digit).then_some(digit)?, None)
            }
            Word::Level(1, None) if spelled && joined.is_some() => {
                out.push(entry(number(joined?)?, ahead.take(), gfn.take()));
                continue;
            }
            Word::Level(level, index) => {
                if let Some(value) = joined {
                    out.push(entry(number(value)?, Some((level, index)), gfn.take()));
                    before = Some(true);
                    continue;
                }
                (level, index)
            }
        };
        let is_before = *before.get_or_insert(out.is_empty());
        match out.last_mut().filter(|f| !is_before && f.level.is_none()) {
            Some(f) => (f.level, f.index) = (Some(level.0), level.1),
            None if is_before && ahead.is_none() => ahead = Some(level),
            None => return None,
        }
    }
    (ahead.is_none() && out.iter().any(|f| f.level.is_some()) && out.iter().all(|f| !is_pointer(f.value)))
        .then_some(out)
}

/// A value of a walk, with the level and frame that were named before it.
fn entry(value: u64, level: Option<(u8, Option<u16>)>, gfn: Option<u64>) -> Found {
    Found {
        value,
        level: level.map(|l| l.0),
        index: level.and_then(|l| l.1),
        gfn,
        role: Role::Walk,
        ..Found::default()
    }
}
