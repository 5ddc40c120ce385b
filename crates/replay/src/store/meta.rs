//! What a span is beside its value: how an entry is shown, how that is known, and why. Two bytes each.

use crate::model::{Certainty, Reason, Shade};

/// What is packed into two bytes beside a span's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Meta {
    pub(crate) shade: Shade,
    pub(crate) certainty: Certainty,
    pub(crate) reason: Reason,
    /// The shade that this span replaced in the counts; `None` for the first of an entry.
    pub(crate) prev: Option<Shade>,
    pub(crate) has_value: bool,
}

/// What a span replaced was another mapping, which must have been zapped in between.
pub(super) const REMAPPED: u8 = 1 << 7;

pub(super) const CERTAINTIES: [Certainty; 5] =
    [Certainty::Exact, Certainty::Observed, Certainty::Implied, Certainty::Assumed, Certainty::Stale];
const REASONS: [Reason; 25] = [
    Reason::Stated,
    Reason::Reread,
    Reason::FastFault,
    Reason::Split,
    Reason::NewTable,
    Reason::Unfrozen,
    Reason::MarkMmio,
    Reason::PageZapped,
    Reason::SilentKernel,
    Reason::Notifier,
    Reason::ZapAll,
    Reason::Synced,
    Reason::Lost,
    Reason::Contradicted,
    Reason::Ambiguous,
    Reason::NeverSeen,
    Reason::GuestTable,
    Reason::Faulted,
    Reason::OldValue,
    Reason::Incomplete,
    Reason::MaybeProtected,
    Reason::Unrecorded,
    Reason::Snapshot,
    Reason::UnseenNotifier,
    Reason::Linked,
];

impl Meta {
    pub(crate) fn pack(self) -> u16 {
        let prev = self.prev.map_or(8, |p| p as u16);
        (self.shade as u16)
            | (self.certainty as u16) << 3
            | prev << 6
            | (self.reason as u16) << 10
            | u16::from(self.has_value) << 15
    }
    pub(crate) fn unpack(m: u16) -> Self {
        Self {
            shade: Shade::ALL[usize::from(m & 7)],
            certainty: CERTAINTIES[usize::from(m >> 3 & 7).min(4)],
            prev: Shade::ALL.get(usize::from(m >> 6 & 15)).copied(),
            reason: REASONS[usize::from(m >> 10 & 31).min(REASONS.len() - 1)],
            has_value: m >> 15 != 0,
        }
    }
}
