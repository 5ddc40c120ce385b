//! What the value of a KVM shadow page table entry (SPTE) means, under the layout of any kernel
#![no_std]

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

#[cfg(feature = "alloc")]
pub mod describe;
#[cfg(feature = "alloc")]
mod diff;
#[cfg(feature = "alloc")]
mod eras;
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

#[cfg(feature = "alloc")]
pub use diff::{Change, Changes, changes};
#[cfg(feature = "alloc")]
pub use eras::{Era, eras};
#[cfg(feature = "alloc")]
pub use explain::{Explanation, explain};
#[cfg(feature = "alloc")]
pub use fields::{BitRun, FieldKind};
#[cfg(feature = "alloc")]
pub use file::FileError;
#[cfg(feature = "alloc")]
pub use spec::{Error, LayoutSpec, Resolved};
