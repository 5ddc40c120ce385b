//! What a recording holds and what it does not.

/// Whether a class of events was recorded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub enum Coverage {
    /// Every event of the class is in the trace, as far as none was lost.
    Recorded,
    /// None was recorded, or only what passed a filter.
    NotRecorded,
    /// The trace holds none so far, and its format does not say which events were recorded.
    #[default]
    NotKnown,
}

impl Coverage {
    /// In words.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Recorded => "recorded",
            Self::NotRecorded => "not recorded",
            Self::NotKnown => "not known to have been recorded",
        }
    }
}

/// A class of events that is missing in a trace, and what is not known without it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unrecorded {
    /// The event.
    pub event: &'static str,
    /// Whether that is certain.
    pub coverage: Coverage,
    /// What is not known without it.
    pub without: &'static str,
}

impl Unrecorded {
    /// In a sentence.
    pub fn words(&self) -> String {
        format!("{} is {}: {}", self.event, self.coverage.name(), self.without)
    }

    /// What a list of them comes to, in a line each for those that are certain and those that are not (`false`).
    pub fn badges(all: &[Self]) -> Vec<(bool, String)> {
        let names = |c: Coverage| {
            all.iter().filter(|u| u.coverage == c).map(|u| u.event).collect::<Vec<_>>().join(", ")
        };
        [(true, Coverage::NotRecorded), (false, Coverage::NotKnown)]
            .into_iter()
            .map(|(certain, c)| (certain, c.name(), names(c)))
            .filter(|(_, _, names)| !names.is_empty())
            .map(|(certain, how, names)| (certain, format!("{how}: {names}")))
            .collect()
    }
}
