//! What the value of a KVM shadow page table entry (SPTE) means, under the layout of any kernel.
//!
//! KVM's x86 MMU keeps its own page tables (EPT, NPT, or shadows of the guest's), and their entries mix hardware bits with marks of
//! KVM's own. The places of those marks changed five times between Linux 4.13 and 7.3, and they also depend on the CPU vendor, the
//! paging mode and the host's address width. This crate knows all of them: 14 eras in up to 10 paging modes each.
//!
//! ```
//! use mmuscope_spte::{Kernel, Known, LayoutSpec, Mode, State};
//!
//! let spec = LayoutSpec {
//!     kernel: Kernel::parse("6.1.192").map(Known::given),
//!     mode: Some(Known::given(Mode::Ept)),
//!     ..LayoutSpec::default()
//! };
//! let resolved = spec.resolve()?;
//! let leaf = resolved.layout.decode(0x0600_0001_2345_6b77, 1);
//! assert_eq!(leaf.state, State::Present);
//! assert_eq!(leaf.pfn, Some(0x123456));
//! assert_eq!((leaf.host_writable, leaf.mmu_writable), (Some(true), Some(true)));
//!
//! // The same word means something else to a kernel without the MMU-present bit.
//! let older = LayoutSpec::named("5.10/ept")?.resolve()?;
//! assert_eq!(older.layout.decode(0x0600_0001_2345_6b77, 1).host_writable, Some(false));
//! # Ok::<(), mmuscope_spte::Error>(())
//! ```
//!
//! - [`Layout`] is plain data: masks and rules, [`Copy`], no heap. [`Layout::decode`] allocates nothing and never panics on any value
//!   and level (over 100 million values a second on one core).
//! - [`LayoutSpec`] holds what is known (kernel, mode, host, measured masks) and resolves to a layout by the computation the kernel does
//!   at module load; [`Resolved`] says where each part came from.
//! - Layouts are files (`layouts/` in the source, [`layouts::files`]), and a user's own file has the same format.
//! - [`explain()`] describes a value in words and [`changes`] the difference of two values of one entry; [`infer::judge`] finds the
//!   layout of values whose kernel is not known; [`describe`] lists what a layout defines.
//!
//! This crate never reads traces and never does I/O. It is `no_std` and has no dependencies; without the default feature `alloc`, only
//! layouts that are resolved already can be used.
//!
//! The facts come from reading some forty kernel trees (`arch/x86/kvm/mmu/spte.[ch]`, `mmu.c`, `vmx.c`, `svm.c`). They are tested
//! against vectors of an independent model, and against what real kernels of five families printed and held in memory.
#![no_std]
#![allow(clippy::needless_bitwise_bool, reason = "decoding avoids branches on purpose")]
#![allow(
    clippy::format_push_string,
    reason = "explanations are for people; `write!` would only add results to ignore"
)]

#[cfg(feature = "alloc")]
extern crate alloc;

pub mod bits;
mod decoded;
mod host;
mod kernel;
mod layout;
mod masks;
pub mod mmio;
mod mode;
mod traces;

#[cfg(feature = "alloc")]
pub mod bugs;
#[cfg(feature = "alloc")]
pub mod clues;
#[cfg(feature = "alloc")]
pub mod describe;
#[cfg(feature = "alloc")]
mod diff;
#[cfg(feature = "alloc")]
mod eras;
#[cfg(feature = "alloc")]
mod error;
#[cfg(feature = "alloc")]
pub mod explain;
#[cfg(feature = "alloc")]
mod fields;
#[cfg(feature = "alloc")]
mod file;
#[cfg(feature = "alloc")]
pub mod infer;
#[cfg(feature = "alloc")]
pub mod layouts;
#[cfg(feature = "alloc")]
mod spec;

pub use decoded::{AdType, Decoded, State};
pub use host::{Host, HostSpec, Known, Provenance, Vendor};
pub use kernel::{Distro, Kernel};
pub use layout::{AdRule, FixRule, Layout, Leaf, Name, PresentRule};
pub use masks::{MaskName, Masks};
pub use mmio::GfnRule;
pub use mode::{Format, Mode};
pub use traces::{MarkMmio, PageLevel, Resize, SetSpte, Traces, Unlink, ZapAll};

#[cfg(feature = "alloc")]
pub use diff::{Change, Changes, WriteLoss, changes, write_loss};
#[cfg(feature = "alloc")]
pub use eras::{Era, eras};
#[cfg(feature = "alloc")]
pub use error::Error;
#[cfg(feature = "alloc")]
pub use explain::{Explanation, explain};
#[cfg(feature = "alloc")]
pub use fields::{BitRun, FieldKind};
#[cfg(feature = "alloc")]
pub use file::FileError;
#[cfg(feature = "alloc")]
pub use spec::{LayoutSpec, Resolved};
