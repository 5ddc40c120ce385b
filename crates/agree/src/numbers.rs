//! What is said of a trace, by whom.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

/// Numbers by what they count, each with the faces that say them.
#[derive(Debug, Default)]
pub struct Numbers(BTreeMap<String, Vec<(String, String)>>);

/// Two faces that do not say the same.
#[derive(Debug)]
pub struct Difference {
    /// What they speak of.
    pub what: String,
    /// Each with its number.
    pub said: Vec<(String, String)>,
}

impl Numbers {
    /// `source` says that `what` is so much.
    pub fn say(&mut self, what: impl Into<String>, source: impl Into<String>, value: impl Display) {
        self.0.entry(what.into()).or_default().push((source.into(), value.to_string()));
    }

    /// How many numbers are said by two faces or more.
    pub fn compared(&self) -> usize {
        self.0.values().filter(|s| s.len() > 1).count()
    }

    /// The number that one face says.
    pub fn of(&self, what: &str) -> Option<&str> {
        Some(&self.0.get(what)?.first()?.1)
    }

    /// Where they differ.
    pub fn differences(&self) -> Vec<Difference> {
        let differ = |s: &&Vec<(String, String)>| s.iter().any(|x| x.1 != s[0].1);
        self.0
            .iter()
            .filter(|(_, s)| differ(s))
            .map(|(what, said)| Difference { what: what.clone(), said: said.clone() })
            .collect()
    }
}

impl Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.what)?;
        for (i, (source, value)) in self.said.iter().enumerate() {
            write!(f, "{} {value} ({source})", if i == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// The most frequent of a list, as the summary prints them: count first, then VM, address space and frame.
pub fn busiest(counts: &BTreeMap<(u64, u64, u64), u64>, n: usize) -> String {
    let mut all: Vec<_> = counts.iter().map(|(at, n)| (std::cmp::Reverse(*n), *at)).collect();
    all.sort_unstable();
    let text = |(n, (vm, as_id, gfn)): &(std::cmp::Reverse<u64>, (u64, u64, u64))| {
        format!("VM {vm} as_id {as_id} {gfn:#x} {}", n.0)
    };
    all.iter().take(n).map(text).collect::<Vec<_>>().join(", ")
}
