//! Whether a recording is whole enough for snapshots of KVM's tables: [`obstacle`] says why it is not.

use crate::{RecordOptions, Scope};

/// Why this recording cannot have snapshots that its events keep up to date.
pub(super) fn obstacle(o: &RecordOptions) -> Option<&'static str> {
    if o.flight {
        Some("the flight recorder keeps only the newest events")
    } else if o.gfn.is_some() || !o.filters.is_empty() {
        Some("filtered events do not say what becomes of the tables")
    } else if matches!(o.scope, Scope::Cgroup(_)) {
        Some("a cgroup does not say which VMs are its own")
    } else {
        None
    }
}
