//! The result of a replay: page-table entries over time, as plain data.
//!
//! Identifiers are small integers into the [`Timeline`](crate::Timeline) that made them. Times are absolute nanoseconds on the trace's
//! clock; event numbers index the trace's event store.

mod evidence;
mod fault;
mod pages;
mod picture;
mod query;
mod recorded;
mod slot;
mod snapshot;
mod state;
mod tables;
mod vm;
mod zap;

pub use evidence::*;
pub use fault::*;
pub use pages::*;
pub use picture::*;
pub use query::*;
pub use recorded::*;
pub use slot::*;
pub use snapshot::*;
pub use state::*;
pub use tables::*;
pub use vm::*;
pub use zap::*;

/// One VM of the trace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct VmId(pub u16);
/// One page-table page during one life (a recycled page is a new table).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TableId(pub u32);
/// One entry of one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct EntryId(pub u32);
/// One fault record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FaultId(pub u32);
/// Index of an event in the trace.
pub type EventIx = u32;
