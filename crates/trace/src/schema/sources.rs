//! The values of fields from a source of named fields: how each type is read ([`Read`]), and the functions that an entry names after `by`.

#![allow(
    clippy::unnecessary_wraps,
    clippy::option_option,
    reason = "entries call all of them alike; the outer Option says whether the field could be read"
)]

use super::values::{ErrorEncoding, FastPfResult, Isa, Page, StrId};
use crate::fields::{self, Base, Fields, Meaning, Names};
use crate::role;

/// What the value of a field may be made of.
#[derive(Debug)]
pub(super) struct Input<'a, F, N> {
    pub(super) fields: &'a mut F,
    pub(super) meaning: &'a Meaning,
    pub(super) names: &'a mut N,
}

/// A type of field that is read from one number.
pub(crate) trait Read: Sized {
    /// How the kernel prints it, unless the entry says otherwise.
    const BASE: Base;
    /// Makes the value of a number; `None` where the field is required and the number is missing.
    fn read(n: Option<u64>) -> Option<Self>;
}

macro_rules! read {
    ($($t:ty, $base:ident, $n:ident => $v:expr;)*) => { $(
        impl Read for $t {
            const BASE: Base = Base::$base;
            #[inline(always)]
            #[allow(clippy::inline_always, reason = "a call for each field is a third of decoding")]
            fn read(n: Option<u64>) -> Option<Self> {
                n.map(|$n| $v)
            }
        }
        impl Read for Option<$t> {
            const BASE: Base = Base::$base;
            #[inline(always)]
            #[allow(clippy::inline_always, reason = "a call for each field is a third of decoding")]
            fn read(n: Option<u64>) -> Option<Self> {
                Some(n.map(|$n| $v))
            }
        }
    )* };
}
read! {
    u64, Hex, n => n;
    u32, Hex, n => n as u32;
    u8, Decimal, n => n as u8;
    i32, Decimal, n => n as i32;
    bool, Decimal, n => n != 0;
    Isa, Decimal, n => isa(n as u32);
}

/// The back-end by the number in `isa`.
pub(crate) fn isa(n: u32) -> Isa {
    match n {
        1 => Isa::Vmx,
        2 => Isa::Svm,
        n => Isa::Other(n),
    }
}

/// Reads the fields of a shadow-page event. Their text is made by a function in the kernel, so tools that do not know it print decimals.
#[inline]
pub(super) fn page<N>(i: &mut Input<'_, impl Fields, N>) -> Option<Page> {
    let f = &mut *i.fields;
    Some(Page {
        gfn: f.num("gfn", Base::Decimal),
        role: role::decode(f.num("role", Base::Decimal)? as u32, i.meaning.role),
        mmu_valid_gen: f.num("mmu_valid_gen", Base::Decimal),
        root_count: f.num("root_count", Base::Decimal)? as i32,
        unsync: f.num("unsync", Base::Decimal)? != 0,
    })
}

/// Reads how the lockless path ended: a number of `RET_PF_*`, whose numbering the format or the values say, or the older flag.
#[inline]
pub(super) fn fast_result<N>(i: &mut Input<'_, impl Fields, N>, old: u64, new: u64) -> Option<FastPfResult> {
    if let Some(ret) = i.fields.num("ret", Base::Decimal) {
        let numbering = i.meaning.ret_pf.or_else(|| fields::numbering_of(ret as i32, old, new));
        return Some(
            numbering.map_or(FastPfResult::Other(ret as i32), |n| fields::fast_result(ret as i32, &n)),
        );
    }
    // Up to 5.9, `retry` says that the fault was handled; the kernel printed it together with the W bit of both values.
    let handled = i.fields.num("retry", Base::Decimal)? != 0;
    Some(match (handled, old & 2 != 0, new & 2 != 0) {
        (false, ..) => FastPfResult::Invalid,
        (true, true, _) => FastPfResult::Spurious,
        (true, false, true) => FastPfResult::Fixed,
        _ => FastPfResult::Retry,
    })
}

/// In every paging mode, the kernel prints the letter `w` from this bit of the value.
#[inline]
pub(super) fn writable<F, N>(_: &mut Input<'_, F, N>, spte: u64) -> Option<bool> {
    Some(spte & 2 != 0)
}

/// Reads whether user mode may access, which is -1 where the paging mode has no user bit.
#[inline]
pub(super) fn user_letter<N>(i: &mut Input<'_, impl Fields, N>) -> Option<Option<bool>> {
    Some(match i.fields.num("u", Base::Decimal)? as u8 {
        0 => Some(false),
        0xff => None,
        _ => Some(true),
    })
}

/// The encoding of an error code, which an exit decides later.
#[inline]
pub(super) fn ambiguous<F, N>(_: &mut Input<'_, F, N>) -> Option<ErrorEncoding> {
    Some(ErrorEncoding::Ambiguous)
}

/// The name of an exit reason.
#[inline]
pub(super) fn exit_name<F>(
    i: &mut Input<'_, F, impl Names>,
    isa: Option<Isa>,
    reason: Option<u32>,
) -> Option<StrId> {
    Some(i.names.exit_name(isa, reason?))
}

/// The text of a marker.
pub(super) fn marker(i: &mut Input<'_, impl Fields, impl Names>) -> Option<StrId> {
    let text = i.fields.text("buf")?;
    Some(i.names.text(text.trim_end_matches(['\n', '\0'])))
}
