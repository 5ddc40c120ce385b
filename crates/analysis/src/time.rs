//! [`Moment`], a point in time as people type it, and [`Clock`], which turns it into a time of a trace.
//!
//! The options `--at`, `--from` and `--to` of every command are read here. Writing times is not: see `mmuscope_units`.

use crate::words;
use mmuscope_units::NotATime;
use std::fmt;
use std::str::FromStr;

/// A point in time as a user writes it: `1.5s`, `20ms`, `1.5` (seconds), `end`, `start`, or the name of a phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// The time of the first event.
    Start,
    /// The time of the last event.
    End,
    /// Nanoseconds since the first event, or on the trace's clock where times are absolute ([`Clock::absolute`]).
    At(u64),
    /// A whole number without a unit: seconds, or nanoseconds where it can only have been copied from a column ([`Clock::remark`]).
    Bare(u64),
    /// A phase by name: `NAME` is its beginning, `NAME:end` its end; `NAME#2` and `NAME#2:end` are those of the second phase of that name.
    Phase(String),
}

/// A text that cannot be read as a [`Moment`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotAMoment(String);

impl fmt::Display for NotAMoment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; or write start, end, or the name of a phase", NotATime(self.0.clone()))
    }
}

impl std::error::Error for NotAMoment {}

impl FromStr for Moment {
    type Err = NotAMoment;
    fn from_str(s: &str) -> Result<Self, NotAMoment> {
        match s.trim() {
            "" => Err(NotAMoment(s.to_string())),
            "start" | "begin" => Ok(Self::Start),
            "end" => Ok(Self::End),
            t if t.bytes().all(|b| b.is_ascii_digit() || b == b'_') => {
                t.replace('_', "").parse().map(Self::Bare).map_err(|_| NotAMoment(s.to_string()))
            }
            t => match mmuscope_units::time(t) {
                Ok(ns) => Ok(Self::At(ns)),
                // A phase may have any name, but one that begins like a number is a mistyped time.
                Err(_) if t.starts_with(|c: char| c.is_ascii_digit() || matches!(c, '.' | '-' | '+')) => {
                    Err(NotAMoment(s.to_string()))
                }
                Err(_) => Ok(Self::Phase(t.to_string())),
            },
        }
    }
}

/// Nanoseconds in a second.
const SECOND: u64 = 1_000_000_000;

/// The time that a trace covers and its phases. All times are nanoseconds on the trace's clock.
#[derive(Clone, Debug, Default)]
pub struct Clock {
    /// Time of the first event.
    pub first: u64,
    /// Time of the last event.
    pub last: u64,
    /// Whether times are typed and shown on the trace's clock; else they count from the first event.
    pub absolute: bool,
    /// Texts of the markers and the times they were written, in time order. Each begins a phase that lasts to the next, or to the end.
    pub marks: Vec<(String, u64)>,
}

/// Why a [`Moment`] is no time of the trace.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NoMoment {
    /// The moment lies before the first event or after the last.
    #[error("{asked} is outside of the trace, which goes from {first} to {last}{hint}")]
    Outside {
        /// The moment that was typed.
        asked: String,
        /// Time of the first event, with its unit.
        first: String,
        /// Time of the last event, with its unit.
        last: String,
        /// Advice to append, or nothing.
        hint: String,
    },
    /// No marker has this text.
    #[error("there is no phase `{name}`: {known}")]
    NoPhase {
        /// The name that was typed.
        name: String,
        /// The names that the trace has, as a clause.
        known: String,
    },
}

impl Clock {
    /// The time of a moment. A moment outside of the trace is refused, because nothing is known of it.
    pub fn at(&self, m: &Moment) -> Result<u64, NoMoment> {
        let at = self.unbounded(m)?;
        if (self.first..=self.last).contains(&at) { Ok(at) } else { Err(self.outside(at, m)) }
    }

    /// The times of two moments that bound a stretch. The stretch may reach over the ends of the trace, but must not lie outside of it.
    pub fn between(
        &self,
        from: Option<&Moment>,
        to: Option<&Moment>,
    ) -> Result<(Option<u64>, Option<u64>), NoMoment> {
        let at = |m: Option<&Moment>| m.map(|m| self.unbounded(m)).transpose();
        let (start, end) = (at(from)?, at(to)?);
        match (from, to) {
            (Some(m), _) if start.is_some_and(|t| t > self.last) => Err(self.outside(self.last, m)),
            (_, Some(m)) if end.is_some_and(|t| t < self.first) => Err(self.outside(self.first, m)),
            _ => Ok((start, end)),
        }
    }

    fn unbounded(&self, m: &Moment) -> Result<u64, NoMoment> {
        Ok(match m {
            Moment::Start => self.first,
            Moment::End => self.last,
            Moment::At(ns) => self.on(*ns),
            Moment::Bare(n) if self.is_copied(*n) => self.on(*n),
            Moment::Bare(n) => self.on(n.saturating_mul(SECOND)),
            Moment::Phase(name) => self.phase(name)?,
        })
    }

    /// Turns typed nanoseconds into a time on the trace's clock.
    fn on(&self, ns: u64) -> u64 {
        if self.absolute { ns } else { self.first.saturating_add(ns) }
    }

    /// Whether a number without a unit must have been copied from a column, which holds nanoseconds: read as seconds it lies far after the
    /// end of the trace, read as nanoseconds within.
    fn is_copied(&self, n: u64) -> bool {
        n >= 1_000_000
            && self.on(n.saturating_mul(SECOND)) > self.last
            && (self.first..=self.last).contains(&self.on(n))
    }

    /// A remark for the user where a number without a unit is read as nanoseconds.
    pub fn remark(&self, m: &Moment) -> Option<String> {
        let Moment::Bare(n) = m else { return None };
        self.is_copied(*n).then(|| {
            format!(
                "{n} is read as nanoseconds, the unit of the columns, because {n} s is after the end of the trace; to say so, write {n}ns"
            )
        })
    }

    fn outside(&self, at: u64, m: &Moment) -> NoMoment {
        let base = if self.absolute { 0 } else { self.first };
        let asked = match m {
            Moment::At(ns) => *ns,
            Moment::Bare(n) => n.saturating_mul(SECOND),
            _ => at.saturating_sub(base),
        };
        let shown = |t: u64| words::moment(t.saturating_sub(base));
        let hint = if !self.absolute && (self.first..=self.last).contains(&asked) {
            "; for a time of the trace's own clock add --absolute"
        } else {
            ""
        };
        let hint = hint.to_string();
        NoMoment::Outside {
            asked: if let Moment::Bare(n) = m { format!("{n} s") } else { words::moment(asked) },
            first: shown(self.first),
            last: shown(self.last),
            hint,
        }
    }

    /// The time at which a phase begins, or ends where the text is `NAME:end`.
    fn phase(&self, text: &str) -> Result<u64, NoMoment> {
        // A marker may itself end in `:end` or `#2`; the marker of exactly that text wins.
        if let Some(n) = self.nth(text) {
            return Ok(self.marks[n].1);
        }
        if let Some(n) = text.strip_suffix(":end").and_then(|name| self.nth(name)) {
            let next = self.marks.get(n + 1);
            return Ok(next.map_or(self.last, |(_, next)| next.saturating_sub(1)));
        }
        Err(NoMoment::NoPhase { name: text.to_string(), known: self.known() })
    }

    /// The place of a marker in `marks`: `NAME` is the first of that name, `NAME#2` the second.
    fn nth(&self, text: &str) -> Option<usize> {
        let of = |name: &str, skip: usize| {
            self.marks.iter().enumerate().filter(|(_, (t, _))| t == name).nth(skip).map(|(n, _)| n)
        };
        of(text, 0).or_else(|| {
            let (name, n) = text.rsplit_once('#')?;
            of(name, n.parse::<usize>().ok()?.checked_sub(1)?)
        })
    }

    /// The names of the phases, as a clause of an error message.
    fn known(&self) -> String {
        const SHOWN: usize = 40;
        let mut names: Vec<(&str, usize)> = Vec::new();
        for (text, _) in &self.marks {
            if let Some((_, times)) = names.iter_mut().find(|(n, _)| n == text) {
                *times += 1;
            } else if names.len() <= SHOWN {
                names.push((text, 1));
            }
        }
        if names.is_empty() {
            return "the trace has no markers; a time is 1.5s, 20ms, 1.5 (seconds), start or end".to_string();
        }
        let more = if names.len() > SHOWN { ", …" } else { "" };
        let names: Vec<String> = names
            .iter()
            .take(SHOWN)
            .map(|(n, times)| {
                let n = words::printable(n);
                if *times > 1 { format!("{n} ({times} times: {n}#1 to {n}#{times})") } else { n.into_owned() }
            })
            .collect();
        format!("the trace has {}{more}", names.join(", "))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_moment_may_be_a_phase() {
        assert_eq!("end".parse(), Ok(Moment::End));
        assert_eq!("1ms".parse(), Ok(Moment::At(1_000_000)));
        assert_eq!("1.5".parse(), Ok(Moment::At(1_500_000_000)));
        assert_eq!("2".parse(), Ok(Moment::Bare(2)));
        assert_eq!("thp-again".parse(), Ok(Moment::Phase("thp-again".into())));
        for wrong in ["10q", "-5", "+1s", ""] {
            assert!(wrong.parse::<Moment>().is_err(), "{wrong}");
        }
    }

    fn clock() -> Clock {
        let marks = [("get", 1_000), ("race", 2_000), ("get", 3_000), ("odd#1", 4_000)];
        Clock {
            first: 1_000,
            last: 5_000_000_000,
            absolute: false,
            marks: marks.map(|(t, at)| (t.to_string(), at)).to_vec(),
        }
    }

    #[test]
    fn each_phase_of_a_name_can_be_asked_for() {
        let at = |s: &str| clock().at(&s.parse().expect(s));
        assert_eq!((at("get"), at("get#1"), at("get#2")), (Ok(1_000), Ok(1_000), Ok(3_000)));
        assert_eq!((at("get:end"), at("get#2:end"), at("odd#1")), (Ok(1_999), Ok(3_999), Ok(4_000)));
        assert_eq!(at("odd#1:end"), Ok(5_000_000_000));
        for wrong in ["get#3", "get#0", "got", "get#x"] {
            let said = at(wrong).expect_err(wrong).to_string();
            assert!(said.contains("get (2 times: get#1 to get#2), race, odd#1"), "{said}");
        }
    }

    #[test]
    fn a_moment_outside_of_the_trace_is_refused_with_its_ends() {
        let clock = clock();
        let said = clock.at(&Moment::At(6_000_000_000)).expect_err("it ends before").to_string();
        assert_eq!(said, "6 s is outside of the trace, which goes from 0 s to 4.999999 s");
        for (text, seconds) in [("6", "6 s"), ("999_999", "999999 s"), ("20000000000", "20000000000 s")] {
            let said = clock.at(&text.parse().expect(text)).expect_err(text).to_string();
            assert!(said.starts_with(&format!("{seconds} is outside")), "{said}");
        }
        // A number copied from a column, without its unit.
        let copied = "2_000_000".parse().expect("a time");
        assert_eq!(clock.at(&copied), Ok(2_001_000));
        assert_eq!(clock.between(None, Some(&copied)), Ok((None, Some(2_001_000))));
        assert!(clock.remark(&copied).is_some_and(|r| r.ends_with("write 2000000ns")));
        assert_eq!((clock.at(&Moment::Bare(2)), clock.remark(&Moment::Bare(2))), (Ok(2_000_001_000), None));
        let later = Moment::At(6_000_000_000);
        assert!(clock.between(Some(&later), None).is_err());
        assert_eq!(clock.between(None, Some(&later)), Ok((None, Some(6_000_001_000))));
    }
}
