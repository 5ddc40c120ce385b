//! Where the members of the kernel's structures lie, from its BTF. The main type is [`Types`]; `snapshot` asks it for every structure that it
//! reads, so that no offset depends on a version number.

use std::collections::HashMap;

use crate::btf::{Blob, Type, parse, u32_at};

const ARRAY: u32 = 3;
const STRUCT: u32 = 4;
const UNION: u32 = 5;
const FUNC: u32 = 12;
const FUNC_PROTO: u32 = 13;
/// Names and qualifiers of a type: TYPEDEF, VOLATILE, CONST, RESTRICT, TYPE_TAG.
const ALIASES: [u32; 5] = [8, 9, 10, 11, 18];

/// A member of a structure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Member {
    /// Its place in bytes from the beginning of the structure.
    pub at: u64,
    /// The first bit of a bit field from there, and its width; `(0, 0)` for all others.
    pub bits: (u8, u8),
    /// Its size in bytes.
    pub size: u64,
    /// The number of elements of an array, 1 for all others.
    pub count: u64,
    id: u32,
}

/// The types of vmlinux, with those of one module on top of them where the module has its own.
pub(crate) struct Types<'a> {
    base: Blob<'a>,
    module: Option<Blob<'a>>,
    /// Structures and unions by name.
    named: HashMap<&'a str, u32>,
}

fn text(strings: &[u8], at: u32) -> &str {
    let bytes = strings.get(at as usize..).unwrap_or_default();
    let end = bytes.iter().position(|&c| c == 0).unwrap_or(bytes.len());
    std::str::from_utf8(&bytes[..end]).unwrap_or_default()
}

impl<'a> Types<'a> {
    /// The types of a BTF blob of vmlinux and one of a module. `None` if vmlinux's is no BTF.
    pub(crate) fn new(vmlinux: &'a [u8], module: Option<&'a [u8]>) -> Option<Self> {
        let base = parse(vmlinux)?;
        let mut t = Self { base, module: module.and_then(parse), named: HashMap::new() };
        let ids = 1..=(t.base.types.len() + t.module.as_ref().map_or(0, |m| m.types.len())) as u32;
        for id in ids {
            if let Some((strings, offset, kind)) = t.head(id)
                && matches!(kind, STRUCT | UNION)
            {
                let name = text(strings, offset);
                if !name.is_empty() {
                    t.named.entry(name).or_insert(id);
                }
            }
        }
        Some(t)
    }

    fn get(&self, id: u32) -> Option<&Type<'a>> {
        let i = (id as usize).checked_sub(1)?;
        let base = self.base.types.len();
        if i < base { self.base.types.get(i) } else { self.module.as_ref()?.types.get(i - base) }
    }

    /// The strings in which a name is found, and its place there.
    fn strings(&self, name: u32) -> (&'a [u8], u32) {
        let base = self.base.strings.len() as u32;
        match &self.module {
            Some(m) if name >= base => (m.strings, name - base),
            _ => (self.base.strings, name),
        }
    }

    fn head(&self, id: u32) -> Option<(&'a [u8], u32, u32)> {
        let t = self.get(id)?;
        let (strings, at) = self.strings(t.name);
        Some((strings, at, t.kind))
    }

    /// The type behind names and qualifiers.
    fn bare(&self, mut id: u32) -> Option<(u32, &Type<'a>)> {
        for _ in 0..32 {
            let t = self.get(id)?;
            if !ALIASES.contains(&t.kind) {
                return Some((id, t));
            }
            id = t.extra;
        }
        None
    }

    fn size(&self, id: u32) -> Option<(u64, u64, u32)> {
        let (id, t) = self.bare(id)?;
        match t.kind {
            ARRAY => {
                let (element, count) = (u32_at(t.members, 0)?, u64::from(u32_at(t.members, 8)?));
                let (size, ..) = self.size_of_one(element)?;
                Some((size.checked_mul(count)?, count, element))
            }
            _ => self.size_of_one(id).map(|s| (s.0, 1, id)),
        }
    }

    fn size_of_one(&self, id: u32) -> Option<(u64, u32)> {
        let (id, t) = self.bare(id)?;
        match t.kind {
            2 => Some((8, id)), // PTR
            ARRAY => {
                let (size, ..) = self.size_of_one(u32_at(t.members, 0)?)?;
                Some((size.checked_mul(u64::from(u32_at(t.members, 8)?))?, id))
            }
            _ => Some((u64::from(t.extra), id)),
        }
    }

    /// The names of a function's parameters, from its prototype.
    pub(crate) fn parameters(&self, function: &str) -> Option<Vec<&'a str>> {
        let count = self.base.types.len() + self.module.as_ref().map_or(0, |m| m.types.len());
        let prototype = (1..=count as u32).find_map(|id| {
            let t = self.get(id).filter(|t| t.kind == FUNC)?;
            let (strings, at) = self.strings(t.name);
            (text(strings, at) == function).then_some(t.extra)
        })?;
        let t = self.get(prototype).filter(|t| t.kind == FUNC_PROTO)?;
        let name = |p: &[u8]| {
            let (strings, at) = self.strings(u32_at(p, 0)?);
            Some(text(strings, at))
        };
        t.members.chunks_exact(8).map(name).collect()
    }

    /// The size of a structure in bytes.
    pub(crate) fn size_of(&self, structure: &str) -> Option<u64> {
        let t = self.get(*self.named.get(structure)?)?;
        Some(u64::from(t.extra))
    }

    /// A member, such as `arch.tdp_mmu_roots` of `kvm`. Members of unnamed structures and unions within count as its own.
    pub(crate) fn member(&self, structure: &str, path: &str) -> Option<Member> {
        let mut id = *self.named.get(structure)?;
        let mut at = 0;
        let mut found = None;
        for name in path.split('.') {
            let m = self.find(id, name, 0)?;
            at += m.at;
            id = m.id;
            found = Some(Member { at, ..m });
        }
        found
    }

    /// A member of a structure by its own name. Its `id` is that of its type, or of its elements' if it is an array.
    fn find(&self, id: u32, name: &str, depth: u32) -> Option<Member> {
        if depth > 8 {
            return None;
        }
        let (_, t) = self.bare(id)?;
        if !matches!(t.kind, STRUCT | UNION) {
            return None;
        }
        for m in t.members.chunks_exact(12) {
            let (own, ty, offset) = (u32_at(m, 0)?, u32_at(m, 4)?, u32_at(m, 8)?);
            let (bit, width) = if t.flag { (offset & 0xff_ffff, (offset >> 24) as u8) } else { (offset, 0) };
            let at = u64::from(bit / 8);
            let (strings, own) = self.strings(own);
            let own = text(strings, own);
            if own == name {
                let (size, count, id) = self.size(ty)?;
                let bits = if width == 0 { (0, 0) } else { ((bit % 8) as u8, width) };
                return Some(Member { at, bits, size, count, id });
            }
            if own.is_empty()
                && let Some(inner) = self.find(ty, name, depth + 1)
            {
                // The bits of a bit field count from the byte that its own structure gives it.
                return Some(Member { at: at + inner.at, ..inner });
            }
        }
        None
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A BTF blob that is made of a list of structures, for tests. Every member is an unsigned integer, or an array of them, of the size given.
    pub(crate) struct Made {
        strings: Vec<u8>,
        types: Vec<u32>,
        count: u32,
        /// Names and type ids of structures made so far.
        structs: HashMap<String, u32>,
    }

    impl Made {
        pub(crate) fn new() -> Self {
            let mut m = Self { strings: vec![0], types: Vec::new(), count: 0, structs: HashMap::new() };
            for (name, size) in [("u8", 1), ("u16", 2), ("u32", 4), ("u64", 8)] {
                let name = m.string(name);
                m.types.extend([name, 1 << 24, size, size * 8]);
                m.count += 1;
            }
            m
        }

        fn string(&mut self, s: &str) -> u32 {
            if s.is_empty() {
                return 0;
            }
            let at = self.strings.len() as u32;
            self.strings.extend(s.as_bytes());
            self.strings.push(0);
            at
        }

        /// Adds a structure of members `(name, type, byte offset)`; a type is `u8` to `u64`, a structure made before, or either with `[N]`.
        pub(crate) fn add(&mut self, name: &str, size: u32, members: &[(&str, &str, u32)]) -> &mut Self {
            let ids: Vec<u32> = members.iter().map(|m| self.id(m.1)).collect();
            let own = self.string(name);
            let mut words = vec![own, 4 << 24 | members.len() as u32, size];
            for (m, id) in members.iter().zip(ids) {
                words.extend([self.string(m.0), id, m.2 * 8]);
            }
            self.types.extend(words);
            self.count += 1;
            self.structs.insert(name.to_owned(), self.count);
            self
        }

        fn id(&mut self, ty: &str) -> u32 {
            if let Some((element, n)) = ty.split_once('[') {
                let (element, n) = (self.id(element), n.trim_end_matches(']').parse().expect("a number"));
                self.types.extend([0, 3 << 24, 0, element, 3, n]);
                self.count += 1;
                return self.count;
            }
            match ty {
                "u8" => 1,
                "u16" => 2,
                "u32" => 3,
                "u64" => 4,
                other => self.structs[other],
            }
        }

        pub(crate) fn bytes(&self) -> Vec<u8> {
            let types: Vec<u8> = self.types.iter().flat_map(|w| w.to_ne_bytes()).collect();
            let mut b = 0xeb9fu16.to_ne_bytes().to_vec();
            b.extend([1, 0]);
            for w in [24, 0, types.len() as u32, types.len() as u32, self.strings.len() as u32] {
                b.extend(w.to_ne_bytes());
            }
            b.extend(types);
            b.extend(&self.strings);
            b
        }
    }

    #[test]
    fn members_are_found_through_structures_arrays_and_unnamed_parts() {
        let mut made = Made::new();
        made.add("inner", 16, &[("a", "u64", 0), ("b", "u32", 8)]).add("", 8, &[("hidden", "u16", 4)]).add(
            "outer",
            64,
            &[("x", "u8", 0), ("in", "inner", 8), ("", "", 24), ("list", "inner[2]", 32)],
        );
        let bytes = made.bytes();
        let t = Types::new(&bytes, None).expect("a BTF");
        assert_eq!(t.size_of("outer"), Some(64));
        let at = |p| t.member("outer", p).map(|m| (m.at, m.size, m.count));
        assert_eq!(at("in.b"), Some((16, 4, 1)));
        assert_eq!(at("hidden"), Some((28, 2, 1)));
        assert_eq!(at("list"), Some((32, 32, 2)));
        assert_eq!(at("list.b"), Some((40, 4, 1)), "a member of the first element");
        assert_eq!(at("none"), None);
        for n in 0..bytes.len() {
            if let Some(t) = Types::new(&bytes[..n], None) {
                let _ = t.member("outer", "in.b");
            }
        }
    }
}
