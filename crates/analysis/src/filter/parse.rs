//! The grammar of [`Filter`](super::Filter): text to a typed expression. It never looks at rows; `eval` does.

use super::FilterError;
use crate::table::{Kind, Table};

/// A typed expression. A column is its place in the table.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Expr {
    Number(i128),
    Words(String),
    Truth(bool),
    NumberColumn(usize),
    TextColumn(usize),
    FlagColumn(usize),
    Not(Box<Expr>),
    And(Box<Expr>, Box<Expr>),
    Or(Box<Expr>, Box<Expr>),
    Compare(Order, Box<Expr>, Box<Expr>),
    Match(Match, Box<Expr>, String),
    In(Box<Expr>, Vec<Expr>),
    IsNull(Box<Expr>),
    Arithmetic(Op, Box<Expr>, Box<Expr>),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Order {
    Equal,
    NotEqual,
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Match {
    Contains,
    StartsWith,
    EndsWith,
    Like,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Op {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
    And,
    Or,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Type {
    Number,
    Text,
    Truth,
}

impl Type {
    fn name(self) -> &'static str {
        match self {
            Self::Number => "a number",
            Self::Text => "text",
            Self::Truth => "true or false",
        }
    }
}

impl Expr {
    fn ty(&self) -> Type {
        match self {
            Self::Number(_) | Self::NumberColumn(_) | Self::Arithmetic(..) => Type::Number,
            Self::Words(_) | Self::TextColumn(_) => Type::Text,
            _ => Type::Truth,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    /// The digits as they were typed; the column that they are compared with decides whether they are hex.
    Number(String),
    Quoted(String),
    Word(String),
    Symbol(&'static str),
}

/// Longer symbols first.
const SYMBOLS: [&str; 20] = [
    "==", "!=", "<=", ">=", "&&", "||", "=~", "=", "<", ">", "!", "(", ")", ",", "+", "*", "/", "%", "&", "|",
];

/// How deep parentheses and `not` may nest: the parser is recursive, and its input may come from anywhere.
const MAX_DEPTH: usize = 64;

pub(super) fn parse(text: &str, table: &Table) -> Result<Expr, FilterError> {
    let tokens = tokens(text)?;
    let mut p = Parser { text, table, tokens, next: 0, depth: 0, hex: false };
    let expr = p.or()?;
    if p.next < p.tokens.len() {
        return p.fail("this does not belong to the expression: is an operator missing before it?");
    }
    p.want(&expr, Type::Truth, 0, "a filter is a comparison")?;
    Ok(expr)
}

fn tokens(text: &str) -> Result<Vec<(usize, Token)>, FilterError> {
    let fail =
        |at: usize, message: &str| FilterError { text: text.to_string(), at, message: message.to_string() };
    let mut out = Vec::new();
    let mut at = 0;
    while let Some(c) = text[at..].chars().next() {
        let rest = &text[at..];
        if c.is_whitespace() {
            at += c.len_utf8();
        } else if c == '\'' || c == '"' {
            let end = rest[1..].find(c).ok_or_else(|| fail(at, "this quote is not closed"))?;
            out.push((at, Token::Quoted(rest[1..=end].to_string())));
            at += end + 2;
        } else if c.is_ascii_digit() {
            let end =
                rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '.')).unwrap_or(rest.len());
            out.push((at, Token::Number(rest[..end].to_string())));
            at += end;
        } else if c.is_alphabetic() || c == '_' {
            let end = rest
                .find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '-' | '.' | ':')))
                .unwrap_or(rest.len());
            out.push((at, Token::Word(rest[..end].to_string())));
            at += end;
        } else if c == '-' {
            out.push((at, Token::Symbol("-")));
            at += 1;
        } else if let Some(s) = SYMBOLS.iter().find(|s| rest.starts_with(**s)) {
            out.push((at, Token::Symbol(s)));
            at += s.len();
        } else {
            return Err(fail(at, "this character has no meaning in a filter"));
        }
    }
    Ok(out)
}

/// Reads a number: in the unit of its column, or with a unit of time or size. With `hex`, digits without a prefix are hex.
fn number(s: &str, hex: bool) -> Option<i128> {
    let plain = mmuscope_units::number(s, hex);
    // A unit of size is a capital: `m` is a minute.
    let size = || s.contains(['K', 'M', 'G', 'T']).then(|| mmuscope_units::size(s).ok()).flatten();
    // A number with a point needs a unit: columns hold nanoseconds, and people mean seconds.
    let time = || s.ends_with(char::is_alphabetic).then(|| mmuscope_units::time(s).ok()).flatten();
    plain.or_else(size).or_else(time).map(i128::from)
}

struct Parser<'a> {
    text: &'a str,
    table: &'a Table,
    tokens: Vec<(usize, Token)>,
    next: usize,
    depth: usize,
    /// Whether the operand that is being read is compared with a hex column, so that numbers without a prefix are hex.
    hex: bool,
}

type Parsed = Result<Expr, FilterError>;

impl Parser<'_> {
    fn at(&self) -> usize {
        self.tokens.get(self.next).map_or(self.text.len(), |(at, _)| *at)
    }

    fn fail<T>(&self, message: impl Into<String>) -> Result<T, FilterError> {
        self.fail_at(self.at(), message)
    }

    fn fail_at<T>(&self, at: usize, message: impl Into<String>) -> Result<T, FilterError> {
        Err(FilterError { text: self.text.to_string(), at, message: message.into() })
    }

    fn want(&self, e: &Expr, ty: Type, at: usize, why: &str) -> Result<(), FilterError> {
        if e.ty() == ty {
            return Ok(());
        }
        self.fail_at(at, format!("{why}: {} is needed here, and this is {}", ty.name(), e.ty().name()))
    }

    fn peek(&self) -> Option<&Token> {
        self.tokens.get(self.next).map(|(_, t)| t)
    }

    /// Takes the next token if it is one of these symbols or keywords.
    fn take(&mut self, any: &[&'static str]) -> Option<&'static str> {
        let found = match self.peek()? {
            Token::Symbol(s) => any.iter().find(|a| *a == s),
            Token::Word(w) => any.iter().find(|a| a.eq_ignore_ascii_case(w)),
            _ => None,
        }?;
        self.next += 1;
        Some(found)
    }

    fn expect(&mut self, what: &'static str) -> Result<(), FilterError> {
        if self.take(&[what]).is_some() { Ok(()) } else { self.fail(format!("`{what}` is missing here")) }
    }

    fn or(&mut self) -> Parsed {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fail("this nests too deeply");
        }
        let e = self.joined(&["or", "||"], "`or` joins comparisons", Self::and, Expr::Or)?;
        self.depth -= 1;
        Ok(e)
    }

    fn and(&mut self) -> Parsed {
        self.joined(&["and", "&&"], "`and` joins comparisons", Self::not, Expr::And)
    }

    /// Reads conditions that one operator joins, from left to right.
    fn joined(
        &mut self,
        operator: &[&'static str],
        why: &str,
        tighter: fn(&mut Self) -> Parsed,
        make: fn(Box<Expr>, Box<Expr>) -> Expr,
    ) -> Parsed {
        let start = self.at();
        let mut left = tighter(self)?;
        while self.take(operator).is_some() {
            self.want(&left, Type::Truth, start, why)?;
            let at = self.at();
            let right = tighter(self)?;
            self.want(&right, Type::Truth, at, why)?;
            left = make(left.into(), right.into());
        }
        Ok(left)
    }

    fn not(&mut self) -> Parsed {
        if self.take(&["not", "!"]).is_none() {
            return self.comparison();
        }
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return self.fail("this nests too deeply");
        }
        let at = self.at();
        let e = self.not()?;
        self.want(&e, Type::Truth, at, "`not` turns a comparison round")?;
        self.depth -= 1;
        Ok(Expr::Not(e.into()))
    }

    fn comparison(&mut self) -> Parsed {
        let start = self.at();
        let left = self.bits_or()?;
        if let Some(symbol) = self.take(&["==", "=", "!=", "<=", ">=", "<", ">"]) {
            let order = match symbol {
                "==" | "=" => Order::Equal,
                "!=" => Order::NotEqual,
                "<" => Order::Less,
                "<=" => Order::LessOrEqual,
                ">" => Order::Greater,
                _ => Order::GreaterOrEqual,
            };
            if self.take(&["null"]).is_some() {
                return match order {
                    Order::Equal => Ok(Expr::IsNull(left.into())),
                    Order::NotEqual => Ok(Expr::Not(Expr::IsNull(left.into()).into())),
                    _ => self.fail_at(start, "null has no order: only == and != compare with it"),
                };
            }
            let (at, literal) = (self.at(), self.next - 2);
            let right = self.operand_like(&left)?;
            // `0x2001 == gfn` reads its number as `gfn == 0x2001` does.
            let left = match self.tokens.get(literal) {
                Some((at, Token::Number(text))) if *at == start && self.is_hex(&right) => {
                    number(text, true).map_or(left, Expr::Number)
                }
                _ => left,
            };
            self.want(&right, left.ty(), at, "both sides of a comparison are of one kind")?;
            if left.ty() == Type::Truth && !matches!(order, Order::Equal | Order::NotEqual) {
                return self.fail_at(start, "true and false have no order");
            }
            return Ok(Expr::Compare(order, left.into(), right.into()));
        }
        if self.take(&["is"]).is_some() {
            let not = self.take(&["not"]).is_some();
            self.expect("null")?;
            let e = Expr::IsNull(left.into());
            return Ok(if not { Expr::Not(e.into()) } else { e });
        }
        let next = self.tokens.get(self.next + 1).map(|(_, t)| t);
        let negates = matches!(next, Some(Token::Word(w))
            if ["in", "contains", "starts", "ends", "like"].iter().any(|k| w.eq_ignore_ascii_case(k)));
        if negates && self.take(&["not"]).is_some() {
            return Ok(Expr::Not(self.member(left, start)?.into()));
        }
        self.member(left, start)
    }

    /// Reads what may follow a column instead of a comparison operator: `in (…)` or a search in text. Without those it is the column alone.
    fn member(&mut self, left: Expr, start: usize) -> Parsed {
        if self.take(&["in"]).is_some() {
            self.expect("(")?;
            let mut any = Vec::new();
            loop {
                let at = self.at();
                let e = self.operand_like(&left)?;
                self.want(&e, left.ty(), at, "a list holds what it is compared with")?;
                any.push(e);
                if self.take(&[","]).is_none() {
                    break;
                }
            }
            self.expect(")")?;
            return Ok(Expr::In(left.into(), any));
        }
        if let Some(how) = self.take(&["contains", "starts", "ends", "like"]) {
            if how == "starts" || how == "ends" {
                self.expect("with")?;
            }
            self.want(&left, Type::Text, start, "only text can be searched")?;
            let at = self.at();
            let Expr::Words(pattern) = self.operand_like(&left)? else {
                return self.fail_at(at, "a text is needed here");
            };
            let how = match how {
                "contains" => Match::Contains,
                "starts" => Match::StartsWith,
                "ends" => Match::EndsWith,
                _ => Match::Like,
            };
            return Ok(Expr::Match(how, left.into(), pattern));
        }
        Ok(left)
    }

    /// Reads the right side of a comparison. On the right of text, a bare word that is no column is text.
    fn operand_like(&mut self, left: &Expr) -> Parsed {
        if left.ty() == Type::Text
            && let Some(Token::Word(w)) = self.peek()
            && self.table.position(w).is_none()
        {
            let word = w.clone();
            self.next += 1;
            return Ok(Expr::Words(word));
        }
        let hex = self.is_hex(left);
        let before = std::mem::replace(&mut self.hex, hex);
        let right = self.bits_or();
        self.hex = before;
        right
    }

    /// Whether an expression is a column that is printed in hex.
    fn is_hex(&self, e: &Expr) -> bool {
        matches!(e, Expr::NumberColumn(n) if self.table.columns[*n].kind == Kind::Hex)
    }

    /// Reads the literal at byte `at` as a number.
    fn literal(&self, at: usize, text: &str) -> Result<i128, FilterError> {
        match number(text, self.hex) {
            Some(n) => Ok(n),
            None if text.contains('.') && mmuscope_units::time(text).is_ok() => {
                self.fail_at(at, format!("a number with a point needs a unit here: {text}s"))
            }
            None => self.fail_at(at, "this is no number"),
        }
    }

    fn binary(&mut self, symbols: &[(&'static str, Op)], tighter: fn(&mut Self) -> Parsed) -> Parsed {
        let start = self.at();
        let mut left = tighter(self)?;
        let names: Vec<&'static str> = symbols.iter().map(|(s, _)| *s).collect();
        while let Some(symbol) = self.take(&names) {
            let Some((_, op)) = symbols.iter().find(|(s, _)| *s == symbol) else { break };
            self.want(&left, Type::Number, start, "only numbers can be calculated with")?;
            let at = self.at();
            let right = tighter(self)?;
            self.want(&right, Type::Number, at, "only numbers can be calculated with")?;
            left = Expr::Arithmetic(*op, left.into(), right.into());
        }
        Ok(left)
    }

    fn bits_or(&mut self) -> Parsed {
        self.binary(&[("|", Op::Or)], Self::bits_and)
    }

    fn bits_and(&mut self) -> Parsed {
        self.binary(&[("&", Op::And)], Self::sum)
    }

    fn sum(&mut self) -> Parsed {
        self.binary(&[("+", Op::Add), ("-", Op::Subtract)], Self::product)
    }

    fn product(&mut self) -> Parsed {
        self.binary(&[("*", Op::Multiply), ("/", Op::Divide), ("%", Op::Remainder)], Self::operand)
    }

    fn operand(&mut self) -> Parsed {
        let at = self.at();
        if self.take(&["("]).is_some() {
            let e = self.or()?;
            self.expect(")")?;
            return Ok(e);
        }
        if self.take(&["-"]).is_some() {
            return match self.tokens.get(self.next) {
                Some((at, Token::Number(text))) => {
                    let n = -self.literal(*at, text)?;
                    self.next += 1;
                    Ok(Expr::Number(n))
                }
                _ => self.fail("a number is missing after `-`"),
            };
        }
        let Some((_, token)) = self.tokens.get(self.next) else {
            return self.fail("something is missing here");
        };
        let token = token.clone();
        self.next += 1;
        match token {
            Token::Number(text) => Ok(Expr::Number(self.literal(at, &text)?)),
            Token::Quoted(s) => Ok(Expr::Words(s)),
            Token::Word(w) if w.eq_ignore_ascii_case("true") => Ok(Expr::Truth(true)),
            Token::Word(w) if w.eq_ignore_ascii_case("false") => Ok(Expr::Truth(false)),
            Token::Word(w) => match self.table.position(&w) {
                Some(n) => Ok(match self.table.columns[n].kind {
                    Kind::Text => Expr::TextColumn(n),
                    Kind::Flag => Expr::FlagColumn(n),
                    _ => Expr::NumberColumn(n),
                }),
                // A frame that begins with a letter: `gfn == fee00`.
                None => match mmuscope_units::number(&w, true).filter(|_| self.hex) {
                    Some(n) => Ok(Expr::Number(n.into())),
                    None => self.fail_at(at, self.unknown_column(&w)),
                },
            },
            Token::Symbol(_) => self.fail_at(at, "a column, a number or a text is needed here"),
        }
    }

    fn unknown_column(&self, word: &str) -> String {
        let names: Vec<&str> = self.table.columns.iter().map(|c| c.name).collect();
        format!("`{}` has no column `{word}`; its columns are: {}", self.table.name, names.join(", "))
    }
}
