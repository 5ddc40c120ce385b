//! KVM MMU events to page tables over time.
//!
//! [`replay`] turns a trace into a [`Timeline`]: every page-table entry with what it held when, how that is known, and the faults that
//! led there. A pure function of events and layout; one pass, in order.

mod axis;
mod counts;
mod engine;
mod faults;
pub mod fixture;
mod grouping;
mod infer;
mod map;
mod model;
mod series;
mod silent;
mod store;
mod story;
mod tdp;
mod timeline;
mod vms;

pub use axis::{AxisSegment, GfnAxis, SpaceAxis};
pub use infer::{LayoutInfo, LayoutOverride, LayoutPart};
pub use model::*;
pub use story::human_ns;
pub use timeline::{ReplayOptions, Timeline, replay};
