//! The code that runs inside the VMs. It is a loop driven by registers, so that it needs no memory except the page it lies in.
//!
//! | register | meaning |
//! | --- | --- |
//! | `eax` | what to do: see [`Op`] |
//! | `esi`, `edx`, `ecx` | first address, step, how many |
//! | `ebx`, `ebp` | value to write, its step |
//!
//! When the loop is done, it writes to port 0x10, which ends KVM_RUN.

use std::{arch::global_asm, slice};

/// What the guest does with each address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub(crate) enum Op {
    /// Read each address.
    Read = 0,
    /// Write the value to each address.
    Write = 1,
    /// Jump to each address; the code there (see [`RETURN`]) jumps back through `edi`.
    Execute = 2,
    /// `invlpg` each address.
    Flush = 3,
    /// Load the first address into CR3.
    Root = 4,
    /// Read each address and write it back changed (`lock`-free read-modify-write).
    Add = 5,
}

/// `jmp *%rdi` (`%edi` in 32-bit code), with which a page must begin for [`Op::Execute`].
pub(crate) const RETURN: [u8; 2] = [0xff, 0xe7];

global_asm!(
    ".pushsection .rodata.lab_guest,\"a\"",
    ".macro lab_loop bits, a, b, c, d, si, di, bp",
    ".code\\bits",
    "10: test \\a, \\a",
    "    jz 20f",
    "    dec \\a",
    "    jz 30f",
    "    dec \\a",
    "    jz 40f",
    "    dec \\a",
    "    jz 50f",
    "    dec \\a",
    "    jz 60f",
    "25: add [\\si], \\b", // Op::Add
    "    add \\si, \\d",
    "    dec \\c",
    "    jnz 25b",
    "    jmp 90f",
    "20: mov \\a, [\\si]",
    "    add \\si, \\d",
    "    dec \\c",
    "    jnz 20b",
    "    jmp 90f",
    "30: mov [\\si], \\b",
    "    add \\b, \\bp",
    "    add \\si, \\d",
    "    dec \\c",
    "    jnz 30b",
    "    jmp 90f",
    "40: jmp \\si",
    "45: add \\si, \\d",
    "    dec \\c",
    "    jnz 40b",
    "    jmp 90f",
    "50: invlpg [\\si]",
    "    add \\si, \\d",
    "    dec \\c",
    "    jnz 50b",
    "    jmp 90f",
    "60: mov cr3, \\si",
    "90: out 0x10, al",
    "    jmp 10b",
    ".endm",
    ".globl lab_guest64, lab_guest64_end, lab_guest32, lab_guest32_end",
    "lab_guest64: lab_loop 64, rax, rbx, rcx, rdx, rsi, rdi, rbp",
    "lab_guest64_end:",
    "lab_guest32: lab_loop 32, eax, ebx, ecx, edx, esi, edi, ebp",
    "lab_guest32_end:",
    // System management mode starts in 16-bit code with flat data segments. This code writes to sixteen pages from 2 MiB on, and leaves.
    ".globl lab_smm, lab_smm_end",
    ".code16",
    "lab_smm: mov esi, 0x200000",
    "    mov ecx, 16",
    "70: mov [esi], ecx",
    "    add esi, 0x1000",
    "    dec ecx",
    "    jnz 70b",
    "    rsm",
    "lab_smm_end:",
    ".code64",
    ".popsection",
);

/// The code of the loop for a guest in 64-bit or 32-bit mode.
pub(crate) fn code(long: bool) -> &'static [u8] {
    unsafe extern "C" {
        static lab_guest64: u8;
        static lab_guest64_end: u8;
        static lab_guest32: u8;
        static lab_guest32_end: u8;
    }
    // SAFETY: the labels bound constant bytes that the assembler block above put into this program.
    unsafe {
        if long {
            between(&raw const lab_guest64, &raw const lab_guest64_end)
        } else {
            between(&raw const lab_guest32, &raw const lab_guest32_end)
        }
    }
}

/// The code of the SMM handler.
pub(crate) fn smm_code() -> &'static [u8] {
    unsafe extern "C" {
        static lab_smm: u8;
        static lab_smm_end: u8;
    }
    // SAFETY: as in `code`.
    unsafe { between(&raw const lab_smm, &raw const lab_smm_end) }
}

/// The offset in [`code`] to which [`Op::Execute`] returns: it is after its `jmp`.
pub(crate) fn back(code: &[u8]) -> u64 {
    // It is the only indirect jump of the loop: `jmp *%rsi`.
    let at = code.windows(2).position(|w| w == [0xff, 0xe6]).unwrap_or(0);
    at as u64 + 2
}

/// # Safety
/// Both must point into one object, the first not behind the second.
unsafe fn between(from: *const u8, to: *const u8) -> &'static [u8] {
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(from, to.offset_from_unsigned(from)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_code_is_there_and_comes_back() {
        for long in [true, false] {
            let code = code(long);
            assert!((40..200).contains(&code.len()), "{}", code.len());
            assert_eq!(&code[back(code) as usize - 2..][..2], [0xff, 0xe6]);
        }
        assert_eq!(smm_code().last_chunk(), Some(&[0x0f, 0xaa]), "ends with rsm");
    }
}
