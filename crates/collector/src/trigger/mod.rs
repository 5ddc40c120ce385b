//! The language in which a user says when the flight recorder saves. The main type is [`Trigger`]; the watcher in `watch` evaluates it.
//!
//! ```text
//! trigger   := condition { ("or" | "||" | ",") condition }
//! condition := "reserved-bits"
//!            | "exit" "==" NAME                        internal_error, shutdown, memory_fault, fail_entry, error, efault, 17 …
//!            | "faults" [ "(" "gfn" | "vcpu" | "vm" ")" ] ">" N "/" TIME
//!            | "fault-time" ">" TIME
//!            | "zap-all" [ ">" N "/" TIME ]
//!            | "event" NAME [ "{" FILTER "}" ] [ ">" N "/" TIME ]
//! ```

mod parse;
#[cfg(test)]
mod tests;
mod watch;

use mmuscope_trace::vmm_exit_name;
use std::fmt;
use std::time::Duration;

pub(crate) use watch::{Hit, Watched, Watcher};

/// Conditions, any of which fires the trigger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trigger {
    /// The conditions.
    pub any: Vec<Condition>,
    /// The text as the user gave it.
    pub text: String,
}

impl fmt::Display for Trigger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// A rate of events that is too high.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// The condition is fulfilled by more events than this …
    pub more_than: u32,
    /// … within this time.
    pub within: Duration,
}

/// What is counted separately when faults are counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Per {
    /// All faults are counted together.
    All,
    /// The faults of each guest frame of each VM.
    Gfn,
    /// The faults of each vCPU thread.
    Vcpu,
    /// The faults of each VMM process.
    Vm,
}

/// How KVM_RUN returned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// It returned with this `KVM_EXIT_*`.
    Reason(u32),
    /// It returned with this errno; `None` stands for any but EINTR and EAGAIN.
    Error(Option<i32>),
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// KVM met an SPTE with reserved bits set: KVM_RUN fails with EINVAL right after a fault.
    ReservedBits,
    /// KVM_RUN returned in this way.
    Exit(Exit),
    /// There were too many guest page faults.
    Faults(Per, Rate),
    /// One fault took longer than this, from `kvm_page_fault` to `kvm_entry`.
    FaultTime(Duration),
    /// All page tables were made obsolete at once.
    ZapAll(Option<Rate>),
    /// An event happened, with an optional filter that the kernel applies.
    Event {
        /// The name of the event, with or without its system.
        name: String,
        /// An expression over its fields.
        filter: Option<String>,
        /// The rate at which it must happen; `None` if once is enough.
        rate: Option<Rate>,
    },
}

impl fmt::Display for Condition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&describe(self))
    }
}

fn describe(c: &Condition) -> String {
    let rate = |r: &Rate| format!(" > {}/{:?}", r.more_than, r.within);
    match c {
        Condition::ReservedBits => "reserved-bits".into(),
        Condition::Exit(Exit::Reason(r)) => {
            let name = vmm_exit_name(*r).map_or_else(|| r.to_string(), str::to_ascii_lowercase);
            format!("exit == {name}")
        }
        Condition::Exit(Exit::Error(None)) => "exit == error".into(),
        Condition::Exit(Exit::Error(Some(n))) => format!("exit == error {n}"),
        Condition::Faults(per, r) => {
            let per = match per {
                Per::All => "",
                Per::Gfn => "(gfn)",
                Per::Vcpu => "(vcpu)",
                Per::Vm => "(vm)",
            };
            format!("faults{per}{}", rate(r))
        }
        Condition::FaultTime(t) => format!("fault-time > {t:?}"),
        Condition::ZapAll(r) => format!("zap-all{}", r.as_ref().map(rate).unwrap_or_default()),
        Condition::Event { name, filter, rate: r } => format!(
            "event {name}{}{}",
            filter.as_ref().map(|f| format!(" {{{f}}}")).unwrap_or_default(),
            r.as_ref().map(rate).unwrap_or_default()
        ),
    }
}
