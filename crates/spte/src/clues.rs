//! Clues to the kernel's release besides SPTE values, read from `layouts/clues.toml`: events, their fields, type definitions.
//!
//! The main type is [`Clues`]. Readers of traces and of pasted text name the clues they met, and each becomes a fact of an [`Evidence`].

use alloc::{format, vec::Vec};

use crate::{
    eras,
    file::{self, FileError, Value},
    infer::{Claim, Evidence},
};

const TEXT: &str = include_str!("../layouts/clues.toml");

/// A thing that only some releases have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clue {
    /// The name of the clue in the file.
    pub id: &'static str,
    /// The first release that has it, as `(major, minor)`.
    pub first: (u16, u16),
    /// The last release that has it.
    pub last: (u16, u16),
    /// The clue in words, for people.
    pub why: &'static str,
}

/// All clues that the crate knows.
#[derive(Clone, Debug)]
pub struct Clues(pub Vec<Clue>);

impl Clues {
    /// Reads the file that ships with the crate.
    pub fn known() -> Result<Self, FileError> {
        let mut clues: Vec<Clue> = Vec::with_capacity(24);
        for raw in file::read("clues.toml", TEXT)? {
            if clues.last().is_none_or(|c| c.id != raw.header) {
                clues.push(Clue { id: raw.header, first: (0, 0), last: (u16::MAX, 0), why: "" });
            }
            let Some(clue) = clues.last_mut() else { continue };
            let release = |text| {
                eras::release(text).ok_or_else(|| FileError {
                    file: "clues.toml".into(),
                    line: raw.line,
                    reason: format!("`{text}` is not a release"),
                })
            };
            match (raw.key, &raw.value) {
                ("first", Value::Text(text)) => clue.first = release(text)?,
                ("last", Value::Text(text)) => clue.last = release(text)?,
                ("why", Value::Text(text)) => clue.why = text,
                _ => {
                    let reason = format!("a clue has first, last and why, not {}", raw.key);
                    return Err(FileError { file: "clues.toml".into(), line: raw.line, reason });
                }
            }
        }
        Ok(Self(clues))
    }

    /// Adds to `evidence` what the clue `id` says about the release, with `points` as its weight.
    pub fn tell(&self, evidence: &mut Evidence, id: &str, points: i32) {
        if let Some(clue) = self.0.iter().find(|c| c.id == id) {
            evidence.fact(Claim::Releases(clue.first, clue.last), points, clue.why);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Clues;

    #[test]
    fn every_clue_is_whole() {
        let clues = Clues::known().expect("the shipped file").0;
        for (n, c) in clues.iter().enumerate() {
            assert!(c.first <= c.last && !c.why.is_empty(), "{}", c.id);
            assert!(c.first > (0, 0) || c.last < (u16::MAX, 0), "{} says nothing", c.id);
            assert!(clues[n + 1..].iter().all(|o| o.id != c.id), "{} is there twice", c.id);
        }
    }
}
