//! How the JSON writes what the [model](crate::model) keeps as numbers and states. Only the model's attributes `serialize_with` name these
//! functions; they never see a report as a whole.
#![allow(
    clippy::trivially_copy_pass_by_ref,
    clippy::ref_option,
    reason = "serde calls them with a reference to the field"
)]

use mmuscope_analysis::{timeline::kind_name, visual::Visual};
use mmuscope_replay::{Certainty, MemoryKind, Shade};
use serde::{Serialize, Serializer};

use crate::words;

/// A frame, an address or a value: `"0x7c00"`.
pub(crate) fn hex<S: Serializer>(n: &u64, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&format_args!("{n:#x}"))
}

/// As [`hex`], or `null`.
pub(crate) fn maybe_hex<S: Serializer>(n: &Option<u64>, to: S) -> Result<S::Ok, S::Error> {
    match n {
        Some(n) => hex(n, to),
        None => to.serialize_none(),
    }
}

/// The page size of a level: `"4K"`, or `"mixed"` for 0.
pub(crate) fn page_size<S: Serializer>(level: &u8, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(words::page_size(*level))
}

/// The id of a state in the visual language: `"read-only"`.
pub(crate) fn shade_id<S: Serializer>(shade: &Shade, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&Visual::builtin().shade_style(*shade).id)
}

/// The name of a state in legends: `"present, read-only"`.
pub(crate) fn shade_name<S: Serializer>(shade: &Shade, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(shade.name())
}

/// As [`shade_name`], or `null`.
pub(crate) fn maybe_shade<S: Serializer>(shade: &Option<Shade>, to: S) -> Result<S::Ok, S::Error> {
    shade.map(Shade::name).serialize(to)
}

/// The name of a certainty: `"exact"`.
pub(crate) fn certainty<S: Serializer>(certainty: &Certainty, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(certainty.name())
}

/// As [`certainty`], or `null`.
pub(crate) fn maybe_certainty<S: Serializer>(
    certainty: &Option<Certainty>,
    to: S,
) -> Result<S::Ok, S::Error> {
    certainty.map(Certainty::name).serialize(to)
}

/// The name of a kind of range: `"ram"`.
pub(crate) fn memory_kind<S: Serializer>(kind: &MemoryKind, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(kind_name(*kind))
}
