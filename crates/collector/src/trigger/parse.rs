//! Parses the text of a trigger. An error says what was expected, and where.

use std::time::Duration;

use super::{Condition, Exit, Per, Rate, Trigger};
use crate::parse_duration;
use mmuscope_trace::vmm_exit_by_name;

struct Parser<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Parser<'a> {
    fn rest(&self) -> &'a str {
        &self.text[self.at..]
    }

    fn space(&mut self) {
        self.at += self.rest().len() - self.rest().trim_start().len();
    }

    fn eat(&mut self, token: &str) -> bool {
        self.space();
        let hit = self.rest().starts_with(token);
        if hit {
            self.at += token.len();
        }
        hit
    }

    fn word(&mut self) -> &'a str {
        self.space();
        let rest = self.rest();
        let end = rest
            .find(|c: char| !(c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | ':' | '.' | '*')))
            .unwrap_or(rest.len());
        self.at += end;
        &rest[..end]
    }

    fn fail<T>(&self, wanted: &str) -> Result<T, String> {
        let rest = self.rest().trim();
        let here = if rest.is_empty() { "the end".to_owned() } else { format!("{rest:?}") };
        Err(format!("trigger {:?}: expected {wanted} at {here}", self.text))
    }

    fn time(&mut self) -> Result<Duration, String> {
        let w = self.word();
        parse_duration(w).map_err(|e| format!("trigger {:?}: {e}", self.text))
    }

    fn rate(&mut self) -> Result<Rate, String> {
        let n = self.word();
        let Ok(more_than) = n.parse() else {
            self.at -= n.len();
            return self.fail("a number of events (as in 100/10ms)");
        };
        if !self.eat("/") {
            return self.fail("\"/\" and a time (as in 100/10ms)");
        }
        // "/s" means "/1s".
        self.space();
        let within = if self.rest().starts_with(|c: char| c.is_ascii_digit()) {
            self.time()?
        } else {
            let unit = self.word();
            parse_duration(&format!("1{unit}")).map_err(|e| format!("trigger {:?}: {e}", self.text))?
        };
        Ok(Rate { more_than, within })
    }

    fn maybe_rate(&mut self) -> Result<Option<Rate>, String> {
        if self.eat(">") { self.rate().map(Some) } else { Ok(None) }
    }

    fn condition(&mut self) -> Result<Condition, String> {
        let start = self.at;
        match self.word() {
            "reserved-bits" => Ok(Condition::ReservedBits),
            "exit" => {
                if !self.eat("==") && !self.eat("=") {
                    return self.fail("\"==\"");
                }
                let name = self.word().to_ascii_lowercase();
                let name = name.strip_prefix("kvm_exit_").unwrap_or(&name);
                let exit = match name {
                    "error" => Exit::Error(None),
                    "efault" => Exit::Error(Some(14)),
                    "einval" => Exit::Error(Some(22)),
                    "enomem" => Exit::Error(Some(12)),
                    _ => {
                        let number = vmm_exit_by_name(name).or_else(|| name.parse().ok());
                        let Some(number) = number else {
                            self.at -= name.len();
                            return self.fail(
                                "how KVM_RUN returns: internal_error, shutdown, memory_fault, fail_entry, error, efault, einval or a number",
                            );
                        };
                        Exit::Reason(number)
                    }
                };
                Ok(Condition::Exit(exit))
            }
            "faults" => {
                let per = if self.eat("(") {
                    let per = match self.word() {
                        "gfn" => Per::Gfn,
                        "vcpu" => Per::Vcpu,
                        "vm" => Per::Vm,
                        w => {
                            self.at -= w.len();
                            return self.fail("gfn, vcpu or vm");
                        }
                    };
                    if !self.eat(")") {
                        return self.fail("\")\"");
                    }
                    per
                } else {
                    Per::All
                };
                if !self.eat(">") {
                    return self.fail("\">\" and a rate (as in > 100/10ms)");
                }
                Ok(Condition::Faults(per, self.rate()?))
            }
            "fault-time" => {
                if !self.eat(">") {
                    return self.fail("\">\" and a time");
                }
                Ok(Condition::FaultTime(self.time()?))
            }
            "zap-all" => Ok(Condition::ZapAll(self.maybe_rate()?)),
            "event" => {
                let name = self.word().to_owned();
                if name.is_empty() {
                    return self.fail("an event's name");
                }
                let filter = if self.eat("{") {
                    let Some(end) = self.rest().find('}') else { return self.fail("\"}\"") };
                    let f = self.rest()[..end].trim().to_owned();
                    self.at += end + 1;
                    Some(f)
                } else {
                    None
                };
                Ok(Condition::Event { name, filter, rate: self.maybe_rate()? })
            }
            _ => {
                self.at = start;
                self.space();
                self.fail("reserved-bits, exit, faults, fault-time, zap-all or event")
            }
        }
    }
}

impl std::str::FromStr for Trigger {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut p = Parser { text, at: 0 };
        let mut any = vec![p.condition()?];
        loop {
            p.space();
            if p.rest().is_empty() {
                return Ok(Self { any, text: text.trim().to_owned() });
            }
            if !p.eat("or") && !p.eat("||") && !p.eat(",") {
                return p.fail("\"or\" or the end");
            }
            any.push(p.condition()?);
        }
    }
}
