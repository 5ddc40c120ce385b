//! Helpers for masks and fields of 64-bit words. [`Field`] is a run of bits that holds a number; layouts and decoding use it.

/// A mask of bit `n`; 0 where `n` is above 63.
pub const fn bit(n: u32) -> u64 {
    if n > 63 { 0 } else { 1 << n }
}

/// A mask of bits `high` down to `low`, both included; 0 where the range is empty (as in the kernel's `rsvd_bits`).
pub const fn range(high: u32, low: u32) -> u64 {
    if low > high || low > 63 {
        return 0;
    }
    let high = if high > 63 { 63 } else { high };
    (u64::MAX >> (63 - high)) & (u64::MAX << low)
}

/// Returns `mask` if `on` is true, else 0.
#[inline]
pub const fn when(on: bool, mask: u64) -> u64 {
    if on { mask } else { 0 }
}

/// A run of bits that holds a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Field {
    /// Position of the lowest bit, 0 to 63.
    pub shift: u8,
    /// The width of the field as a mask that begins at bit 0; 0 for a field that the layout does not have.
    pub mask: u64,
}

impl Field {
    /// The field from the lowest to the highest bit of `mask`, with any holes included.
    pub const fn covering(mask: u64) -> Self {
        if mask == 0 {
            return Self { shift: 0, mask: 0 };
        }
        let shift = mask.trailing_zeros();
        Self { shift: shift as u8, mask: mask >> shift }
    }

    /// Extracts the number from `raw`.
    #[inline]
    pub const fn get(self, raw: u64) -> u64 {
        raw >> (self.shift & 63) & self.mask
    }

    /// Returns `value` shifted to the place of the field.
    #[inline]
    pub const fn put(self, value: u64) -> u64 {
        (value & self.mask) << (self.shift & 63)
    }

    /// The mask of the field at its place.
    pub const fn bits(self) -> u64 {
        self.mask << (self.shift & 63)
    }

    /// Whether the layout does not have this field.
    pub const fn is_empty(self) -> bool {
        self.mask == 0
    }
}
