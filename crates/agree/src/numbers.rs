//! The numbers that faces show of one trace, keyed by what they count, so that they can be compared.

use std::collections::BTreeMap;
use std::fmt::{self, Display};

/// Numbers by what they count, each with the faces that show it.
#[derive(Debug, Default)]
pub struct Numbers(BTreeMap<String, Vec<(String, String)>>);

/// A number that two faces show differently.
#[derive(Debug)]
pub struct Difference {
    /// The thing that is counted, such as `faults of VM 1`.
    pub what: String,
    /// Each face that shows the number, with the value it shows.
    pub said: Vec<(String, String)>,
}

impl Numbers {
    /// Records that the face `source` shows `value` for `what`.
    pub fn say(&mut self, what: impl Into<String>, source: impl Into<String>, value: impl Display) {
        self.0.entry(what.into()).or_default().push((source.into(), value.to_string()));
    }

    /// How many numbers are shown by at least two faces and can therefore be compared.
    pub fn compared(&self) -> usize {
        self.0.values().filter(|s| s.len() > 1).count()
    }

    /// The value that the first face shows for `what`.
    pub fn of(&self, what: &str) -> Option<&str> {
        Some(&self.0.get(what)?.first()?.1)
    }

    /// The numbers of which two faces show different values.
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
