//! Sources of named fields ([`Fields`]), which the binary readers and texts that print `name=value` are, and what their numbers mean. The
//! schema makes typed bodies of them.

use crate::info::{RetPf, RoleWord};
use crate::schema::values::{FastPfResult, Isa, StrId};

/// The base in which the kernel prints a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Base {
    Decimal,
    Hex,
}

/// A source of named fields.
pub(crate) trait Fields {
    /// The value of a field, sign-extended where the format says that it is signed. A text may print it without a mark of its `base`.
    fn num(&mut self, name: &'static str, base: Base) -> Option<u64>;
    /// The value of a pointer; `None` also where the text hashed it.
    fn ptr(&mut self, name: &'static str) -> Option<u64> {
        self.num(name, Base::Hex)
    }
    /// The value of a string field.
    fn text(&mut self, name: &'static str) -> Option<String>;
}

/// A store for the strings of a body.
pub(crate) trait Names {
    /// The kernel's name of an exit reason; the empty string where it has none.
    fn exit_name(&mut self, isa: Option<Isa>, reason: u32) -> StrId;
    /// Stores any text.
    fn text(&mut self, s: &str) -> StrId;
}

/// What the kernel's format text says about the meaning of numbers.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Meaning {
    pub(crate) role: RoleWord,
    /// The numbers of `RET_PF_*`; `None` where the format does not show them, so that the values decide.
    pub(crate) ret_pf: Option<RetPf>,
}

/// The numbers of `RET_PF_*` from 5.10 to 5.17.
pub(crate) const RET_PF_5_10: RetPf = RetPf { retry: 0, emulate: 1, invalid: 2, fixed: 3, spurious: 4 };
/// The numbers from 5.18 to 6.11: RET_PF_CONTINUE took 0.
pub(crate) const RET_PF_5_18: RetPf = RetPf { retry: 1, emulate: 2, invalid: 3, fixed: 4, spurious: 5 };
/// The numbers since 6.12: RET_PF_WRITE_PROTECTED took 3.
pub(crate) const RET_PF_6_12: RetPf = RetPf { retry: 1, emulate: 2, invalid: 4, fixed: 5, spurious: 6 };

impl Default for Meaning {
    fn default() -> Self {
        Self { role: RoleWord::Has4ByteGpte, ret_pf: None }
    }
}

/// The numbers of `RET_PF_*` that one event shows: if W appeared, the fault was fixed; if the entry still does not allow a write, the slow
/// path follows; if it allowed the write before, the fault was spurious.
pub(crate) fn numbering_of(ret: i32, old: u64, new: u64) -> Option<RetPf> {
    let all = [RET_PF_5_10, RET_PF_5_18, RET_PF_6_12];
    let n = match (old & 2 != 0, new & 2 != 0) {
        (false, true) => all.iter().find(|n| n.fixed == ret),
        (_, false) => all.iter().find(|n| n.invalid == ret),
        (true, true) => all.iter().find(|n| n.spurious == ret),
    };
    n.copied()
}

/// The result of the fast path by its number.
pub(crate) fn fast_result(ret: i32, n: &RetPf) -> FastPfResult {
    if ret == n.fixed {
        FastPfResult::Fixed
    } else if ret == n.spurious {
        FastPfResult::Spurious
    } else if ret == n.invalid {
        FastPfResult::Invalid
    } else if ret == n.retry {
        FastPfResult::Retry
    } else if ret == n.emulate {
        FastPfResult::Emulate
    } else {
        FastPfResult::Other(ret)
    }
}

/// The result of the fast path from the kernel's two printed flags. With both clear the fast path gave up; with both set (the entry allowed
/// the write before and after) the fault was spurious.
pub(crate) fn fast_result_of_flags(spurious: bool, fixed: bool) -> FastPfResult {
    match (spurious, fixed) {
        (true, _) => FastPfResult::Spurious,
        (_, true) => FastPfResult::Fixed,
        _ => FastPfResult::Invalid,
    }
}
