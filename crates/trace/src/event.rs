//! The typed event model into which every format is read. The main type is [`Event`], with its [`Body`].
//!
//! Values are what the kernel recorded; nothing here interprets SPTE bits. A field that some kernels or formats do not record is an
//! `Option`; `None` means "this trace does not say", never zero.

pub use crate::schema::values::*;
pub use crate::schema::{Body, Cell, Class, Kind, TRACEPOINTS, Tracepoint, TracepointField, event_name};

/// One event: who, where, when, and what the tracepoint said.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Event {
    /// Nanoseconds on the trace's clock ([`TraceInfo::clock`](crate::TraceInfo)), absolute. Text with microsecond stamps has `…000`.
    pub ts: u64,
    /// The CPU that recorded it.
    pub cpu: u16,
    /// Thread id (`common_pid`) of the task that was running; `None` where the format does not say (a lost-events note).
    pub tid: Option<u32>,
    /// Thread group id (process id) of that task, where the trace says it.
    pub pid: Option<u32>,
    /// Task name as recorded; [`StrId::default`] is the empty string, for unknown.
    pub comm: StrId,
    /// What the tracepoint recorded.
    pub body: Body,
}
