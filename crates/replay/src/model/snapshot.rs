//! What came of the snapshots of KVM's memory that a capture holds.

use crate::model::{Certainty, EventIx, VmId};

/// A snapshot of KVM's tables, held against what the trace had shown until then.
///
/// The numbers count entries that are not empty in memory, or not empty by the trace.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Number of its first note among the events.
    pub event: EventIx,
    /// When reading began, in nanoseconds on the trace's clock.
    pub start: u64,
    /// When reading ended.
    pub end: u64,
    /// How many VMs were read.
    pub vms: u32,
    /// How many of them were not read completely.
    pub incomplete: u32,
    /// How many page tables were read.
    pub tables: u64,
    /// How many entries hold what the trace had shown (Accessed and Dirty apart).
    pub equal: u64,
    /// How many entries were stale or unknown until then.
    pub settled: u64,
    /// How many entries hold something else than what was claimed as fact.
    pub differ: u64,
    /// The first 1000 of those.
    pub differences: Vec<Difference>,
    /// What could not be read, in words.
    pub notes: Vec<String>,
}

/// An entry of which the trace had shown something else than what the kernel's memory holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Difference {
    /// Its VM.
    pub vm: VmId,
    /// Its address space.
    pub as_id: u8,
    /// Its level.
    pub level: u8,
    /// Its first guest frame.
    pub gfn: u64,
    /// The value by the trace.
    pub claimed: u64,
    /// The value in memory.
    pub found: u64,
    /// How the claimed value was known.
    pub certainty: Certainty,
}
