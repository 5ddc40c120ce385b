//! Real KVM hosts on any machine: an unmodified Debian kernel boots in an emulator whose CPU has virtualization extensions, so that KVM's MMU
//! runs for real without `/dev/kvm`. What it traced comes back together with what its memory held.
//!
//! The main types are [`host::Host`] (a host as data) and [`truth::Truth`]. `cargo xtask lab` starts it, and `docs/lab.md` explains it. This
//! crate is not shipped, and it never uses the replay except in its examples.

pub mod boot;
mod command;
mod cost;
pub mod cpio;
pub mod fetch;
pub mod host;
pub mod initrd;
mod matrix;
pub mod modules;
mod run;
pub mod truth;

pub use command::main;
