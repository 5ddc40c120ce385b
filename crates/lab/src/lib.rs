//! Real KVM hosts, booted anywhere: an unmodified Debian kernel in an emulator whose CPU has virtualization extensions, so that KVM's MMU runs
//! for real there, without `/dev/kvm`. What it traced comes back together with what its memory really held.
//!
//! `cargo xtask lab` is the way in; `docs/lab.md` explains it.

pub mod boot;
mod command;
pub mod cpio;
pub mod fetch;
pub mod host;
pub mod initrd;
pub mod modules;
pub mod truth;

pub use command::main;
