//! Evaluating an expression over a chunk, row by row, in exact integers (no cell of u64 loses a bit) and three-valued logic.

use super::parse::{Expr, Match, Op, Order};
use crate::Error;
use crate::table::Chunk;
use polars::prelude::{
    BooleanChunked, Column, DataType, Int32Chunked, NewChunkedArray, StringChunked, UInt32Chunked,
    UInt64Chunked,
};
use std::cmp::Ordering;

enum Cells<'a> {
    U64(&'a UInt64Chunked),
    U32(&'a UInt32Chunked),
    I32(&'a Int32Chunked),
    Bool(&'a BooleanChunked),
    Text(&'a StringChunked),
}

impl<'a> Cells<'a> {
    fn new(c: &'a Column) -> Result<Self, Error> {
        Ok(match c.dtype() {
            DataType::UInt32 => Self::U32(c.u32()?),
            DataType::Int32 => Self::I32(c.i32()?),
            DataType::Boolean => Self::Bool(c.bool()?),
            DataType::String => Self::Text(c.str()?),
            _ => Self::U64(c.u64()?),
        })
    }
}

/// Which rows the expression is true for. Null is not true.
pub(super) fn mask(expr: &Expr, chunk: &Chunk) -> Result<BooleanChunked, Error> {
    let columns: Vec<Cells<'_>> = chunk.columns().iter().map(Cells::new).collect::<Result<_, _>>()?;
    let rows = (0..chunk.height()).map(|row| truth(expr, &columns, row) == Some(true));
    Ok(BooleanChunked::from_iter_values("mask".into(), rows))
}

fn truth(e: &Expr, columns: &[Cells<'_>], row: usize) -> Option<bool> {
    match e {
        Expr::Truth(t) => Some(*t),
        Expr::FlagColumn(n) => match columns.get(*n)? {
            Cells::Bool(c) => c.get(row),
            _ => None,
        },
        Expr::Not(e) => truth(e, columns, row).map(|t| !t),
        Expr::And(a, b) => match (truth(a, columns, row), truth(b, columns, row)) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        },
        Expr::Or(a, b) => match (truth(a, columns, row), truth(b, columns, row)) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            _ => None,
        },
        Expr::Compare(order, a, b) => {
            let found = compare(a, b, columns, row)?;
            Some(match order {
                Order::Equal => found == Ordering::Equal,
                Order::NotEqual => found != Ordering::Equal,
                Order::Less => found == Ordering::Less,
                Order::LessOrEqual => found != Ordering::Greater,
                Order::Greater => found == Ordering::Greater,
                Order::GreaterOrEqual => found != Ordering::Less,
            })
        }
        Expr::In(a, any) => {
            // A null on the left makes every comparison null.
            let mut known = false;
            for b in any {
                if let Some(found) = compare(a, b, columns, row) {
                    known = true;
                    if found == Ordering::Equal {
                        return Some(true);
                    }
                }
            }
            known.then_some(false)
        }
        Expr::Match(how, a, pattern) => {
            let text = words(a, columns, row)?;
            Some(match how {
                Match::Contains => text.contains(pattern.as_str()),
                Match::StartsWith => text.starts_with(pattern.as_str()),
                Match::EndsWith => text.ends_with(pattern.as_str()),
                Match::Like => super::like(text, pattern),
            })
        }
        Expr::IsNull(e) => Some(match &**e {
            e @ (Expr::NumberColumn(_) | Expr::Number(_) | Expr::Arithmetic(..)) => {
                number(e, columns, row).is_none()
            }
            e @ (Expr::TextColumn(_) | Expr::Words(_)) => words(e, columns, row).is_none(),
            e => truth(e, columns, row).is_none(),
        }),
        Expr::Number(_)
        | Expr::Words(_)
        | Expr::NumberColumn(_)
        | Expr::TextColumn(_)
        | Expr::Arithmetic(..) => None,
    }
}

fn compare(a: &Expr, b: &Expr, columns: &[Cells<'_>], row: usize) -> Option<Ordering> {
    match a {
        Expr::Number(_) | Expr::NumberColumn(_) | Expr::Arithmetic(..) => {
            Some(number(a, columns, row)?.cmp(&number(b, columns, row)?))
        }
        Expr::Words(_) | Expr::TextColumn(_) => Some(words(a, columns, row)?.cmp(words(b, columns, row)?)),
        _ => Some(truth(a, columns, row)?.cmp(&truth(b, columns, row)?)),
    }
}

fn number(e: &Expr, columns: &[Cells<'_>], row: usize) -> Option<i128> {
    match e {
        Expr::Number(n) => Some(*n),
        Expr::NumberColumn(n) => match columns.get(*n)? {
            Cells::U64(c) => c.get(row).map(i128::from),
            Cells::U32(c) => c.get(row).map(i128::from),
            Cells::I32(c) => c.get(row).map(i128::from),
            Cells::Bool(_) | Cells::Text(_) => None,
        },
        Expr::Arithmetic(op, a, b) => {
            let (a, b) = (number(a, columns, row)?, number(b, columns, row)?);
            match op {
                Op::Add => a.checked_add(b),
                Op::Subtract => a.checked_sub(b),
                Op::Multiply => a.checked_mul(b),
                Op::Divide => a.checked_div(b),
                Op::Remainder => a.checked_rem(b),
                Op::And => Some(a & b),
                Op::Or => Some(a | b),
            }
        }
        _ => None,
    }
}

fn words<'a>(e: &'a Expr, columns: &[Cells<'a>], row: usize) -> Option<&'a str> {
    match e {
        Expr::Words(w) => Some(w),
        Expr::TextColumn(n) => match columns.get(*n)? {
            Cells::Text(c) => c.get(row),
            _ => None,
        },
        _ => None,
    }
}
