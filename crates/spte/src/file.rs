//! The layout file format: a small part of TOML, read without allocation per value and with the line of every mistake.
//!
//! A file says what one family of kernels does in one paging mode. Tables named `[bits]`, `[values]`, `[masks]`, `[mmio]`, `[rules]`,
//! `[reserved]`, `[host]` and `[traces]` hold for all of its kernels; the same tables under `[era.E08.mmio]` hold from that era on, under
//! `[since."5.17".rules]` from that release on, under `[stable."5.4.90".mmio]` from that patch level of one stable branch on, and
//! under `[exact."5.19.0".mmio]` for one release alone. `extends = "C/ept"` starts from another file.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

/// A mistake in a layout file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FileError {
    /// Name of the file.
    pub file: String,
    /// The line, counted from 1; 0 where the mistake is that something is missing.
    pub line: u32,
    /// What is wrong, in words.
    pub reason: String,
}

impl core::fmt::Display for FileError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        if self.line == 0 {
            write!(f, "{}: {}", self.file, self.reason)
        } else {
            write!(f, "{}:{}: {}", self.file, self.line, self.reason)
        }
    }
}

impl core::error::Error for FileError {}

/// A value in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Text(&'a str),
    Number(u64),
    Bool(bool),
    List(Vec<&'a str>),
}

/// The kernels for which a table of the file holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope<'a> {
    Always,
    Era(&'a str),
    Since(u16, u16),
    Stable(u16, u16, u16),
    Exact(u16, u16, u16),
}

/// One `key = value`.
#[derive(Clone, Debug)]
pub(crate) struct Item<'a> {
    pub(crate) scope: Scope<'a>,
    /// Index into [`SCHEMA`].
    pub(crate) key: u8,
    pub(crate) value: Value<'a>,
    pub(crate) line: u32,
}

/// A parsed file.
#[derive(Clone, Debug)]
pub(crate) struct File<'a> {
    pub(crate) name: &'a str,
    pub(crate) items: Vec<Item<'a>>,
}

/// Every key that a layout file may have: its section, its name, and the kind of value.
pub(crate) const SCHEMA: &[(&str, &str, &str)] = &[
    ("", "layout", "the version of this file format: 1"),
    ("", "title", "a text"),
    ("", "name", "a text: what the layout is called in answers"),
    ("", "family", "a letter"),
    ("", "paging", "a paging mode"),
    ("", "extends", "another layout: FAMILY/MODE or ERA/MODE"),
    // A note for people: which kernels have a layout is what the eras say.
    ("", "kernels", "a text"),
    ("", "notes", "a list of texts"),
    ("bits", "present", "\"nonzero\" or a mask"),
    ("bits", "address", "a mask"),
    ("bits", "large", "a mask"),
    ("bits", "ad_type", "a mask"),
    ("bits", "saved_shift", "a number"),
    ("bits", "memtype", "a mask"),
    ("bits", "ignore_pat", "a mask"),
    ("bits", "suppress_ve", "a mask"),
    ("bits", "page_state", "a mask"),
    ("bits", "host_entries_at_root", "true or false"),
    ("values", "zapped", "a mask"),
    ("values", "removed", "\"none\" or a mask"),
    ("masks", "user", "a mask"),
    ("masks", "nx", "a mask"),
    ("masks", "x", "a mask"),
    ("masks", "xu", "a mask"),
    ("masks", "accessed", "a mask"),
    ("masks", "dirty", "a mask"),
    ("masks", "present", "a mask"),
    ("masks", "acc_track", "a mask"),
    ("masks", "me", "a mask"),
    ("masks", "me_value", "a mask"),
    ("masks", "host_writable", "a mask"),
    ("masks", "mmu_writable", "a mask"),
    ("mmio", "value", "a mask"),
    ("mmio", "mask", "a mask"),
    ("mmio", "test", "a mask"),
    ("mmio", "vm_value", "a mask"),
    ("mmio", "value_mem_encrypt", "a mask"),
    ("mmio", "access", "a mask"),
    ("mmio", "access_read", "\"stored\" or \"unmarked\""),
    ("mmio", "caching", "\"always\", \"nonzero\", \"narrow\" or \"never\""),
    ("mmio", "gfn", "\"plain\" or \"split\""),
    ("mmio", "l1tf", "\"none\", \"every-cpu\" or \"buggy-cpus\""),
    ("mmio", "l1tf_width", "\"phys\" or \"cache\""),
    ("mmio", "generation_store", "one or two of \"g[h:l] -> b[h:l]\""),
    ("mmio", "generation_read", "one or two of \"b[h:l] -> g[h:l]\""),
    ("mmio", "generation_clear", "\"mask\" or \"none\""),
    ("rules", "accessed", "\"type\" or \"bits\""),
    ("rules", "fast_fix", "\"host-and-mmu\", \"mmu\" or \"never\""),
    ("rules", "present_r", "true or false"),
    ("reserved", "table", "\"ept\", \"legacy\" or \"none\""),
    ("reserved", "nx", "\"guest\", \"always\" or \"never\""),
    ("reserved", "encryption", "\"exempt\", \"checked\" or \"ignored\""),
    ("reserved", "level3_b8", "true or false"),
    ("reserved", "large_pages", "true or false"),
    ("reserved", "exec_only", "\"host\" or \"never\""),
    ("host", "width", "\"phys\", \"tme\" or \"cpuid\""),
    ("host", "root_level", "a number"),
    ("traces", "changes", "true or false"),
    ("traces", "set_spte", "\"never\", \"once\", \"before-and-after\" or \"twice\""),
    ("traces", "freeze", "true or false"),
    ("traces", "release", "true or false"),
    ("traces", "page_zaps", "true or false"),
    ("traces", "page_level", "\"own\" or \"above\""),
    ("traces", "zap_all", "\"in-place\" or \"obsolete\""),
    ("traces", "unlink", "\"first\" or \"last\""),
    ("traces", "fast_faults", "true or false"),
    ("traces", "notifiers", "true or false"),
    ("traces", "change_pte", "true or false"),
    ("traces", "mark_mmio", "\"before\" or \"after\""),
    ("traces", "mmio_set_spte", "true or false"),
    ("traces", "eager_splits", "true or false"),
    ("traces", "fault_splits", "\"zap\" or \"in-place\""),
    ("traces", "recovery", "\"zap\" or \"in-place\""),
    ("traces", "slot_leaves", "true or false"),
];

/// One `key = value` as written; its meaning is not checked yet.
pub(crate) struct Raw<'a> {
    pub(crate) header: &'a str,
    pub(crate) header_line: u32,
    pub(crate) key: &'a str,
    pub(crate) value: Value<'a>,
    pub(crate) line: u32,
}

/// The index of a key in [`SCHEMA`].
pub(crate) fn key(section: &str, key: &str) -> Option<u8> {
    SCHEMA.iter().position(|(s, k, _)| *s == section && *k == key).map(|at| at as u8)
}

impl Item<'_> {
    /// The names of its section and of its key.
    pub(crate) fn names(&self) -> (&'static str, &'static str) {
        SCHEMA.get(usize::from(self.key)).map_or(("", ""), |&(s, k, _)| (s, k))
    }
}

/// Splits a file into its lines; `name` is the file's name for messages.
pub(crate) fn read<'a>(name: &str, text: &'a str) -> Result<Vec<Raw<'a>>, FileError> {
    let error = |line: u32, reason: String| FileError { file: name.to_string(), line, reason };
    let mut raws = Vec::with_capacity(48);
    let (mut header, mut header_line) = ("", 0);
    let mut lines = text.lines().enumerate();
    while let Some((n, full)) = lines.next() {
        let number = n as u32 + 1;
        let line = strip_comment(full).trim();
        if line.is_empty() {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            let rest = rest
                .strip_suffix(']')
                .ok_or_else(|| error(number, "a table name ends with ]".to_string()))?;
            (header, header_line) = (rest.trim(), number);
            continue;
        }
        let (key, value) = line
            .split_once('=')
            .ok_or_else(|| error(number, format!("`{line}` is neither `key = value` nor `[table]`")))?;
        let (key, value) = (key.trim(), value.trim());
        let value = if let Some(first) = value.strip_prefix('[') {
            let mut list = Vec::new();
            let mut part = first;
            loop {
                let (body, end) = match part.strip_suffix(']') {
                    // A bracket inside the quotes of the last text does not end the list.
                    Some(body) if body.matches('"').count() % 2 == 0 => (body, true),
                    _ => (part, false),
                };
                for text in split_list(body) {
                    let text = unquote(text).ok_or_else(|| {
                        error(number, format!("`{text}` in the list of {key} is not a text"))
                    })?;
                    list.push(text);
                }
                if end {
                    break;
                }
                let Some((_, next)) = lines.next() else {
                    return Err(error(number, format!("the list of {key} has no end")));
                };
                part = strip_comment(next).trim();
            }
            Value::List(list)
        } else {
            parse_value(value).ok_or_else(|| {
                error(
                    number,
                    format!("`{value}` is neither a text in quotes, a number, true, false nor a list"),
                )
            })?
        };
        if raws.iter().any(|r: &Raw<'_>| r.header == header && r.key == key) {
            return Err(error(number, format!("{key} is set twice in one table")));
        }
        raws.push(Raw { header, header_line, key, value, line: number });
    }
    Ok(raws)
}

impl<'a> File<'a> {
    /// Reads a layout file; `name` is the file's name for messages.
    pub(crate) fn parse(name: &'a str, text: &'a str) -> Result<File<'a>, FileError> {
        let error = |line: u32, reason: String| FileError { file: name.to_string(), line, reason };
        let mut items = Vec::with_capacity(48);
        for raw in read(name, text)? {
            let (scope, section) = if raw.header.is_empty() {
                (Scope::Always, "")
            } else {
                parse_header(raw.header).map_err(|why| error(raw.header_line, why))?
            };
            let Some(key) = key(section, raw.key) else {
                return Err(error(raw.line, unknown_key(section, raw.key)));
            };
            items.push(Item { scope, key, value: raw.value, line: raw.line });
        }
        let file = File { name, items };
        match file.top("layout") {
            Some(Item { value: Value::Number(1), .. }) => Ok(file),
            Some(item) => Err(file.error(item.line, "layout = 1 is the only version of this format")),
            None => Err(file.error(0, "not a layout file: it has no line `layout = 1`")),
        }
    }

    /// The value of a key at the top of the file.
    pub(crate) fn top(&self, name: &str) -> Option<&Item<'a>> {
        let key = key("", name)?;
        self.items.iter().find(|i| i.scope == Scope::Always && i.key == key)
    }

    /// The text of a key at the top of the file.
    pub(crate) fn text(&self, key: &str) -> Option<&'a str> {
        match self.top(key)?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Makes an error about a line of this file.
    pub(crate) fn error(&self, line: u32, reason: impl Into<String>) -> FileError {
        FileError { file: self.name.to_string(), line, reason: reason.into() }
    }
}

fn strip_comment(line: &str) -> &str {
    let mut quoted = false;
    for (at, c) in line.char_indices() {
        match c {
            '"' => quoted = !quoted,
            '#' if !quoted => return &line[..at],
            _ => {}
        }
    }
    line
}

fn unquote(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('"')?.strip_suffix('"')?;
    (!inner.contains(['"', '\\'])).then_some(inner)
}

fn split_list(body: &str) -> impl Iterator<Item = &str> {
    // A comma inside quotes does not separate items.
    let mut quoted = false;
    body.split(move |c| {
        if c == '"' {
            quoted = !quoted;
        }
        c == ',' && !quoted
    })
    .map(str::trim)
    .filter(|part| !part.is_empty())
}

fn parse_value(text: &str) -> Option<Value<'_>> {
    match text {
        "true" => return Some(Value::Bool(true)),
        "false" => return Some(Value::Bool(false)),
        _ => {}
    }
    if text.starts_with('"') {
        return unquote(text).map(Value::Text);
    }
    match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => text.parse().ok(),
    }
    .map(Value::Number)
}

fn parse_header(header: &str) -> Result<(Scope<'_>, &str), String> {
    let sections = ["bits", "values", "masks", "mmio", "rules", "reserved", "host", "traces"];
    let known = |section: &str| sections.contains(&section);
    let header = header.trim();
    if known(header) {
        return Ok((Scope::Always, header));
    }
    let unknown = || {
        format!(
            "unknown table [{header}]: tables are {}, each also under era.ID, since.\"X.Y\", stable.\"X.Y.Z\" and exact.\"X.Y.Z\"",
            sections.join(", ")
        )
    };
    let (kind, rest) = header.split_once('.').ok_or_else(unknown)?;
    let (of, section) = rest.rsplit_once('.').ok_or_else(unknown)?;
    if !known(section) {
        return Err(unknown());
    }
    let of = of.trim().trim_matches('"');
    let release = |parts: usize| -> Result<[u16; 3], String> {
        let mut numbers = [0; 3];
        let mut count = 0;
        for part in of.split('.') {
            if count == 3 {
                count = 4;
                break;
            }
            numbers[count] = part.parse().map_err(|_| format!("`{of}` is not a kernel release"))?;
            count += 1;
        }
        if count == parts { Ok(numbers) } else { Err(format!("`{of}` should have {parts} numbers")) }
    };
    let scope = match kind {
        "era" => Scope::Era(of),
        "since" => release(2).map(|[a, b, _]| Scope::Since(a, b))?,
        "stable" => release(3).map(|[a, b, c]| Scope::Stable(a, b, c))?,
        "exact" => release(3).map(|[a, b, c]| Scope::Exact(a, b, c))?,
        _ => return Err(unknown()),
    };
    Ok((scope, section))
}

fn unknown_key(section: &str, key: &str) -> String {
    let place = if section.is_empty() { String::from("at the top") } else { format!("in [{section}]") };
    if let Some((other, ..)) = SCHEMA.iter().find(|(s, k, _)| *k == key && *s != section) {
        let home = if other.is_empty() { String::from("at the top") } else { format!("in [{other}]") };
        return format!("`{key}` belongs {home}, not {place}");
    }
    let names: Vec<&str> = SCHEMA.iter().filter(|(s, ..)| *s == section).map(|&(_, k, _)| k).collect();
    format!("unknown key `{key}` {place}: there are {}", names.join(", "))
}
