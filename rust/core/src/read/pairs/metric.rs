//! The metrics between codes.

/// How two codes of bits are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CodeMetric {
    /// Bits in which they differ.
    Hamming,
    /// `1 - |a & b| / |a | b|`, 0 for two empty codes; a fraction, so it needs `f32`.
    Jaccard,
    /// Bits set in both: the larger, the nearer.
    Overlap,
}
named!(CodeMetric, "metric", "hamming" => Hamming, "jaccard" => Jaccard, "overlap" => Overlap);

/// How two codes of signs are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TernaryMetric {
    /// Places where the signs differ.
    Mismatch,
    /// Sum of the differences of the signs: 1 from zero to a sign, 2 from one sign to the other.
    L1,
}
named!(TernaryMetric, "metric", "mismatch" => Mismatch, "l1" => L1);
