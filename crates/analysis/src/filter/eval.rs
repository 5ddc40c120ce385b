//! Evaluating an expression over a chunk, row by row, in exact integers (no cell of u64 loses a bit) and three-valued logic.

use super::parse::{Expr, Match, Op, Order};
use crate::table::{Cell, Chunk};
use std::cmp::Ordering;

/// For each row, whether the expression is true. Null is not true.
pub(super) fn mask(expr: &Expr, chunk: &Chunk) -> Vec<bool> {
    (0..chunk.height()).map(|row| truth(expr, chunk, row) == Some(true)).collect()
}

fn truth(e: &Expr, chunk: &Chunk, row: usize) -> Option<bool> {
    match e {
        Expr::Truth(t) => Some(*t),
        Expr::FlagColumn(n) => match chunk.cell(row, *n) {
            Cell::Bool(v) => Some(v),
            _ => None,
        },
        Expr::Not(e) => truth(e, chunk, row).map(|t| !t),
        Expr::And(a, b) => match (truth(a, chunk, row), truth(b, chunk, row)) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        },
        Expr::Or(a, b) => match (truth(a, chunk, row), truth(b, chunk, row)) {
            (Some(true), _) | (_, Some(true)) => Some(true),
            (Some(false), Some(false)) => Some(false),
            _ => None,
        },
        Expr::Compare(order, a, b) => {
            let found = compare(a, b, chunk, row)?;
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
                if let Some(found) = compare(a, b, chunk, row) {
                    known = true;
                    if found == Ordering::Equal {
                        return Some(true);
                    }
                }
            }
            known.then_some(false)
        }
        Expr::Match(how, a, pattern) => {
            let text = words(a, chunk, row)?;
            Some(match how {
                Match::Contains => text.contains(pattern.as_str()),
                Match::StartsWith => text.starts_with(pattern.as_str()),
                Match::EndsWith => text.ends_with(pattern.as_str()),
                Match::Like => super::like(text, pattern),
            })
        }
        Expr::IsNull(e) => Some(match &**e {
            e @ (Expr::NumberColumn(_) | Expr::Number(_) | Expr::Arithmetic(..)) => {
                number(e, chunk, row).is_none()
            }
            e @ (Expr::TextColumn(_) | Expr::Words(_)) => words(e, chunk, row).is_none(),
            e => truth(e, chunk, row).is_none(),
        }),
        Expr::Number(_)
        | Expr::Words(_)
        | Expr::NumberColumn(_)
        | Expr::TextColumn(_)
        | Expr::Arithmetic(..) => None,
    }
}

fn compare(a: &Expr, b: &Expr, chunk: &Chunk, row: usize) -> Option<Ordering> {
    match a {
        Expr::Number(_) | Expr::NumberColumn(_) | Expr::Arithmetic(..) => {
            Some(number(a, chunk, row)?.cmp(&number(b, chunk, row)?))
        }
        Expr::Words(_) | Expr::TextColumn(_) => Some(words(a, chunk, row)?.cmp(words(b, chunk, row)?)),
        _ => Some(truth(a, chunk, row)?.cmp(&truth(b, chunk, row)?)),
    }
}

fn number(e: &Expr, chunk: &Chunk, row: usize) -> Option<i128> {
    match e {
        Expr::Number(n) => Some(*n),
        Expr::NumberColumn(n) => match chunk.cell(row, *n) {
            Cell::U64(v) => Some(v.into()),
            Cell::I32(v) => Some(v.into()),
            Cell::Null | Cell::Bool(_) | Cell::Text(_) => None,
        },
        Expr::Arithmetic(op, a, b) => {
            let (a, b) = (number(a, chunk, row)?, number(b, chunk, row)?);
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

fn words<'a>(e: &'a Expr, chunk: &'a Chunk, row: usize) -> Option<&'a str> {
    match e {
        Expr::Words(w) => Some(w),
        Expr::TextColumn(n) => match chunk.cell(row, *n) {
            Cell::Text(text) => Some(text),
            _ => None,
        },
        _ => None,
    }
}
