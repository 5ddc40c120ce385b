//! Reads two definitions from the kernel's BTF: the bits of `union kvm_mmu_page_role` and the numbers of `enum RET_PF_*`. With them a
//! capture describes the kernel that wrote it, whatever its version string says.

use std::collections::HashMap;

const MAGIC: u16 = 0xeb9f;

pub(crate) struct Type<'a> {
    pub(crate) name: u32,
    pub(crate) kind: u32,
    pub(crate) flag: bool,
    /// Depending on the kind, a size or the id of a type.
    pub(crate) extra: u32,
    pub(crate) members: &'a [u8],
}

pub(crate) fn u32_at(b: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(b.get(at..at + 4)?.try_into().ok()?))
}

/// The types and strings of one BTF blob.
pub(crate) struct Blob<'a> {
    pub(crate) types: Vec<Type<'a>>,
    pub(crate) strings: &'a [u8],
}

pub(crate) fn parse(b: &[u8]) -> Option<Blob<'_>> {
    if u16::from_ne_bytes([*b.first()?, *b.get(1)?]) != MAGIC {
        return None;
    }
    let head = u32_at(b, 4)? as usize;
    let (type_off, type_len) = (u32_at(b, 8)? as usize, u32_at(b, 12)? as usize);
    let (str_off, str_len) = (u32_at(b, 16)? as usize, u32_at(b, 20)? as usize);
    let section = |off: usize, len: usize| {
        let start = head.checked_add(off)?;
        b.get(start..start.checked_add(len)?)
    };
    let t = section(type_off, type_len)?;
    let strings = section(str_off, str_len)?;
    let mut types = Vec::new();
    let mut at = 0;
    while at + 12 <= t.len() {
        let info = u32_at(t, at + 4)?;
        let (vlen, kind, flag) = ((info & 0xffff) as usize, info >> 24 & 0x1f, info >> 31 != 0);
        let tail = match kind {
            1 | 14 | 17 => 4,             // INT, VAR, DECL_TAG
            3 => 12,                      // ARRAY
            4 | 5 | 15 | 19 => 12 * vlen, // STRUCT, UNION, DATASEC, ENUM64
            6 | 13 => 8 * vlen,           // ENUM, FUNC_PROTO
            2 | 7..=12 | 16 | 18 => 0, // PTR, FWD, TYPEDEF, VOLATILE, CONST, RESTRICT, FUNC, FLOAT, TYPE_TAG
            _ => return None,
        };
        let members = t.get(at + 12..at + 12 + tail)?;
        types.push(Type { name: u32_at(t, at)?, kind, flag, extra: u32_at(t, at + 8)?, members });
        at += 12 + tail;
    }
    Some(Blob { types, strings })
}

/// The definitions that were found.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Dialect {
    /// The fields of the role word: `level:0:4 has_4_byte_gpte:4:1 …` (name, first bit, width).
    pub role: Option<String>,
    /// The numbers of RET_PF_*: `RET_PF_CONTINUE=0 RET_PF_RETRY=1 …`.
    pub ret_pf: Option<String>,
}

/// Finds the two definitions. `base` is the BTF of vmlinux where `btf` is that of a module.
pub(crate) fn dialect(btf: &[u8], base: Option<&[u8]>) -> Dialect {
    let base = base.and_then(parse);
    let Some(own) = parse(btf) else { return Dialect::default() };
    let base_strings = base.as_ref().map_or(0, |b| b.strings.len());
    let string = |off: u32| -> &str {
        let off = off as usize;
        let bytes = if off < base_strings {
            base.as_ref().and_then(|b| b.strings.get(off..))
        } else {
            own.strings.get(off - base_strings..)
        };
        let bytes = bytes.unwrap_or_default();
        let end = bytes.iter().position(|&c| c == 0).unwrap_or(bytes.len());
        std::str::from_utf8(&bytes[..end]).unwrap_or_default()
    };
    let base_types = base.as_ref().map_or(0, |b| b.types.len());
    let by_id = |id: u32| -> Option<&Type<'_>> {
        let i = (id as usize).checked_sub(1)?;
        if i < base_types { base.as_ref()?.types.get(i) } else { own.types.get(i - base_types) }
    };
    let mut out = Dialect::default();
    for t in own.types.iter().chain(base.iter().flat_map(|b| &b.types)) {
        match t.kind {
            5 if out.role.is_none() && string(t.name) == "kvm_mmu_page_role" => {
                // The union is { u32 word; struct { unsigned level:4; … }; }.
                let inner =
                    t.members.chunks_exact(12).filter_map(|m| by_id(u32_at(m, 4)?)).find(|t| t.kind == 4);
                if let Some(s) = inner {
                    let bits: Vec<String> = s
                        .members
                        .chunks_exact(12)
                        .filter_map(|m| {
                            let (name, offset) = (string(u32_at(m, 0)?), u32_at(m, 8)?);
                            let (bit, width) =
                                if s.flag { (offset & 0xff_ffff, offset >> 24) } else { (offset, 0) };
                            // A member that is not a bit field (smm: a whole byte) has the width of its type.
                            let width = if width == 0 { by_id(u32_at(m, 4)?)?.extra * 8 } else { width };
                            (!name.is_empty() && bit < 32 && width <= 32)
                                .then(|| format!("{name}:{bit}:{width}"))
                        })
                        .collect();
                    out.role = (!bits.is_empty()).then(|| bits.join(" "));
                }
            }
            6 if out.ret_pf.is_none() => {
                let names: HashMap<&str, i32> = t
                    .members
                    .chunks_exact(8)
                    .filter_map(|m| Some((string(u32_at(m, 0)?), u32_at(m, 4)? as i32)))
                    .filter(|m| m.0.starts_with("RET_PF_"))
                    .collect();
                if names.contains_key("RET_PF_RETRY") {
                    let mut v: Vec<_> = names.into_iter().collect();
                    v.sort_by_key(|e| e.1);
                    out.ret_pf =
                        Some(v.iter().map(|(n, i)| format!("{n}={i}")).collect::<Vec<_>>().join(" "));
                }
            }
            _ => {}
        }
        if out.role.is_some() && out.ret_pf.is_some() {
            break;
        }
    }
    out
}

/// Reads the definitions of the running kernel from `/sys/kernel/btf`.
pub(crate) fn read() -> Dialect {
    let vmlinux = std::fs::read("/sys/kernel/btf/vmlinux").ok();
    if let (Ok(kvm), Some(base)) = (std::fs::read("/sys/kernel/btf/kvm"), vmlinux.as_deref()) {
        let d = dialect(&kvm, Some(base));
        if d != Dialect::default() {
            return d;
        }
    }
    vmlinux.map_or_else(Dialect::default, |v| dialect(&v, None))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Builds the smallest BTF with the two definitions, by hand.
    fn blob() -> Vec<u8> {
        let mut strings = vec![0u8];
        let mut s = |n: &str| {
            let at = strings.len() as u32;
            strings.extend(n.as_bytes());
            strings.push(0);
            at
        };
        let mut t: Vec<u32> = Vec::new();
        // 1: unsigned int, 4 bytes; 2: unsigned char, 1 byte
        t.extend([s("unsigned int"), 1 << 24, 4, 32]);
        t.extend([s("unsigned char"), 1 << 24, 1, 8]);
        // 3: the struct of bit fields, kind_flag set
        t.extend([0, 1 << 31 | 4 << 24 | 3, 4]);
        t.extend([s("level"), 1, 4 << 24]);
        t.extend([s("has_4_byte_gpte"), 1, 1 << 24 | 4]);
        t.extend([s("smm"), 2, 24]);
        // 4: the union
        t.extend([s("kvm_mmu_page_role"), 5 << 24 | 2, 4, s("word"), 1, 0, 0, 3, 0]);
        // 5: the anonymous enum
        t.extend([0, 6 << 24 | 2, 4, s("RET_PF_CONTINUE"), 0, s("RET_PF_RETRY"), 1]);
        let types: Vec<u8> = t.iter().flat_map(|w| w.to_ne_bytes()).collect();
        let mut b = MAGIC.to_ne_bytes().to_vec();
        b.extend([1, 0]);
        for w in [24, 0, types.len() as u32, types.len() as u32, strings.len() as u32] {
            b.extend(w.to_ne_bytes());
        }
        b.extend(types);
        b.extend(strings);
        b
    }

    #[test]
    fn role_bits_and_ret_pf_numbers() {
        let d = dialect(&blob(), None);
        assert_eq!(d.role.as_deref(), Some("level:0:4 has_4_byte_gpte:4:1 smm:24:8"));
        assert_eq!(d.ret_pf.as_deref(), Some("RET_PF_CONTINUE=0 RET_PF_RETRY=1"));
    }

    #[test]
    fn cut_short_anywhere_is_no_crash() {
        let b = blob();
        for n in 0..b.len() {
            dialect(&b[..n], None);
            dialect(&b[..n], Some(&b));
        }
    }
}
