//! [`Filter`], the language of `--where` and of the viewer's filter box: expressions over the columns of a table.
//!
//! A filter is checked against its table when it is made, so that no value of a chunk can make it fail later.
//!
//! ```text
//! level == 1 and new_spte != 0
//! event = 'kvm_page_fault' && error_code & 0x2 != 0
//! comm contains 'qemu' or tid in (170, 171)
//! duration > 50us and outcome != 'fixed'
//! not (vcpu is null)
//! ```
//!
//! Numbers are in the unit of their column (nanoseconds, bytes) or have a unit of time (`50us`, `1.5s`) or of size (`4K`, `2M`, `1G`); next to a
//! column that is printed in hex (`gfn == 2001`) they are hex without `0x` too, and decimal with `0d`. Digits may be grouped with `_`.
//! Words are in single or double quotes; on the right of a comparison with a text column they may be bare. Operators, from loose to tight:
//! `or` `||`; `and` `&&`; `not` `!`; `==` `=` `!=` `<` `<=` `>` `>=` `in (…)` `not in (…)` `is null` `is not null` `contains` `starts with`
//! `ends with` `like` (with `*` and `?`), each of these also with `not` before it; `|`; `&`; `+` `-`; `*` `/` `%`. A comparison with a null cell
//! is false, and so is its opposite: `is null` asks for those.

mod eval;
mod parse;

use crate::table::{Chunk, Table};
use mmuscope_units::like;
use parse::Expr;
use std::fmt;

/// An expression over the columns of one table, checked against them.
#[derive(Clone, Debug)]
pub struct Filter {
    expr: Expr,
}

/// Why an expression is no filter of the table, and where in the text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FilterError {
    /// The whole expression as it was typed.
    pub text: String,
    /// Byte offset in `text` at which the error was found.
    pub at: usize,
    /// What is wrong, as a sentence without a full stop.
    pub message: String,
}

impl fmt::Display for FilterError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let column = self.text.get(..self.at).map_or(0, |s| s.chars().count());
        write!(f, "{}\n  {}\n  {:column$}^", self.message, self.text, "")
    }
}

impl std::error::Error for FilterError {}

impl Filter {
    /// Reads an expression and checks it against the columns of `table`.
    pub fn new(text: &str, table: &Table) -> Result<Self, FilterError> {
        let expr = parse::parse(text, table)?;
        Ok(Self { expr })
    }

    /// The rows of the chunk for which the expression is true.
    #[must_use]
    pub fn apply(&self, chunk: Chunk) -> Chunk {
        let rows = self.matches(&chunk);
        chunk.filter(&rows)
    }

    /// For each row of the chunk, whether the expression is true.
    pub fn matches(&self, chunk: &Chunk) -> Vec<bool> {
        eval::mask(&self.expr, chunk)
    }
}
