//! Where a field lies in a raw record ([`Loc`]), and the record of an untyped event as text ([`describe`]).

use std::fmt::Write as _;

use crate::format::{Field, Format, Shape};

/// The place of a number in a record.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loc {
    offset: u32,
    /// The number of bits of a word that do not belong to the number.
    rest: u8,
    signed: bool,
}

impl Loc {
    /// The place of a field of 1, 2, 4 or 8 bytes.
    pub(crate) fn of(f: &Field) -> Option<Self> {
        matches!(f.size, 1 | 2 | 4 | 8).then(|| Self {
            offset: f.offset,
            rest: 64 - 8 * f.size as u8,
            signed: f.signed,
        })
    }

    pub(crate) fn end(self) -> usize {
        self.offset as usize + (64 - usize::from(self.rest)) / 8
    }

    /// Reads the number. At least [`SLACK`] bytes must follow the record, so that any number can be read as a word.
    #[inline]
    pub(crate) fn read(self, record: &[u8]) -> u64 {
        let at = self.offset as usize;
        let word = record.get(at..at + 8).and_then(|d| d.first_chunk());
        let v = word.map_or(0, |c| u64::from_le_bytes(*c)) << self.rest;
        if self.signed { (v as i64 >> self.rest) as u64 } else { v >> self.rest }
    }

    /// Reads the number from a record that may be followed by nothing.
    fn read_alone(self, record: &[u8]) -> u64 {
        let mut word = [0; SLACK];
        let bytes = record.get(self.offset as usize..).unwrap_or(&[]);
        let n = bytes.len().min(SLACK);
        word[..n].copy_from_slice(&bytes[..n]);
        Self { offset: 0, ..self }.read(&word)
    }
}

/// The number of bytes that must follow a record that is to be decoded.
pub(crate) const SLACK: usize = 8;

/// The bytes up to the first NUL, as text.
pub(crate) fn string(bytes: &[u8]) -> String {
    let end = bytes.iter().position(|b| *b == 0).unwrap_or(bytes.len());
    String::from_utf8_lossy(&bytes[..end]).into_owned()
}

/// The longest text of one event's fields, in bytes.
const MAX_TEXT: usize = 4096;

/// The fields of a record as `name=value …`: addresses and 64-bit numbers in hexadecimal, the rest in decimal.
pub(crate) fn describe(f: &Format, record: &[u8]) -> String {
    let mut out = String::new();
    for field in f.fields.iter().filter(|f| !f.name.starts_with("common_")) {
        if out.len() > MAX_TEXT {
            out.push_str(" …");
            break;
        }
        if !out.is_empty() {
            out.push(' ');
        }
        let _ = write!(out, "{}=", field.name);
        let number = Loc::of(field).map_or(0, |l| l.read_alone(record));
        let at = field.offset as usize;
        let bytes = match field.shape {
            Shape::Scalar => {
                let v = number;
                let _ = if field.signed {
                    write!(out, "{}", v as i64)
                } else if field.size == 8 || field.ctype.ends_with('*') {
                    write!(out, "{v:#x}")
                } else {
                    write!(out, "{v}")
                };
                continue;
            }
            Shape::Array if field.size == 0 => record.get(at..),
            Shape::Array => record.get(at..at.saturating_add(field.size as usize)),
            Shape::DataLoc | Shape::RelLoc => {
                let v = number as usize;
                let base = if field.shape == Shape::RelLoc { at.saturating_add(4) } else { 0 };
                let start = base.saturating_add(v & 0xffff);
                record.get(start..start.saturating_add(v >> 16 & 0xffff))
            }
        };
        let Some(bytes) = bytes else {
            out.push('?');
            continue;
        };
        if field.ctype.contains("char") && !field.ctype.contains("unsigned") {
            out.push_str(&string(bytes));
        } else {
            for b in bytes.iter().take(256) {
                let _ = write!(out, "{b:02x}");
            }
        }
    }
    out
}
