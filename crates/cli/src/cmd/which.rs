//! Arguments that name VMs, address spaces and guest frames. Those that a trace does not have are refused, and the message lists those that it
//! has.

use anyhow::{Result, bail};
use mmuscope_analysis::words::printable;
use mmuscope_replay::Timeline;
use mmuscope_units::Frames;

/// The option that decides how numbers of guest frames are read.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub(crate) struct DecimalArg {
    /// Read frame numbers without a prefix as decimal instead of hex
    #[arg(long)]
    decimal: bool,
}

impl DecimalArg {
    /// The guest frames that were typed: the first and one past the last.
    pub(crate) fn frames(self, typed: &Frames) -> Result<(u64, u64)> {
        typed.get(self.decimal).map_err(anyhow::Error::msg)
    }

    /// As [`frames`](Self::frames), for an option that may be absent.
    pub(crate) fn maybe(self, typed: Option<&Frames>) -> Result<Option<(u64, u64)>> {
        typed.map(|f| self.frames(f)).transpose()
    }
}

/// Refuses a VM, or an address space of it, that the trace does not have.
pub(crate) fn check_vm(timeline: &Timeline, vm: Option<u16>, as_id: Option<u8>) -> Result<()> {
    let vms = timeline.vms();
    if let Some(n) = vm
        && !vms.iter().any(|v| v.id.0 == n)
    {
        let known: Vec<String> = vms
            .iter()
            .map(|v| match v.comm.as_str() {
                "" => v.id.0.to_string(),
                comm => format!("{} ({})", v.id.0, printable(comm)),
            })
            .collect();
        return no_vm(n.into(), &known);
    }
    if let Some(id) = as_id {
        let mut ids: Vec<u8> =
            vms.iter().filter(|v| vm.is_none_or(|n| v.id.0 == n)).flat_map(|v| v.as_ids.clone()).collect();
        ids.sort_unstable();
        ids.dedup();
        if !ids.contains(&id) {
            let ids: Vec<String> = ids.iter().map(u8::to_string).collect();
            bail!("no event is of address space {id}: the trace has {}", ids.join(", "));
        }
    }
    Ok(())
}

/// Fails with a message that there is no VM `n`, and which VMs there are.
pub(crate) fn no_vm(n: u32, known: &[String]) -> Result<()> {
    if known.is_empty() {
        bail!("there is no VM {n}: no event of the trace is of a VM");
    }
    bail!("there is no VM {n}: the trace has {}", known.join(", "));
}
