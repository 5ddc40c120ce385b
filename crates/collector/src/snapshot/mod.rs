//! What KVM's memory holds now: VMs, memory slots, and page tables with every entry. The main function is `take`; `record` calls it at the
//! start and at the end of a recording, and the command line for `mmuscope snapshot`.
//!
//! The kernel's memory is only read, through `/proc/kcore`; nothing is written, no code runs in the kernel, and no lock is taken. Where
//! structures lie is asked of the kernel's BTF (`shape`).

mod file;
mod shape;
mod shot;
mod tables;
mod vm;

pub use file::{SnapshotOptions, write};
pub(crate) use shot::Host;
pub(crate) use shot::shadow_pages;
pub use shot::{Seen, Shot, possible};

#[cfg(test)]
mod tests;
