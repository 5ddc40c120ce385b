//! The schema of events: each tracepoint that mmuscope understands is one entry, in the file of its subject.
//!
//! An entry says, once, what everything else is made of: the variant of [`Body`] with its packed form, the reader of binary records, the
//! reader of text, the columns of the table of events, the guest frames that an event names, and the sets that the collector records.
//! **A new tracepoint is one entry.** An entry reads so:
//!
//! ```text
//! /// `kvm_mmu_spte_requested`: the slow path is about to map the frame.    the documentation of `Body::SpteRequested`
//! SpteRequested {
//!     tracepoint: kvmmmu "kvm_mmu_spte_requested";    its system and its name; `| "name"`: a name in old kernels
//!                                                     `, "name" if field`: a second tracepoint that says the same, with this flag set
//!     class: Install;                                 what it is about: see `Class`
//!     midway: true;                                   (optional) it comes in the middle of a zap or another change, or from an interrupt,
//!                                                     and does not show that its thread is done: see `Kind::is_midway`
//!     record: [mmu, faults];                          the collector's sets that it belongs to (`all` has every one)
//!     fields: {
//!         gfn: u64;                                   a required field; the kernel calls it `gfn`, too
//!         level: u8 => level;                         its value is shown in the column `level`, which also says its unit
//!         access: Option<u32> => access;              a field that some kernels do not record
//!         vcpu: u32 = ["vcpu_id" decimal];            the kernel's name for it; `| "name"`: in other kernels. `decimal`: not %x
//!     }                                               see `from_fields!` for `required`, `or 0`, `pointer`, `second` and `by function()`
//!     columns: { valid: a == b; }                     (optional) more columns, made of the fields
//!     frames: { gfn: gfn; names: one(gfn); }    (optional) see `Body::gfn`, `covers` and `frames`
//!     text: ["gfn " {gfn: hex} [" access " {access: hex}]];   what the kernel prints: words, fields and how they are printed (functions of
//!                                                             `text`), and in brackets what may be missing. Repeat it for another form
//!     example: "gfn 2 pfn 7e6f level 1";              such a text, with which the tests check all of this
//! }
//! ```
//!
//! What is no tracepoint (losses, damage, tasks, untyped events) is a `note` in `notes.rs`. Nothing here says what an event means: that is the
//! replay's.

#[macro_use]
mod generate;
#[macro_use]
mod dirty;
#[macro_use]
mod entries;
#[macro_use]
mod host;
#[macro_use]
mod mmio;
#[macro_use]
mod notes;
#[macro_use]
mod pages;
#[macro_use]
mod probes;
#[macro_use]
mod vcpu;
#[macro_use]
mod walk;

pub(crate) mod cells;
mod frames;
mod sources;
pub(crate) mod text;
pub(crate) mod values;
pub(crate) mod words;

pub use cells::Cell;

use crate::fields::{Base, Fields, Meaning, Names};
use crate::strings::Strings;
use crate::text::scan::Scan;
use cells::{Shown, exit_word, isa_word, mmio_kind};
use frames::{above, covered, linear, nested_fault, one, physical, region, sized, table};
use sources::{Input, Read};
use text::Texts;
use values::{ErrorEncoding, FastPfResult, Isa, Page, StrId, TaskKind};
use words::{Field, Words};

/// What an event is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Class {
    /// A walk over the guest's own page tables.
    Walk,
    /// A page-table page as a whole.
    Page,
    /// A leaf that a fault installs, or is about to.
    Install,
    /// Another change to entries.
    Change,
    /// An MMIO entry.
    MmioSpte,
    /// A guest's access to emulated MMIO.
    MmioAccess,
    /// A vCPU that enters or leaves the guest, or what it does there.
    Vcpu,
    /// What the host does to the guest's memory: mmu_notifiers, asynchronous faults, attributes.
    Host,
    /// Dirty logging.
    Dirty,
    /// A text that was written to trace_marker.
    Marker,
    /// An event without a typed form.
    Untyped,
    /// No event of the trace, but a note about it: losses, damage, tasks.
    Note,
}

/// A field of a [`Tracepoint`].
#[derive(Clone, Copy, Debug)]
pub struct TracepointField {
    /// Its name in [`Body`].
    pub name: &'static str,
    /// The kernel's names for it; none if it is made of several fields.
    pub kernel: &'static [&'static str],
    /// The column of the table of events that shows it, and says its unit.
    pub column: Option<&'static str>,
}

impl Tracepoint {
    /// The tracepoint with this name.
    pub fn find(name: &str) -> Option<&'static Self> {
        TRACEPOINTS.iter().find(|t| t.names.contains(&name))
    }
}

gather! { [notes walk pages entries mmio vcpu host dirty probes] }

impl Kind {
    /// The number of kinds.
    pub const COUNT: usize = Self::ALL.len();
}

// Other parts rely on the number 0 for what has no typed form.
const _: () = assert!(Kind::Other as u8 == 0);

impl Body {
    /// Whether this is an event of the trace, recorded by a tracepoint or through trace_marker. Notes of losses, of damage and about tasks have
    /// a place and a number among the events, but no count of events includes them.
    pub const fn is_event(&self) -> bool {
        !matches!(self.kind().class(), Class::Note)
    }

    /// The event of a tracepoint that a probe stands in for, where the kernel has no such tracepoint; all others are what they are.
    #[must_use]
    pub const fn as_traced(self) -> Self {
        match self {
            Self::ProbeSpteChanged { as_id, gfn, level, old_spte, new_spte, .. } => {
                Self::TdpSpteChanged { as_id, gfn, level, old_spte, new_spte }
            }
            other => other,
        }
    }
}

/// The kernel's name of an event. For what is not a tracepoint, it is one of the words `lost`, `damage`, `fork`, `comm` and `exit`.
pub fn event_name<'a>(body: &Body, strings: &'a Strings) -> &'a str {
    match body {
        Body::Task { kind: TaskKind::Fork, .. } => "fork",
        Body::Task { kind: TaskKind::Comm { .. }, .. } => "comm",
        Body::Task { kind: TaskKind::Exit, .. } => "exit",
        Body::Other { name, .. } => {
            let full = strings.get(*name);
            full.split_once(':').map_or(full, |(_, n)| n)
        }
        _ => newest_name(body).unwrap_or(body.kind().name()),
    }
}

#[cfg(test)]
mod tests;
