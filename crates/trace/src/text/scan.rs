//! The small parsers of which the parsers of heads and bodies consist, and a cursor that applies them along a line ([`Scan`]).

use nom::bytes::complete::{tag, tag_no_case, take, take_till, take_until, take_while, take_while1};
use nom::character::complete::char;
use nom::combinator::{map_opt, opt};
use nom::error::Error;
use nom::sequence::{preceded, terminated};
use nom::{IResult, Parser};

/// The result of parsing a part of a line.
pub(crate) type Parsed<'a, T> = IResult<&'a [u8], T>;

#[inline]
pub(crate) fn is_blank(b: u8) -> bool {
    matches!(b, b' ' | b'\t' | 0)
}

/// Parses any number of blanks, also none.
#[inline]
pub(crate) fn blanks(i: &[u8]) -> Parsed<'_, &[u8]> {
    take_while(is_blank).parse(i)
}

/// Parses a decimal number.
#[inline]
pub(crate) fn dec(i: &[u8]) -> Parsed<'_, u64> {
    map_opt(take_while1(|b: u8| b.is_ascii_digit()), |digits: &[u8]| {
        digits.iter().try_fold(0u64, |v, b| v.checked_mul(10)?.checked_add(u64::from(b - b'0')))
    })
    .parse(i)
}

/// Parses a hexadecimal number, with or without 0x; also the bare zero that `%#x` prints.
#[inline]
pub(crate) fn hex(i: &[u8]) -> Parsed<'_, u64> {
    let digits = take_while1(|b: u8| b.is_ascii_hexdigit());
    preceded(
        opt(tag_no_case("0x")),
        map_opt(digits, |digits: &[u8]| {
            digits.iter().try_fold(0u64, |v, b| (v >> 60 == 0).then_some(v << 4 | u64::from(hex_digit(*b)?)))
        }),
    )
    .parse(i)
}

/// Parses a word, up to the next blank; it may be empty.
#[inline]
pub(crate) fn word(i: &[u8]) -> Parsed<'_, &[u8]> {
    take_till(is_blank).parse(i)
}

/// The rest of a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan<'a>(pub(crate) &'a [u8]);

impl<'a> Scan<'a> {
    /// Applies a parser; the cursor stays where it is if that fails.
    #[inline]
    pub(crate) fn take<T>(
        &mut self,
        mut parser: impl Parser<&'a [u8], Output = T, Error = Error<&'a [u8]>>,
    ) -> Option<T> {
        let (rest, value) = parser.parse(self.0).ok()?;
        self.0 = rest;
        Some(value)
    }

    /// Skips exactly these bytes.
    #[inline]
    pub(crate) fn lit(&mut self, s: &[u8]) -> Option<()> {
        self.take(tag(s)).map(drop)
    }

    /// Skips blanks.
    #[inline]
    pub(crate) fn blanks(&mut self) {
        let _ = self.take(blanks);
    }

    /// Skips blanks, then these bytes.
    #[inline]
    pub(crate) fn key(&mut self, s: &[u8]) -> Option<()> {
        self.blanks();
        self.lit(s)
    }

    /// Skips blanks, then reads a hexadecimal number ([`hex`]).
    #[inline]
    pub(crate) fn hex(&mut self) -> Option<u64> {
        self.take(preceded(blanks, hex))
    }

    /// Skips blanks, then reads a decimal number.
    #[inline]
    pub(crate) fn dec(&mut self) -> Option<u64> {
        self.take(preceded(blanks, dec))
    }

    /// Skips blanks, then reads a signed decimal number.
    #[inline]
    pub(crate) fn int(&mut self) -> Option<i64> {
        self.take(preceded(
            blanks,
            map_opt((opt(char('-')), dec), |(minus, v)| {
                let v = i64::try_from(v).ok()?;
                Some(if minus.is_some() { -v } else { v })
            }),
        ))
    }

    /// Skips blanks, then reads a word, up to the next blank.
    #[inline]
    pub(crate) fn word(&mut self) -> &'a [u8] {
        self.take(preceded(blanks, word)).unwrap_or_default()
    }

    /// Reads everything before `s`, and skips `s` too.
    #[inline]
    pub(crate) fn until(&mut self, s: &[u8]) -> Option<&'a [u8]> {
        self.take(terminated(take_until(s), take(s.len())))
    }
}

#[inline]
pub(crate) fn hex_digit(b: u8) -> Option<u8> {
    match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    }
}

/// The first occurrence of a short needle.
#[inline]
pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    let (&first, rest) = needle.split_first()?;
    let mut from = 0;
    while let Some(n) = hay.get(from..)?.iter().position(|&b| b == first) {
        let at = from + n;
        if hay[at + 1..].starts_with(rest) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}
