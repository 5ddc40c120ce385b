//! Decides which kind of text a line is, and finds the values in it. A line is tried as each kind of text, the most specific first.

use crate::text::head;

use super::forms::Columns;
use super::words::{after, behind_address, event_of, hex, letters, level_in, number, value};
use super::{Clue, Found, Group, Kind, NEWEST, OLDEST, Pasted, Role};

#[derive(Default)]
pub(super) struct Scanner {
    pub(super) out: Pasted,
    /// The group that following values join while the kind of text stays the same.
    pub(super) open: Option<(usize, Kind)>,
    /// The columns of the table to which the next rows belong.
    pub(super) columns: Option<Columns>,
    /// Whether the last line was an event, so that a number alone on the next line is the rest of it.
    event: bool,
    /// A message of several lines has begun, and its values follow.
    pending: Option<(Kind, u32)>,
    /// The line before, where it should have named the release of the kernel but ends in front of it.
    wrapped: String,
}

impl Scanner {
    pub(super) fn group(&mut self, kind: Kind, line: u32) -> usize {
        self.out.groups.push(Group { kind, line, address: None, event: None });
        self.out.groups.len() - 1
    }

    /// The open group if it is of this kind, else a new one.
    pub(super) fn join(&mut self, kind: Kind, line: u32) -> usize {
        match self.open {
            Some((group, open)) if open == kind => group,
            _ => {
                let group = self.group(kind, line);
                self.open = Some((group, kind));
                group
            }
        }
    }

    fn clue(&mut self, first: (u16, u16), last: (u16, u16), why: &'static str) {
        if !self.out.clues.iter().any(|c| c.why == why) {
            self.out.clues.push(Clue { releases: first..=last, why });
        }
    }

    /// Reads a line with this number, from 1.
    pub(super) fn line(&mut self, line: &str, n: u32) {
        self.kernel(line);
        self.headers(line, n);
        if line.contains("SEAMCALL") || line.contains("level_state") {
            let what = "words of a SEAMCALL error are entries of the TDX module, not KVM's SPTEs: left alone";
            if !self.out.left_alone.iter().any(|s| s == what) {
                self.out.left_alone.push(what.to_owned());
            }
            return;
        }
        if std::mem::replace(&mut self.event, head::parse(line.as_bytes()).is_some())
            && line.split_whitespace().all(|w| number(w).is_some())
            && !line.trim().is_empty()
        {
            let what = "numbers alone on a line behind a trace event are the rest of its line: left alone";
            if !self.out.left_alone.iter().any(|s| s == what) {
                self.out.left_alone.push(what.to_owned());
            }
            return;
        }
        let found = self.change(line, n)
            || self.fast_page_fault(line, n)
            || self.developer(line, n)
            || self.warning(line, n)
            || self.table(line, n)
            || self.levels(line, n)
            || self.numbered(line, n)
            || self.pairs(line, n)
            || self.spte(line, n)
            || self.rmap(line, n)
            || self.memory(line, n)
            || self.printed(line, n)
            || self.bare(line, n);
        let in_dump = matches!(self.open, Some((_, Kind::ReservedDump)));
        if !found && !line.trim().is_empty() && !in_dump {
            self.open = None;
        }
    }

    /// Looks for the release of the kernel. A mail may have wrapped the line in front of it, so that the line before counts too.
    fn kernel(&mut self, line: &str) {
        if self.out.kernel.is_some() {
            return;
        }
        let before = std::mem::take(&mut self.wrapped);
        self.out.kernel = release(line);
        if self.out.kernel.is_none() && !before.is_empty() {
            self.out.kernel = release(&format!("{before} {}", line.trim_start()));
        }
        let not = || line.contains("Comm:") && line.trim_end().ends_with("Not");
        if self.out.kernel.is_none() && (tainted(line).is_some() || line.contains("Linux version") || not()) {
            line.trim_end().clone_into(&mut self.wrapped);
        }
    }

    fn headers(&mut self, line: &str, n: u32) {
        let dump = if line.contains("reserved bits set on MMU-present spte") {
            self.clue((5, 13), NEWEST, "the words \"reserved bits set on MMU-present spte\"");
            true
        } else if line.contains("detect reserved bits on spte") {
            if line.contains("walk_shadow_page_get_mmio_spte") {
                self.clue(OLDEST, (5, 9), "the function name walk_shadow_page_get_mmio_spte");
            } else {
                self.clue((5, 10), (5, 12), "the words \"detect reserved bits on spte\" of get_mmio_spte");
            }
            true
        } else {
            false
        };
        // Up to 4.2, the GPA is on a line of its own.
        if line.contains("EPT: Misconfiguration") {
            self.clue((0, 0), (4, 2), "the words \"EPT: Misconfiguration\" of kernels up to 4.2");
            let group = self.group(Kind::ReservedDump, n);
            self.open = Some((group, Kind::ReservedDump));
        } else if let Some((_, gpa)) = line.split_once("EPT: GPA:")
            && let Some((group, Kind::ReservedDump)) = self.open
        {
            self.out.groups[group].address = hex(gpa.trim_start()).map(|(a, _)| a);
        }
        if dump {
            let group = self.group(Kind::ReservedDump, n);
            self.open = Some((group, Kind::ReservedDump));
            self.out.groups[group].address = after(line, "addr").and_then(hex).map(|(a, _)| a);
        }
        if line.contains("Invalid SPTE change") {
            self.pending = Some((Kind::InvalidChange, n));
            self.clue((5, 10), NEWEST, "an error of the TDP MMU");
        } else if line.contains("Unexpected SPTE change") {
            self.pending = Some((Kind::UnexpectedChange, n));
            self.clue((5, 10), NEWEST, "an error of the TDP MMU");
        } else if line.contains("temporary removed SPTE") {
            self.clue((5, 12), (6, 12), "the words \"temporary removed SPTE\"");
        } else if line.contains("temporary frozen SPTE") {
            self.clue((6, 10), NEWEST, "the words \"temporary frozen SPTE\"");
        }
    }

    /// Reads `… gfn G … level L old_spte A new_spte B`, in an event or in an error of the TDP MMU.
    fn change(&mut self, line: &str, n: u32) -> bool {
        let decimal = line.contains("FAILED TO PARSE");
        let get = |key: &str| after(line, key).and_then(|t| value(t, decimal)).map(|(v, _)| v);
        let (Some(old), Some(new)) = (get("old_spte"), get("new_spte")) else { return false };
        let (kind, start) = self.pending.take().unwrap_or((Kind::Event, n));
        let group = self.group(kind, start);
        if kind == Kind::Event {
            self.out.groups[group].event = event_of(line);
            self.clue((5, 11), NEWEST, "the event kvm_tdp_mmu_spte_changed");
        }
        self.open = None;
        let common = Found { level: level_in(line), gfn: get("gfn"), line: n, group, ..Found::default() };
        self.out.values.push(Found { value: old, role: Role::Old, ..common });
        self.out.values.push(Found { value: new, role: Role::New, ..common });
        true
    }

    /// Reads a fast_page_fault, also one whose first words were left out: no other event ends in `new … spurious … fixed …`.
    fn fast_page_fault(&mut self, line: &str, n: u32) -> bool {
        let end =
            || after(line, "new").filter(|t| after(t, "spurious").is_some() && after(t, "fixed").is_some());
        let Some(at) = line.find("fast_page_fault").or_else(|| end().map(|_| 0)) else { return false };
        let rest = &line[at..];
        let decimal = line.contains("FAILED TO PARSE");
        let get = |key: &str| after(rest, key).and_then(|t| value(t, decimal)).map(|(v, _)| v);
        let Some(new) = get("new").or_else(|| get("new_spte")) else { return false };
        let old = get("old").or_else(|| get("old_spte"));
        let group = self.group(Kind::Event, n);
        self.out.groups[group].event = Some(String::from("fast_page_fault"));
        let address = get("gva").or_else(|| get("cr2_or_gpa"));
        self.out.groups[group].address = address;
        self.open = None;
        let common = Found { gfn: address.map(|a| a >> 12), line: n, group, ..Found::default() };
        // A walk that found no entry prints zero for both values.
        self.out.values.extend(old.map(|value| Found { value, role: Role::Old, ..common }));
        if old != Some(new) {
            self.out.values.push(Found { value: new, role: Role::New, ..common });
        }
        true
    }

    /// Reads `#VE 1000, spte[4] = 0x…, spte[3] = 0x…`, and similar lines that developers print.
    fn developer(&mut self, line: &str, n: u32) -> bool {
        let Some((before, _)) = line.split_once("spte[") else { return false };
        let mut values = Vec::new();
        for part in line.split("spte[").skip(1) {
            let Some((level, rest)) = part.split_once(']') else { continue };
            let (Ok(level @ 1..=5), Some((value, _))) =
                (level.parse::<u8>(), hex(rest.trim_start_matches([' ', '=', ':'])))
            else {
                continue;
            };
            values.push((level, value));
        }
        let Some((first, _)) = values.first() else { return false };
        // The address stands before the first entry.
        let address = before.trim_end_matches([' ', ',', ':']).rsplit([' ', '=']).next();
        let address = address.filter(|a| a.len() > 2).and_then(hex).filter(|(_, rest)| rest.is_empty());
        let address = address.map(|(a, _)| a);
        let group = if line.contains("#VE") {
            self.clue((6, 10), NEWEST, "a #VE dump");
            let group = self.group(Kind::VeDump, n);
            self.open = Some((group, Kind::VeDump));
            self.out.groups[group].address = address;
            group
        } else {
            self.walk_group(address, Some(*first), n)
        };
        for (level, value) in values {
            self.out.values.push(Found {
                value,
                level: Some(level),
                role: Role::Walk,
                line: n,
                group,
                ..Found::default()
            });
        }
        true
    }

    fn warning(&mut self, line: &str, n: u32) -> bool {
        for (key, kind) in [
            ("SPTE is not Host-writable:", Kind::WritableWarning),
            ("SPTE is not MMU-writable:", Kind::WritableWarning),
        ] {
            let Some((_, rest)) = line.split_once(key) else { continue };
            let Some((value, _)) = hex(rest.trim_start()) else { continue };
            self.clue((5, 18), NEWEST, "a warning of 5.18 and later");
            let group = self.group(kind, n);
            self.out.values.push(Found { value, role: Role::Leaf, line: n, group, ..Found::default() });
            return true;
        }
        if line.contains("audit:") {
            let found = after(line, "ent").or_else(|| after(line, "writable spte")).and_then(hex);
            if let Some((value, _)) = found {
                self.clue(OLDEST, (5, 17), "the shadow MMU's audit");
                let group = self.group(Kind::Audit, n);
                self.out.values.push(Found {
                    value,
                    level: level_in(line),
                    line: n,
                    group,
                    ..Found::default()
                });
                return true;
            }
        }
        false
    }

    /// Reads every `spte = 0x… level = N[, rsvd bits = 0x…]` of a line (printk may join several) and `gfn … spte … (rwxu) level N`.
    fn spte(&mut self, line: &str, n: u32) -> bool {
        let decimal = line.contains("FAILED TO PARSE");
        let mut rest = line;
        let mut any = false;
        let key = if line.contains("*sptep") { "*sptep" } else { "spte" };
        while let Some(text) = after(rest, key) {
            let text = behind_address(text);
            let Some((found, tail)) = value(text, decimal) else {
                rest = text;
                continue;
            };
            // A value ends where the next one begins; levels and masks after that belong to the next one.
            let mut own = tail;
            let mut from = 0;
            while let Some(at) = tail[from..].find("spte") {
                let at = from + at;
                if after(&tail[at..], "spte").is_some_and(|t| value(t, decimal).is_some())
                    && !tail[at..].starts_with("spte-gen")
                    && !tail[at..].starts_with("spte_gen")
                {
                    own = &tail[..at];
                    break;
                }
                from = at + 4;
            }
            let rsvd_mask = after(own, "rsvd bits").and_then(hex).map(|(m, _)| m);
            let head = &rest[..rest.len() - text.len()];
            let gfn = after(head, "gfn")
                .or_else(|| after(own, "gfn"))
                .and_then(|t| value(t, decimal))
                .map(|(v, _)| v);
            let letters = letters(own);
            let event = event_of(line);
            let generation =
                after(own, "spte-gen").or_else(|| after(own, "spte_gen")).and_then(|t| value(t, decimal));
            let dump =
                head.trim_end_matches([' ', '=', ':']).trim_end_matches("spte").trim_end().ends_with("---")
                    || line.contains("ept_misconfig_inspect_spte");
            let (group, role) =
                if dump || rsvd_mask.is_some() && matches!(self.open, Some((_, Kind::ReservedDump))) {
                    (self.join(Kind::ReservedDump, n), Role::Walk)
                } else if rsvd_mask.is_some() {
                    self.clue((5, 14), NEWEST, "the words \"rsvd bits\"");
                    (self.group(Kind::ReservedWarning, n), Role::Unknown)
                } else if event.is_some() || gfn.is_some() || letters.is_some() {
                    let group = self.group(Kind::Event, n);
                    let role = match event.as_deref() {
                        Some("check_mmio_spte") => Role::Mmio,
                        Some("kvm_mmu_set_spte") => Role::Leaf,
                        Some("kvm_mmu_split_huge_page") => Role::Old,
                        _ if letters.is_some() => Role::Leaf,
                        _ => Role::Unknown,
                    };
                    self.out.groups[group].event = event;
                    (group, role)
                } else {
                    (self.join(Kind::Bare, n), Role::Unknown)
                };
            if rsvd_mask.is_some() {
                self.clue((5, 13), NEWEST, "the column \"rsvd bits\"");
            }
            self.out.values.push(Found {
                value: found,
                level: level_in(own).or_else(|| level_in(head)),
                gfn,
                role,
                rsvd_mask,
                letters,
                generation: generation.and_then(|(g, _)| u32::try_from(g).ok()),
                line: n,
                group,
                index: None,
            });
            any = true;
            rest = tail;
        }
        any
    }

    /// Reads what `rmap_printk` prints of an entry without the word spte: `rmap_add: %p %llx 0->1`.
    fn rmap(&mut self, line: &str, n: u32) -> bool {
        let of = |name| after(line, name).filter(|text| behind_address(text).len() < text.len());
        let Some(text) = ["rmap_add", "rmap_remove", "pte_list_add"].into_iter().find_map(of) else {
            return false;
        };
        let Some((value, _)) = hex(behind_address(text)) else { return false };
        let group = self.join(Kind::Bare, n);
        self.out.values.push(Found { value, line: n, group, ..Found::default() });
        true
    }

    /// Reads `0xffff888004b1c000: 0x… 0x…` of gdb, crash and drgn.
    fn memory(&mut self, line: &str, n: u32) -> bool {
        let Some((address, words)) = line.split_once(':') else { return false };
        let address = address.trim();
        let address = address.split_once('<').map_or(address, |(a, _)| a.trim_end());
        let digits = address.strip_prefix("0x").unwrap_or(address);
        if !(8..=16).contains(&digits.len()) || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return false;
        }
        let Ok(address) = u64::from_str_radix(digits, 16) else { return false };
        let mut taken = Vec::new();
        for word in words.split_whitespace() {
            let digits = word.strip_prefix("0x").unwrap_or(word);
            // Debuggers print whole words; anything else is the text column after them.
            if digits.len() != 16 || !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
                break;
            }
            let Ok(value) = u64::from_str_radix(digits, 16) else { break };
            taken.push(value);
        }
        if taken.is_empty() {
            return false;
        }
        let fresh = match self.open {
            // Addresses in another page belong to another table.
            Some((group, Kind::Memory)) => {
                self.out.groups[group].address.is_none_or(|a| a >> 12 != address >> 12)
            }
            _ => true,
        };
        if fresh {
            self.open = None;
        }
        let group = self.join(Kind::Memory, n);
        self.out.groups[group].address.get_or_insert(address);
        for (i, value) in taken.into_iter().enumerate() {
            let at = address.wrapping_add(8 * i as u64);
            self.out.values.push(Found {
                value,
                role: Role::Word,
                index: Some((at >> 3 & 511) as u16),
                line: n,
                group,
                ..Found::default()
            });
        }
        true
    }

    /// Reads a line that has only numbers.
    fn bare(&mut self, line: &str, n: u32) -> bool {
        let mut values = Vec::new();
        for word in line.split(|c: char| c.is_whitespace() || c == ',').filter(|w| !w.is_empty()) {
            match number(word) {
                Some(value) => values.push(value),
                None if matches!(word, "->" | "→" | "=>" | "to") => {}
                None if names_entry(word) => {}
                // These are gdb's `$1 = 0x…` and drgn's prompt.
                None if word.starts_with('$') || matches!(word, "=" | ">>>" | "(gdb)" | "crash>") => {}
                None => return false,
            }
        }
        if values.is_empty() {
            return false;
        }
        let group = self.join(Kind::Bare, n);
        for value in values {
            self.out.values.push(Found { value, line: n, group, ..Found::default() });
        }
        true
    }
}

/// Whether a word says of the number beside it that it is an entry.
fn names_entry(word: &str) -> bool {
    let word = word.trim_end_matches([':', '=']).to_ascii_lowercase();
    matches!(word.as_str(), "spte" | "pte" | "entry" | "value" | "is")
}

/// The release of the kernel that a line names.
fn release(line: &str) -> Option<String> {
    let is_release = |w: &&str| {
        let major = w.split_once('.').map(|(major, _)| major.parse::<u16>());
        w.starts_with(|c: char| c.is_ascii_digit()) && matches!(major, Some(Ok(_)))
    };
    if let Some(at) = line.find("Linux version ") {
        let named = line[at..].split_whitespace().nth(2).filter(is_release);
        return named.map(|_| line[at..].trim().to_owned());
    }
    // "CPU: 3 PID: 4711 Comm: qemu Tainted: G W 6.1.0-13-amd64 #1  Debian 6.1.55-1"
    let is_flag = |w: &&str| w.bytes().all(|b| b.is_ascii_uppercase() || b == b'-');
    let mut words = tainted(line)?.split_whitespace().skip_while(is_flag);
    let release = words.next().filter(is_release)?;
    let debian = line.split_once("Debian ").and_then(|(_, rest)| rest.split_whitespace().next());
    Some(debian.map_or_else(|| release.to_owned(), |v| format!("Linux version {release} Debian {v}")))
}

/// What follows the words of a dump that say whether the kernel is tainted.
fn tainted(line: &str) -> Option<&str> {
    let words = ["Tainted:", "Not tainted"];
    words.into_iter().find_map(|w| line.split_once(w)).map(|(_, rest)| rest)
}
