//! KVM MMU events to page tables over time.
//!
//! [`replay`] turns a trace into a [`Timeline`]: every page-table entry with what it held when, how that is known, and the faults that
//! led there. A pure function of events and layout; one pass, in order.

#![allow(clippy::many_single_char_names, reason = "t, e, s, p are table, entry, span and place throughout")]
#![allow(clippy::too_many_arguments, reason = "the fields of one event travel together")]
#![allow(clippy::unused_self, reason = "methods that may come to need their subject keep their form")]
#![allow(clippy::large_types_passed_by_value, reason = "a layout is plain data that the engine keeps")]
#![allow(clippy::format_push_string, reason = "sentences of a story, a few per page")]
#![allow(clippy::needless_range_loop, reason = "the tree of ends is walked by node number")]
#![allow(clippy::naive_bytecount, reason = "at most one block of 4096")]
#![allow(clippy::verbose_bit_mask, reason = "alignment to a GiB reads better as a mask")]
#![allow(clippy::semicolon_if_nothing_returned, reason = "single calls as match arms")]

mod ahead;
mod attached;
mod attribution;
mod axis;
mod clock;
mod counts;
mod ends;
mod engine;
mod entries;
mod faults;
mod frames;
mod gaps;
mod in_vain;
mod infer;
mod keys;
mod kinds;
mod leaving;
mod load;
mod lookup;
mod lost;
mod map;
mod memory;
mod mmio;
mod model;
mod moment;
mod noted;
mod probed;
mod pyramid;
mod recorded;
mod reported;
mod series;
mod silent;
mod slot_events;
mod slots;
mod snapshot;
mod state;
mod step;
mod store;
mod story;
mod stuck;
mod tdp;
mod threads;
mod timeline;
mod tops;
mod vms;
mod zaps;

pub use attribution::{Attribution, Owner, OwnerReason, VmSearch};
pub use axis::{AxisSegment, GfnAxis, SpaceAxis};
pub use infer::{Gathered, LayoutInfo, LayoutOverride, LayoutPart, evidence, release_points};
pub use load::{Glimpse, load, load_in_steps};
pub use mmio::MmioAccesses;
pub use model::*;
pub use state::StateAt;
pub use timeline::{ReplayOptions, Timeline, replay};
