//! Exits in text, from the guest and from a nested guest.

use super::Texts;
use crate::exits;
use crate::schema::values::{Isa, StrId};
use crate::strings::Strings;
use crate::text::scan::Scan;

/// Finds `name: value` pairs anywhere in a line.
struct Named<'a>(Scan<'a>);

impl Named<'_> {
    fn get(&mut self, key: &[u8]) -> Option<u64> {
        let mut s = self.0;
        while !s.0.is_empty() {
            if s.word() == key {
                return s.hex();
            }
        }
        None
    }
}

/// The fields vcpu, reason, isa, `reason_name`, rip, info1, info2, `intr_info`, `error_code` and requests of an exit.
type Exit = (
    Option<u32>,
    Option<u32>,
    Option<Isa>,
    StrId,
    u64,
    Option<u64>,
    Option<u64>,
    Option<u32>,
    Option<u32>,
    Option<u64>,
);

/// The fields vcpu, reason, isa, rip, info1 and info2 of a nested exit.
type NestedExit = (Option<u32>, Option<u32>, Option<Isa>, Option<u64>, Option<u64>, Option<u64>);

/// Reads `[vcpu 0 ]reason NAME[ FLAGS] rip 0x… info1 0x… info2 0x… intr_info 0x… error_code 0x…[ requests 0x…]`, or `… info %llx %llx`.
pub(in crate::schema) fn exit(s: &mut Scan<'_>, cx: &mut Texts<'_>) -> Option<Exit> {
    let mut vcpu = None;
    if s.key(b"vcpu ").is_some() {
        vcpu = Some(s.dec()? as u32);
    }
    s.key(b"reason ")?;
    let name = s.until(b" rip ")?.trim_ascii();
    let rip = s.hex()?;
    let (mut info1, mut info2, mut intr_info, mut error_code, mut requests) = (None, None, None, None, None);
    if s.key(b"info1 ").is_some() {
        info1 = Some(s.hex()?);
        s.key(b"info2 ")?;
        info2 = Some(s.hex()?);
        if s.key(b"intr_info ").is_some() {
            intr_info = Some(s.hex()? as u32);
            s.key(b"error_code ")?;
            error_code = Some(s.hex()? as u32);
        }
        if s.key(b"requests ").is_some() {
            requests = Some(s.hex()?);
        }
    } else if s.key(b"info ").is_some() {
        info1 = Some(s.hex()?);
        info2 = Some(s.hex()?);
        cx.gaps.exit_vcpu += u64::from(vcpu.is_none());
    }
    let (reason, isa, reason_name) = reason(name, cx.strings);
    Some((vcpu, reason, isa, reason_name, rip, info1, info2, intr_info, error_code, requests))
}

/// Splits a reason text into the name and the flag of a failed entry, which is bit 31 of the number.
fn flagged(text: &str) -> (&str, u32) {
    // A VMX flag may follow the name. VMX names are one word; SVM names may be two.
    match text.strip_suffix(" FAILED_VMENTRY") {
        Some(base) => (base, 0x8000_0000),
        None => (text, 0),
    }
}

/// The number, back-end and interned name of a reason text.
fn reason(text: &[u8], strings: &mut Strings) -> (Option<u32>, Option<Isa>, StrId) {
    let text = String::from_utf8_lossy(text);
    let (base, failed) = flagged(&text);
    match exits::by_name(base) {
        Some((n, isa)) => {
            let reason = n | failed;
            let name = strings.exit_name(isa, n);
            (
                Some(reason),
                isa,
                if name == StrId::default() && isa.is_some() { strings.intern(base) } else { name },
            )
        }
        None => (None, None, strings.intern(base)),
    }
}

/// Reads the form of kvm_exit (since 5.10) or `rip: 0x… reason: NAME ext_inf1: 0x… ext_inf2: 0x… …` (before), of which the kvm plugin makes
/// `rip … reason NAME info1 … info2 … int_info … int_info_err …`.
pub(in crate::schema) fn nested_exit(s: &mut Scan<'_>, _: &mut Texts<'_>) -> Option<NestedExit> {
    let mut vcpu = None;
    if s.key(b"vcpu ").is_some() {
        vcpu = Some(s.dec()? as u32);
    }
    let (found, rip, info1, info2) = if s.key(b"reason ").is_some() {
        let text = String::from_utf8_lossy(s.until(b" rip ")?.trim_ascii());
        let (name, failed) = flagged(&text);
        let found = exits::by_name(name).map(|(n, isa)| (n | failed, isa));
        let rip = s.hex();
        let info1 = s.key(b"info1 ").and_then(|()| s.hex());
        let info2 = s.key(b"info2 ").and_then(|()| s.hex());
        (found, rip, info1, info2)
    } else if s.key(b"rip ").is_some() {
        let rip = s.hex();
        s.key(b"reason ")?;
        let text = String::from_utf8_lossy(s.until(b" info1 ")?.trim_ascii());
        let (name, failed) = flagged(&text);
        let found = exits::by_name(name).map(|(n, isa)| (n | failed, isa));
        let info1 = s.hex();
        s.key(b"info2 ")?;
        (found, rip, info1, s.hex())
    } else {
        let mut named = Named(*s);
        let rip = named.get(b"rip:");
        let mut found = None;
        if s.until(b"reason: ").is_some() {
            let name = s.until(b" ext_inf1").unwrap_or_else(|| s.word());
            found = exits::by_name(&String::from_utf8_lossy(name));
        }
        if rip.is_none() && found.is_none() {
            return None;
        }
        (found, rip, named.get(b"ext_inf1:"), named.get(b"ext_inf2:"))
    };
    let (reason, isa) = found.map_or((None, None), |(n, isa)| (Some(n), isa));
    Some((vcpu, reason, isa, rip, info1, info2))
}

/// Reads `rip: 0x… nested_rip: 0x… nested_eptp: 0x…` in any of the kernel's spellings: the fields rip, `nested_rip` and `nested_pgd`.
pub(in crate::schema) fn nested_enter(
    s: &mut Scan<'_>,
    _: &mut Texts<'_>,
) -> Option<(Option<u64>, Option<u64>, Option<u64>)> {
    let mut named = Named(*s);
    let rip = named.get(b"rip:");
    let nested_rip = named.get(b"nested_rip:").or_else(|| named.get(b"nrip:"));
    let nested_pgd = [&b"nested_eptp:"[..], b"nested_cr3:", b"guest_cr3:"].iter().find_map(|k| named.get(k));
    (rip.is_some() || nested_rip.is_some() || nested_pgd.is_some()).then_some((rip, nested_rip, nested_pgd))
}
