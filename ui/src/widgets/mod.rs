//! Small pieces that several panels use.

pub(crate) mod bits;
pub(crate) mod rows;
