//! The mmuscope command line.
fn main() {}
