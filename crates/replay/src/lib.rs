//! KVM MMU events to page tables over time.
