//! What the value of a KVM shadow page table entry (SPTE) means, under the layout of any kernel
