//! Probes that `mmuscope record` sets: which registers hold the arguments of the function, as the facts of the recording say it. The main type is
//! [`Probe`].

use crate::event::Body;
use crate::fields::{Base, Fields, Meaning};
use crate::probed;
use crate::schema::{Tp, from_fields};
use crate::strings::Strings;

/// The registers that hold the arguments of a function, in the order of the arguments (x86-64 System V ABI), with their numbers in
/// `sample_regs_intr` (`arch/x86/include/uapi/asm/perf_regs.h`).
pub const ARGUMENT_REGISTERS: [(&str, u32); 6] =
    [("di", 5), ("si", 4), ("dx", 3), ("cx", 2), ("r8", 16), ("r9", 17)];

/// A function and where its arguments are.
#[derive(Clone, Debug)]
pub(crate) struct Probe {
    pub(crate) function: String,
    tp: Tp,
    /// The fields of the event, with the numbers of their registers.
    fields: Vec<(String, u32)>,
}

impl Probe {
    /// Reads what the recording says of a probe: `mmu_spte_update sptep=di new_spte=si`. `None` for a function that has no entry in the schema.
    pub(crate) fn parse(fact: &str) -> Option<Self> {
        let mut words = fact.split_ascii_whitespace();
        let function = words.next()?.to_owned();
        let tp = probed::by_name(function.as_bytes())?;
        let field = |w: &str| {
            let (field, register) = w.split_once('=')?;
            let number = ARGUMENT_REGISTERS.iter().find(|r| r.0 == register)?.1;
            Some((field.to_owned(), number))
        };
        Some(Self { function, tp, fields: words.map(field).collect::<Option<_>>()? })
    }

    /// The body of a sample with these registers: `mask` has a bit for each that was sampled, `words` their values.
    pub(crate) fn read(&self, mask: u64, words: &[u8], strings: &mut Strings) -> Option<Body> {
        let mut sampled = Sampled { probe: self, mask, words };
        from_fields(self.tp, &mut sampled, &Meaning::default(), strings)
    }
}

struct Sampled<'a> {
    probe: &'a Probe,
    mask: u64,
    words: &'a [u8],
}

impl Fields for Sampled<'_> {
    fn num(&mut self, name: &'static str, _: Base) -> Option<u64> {
        let number = self.probe.fields.iter().find(|f| f.0 == name)?.1;
        if self.mask >> number & 1 == 0 {
            return None;
        }
        let before = (self.mask & ((1 << number) - 1)).count_ones() as usize;
        self.words.get(8 * before..)?.first_chunk().map(|c| u64::from_le_bytes(*c))
    }

    fn text(&mut self, _: &'static str) -> Option<String> {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_found_by_their_bits() {
        let p = Probe::parse("mmu_spte_update sptep=di new_spte=si").expect("a probe");
        let words: Vec<u8> = [0x11u64, 0x22].iter().flat_map(|w| w.to_le_bytes()).collect();
        let mut strings = Strings::default();
        // si is number 4 and comes before di, number 5.
        let body = p.read(1 << 4 | 1 << 5, &words, &mut strings);
        let wanted = Body::ProbeSpteUpdate { no_track: false, kvm: None, sptep: 0x22, new_spte: 0x11 };
        assert_eq!(body, Some(wanted));
        assert_eq!(p.read(1 << 5, &words[..8], &mut strings), None, "a register that was not sampled");
        assert_eq!(p.read(1 << 4 | 1 << 5, &words[..8], &mut strings), None, "a sample that is cut");
        for bad in ["", "kvm_entry vcpu=di", "mmu_spte_update sptep=ax", "mmu_spte_update sptep"] {
            assert!(Probe::parse(bad).is_none(), "{bad}");
        }
    }
}
