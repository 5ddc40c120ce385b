//! KVM MMU trace files of every format to one typed stream of events.
pub mod event;
pub use event::*;
