//! A cursor over one line: the few moves that all bodies are made of.

/// Rest of a line.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scan<'a>(pub(crate) &'a [u8]);

impl<'a> Scan<'a> {
    /// Passes exactly these bytes.
    #[inline]
    pub(crate) fn lit(&mut self, s: &[u8]) -> Option<()> {
        self.0 = self.0.strip_prefix(s)?;
        Some(())
    }

    /// Passes blanks.
    #[inline]
    pub(crate) fn blanks(&mut self) {
        while let [b' ' | b'\t' | 0, rest @ ..] = self.0 {
            self.0 = rest;
        }
    }

    /// Blanks, then these bytes.
    #[inline]
    pub(crate) fn key(&mut self, s: &[u8]) -> Option<()> {
        self.blanks();
        self.lit(s)
    }

    /// A hexadecimal number, with or without 0x; also the decimal-looking zero of `%#x`.
    #[inline]
    pub(crate) fn hex(&mut self) -> Option<u64> {
        self.blanks();
        if let [b'0', b'x' | b'X', rest @ ..] = self.0 {
            self.0 = rest;
        }
        let mut v = 0u64;
        let mut n = 0;
        while let Some(d) = self.0.get(n).and_then(|&b| hex_digit(b)) {
            if v >> 60 != 0 {
                return None;
            }
            v = v << 4 | u64::from(d);
            n += 1;
        }
        if n == 0 {
            return None;
        }
        self.0 = &self.0[n..];
        Some(v)
    }

    /// A decimal number.
    #[inline]
    pub(crate) fn dec(&mut self) -> Option<u64> {
        self.blanks();
        let mut v = 0u64;
        let mut n = 0;
        while let Some(d) = self.0.get(n).map(|b| b.wrapping_sub(b'0')).filter(|d| *d < 10) {
            v = v.checked_mul(10)?.checked_add(u64::from(d))?;
            n += 1;
        }
        if n == 0 {
            return None;
        }
        self.0 = &self.0[n..];
        Some(v)
    }

    /// A signed decimal number.
    #[inline]
    pub(crate) fn int(&mut self) -> Option<i64> {
        self.blanks();
        if self.lit(b"-").is_some() {
            return self.dec().and_then(|v| i64::try_from(v).ok()).map(i64::wrapping_neg);
        }
        self.dec().and_then(|v| i64::try_from(v).ok())
    }

    /// A word, up to the next blank.
    #[inline]
    pub(crate) fn word(&mut self) -> &'a [u8] {
        self.blanks();
        let n = self.0.iter().position(|b| matches!(b, b' ' | b'\t' | 0)).unwrap_or(self.0.len());
        let (w, rest) = self.0.split_at(n);
        self.0 = rest;
        w
    }

    /// Everything before `s`; passes `s` too.
    #[inline]
    pub(crate) fn until(&mut self, s: &[u8]) -> Option<&'a [u8]> {
        let n = find(self.0, s)?;
        let before = &self.0[..n];
        self.0 = &self.0[n + s.len()..];
        Some(before)
    }
}

#[inline]
pub(crate) fn hex_digit(b: u8) -> Option<u8> {
    match b {
        b'0'..=b'9' => Some(b - b'0'),
        b'a'..=b'f' => Some(b - b'a' + 10),
        b'A'..=b'F' => Some(b - b'A' + 10),
        _ => None,
    }
}

/// First occurrence of a short needle.
#[inline]
pub(crate) fn find(hay: &[u8], needle: &[u8]) -> Option<usize> {
    let (&first, rest) = needle.split_first()?;
    let mut from = 0;
    while let Some(n) = hay.get(from..)?.iter().position(|&b| b == first) {
        let at = from + n;
        if hay[at + 1..].starts_with(rest) {
            return Some(at);
        }
        from = at + 1;
    }
    None
}
