//! How values are printed: the functions that the text patterns of entries name. Each reads one field, or several.

#![allow(
    clippy::unnecessary_wraps,
    clippy::option_option,
    reason = "entries call all of them alike; the outer Option says whether the field could be read"
)]

mod exit;
mod page;

use super::sources::Read;
use super::values::{ErrorEncoding, FastPfResult, StrId};
use crate::fields;
use crate::strings::Strings;
use crate::text::scan::Scan;

pub(super) use exit::{exit, nested_enter, nested_exit};
pub(super) use page::{new_page, page};

/// Counts of what a text leaves out. Each is reported once.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Gaps {
    /// The number of shadow-page events whose gfn the plugin dropped.
    pub(crate) page_gfn: u64,
    /// The number of shadow-page events whose role the plugin split as kernels of long ago did, so that they are kept as text.
    pub(crate) old_role: u64,
    /// The number of kvm_exit events whose vCPU the plugin dropped.
    pub(crate) exit_vcpu: u64,
    /// The number of hashed pointers.
    pub(crate) hashed: u64,
    /// The number of lines in which the kernel dropped strings.
    pub(crate) emptied: u64,
    /// The number of typed events whose text could not be read.
    pub(crate) unread: u64,
}

impl Gaps {
    pub(crate) fn add(&mut self, o: &Self) {
        self.page_gfn += o.page_gfn;
        self.old_role += o.old_role;
        self.exit_vcpu += o.exit_vcpu;
        self.hashed += o.hashed;
        self.emptied += o.emptied;
        self.unread += o.unread;
    }
}

/// Where texts put what is more than a number.
#[derive(Debug)]
pub(crate) struct Texts<'a> {
    pub(crate) strings: &'a mut Strings,
    pub(crate) gaps: &'a mut Gaps,
}

/// `%llx`, also with `0x`.
#[inline]
pub(super) fn hex<T: Read>(s: &mut Scan<'_>, _: &mut Texts<'_>) -> Option<T> {
    T::read(Some(s.hex()?))
}

/// `%u`.
#[inline]
pub(super) fn dec<T: Read>(s: &mut Scan<'_>, _: &mut Texts<'_>) -> Option<T> {
    T::read(Some(s.dec()?))
}

/// `%d`.
#[inline]
pub(super) fn int(s: &mut Scan<'_>, _: &mut Texts<'_>) -> Option<i32> {
    s.int().map(|n| n as i32)
}

/// Reads `%p`.
#[inline]
pub(super) fn pointer(s: &mut Scan<'_>, cx: &mut Texts<'_>) -> Option<Option<u64>> {
    Some(real_pointer(s.word(), cx.gaps))
}

/// A word in the pattern means yes, and nothing more is printed.
#[inline]
pub(super) fn yes<T: Read>(_: &mut Scan<'_>, _: &mut Texts<'_>) -> Option<T> {
    T::read(Some(1))
}

/// Reads a pointer. A real one of a 64-bit kernel begins with ffff, and a hash has its upper half clear. On 32-bit kernels both have 8
/// digits, and only an aligned address in the kernel's gigabyte is taken as real.
pub(crate) fn real_pointer(digits: &[u8], gaps: &mut Gaps) -> Option<u64> {
    let mut s = Scan(digits);
    let v = s.hex().filter(|_| s.0.is_empty());
    let n = digits.strip_prefix(b"0x").unwrap_or(digits).len();
    let real = v.filter(|v| if n <= 8 { *v >= 0xc000_0000 && v % 8 == 0 } else { v >> 48 == 0xffff });
    gaps.hashed += u64::from(real.is_none());
    real
}

/// Reads `rwxu)`, where letters that are not set are `-`, and `u` may be missing: the fields r, w, x and u.
pub(super) fn letters(
    scan: &mut Scan<'_>,
    cx: &mut Texts<'_>,
    spte: u64,
) -> Option<(bool, bool, bool, Option<bool>)> {
    let letters = scan.until(b")")?;
    match *letters {
        [r @ (b'r' | b'-'), w @ (b'w' | b'-'), x @ (b'x' | b'-'), ref u @ ..]
            if matches!(u, b"" | b"u" | b"-") =>
        {
            Some((r == b'r', w == b'w', x == b'x', u.first().map(|u| *u == b'u')))
        }
        // 6.1 with nohash-ptr drops strings: the letters that are left count, R is (nearly) always set, and W is a bit of the value.
        _ if letters.iter().all(|b| b"rwxu-".contains(b)) => {
            cx.gaps.emptied += 1;
            let u = letters.contains(&b'u').then_some(true);
            Some((true, spte & 2 != 0, letters.contains(&b'x'), u))
        }
        _ => None,
    }
}

/// Reads the generation of all pages and their number: `0 used_pages 0`. The generation is printed with %u where the pages follow it; the
/// older event prints %lx and no pages.
pub(super) fn generation(s: &mut Scan<'_>, _: &mut Texts<'_>) -> Option<(u64, u32)> {
    let mut g = Scan(s.word());
    if s.key(b"used_pages ").is_some() {
        let pages = s.hex()? as u32;
        return Some((g.dec()?, pages));
    }
    Some((g.hex()?, 0))
}

/// Reads `P|W|U|0x100000000`, or a plain number. A code without any flag prints nothing, and `sptep` follows at once.
pub(super) fn pferr(s: &mut Scan<'_>, _: &mut Texts<'_>) -> Option<u64> {
    let mut next = *s;
    if next.key(b"sptep ").is_some() {
        return Some(0);
    }
    let mut v = 0;
    for part in s.word().split(|b| *b == b'|') {
        v |= match part {
            b"P" => 1,
            b"W" => 2,
            b"U" => 4,
            b"RSVD" => 8,
            b"F" => 16,
            b"PK" => 32,
            b"SS" => 64,
            b"SGX" => 1 << 15,
            b"" => 0,
            n => Scan(n).hex()?,
        };
    }
    Some(v)
}

/// Reads ` spurious 0 fixed 1`.
pub(super) fn fast_flags(s: &mut Scan<'_>, _: &mut Texts<'_>) -> Option<FastPfResult> {
    s.key(b"spurious ")?;
    let spurious = s.dec()? != 0;
    s.key(b"fixed ")?;
    let fixed = s.dec()? != 0;
    Some(fields::fast_result_of_flags(spurious, fixed))
}

/// The encoding of an error code, which an exit decides later.
#[inline]
pub(super) fn ambiguous(_: &mut Scan<'_>, _: &mut Texts<'_>) -> Option<ErrorEncoding> {
    Some(ErrorEncoding::Ambiguous)
}

/// Reads `KVM_EXIT_IO (2)`, or `error (14)`: the reason and the error number.
pub(super) fn userspace_exit(s: &mut Scan<'_>, _: &mut Texts<'_>) -> Option<(u32, i32)> {
    let name = s.until(b"(")?;
    let n = s.int()? as i32;
    Some(match name.trim_ascii() {
        b"restart" | b"error" => (0, n.wrapping_neg()),
        _ => (n as u32, 0),
    })
}

/// Reads `entering`, or `leaving`.
pub(super) fn entering(s: &mut Scan<'_>, _: &mut Texts<'_>) -> Option<bool> {
    Some(s.word() == b"entering")
}

/// Reads `0:1000:0f 1f 00 (prot64)`, with ` failed` at the end if it did, or the kvm plugin's `0:1000: 0f 1f 00`, with ` FAIL`: the
/// instruction's address, and whether it failed.
pub(super) fn emulated(s: &mut Scan<'_>, _: &mut Texts<'_>) -> Option<(u64, bool)> {
    s.hex()?;
    s.key(b":")?;
    let rip = s.hex()?;
    Some((rip, s.0.ends_with(b" failed") || s.0.ends_with(b" FAIL")))
}

/// Reads the kind of an MMIO access.
pub(super) fn mmio_word(s: &mut Scan<'_>, _: &mut Texts<'_>) -> Option<u32> {
    Some(match s.word() {
        b"unsatisfied-read" => 0,
        b"read" => 1,
        b"write" => 2,
        n => Scan(n).hex()? as u32,
    })
}

/// Reads `Write GPA`, or `Read GVA`: whether it is a write, and whether the guest-physical address was matched.
pub(super) fn matched(s: &mut Scan<'_>, _: &mut Texts<'_>) -> Option<(bool, bool)> {
    let write = s.word() == b"Write";
    Some((write, s.word() == b"GPA"))
}

/// Reads `YOUNG`, or `OLD`.
pub(super) fn young(s: &mut Scan<'_>, _: &mut Texts<'_>) -> Option<bool> {
    Some(s.word() == b"YOUNG")
}

/// Reads the text of a marker. tracefs prints the text alone; trace-cmd and perf print the symbol of the writing function before it.
pub(super) fn marker(s: &mut Scan<'_>, cx: &mut Texts<'_>) -> Option<StrId> {
    let text = String::from_utf8_lossy(s.0);
    let text = text
        .strip_prefix("tracing_mark_write: ")
        .or_else(|| text.strip_prefix("[tracing_mark_write] "))
        .unwrap_or(&text);
    Some(cx.strings.intern(text.trim_end_matches(['\n', '\0'])))
}
