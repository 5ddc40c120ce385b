//! What a test needs of the machine it runs on, beyond a Rust toolchain: one table ([`NEEDS`]) with one probe for each need.
//!
//! A test that needs something asks for it first:
//!
//! ```no_run
//! # fn main() {
//! mmuscope_needs::needs!("perf");
//! // What follows may run perf.
//! # }
//! ```
//!
//! Where the machine lacks it, the test fails if the environment variable `MMUSCOPE_REQUIRE` (names of needs, separated by commas) names the
//! need. Otherwise the test returns, and a line that says so is appended to the file that `MMUSCOPE_SKIPPED` names, or printed to standard error
//! where that variable is not set. `cargo xtask test` probes the machine with the same table, requires all that it found, and prints the
//! skipped tests at its end. So nothing is skipped in silence, and nothing is skipped that the machine can do.
//!
//! This crate is for tests and for `cargo xtask` alone: nothing that is shipped depends on it.

mod probe;
mod skip;
mod table;

pub use probe::{have, python};
pub use skip::{REQUIRE, SKIP_FILE, Skip, ask};
pub use table::{NEEDS, Need, need};

/// The name of the function that this stands in, with its module and the name of its crate.
#[macro_export]
macro_rules! test_name {
    () => {{
        fn here() {}
        let name = ::std::any::type_name_of_val(&here);
        name.strip_suffix("::here").unwrap_or(name).trim_end_matches("::{{closure}}")
    }};
}

/// Whether the machine has what a part of a test needs; if not, this is on record, or the test fails because the need is required.
#[macro_export]
macro_rules! met {
    ($name:expr) => {
        $crate::ask($name, env!("CARGO_PKG_NAME"), $crate::test_name!())
    };
}

/// Ends a test, one that returns nothing, where the machine lacks one of the named needs. See the page of the crate.
#[macro_export]
macro_rules! needs {
    ($($name:expr),+ $(,)?) => {
        $(
            if !$crate::met!($name) {
                return;
            }
        )+
    };
}
