//! SPTE values out of pasted text: dmesg dumps, trace lines, debugger output, bare hex.
//!
//! The scanner knows where the kernel and the usual tools print SPTE values and takes those, with the level, frame and role the text
//! says. Numbers at other places (registers, pointers, addresses, entries of the TDX module) are left alone.
//!
//! ```
//! let text = "[ 11.2] kvm: ------ spte = 0x600000123456b77 level = 1, rsvd bits = 0xfc00000000000";
//! let pasted = mmuscope_trace::paste::scan(text.as_bytes());
//! assert_eq!(pasted.values[0].value, 0x6000_0012_3456_b77);
//! assert_eq!(pasted.values[0].level, Some(1));
//! ```

use std::ops::RangeInclusive;

/// What the text says an entry is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum Role {
    /// Nothing.
    #[default]
    Unknown,
    /// A leaf that was just installed.
    Leaf,
    /// One step of a walk from the root down.
    Walk,
    /// The value before a change.
    Old,
    /// The value after it.
    New,
    /// An MMIO SPTE.
    Mmio,
    /// One word of a page-table page.
    Word,
}

/// The letters `kvm_mmu_set_spte` printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Letters {
    /// `r`.
    pub r: bool,
    /// `w`.
    pub w: bool,
    /// `x`.
    pub x: bool,
    /// `u`; `None` where only three letters are printed.
    pub u: Option<bool>,
}

/// A value found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Found {
    /// The value.
    pub value: u64,
    /// Level of the entry.
    pub level: Option<u8>,
    /// Guest frame of the entry.
    pub gfn: Option<u64>,
    /// What it is.
    pub role: Role,
    /// What the kernel printed as `rsvd bits`: the mask, not the bits that offend.
    pub rsvd_mask: Option<u64>,
    /// Letters behind the value.
    pub letters: Option<Letters>,
    /// Generation the text gives for it.
    pub generation: Option<u32>,
    /// Index in its table.
    pub index: Option<u16>,
    /// The line it stands in, from 1.
    pub line: u32,
    /// Which values belong together: an index into [`Pasted::groups`].
    pub group: usize,
}

/// What kind of text a group of values came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Bare numbers.
    Bare,
    /// A dump of a walk that hit reserved bits.
    ReservedDump,
    /// A #VE dump of a walk.
    VeDump,
    /// The warning at the creation of an SPTE with reserved bits.
    ReservedWarning,
    /// "Invalid SPTE change" of the TDP MMU.
    InvalidChange,
    /// "Unexpected SPTE change" of the TDP MMU.
    UnexpectedChange,
    /// A warning about host- and MMU-writable.
    WritableWarning,
    /// The shadow MMU's audit.
    Audit,
    /// A trace event.
    Event,
    /// Memory of a page table, out of a debugger.
    Memory,
}

/// Values that belong together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// Kind of text.
    pub kind: Kind,
    /// Line it begins at, from 1.
    pub line: u32,
    /// Guest-physical (or virtual) address the text is about.
    pub address: Option<u64>,
    /// Name of the trace event.
    pub event: Option<String>,
}

/// What a text proves about the kernel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clue {
    /// Releases it can be.
    pub releases: RangeInclusive<(u16, u16)>,
    /// Why.
    pub why: &'static str,
}

/// The result of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pasted {
    /// Values, in the order of the text.
    pub values: Vec<Found>,
    /// The texts they came from.
    pub groups: Vec<Group>,
    /// A kernel release the text names (`6.1.0-13-amd64 #1 Debian 6.1.55-1`).
    pub kernel: Option<String>,
    /// What the wording proves about the release.
    pub clues: Vec<Clue>,
    /// `intel` or `amd`, where the text names only one KVM module.
    pub vendor: Option<&'static str>,
    /// Numbers that look like entries and are not, one sentence each.
    pub left_alone: Vec<String>,
}

impl Pasted {
    /// The releases all clues leave.
    pub fn releases(&self) -> Option<RangeInclusive<(u16, u16)>> {
        let mut clues = self.clues.iter().map(|c| c.releases.clone());
        let first = clues.next()?;
        Some(clues.fold(first, |a, b| *a.start().max(b.start())..=*a.end().min(b.end())))
    }
}

const OLDEST: (u16, u16) = (4, 13);
const NEWEST: (u16, u16) = (u16::MAX, 0);

/// Values beyond this many are not taken: a page-table page has 512, a dump of a whole guest is for another tool.
pub const MOST: usize = 1 << 16;

/// Finds the SPTE values of a text.
pub fn scan(text: &[u8]) -> Pasted {
    let text = String::from_utf8_lossy(text);
    let mut scanner = Scanner::default();
    for (n, line) in text.lines().enumerate() {
        scanner.line(line, u32::try_from(n).unwrap_or(u32::MAX).saturating_add(1));
        if scanner.out.values.len() >= MOST {
            break;
        }
    }
    let (intel, amd) = (text.contains("kvm_intel"), text.contains("kvm_amd"));
    scanner.out.vendor = match (intel, amd) {
        (true, false) => Some("intel"),
        (false, true) => Some("amd"),
        _ if text.contains("handle_ept_misconfig") || text.contains("EPT_MISCONFIG") => Some("intel"),
        _ if text.contains("npf_interception") => Some("amd"),
        _ => None,
    };
    scanner.out
}

/// One word that is nothing but a number: `0x…` or at least four hex digits (`0` counts, too).
pub fn number(word: &str) -> Option<u64> {
    let word = word.trim_matches(|c: char| matches!(c, ',' | ';' | '`' | '\'' | '"' | '(' | ')'));
    let word =
        word.strip_suffix("ULL").or(word.strip_suffix("ull")).or(word.strip_suffix('L')).unwrap_or(word);
    if let Some(hex) = word.strip_prefix("0x").or(word.strip_prefix("0X")) {
        return u64::from_str_radix(&hex.replace('_', ""), 16).ok().filter(|_| !hex.is_empty());
    }
    if word == "0" {
        return Some(0);
    }
    let plain = (4..=16).contains(&word.len()) && word.bytes().all(|b| b.is_ascii_hexdigit());
    plain.then(|| u64::from_str_radix(word, 16).ok()).flatten()
}

#[derive(Default)]
struct Scanner {
    out: Pasted,
    /// The group that following values join, while its kind of text goes on.
    open: Option<(usize, Kind)>,
    /// A block of several lines has begun: its values come later.
    pending: Option<(Kind, u32)>,
}

/// `(0x)?hex` at the start of a text: the number and what follows.
fn hex(text: &str) -> Option<(u64, &str)> {
    let digits = text.strip_prefix("0x").unwrap_or(text);
    let end = digits.bytes().take_while(u8::is_ascii_hexdigit).count();
    if end == 0 || end > 16 {
        return None;
    }
    Some((u64::from_str_radix(&digits[..end], 16).ok()?, &digits[end..]))
}

/// A number in hex, or in decimal where the tool prints fields raw.
fn value(text: &str, decimal: bool) -> Option<(u64, &str)> {
    if decimal && !text.starts_with("0x") {
        let end = text.bytes().take_while(u8::is_ascii_digit).count();
        return Some((text[..end].parse().ok()?, &text[end..]));
    }
    hex(text)
}

/// What follows `key` and the signs between a key and its value.
fn after<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    let mut from = 0;
    while let Some(at) = text[from..].find(key) {
        let start = from + at;
        let end = start + key.len();
        let before = text[..start].bytes().next_back();
        let starts = before.is_none_or(|b| !(b.is_ascii_alphanumeric() || b == b'_'));
        let rest = &text[end..];
        if starts && rest.starts_with([' ', '=', ':', '\t']) {
            return Some(rest.trim_start_matches([' ', '=', ':', '\t']));
        }
        from = end;
    }
    None
}

fn level_in(text: &str) -> Option<u8> {
    let rest = after(text, "level")?;
    let digit = rest.bytes().next()?;
    (b'1'..=b'5').contains(&digit).then_some(digit - b'0')
}

fn letters(text: &str) -> Option<Letters> {
    let inner = text.trim_start().strip_prefix('(')?.split_once(')')?.0;
    let bytes = inner.as_bytes();
    if !(3..=4).contains(&bytes.len()) || !inner.bytes().all(|b| b"rwxu-".contains(&b)) {
        return None;
    }
    Some(Letters {
        r: bytes[0] == b'r',
        w: bytes[1] == b'w',
        x: bytes[2] == b'x',
        u: bytes.get(3).map(|&b| b == b'u'),
    })
}

impl Scanner {
    fn group(&mut self, kind: Kind, line: u32) -> usize {
        self.out.groups.push(Group { kind, line, address: None, event: None });
        self.out.groups.len() - 1
    }

    /// The open group if it is of this kind, else a new one.
    fn join(&mut self, kind: Kind, line: u32) -> usize {
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

    fn line(&mut self, line: &str, n: u32) {
        self.kernel(line);
        self.headers(line, n);
        if line.contains("SEAMCALL") || line.contains("level_state") {
            let what = "words of a SEAMCALL error are entries of the TDX module, not KVM's SPTEs: left alone";
            if !self.out.left_alone.iter().any(|s| s == what) {
                self.out.left_alone.push(what.to_owned());
            }
            return;
        }
        let found = self.change(line, n)
            || self.fast_page_fault(line, n)
            || self.ve(line, n)
            || self.warning(line, n)
            || self.spte(line, n)
            || self.memory(line, n)
            || self.bare(line, n);
        let in_dump = matches!(self.open, Some((_, Kind::ReservedDump)));
        if !found && !line.trim().is_empty() && !in_dump {
            self.open = None;
        }
    }

    fn kernel(&mut self, line: &str) {
        if self.out.kernel.is_some() {
            return;
        }
        if let Some(at) = line.find("Linux version ") {
            self.out.kernel = Some(line[at..].trim().to_owned());
            return;
        }
        // "CPU: 3 PID: 4711 Comm: qemu Tainted: G W 6.1.0-13-amd64 #1  Debian 6.1.55-1"
        let Some(at) = line.find("ainted") else { return };
        let mut words = line[at..].split_whitespace();
        let release = words.find(|w| {
            w.starts_with(|c: char| c.is_ascii_digit())
                && w.contains('.')
                && w.split('.').next().is_some_and(|m| m.parse::<u16>().is_ok())
        });
        if let Some(release) = release {
            let debian =
                line.split_once("Debian ").map(|(_, rest)| rest.split_whitespace().next().unwrap_or(""));
            self.out.kernel = Some(match debian {
                Some(version) => format!("Linux version {release} Debian {version}"),
                None => release.to_owned(),
            });
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

    /// `… gfn G … level L old_spte A new_spte B`, as an event or in an error of the TDP MMU.
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

    fn fast_page_fault(&mut self, line: &str, n: u32) -> bool {
        let Some(at) = line.find("fast_page_fault") else { return false };
        let rest = &line[at..];
        let decimal = line.contains("FAILED TO PARSE");
        let get = |key: &str| after(rest, key).and_then(|t| value(t, decimal)).map(|(v, _)| v);
        let (Some(old), Some(new)) =
            (get("old").or_else(|| get("old_spte")), get("new").or_else(|| get("new_spte")))
        else {
            return false;
        };
        let group = self.group(Kind::Event, n);
        self.out.groups[group].event = Some(String::from("fast_page_fault"));
        let address = get("gva").or_else(|| get("cr2_or_gpa"));
        self.out.groups[group].address = address;
        self.open = None;
        let common = Found { gfn: address.map(|a| a >> 12), line: n, group, ..Found::default() };
        // A walk that found nothing prints zeroes for both.
        self.out.values.push(Found { value: old, role: Role::Old, ..common });
        if old != new {
            self.out.values.push(Found { value: new, role: Role::New, ..common });
        }
        true
    }

    /// `#VE 1000, spte[4] = 0x…, spte[3] = 0x…`.
    fn ve(&mut self, line: &str, n: u32) -> bool {
        if !line.contains("spte[") {
            return false;
        }
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
        if values.is_empty() {
            return false;
        }
        let kind = if line.contains("#VE") { Kind::VeDump } else { Kind::ReservedDump };
        let group = self.join(kind, n);
        if kind == Kind::VeDump {
            self.clue((6, 10), NEWEST, "a #VE dump");
            self.out.groups[group].address =
                line.split_once("#VE").and_then(|(_, rest)| hex(rest.trim_start())).map(|(a, _)| a);
        }
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

    /// Every `spte = 0x… level = N[, rsvd bits = 0x…]` of a line (several where printk glued them) and `gfn … spte … (rwxu) level N`.
    fn spte(&mut self, line: &str, n: u32) -> bool {
        let decimal = line.contains("FAILED TO PARSE");
        let mut rest = line;
        let mut any = false;
        while let Some(text) = after(rest, "spte") {
            let Some((found, tail)) = value(text, decimal) else {
                rest = text;
                continue;
            };
            // The value ends where the next one begins: levels and masks behind it are its own.
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
                head.trim_end_matches([' ', '=', ':']).trim_end_matches("spte").trim_end().ends_with("---");
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
                level: level_in(own).or_else(|| if gfn.is_some() { level_in(head) } else { None }),
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

    /// `0xffff888004b1c000: 0x… 0x…` of gdb, crash, drgn.
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
            // Debuggers print whole words; anything else is the text column behind them.
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
            // Another page is another table.
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

    /// A line of nothing but numbers.
    fn bare(&mut self, line: &str, n: u32) -> bool {
        let mut values = Vec::new();
        for word in line.split(|c: char| c.is_whitespace() || c == ',').filter(|w| !w.is_empty()) {
            match number(word) {
                Some(value) => values.push(value),
                None if matches!(word, "->" | "→" | "=>" | "to") => {}
                // gdb's `$1 = 0x…`, drgn's prompt.
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

/// Name of the event a trace line is about.
fn event_of(line: &str) -> Option<String> {
    const EVENTS: [&str; 6] = [
        "kvm_mmu_set_spte",
        "kvm_tdp_mmu_spte_changed",
        "check_mmio_spte",
        "kvm_mmu_split_huge_page",
        "fast_page_fault",
        "mark_mmio_spte",
    ];
    EVENTS.iter().find(|e| line.contains(**e)).map(|e| (*e).to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(text: &str) -> Vec<(u64, Option<u8>)> {
        scan(text.as_bytes()).values.iter().map(|v| (v.value, v.level)).collect()
    }

    #[test]
    fn dumps_of_every_era() {
        let old = "walk_shadow_page_get_mmio_spte: detect reserved bits on spte, addr 0xfed00000, dump hierarchy:\n\
                   ------ spte 0x80000000b1e8107 level 4.\n------ spte 0x123456f77 level 1.";
        let p = scan(old.as_bytes());
        assert_eq!(values(old), [(0x0800_0000_0b1e_8107, Some(4)), (0x1_2345_6f77, Some(1))]);
        assert_eq!(p.groups.len(), 1);
        assert_eq!(p.groups[0].address, Some(0xfed0_0000));
        assert_eq!(p.releases(), Some(OLDEST..=(5, 9)));

        // printk glues what has no newline, and syslog writes its own prefix.
        let new = "Nov  3 12:00:01 host kernel: [  99.123456] kvm: get_mmio_spte: reserved bits set on MMU-present spte, addr 0x1000, hierarchy:\n\
                   Nov  3 12:00:01 host kernel: [  99.123457] kvm: ------ spte = 0x107b1e907 level = 4, rsvd bits = 0xfc000000000f8------ spte = 0x600000123456b77 level = 1, rsvd bits = 0xfc00000000000";
        let p = scan(new.as_bytes());
        assert_eq!(p.values.len(), 2);
        assert_eq!((p.values[0].level, p.values[0].rsvd_mask), (Some(4), Some(0xf_c000_0000_00f8)));
        assert_eq!((p.values[1].level, p.values[1].rsvd_mask), (Some(1), Some(0xf_c000_0000_0000)));
        assert_eq!(p.groups.len(), 1);
        assert_eq!(p.groups[0].kind, Kind::ReservedDump);
        assert_eq!(p.releases(), Some((5, 13)..=NEWEST));
    }

    #[test]
    fn changes_of_the_tdp_mmu() {
        let text = "Invalid SPTE change: cannot replace a present leaf\nSPTE with another present leaf SPTE mapping a\ndifferent PFN!\n\
                    as_id: 0 gfn: 7c00 old_spte: 600000123456b77 new_spte: 600000123457b77 level: 1";
        let p = scan(text.as_bytes());
        assert_eq!(values(text), [(0x0600_0001_2345_6b77, Some(1)), (0x0600_0001_2345_7b77, Some(1))]);
        assert_eq!((p.groups[0].kind, p.groups[0].line), (Kind::InvalidChange, 1));
        assert_eq!(p.values[0].gfn, Some(0x7c00));
        assert_eq!((p.values[0].role, p.values[1].role), (Role::Old, Role::New));
    }

    #[test]
    fn ve_and_warnings() {
        let p = scan(b"kvm: #VE fee00000, spte[4] = 0x8000000107b1e907, spte[3] = 0x8000000107b1f907, spte[1] = 0x8000000000000000");
        assert_eq!(p.values.iter().map(|v| v.level).collect::<Vec<_>>(), [Some(4), Some(3), Some(1)]);
        assert_eq!(p.groups[0].address, Some(0xfee0_0000));
        let p = scan(b"kvm: MMU-writable SPTE is not Host-writable: 400000123456975\nspte = 0x1, level = 2, rsvd bits = 0x3");
        assert_eq!(p.values[0].value, 0x0400_0001_2345_6975);
        assert_eq!((p.values[1].value, p.values[1].level, p.values[1].rsvd_mask), (1, Some(2), Some(3)));
    }

    #[test]
    fn trace_lines_of_all_tools() {
        let text = "            load-111     [000] ...1.     4.304062: kvm_mmu_set_spte: gfn 2 spte 7e6fe67 (rwxu) level 1 at 9c16a010\n\
                    load-111 [000] 4.298216: kvm_tdp_mmu_spte_changed: as id 0 gfn 0 level 4 old_spte 0 new_spte 9c168827\n\
                    load-103 [000] .....    69.445577: fast_page_fault: vcpu 0 gva 2000 error_code U sptep 00000000d017d220 old 0x0 new 0 spurious 0 fixed 0\n\
                    x-1 [000] 1.0: check_mmio_spte: spte 8000000fee00027 kvm_gen 4 spte-gen 4 valid 1\n\
                    x-1 [000] 1.0: kvm_mmu_spte_requested: gfn 2 pfn 7e6f level 1\n\
                    x-1 [000] 1.0: mark_mmio_spte: sptep:00000000d017d220 gfn fee00 access 3 gen 4";
        let p = scan(text.as_bytes());
        let all: Vec<_> = p.values.iter().map(|v| (v.value, v.level, v.gfn, v.role)).collect();
        assert_eq!(
            all,
            [
                (0x7e6_fe67, Some(1), Some(2), Role::Leaf),
                (0, Some(4), Some(0), Role::Old),
                (0x9c16_8827, Some(4), Some(0), Role::New),
                (0, None, Some(2), Role::Old),
                (0x0800_0000_fee0_0027, None, None, Role::Mmio),
            ]
        );
        assert_eq!(p.values[0].letters, Some(Letters { r: true, w: true, x: true, u: Some(true) }));
        assert_eq!(p.values[4].generation, Some(4));
        // trace-cmd without the plugin: decimal.
        let p = scan(b"q-1 [0] 1.0: kvm_mmu_set_spte: [FAILED TO PARSE] gfn=74240 spte=432345565227567991 sptep=1 level=1 r=1 x=1 u=-1");
        assert_eq!(
            (p.values[0].value, p.values[0].gfn, p.values[0].level),
            (432_345_565_227_567_991, Some(74240), Some(1))
        );
    }

    #[test]
    fn debuggers() {
        let text = "0xffff888004b1c000:\t0x8000000000000000\t0x8600000123456b77\n0xffff888004b1c010 <foo+16>:\t0x0000000000000000\t0x8600000123457b77\n\
                    ffff888004b1d000:  0000000000000000 8600000123456b77   ........wkE#....";
        let p = scan(text.as_bytes());
        assert_eq!(p.values.len(), 6);
        assert_eq!(p.values[1].index, Some(1));
        assert_eq!(p.values[3].index, Some(3));
        assert_eq!(p.groups.len(), 2, "two pages, two tables");
    }

    #[test]
    fn bare_numbers_and_what_is_none() {
        assert_eq!(values("0x600000123456b77"), [(0x0600_0001_2345_6b77, None)]);
        assert_eq!(values("600000123456b77 -> 0"), [(0x0600_0001_2345_6b77, None), (0, None)]);
        assert_eq!(values("(gdb) $1 = 0x5a0"), [(0x5a0, None)]);
        assert_eq!(values("RAX: 0000000000000000 RBX: ffff888004b1c000 RCX: 0000000000000001"), []);
        assert_eq!(values("RIP: 0010:handle_ept_misconfig+0x42/0x90 [kvm_intel]"), []);
        assert_eq!(
            values("kvm_intel: SEAMCALL TDH_MEM_PAGE_AUG failed: entry 0x8000000123456b77, level_state 0x1"),
            []
        );
        assert_eq!(values("BUG: unable to handle page fault for address: ffffc90000b37000"), []);
        assert_eq!(values("spte = 0x12345678123456789 level = 1"), [], "too long for a word");
    }

    #[test]
    fn the_kernel_a_dump_names() {
        let p = scan(b"CPU: 3 PID: 4711 Comm: qemu-system-x86 Tainted: G        W          6.1.0-13-amd64 #1  Debian 6.1.55-1");
        assert_eq!(p.kernel.as_deref(), Some("Linux version 6.1.0-13-amd64 Debian 6.1.55-1"));
        let p = scan(b"CPU: 3 PID: 4711 Comm: qemu Not tainted 6.12.9 #7");
        assert_eq!(p.kernel.as_deref(), Some("6.12.9"));
    }
}
