//! The keys of layout files that hold for one kernel, and the notation in which the files write masks.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};

use crate::{
    Era, Error, Host, Kernel, Mode, Vendor, bits,
    file::{self, File, FileError, Item, SCHEMA, Scope, Value},
    layouts::{self, Library},
};

/// The kernel for which a file is read.
pub(super) struct When<'a> {
    pub(super) library: &'a Library,
    pub(super) eras: &'a [Era],
    pub(super) era: usize,
    pub(super) kernel: &'a Kernel,
}

/// The keys that hold for one kernel; later tables override earlier ones. File name and item, by index into the schema.
pub(super) struct Settings<'a> {
    pub(super) list: [Option<(&'a str, &'a Item<'a>)>; SCHEMA.len()],
    pub(super) notes: Vec<String>,
    /// The number of files that wait for the one they extend.
    pub(super) depth: u8,
}

impl<'a> Settings<'a> {
    pub(super) fn add_file(&mut self, file: &'a File<'a>, when: &When<'a>) -> Result<(), Error> {
        if let Some(item) = file.top("extends") {
            let Value::Text(base) = item.value else {
                return Err(file
                    .error(item.line, "extends takes another layout in quotes: \"C/ept\"")
                    .into());
            };
            self.depth += 1;
            if self.depth > 8 {
                return Err(file.error(item.line, "extends goes in a circle").into());
            }
            let known = base.split_once('/').and_then(|(of, mode)| {
                let named = |e: &&Era| e.id.eq_ignore_ascii_case(of) || e.family.eq_ignore_ascii_case(of);
                let family = when.eras.iter().rev().find(named)?.family;
                let mode = Mode::parse(mode)?.name();
                layouts::text(family, mode).map(|_| (family, mode))
            });
            let Some((family, mode)) = known else {
                return Err(file.error(item.line, format!("no layout is called `{base}`")).into());
            };
            self.add_file(when.library.file(family, mode)?, when)?;
            self.depth -= 1;
        }
        let kernel = when.kernel;
        for item in &file.items {
            let holds = match item.scope {
                Scope::Always => true,
                Scope::Era(id) => {
                    let at = when
                        .eras
                        .iter()
                        .position(|e| e.id == id)
                        .ok_or_else(|| file.error(item.line, format!("no era is called `{id}`")))?;
                    at <= when.era
                }
                Scope::Since(major, minor) => kernel.release() >= (major, minor),
                Scope::Stable(major, minor, patch) => {
                    kernel.release() == (major, minor) && kernel.patch.is_some_and(|p| p >= patch)
                }
                Scope::Exact(major, minor, patch) => {
                    kernel.release() == (major, minor) && kernel.patch == Some(patch)
                }
            };
            if let (("", "notes"), Value::List(notes)) = (item.names(), &item.value) {
                self.notes.extend(notes.iter().map(ToString::to_string));
            }
            if holds && let Some(slot) = self.list.get_mut(usize::from(item.key)) {
                *slot = Some((file.name, item));
            }
        }
        Ok(())
    }

    pub(super) fn find(&self, section: &str, key: &str) -> Option<(&'a str, &'a Item<'a>)> {
        file::key(section, key).and_then(|at| self.list[usize::from(at)])
    }

    pub(super) fn has(&self, section: &str, key: &str) -> bool {
        self.find(section, key).is_some()
    }

    pub(super) fn missing(section: &str, key: &str) -> Error {
        Error::File(FileError {
            file: "layout".into(),
            line: 0,
            reason: format!("[{section}] {key} is missing; `extends` another layout or say it"),
        })
    }

    pub(super) fn wrong(section: &str, key: &str, file: &str, line: u32, why: &str) -> Error {
        let takes = SCHEMA.iter().find(|(s, k, _)| *s == section && *k == key).map_or("", |&(.., t)| t);
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        Error::File(FileError { file: file.into(), line, reason: format!("{key} takes {takes}{why}") })
    }

    pub(super) fn mask(&self, section: &str, key: &str, terms: &Terms<'_>) -> Result<u64, Error> {
        let Some((file, item)) = self.find(section, key) else { return Err(Self::missing(section, key)) };
        match item.value {
            Value::Text(text) => {
                terms.eval(text, 0).map_err(|why| Self::wrong(section, key, file, item.line, &why))
            }
            Value::Number(number) => Ok(number),
            _ => Err(Self::wrong(section, key, file, item.line, "")),
        }
    }

    pub(super) fn mask_or_zero(&self, section: &str, key: &str, terms: &Terms<'_>) -> Result<u64, Error> {
        if self.has(section, key) { self.mask(section, key, terms) } else { Ok(0) }
    }

    pub(super) fn number(&self, section: &str, key: &str) -> Result<Option<u64>, Error> {
        match self.find(section, key) {
            None => Ok(None),
            Some((_, Item { value: Value::Number(n), .. })) => Ok(Some(*n)),
            Some((file, item)) => Err(Self::wrong(section, key, file, item.line, "")),
        }
    }

    pub(super) fn flag(&self, section: &str, key: &str) -> Result<bool, Error> {
        match self.find(section, key) {
            None => Ok(false),
            Some((_, Item { value: Value::Bool(b), .. })) => Ok(*b),
            Some((file, item)) => Err(Self::wrong(section, key, file, item.line, "")),
        }
    }

    pub(super) fn word(
        &self,
        section: &str,
        key: &str,
        words: &[&'static str],
    ) -> Result<&'static str, Error> {
        let Some((file, item)) = self.find(section, key) else { return Err(Self::missing(section, key)) };
        match item.value {
            Value::Text(text) => words.iter().copied().find(|w| *w == text),
            _ => None,
        }
        .ok_or_else(|| Self::wrong(section, key, file, item.line, ""))
    }

    pub(super) fn list(&self, section: &str, key: &str) -> Result<(&'a str, u32, &'a [&'a str]), Error> {
        match self.find(section, key) {
            Some((file, Item { value: Value::List(list), line, .. })) => Ok((file, *line, list)),
            Some((file, item)) => Err(Self::wrong(section, key, file, item.line, "")),
            None => Err(Self::missing(section, key)),
        }
    }
}

/// Reads the notation of masks: `b11`, `b51:12`, `0x5a0`, alternatives joined by `|`, and terms that depend on the host.
pub(super) struct Terms<'h> {
    pub(super) host: &'h Host,
    pub(super) width: u32,
}

impl Terms<'_> {
    pub(super) fn sme(&self) -> u64 {
        match self.host.c_bit {
            Some(c) if self.host.sme.value => bits::bit(u32::from(c.value)),
            _ => 0,
        }
    }

    pub(super) fn eval(&self, text: &str, depth: u8) -> Result<u64, String> {
        if depth > 4 {
            return Err("nested too deep".into());
        }
        let mut mask = 0;
        let (mut level, mut start) = (0u32, 0);
        for (at, c) in text.char_indices().chain([(text.len(), '|')]) {
            match c {
                '(' => level += 1,
                ')' => level = level.checked_sub(1).ok_or_else(|| "`)` without `(`".to_string())?,
                '|' if level == 0 => {
                    mask |= self.term(text[start..at].trim(), depth)?;
                    start = at + 1;
                }
                _ => {}
            }
        }
        if level == 0 { Ok(mask) } else { Err("`(` without `)`".into()) }
    }

    pub(super) fn term(&self, term: &str, depth: u8) -> Result<u64, String> {
        let host = self.host;
        if let Some((function, rest)) = term.split_once('(') {
            let argument = rest.strip_suffix(')').ok_or_else(|| format!("`{term}` has no `)`"))?;
            let on = match function.trim() {
                "rsvd" if argument.trim() == "phys" => {
                    return Ok(bits::range(51, u32::from(host.phys_bits.value)));
                }
                "narrow" => self.width < 52,
                "no_exec_only" => !host.exec_only.value,
                "host64" => host.host_64bit.value,
                _ => return Err(format!("unknown term `{term}`")),
            };
            let mask = self.eval(argument, depth + 1)?;
            return Ok(bits::when(on, mask));
        }
        let (phys, max) = (u32::from(host.phys_bits.value), u32::from(host.maxphyaddr.value));
        match term {
            "sme" => return Ok(self.sme()),
            "keyids" => {
                let keyids = host.vendor.value == Vendor::Intel && phys < max;
                return Ok(bits::when(keyids, bits::range(max.saturating_sub(1), phys)));
            }
            "svm_rsvd" => {
                // SVM takes the first reserved bit, or the next one where the first is the C-bit.
                let first =
                    if host.c_bit.is_some_and(|c| u32::from(c.value) == phys) { phys + 1 } else { phys };
                return Ok(bits::when(first < 52, bits::range(51, first) | 1));
            }
            _ => {}
        }
        if let Some(run) = term.strip_prefix('b') {
            let (high, low) = run.split_once(':').unwrap_or((run, run));
            return match (high.parse::<u32>(), low.parse::<u32>()) {
                (Ok(high), Ok(low)) if high < 64 && low <= high => Ok(bits::range(high, low)),
                _ => Err(format!("`{term}` is not a bit (b11) or a run of bits (b51:12)")),
            };
        }
        match term.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => term.parse().ok(),
        }
        .ok_or_else(|| format!("`{term}` is not a bit, a number or a known term"))
    }
}
