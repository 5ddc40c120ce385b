//! `name=value` bodies: `trace-cmd report -R`, libtraceevent's `[FAILED TO PARSE]`, and tracefs' `fields` option.
//!
//! Which base a number without `0x` is in depends on the event: where libtraceevent understood the event's print format it uses the
//! format's own conversion, else decimal. tracefs prints `0x…` with the decimal in brackets.

use crate::fields::{Base, Fields};
use crate::schema::text::{Gaps, real_pointer};

/// The style of the pairs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    /// After `[FAILED TO PARSE]`, numbers are always decimal.
    Unparsed,
    /// In raw output, numbers are printed by the event's own conversions.
    Raw,
}

const UNPARSED: &[u8] = b"[FAILED TO PARSE]";

/// The style of a body that consists of pairs; `None` for any other body.
pub(crate) fn looks_like(rest: &[u8]) -> Option<Style> {
    if rest.starts_with(UNPARSED) {
        return Some(Style::Unparsed);
    }
    let first = rest.iter().position(|b| matches!(b, b' ' | b'=')).unwrap_or(rest.len());
    (rest.get(first) == Some(&b'=') && first > 0).then_some(Style::Raw)
}

/// The pairs of a line. There are never many, so each search begins at the start.
pub(crate) struct Pairs<'a, 'g> {
    rest: &'a [u8],
    style: Style,
    gaps: &'g mut Gaps,
}

impl<'a, 'g> Pairs<'a, 'g> {
    pub(crate) fn new(rest: &'a [u8], style: Style, gaps: &'g mut Gaps) -> Self {
        let rest = rest.strip_prefix(UNPARSED).unwrap_or(rest);
        Self { rest, style, gaps }
    }

    fn value(&self, name: &str) -> Option<&'a [u8]> {
        // A text in `tracing_mark_write` may contain anything, so `buf` takes the rest of the line.
        let mut at = 0;
        while at < self.rest.len() {
            let word = &self.rest[at..];
            let blanks = word.iter().take_while(|b| matches!(b, b' ' | b'\t')).count();
            let word = &word[blanks..];
            at += blanks;
            let end = word.iter().position(|b| matches!(b, b' ' | b'\t')).unwrap_or(word.len());
            if let Some(v) = word[..end].strip_prefix(name.as_bytes()).and_then(|w| w.strip_prefix(b"=")) {
                return Some(if name == "buf" { &word[name.len() + 1..] } else { v });
            }
            at += end;
        }
        None
    }
}

impl Fields for Pairs<'_, '_> {
    fn num(&mut self, name: &'static str, base: Base) -> Option<u64> {
        let v = self.value(name)?;
        if let Some(h) = v.strip_prefix(b"0x") {
            return u64::from_str_radix(std::str::from_utf8(h).ok()?, 16).ok();
        }
        let text = std::str::from_utf8(v).ok()?;
        match text {
            "true" | "Y" => return Some(1),
            "false" | "N" => return Some(0),
            _ => {}
        }
        if let Some(n) = text.strip_prefix('-') {
            return n.parse::<u64>().ok().map(u64::wrapping_neg);
        }
        if base == Base::Hex && self.style == Style::Raw {
            u64::from_str_radix(text, 16).ok()
        } else {
            text.parse().ok()
        }
    }

    fn ptr(&mut self, name: &'static str) -> Option<u64> {
        let v = self.value(name)?;
        // A decimal pointer is real: only the kernel hashes pointers, and it prints hexadecimal.
        if self.style == Style::Unparsed && !v.starts_with(b"0x") {
            self.num(name, Base::Decimal)
        } else {
            real_pointer(v, self.gaps)
        }
    }

    fn text(&mut self, name: &'static str) -> Option<String> {
        self.value(name).map(|v| String::from_utf8_lossy(v).into_owned())
    }
}
