//! Small helpers on 64-bit words.

/// Bit `n`; 0 beyond 63.
pub const fn bit(n: u32) -> u64 {
    if n > 63 { 0 } else { 1 << n }
}

/// Bits `high` down to `low`, both included; 0 where the range is empty (the kernel's `rsvd_bits`).
pub const fn range(high: u32, low: u32) -> u64 {
    if low > high || low > 63 {
        return 0;
    }
    let high = if high > 63 { 63 } else { high };
    (u64::MAX >> (63 - high)) & (u64::MAX << low)
}

/// `mask` if `on`.
#[inline]
pub const fn when(on: bool, mask: u64) -> u64 {
    if on { mask } else { 0 }
}

/// A run of bits that holds a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Field {
    /// Lowest bit.
    pub shift: u8,
    /// Bits above the lowest, moved down; 0 for a field the layout does not have.
    pub mask: u64,
}

impl Field {
    /// The field that covers `mask` (its holes included, should it have any).
    pub const fn covering(mask: u64) -> Self {
        if mask == 0 {
            return Self { shift: 0, mask: 0 };
        }
        let shift = mask.trailing_zeros();
        Self { shift: shift as u8, mask: mask >> shift }
    }

    /// The number in `raw`.
    #[inline]
    pub const fn get(self, raw: u64) -> u64 {
        raw >> (self.shift & 63) & self.mask
    }

    /// `value` at its place.
    #[inline]
    pub const fn put(self, value: u64) -> u64 {
        (value & self.mask) << (self.shift & 63)
    }

    /// The bits of the field.
    pub const fn bits(self) -> u64 {
        self.mask << (self.shift & 63)
    }

    /// Whether the layout lacks it.
    pub const fn is_empty(self) -> bool {
        self.mask == 0
    }
}
