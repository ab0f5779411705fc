//! Counter-based randomness keyed by (seed, purpose, index).
//!
//! Every consumer has a stream of its own, so a result depends only on its key: not on the number
//! of threads, nor on which other networks are drawn beside it, nor on the caller's global state.

use chacha20::ChaCha8Rng;
use rand::SeedableRng;

/// What a stream of random numbers is for. Two purposes never share a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u64)]
pub enum Purpose {
    /// Clauses of a formula.
    Formula = 1,
    /// Samples of a data set.
    Data = 2,
    /// Initial weights.
    Init = 3,
    /// Order in which an epoch visits the samples.
    Order = 4,
    /// Random orthogonal embedding.
    Embedding = 5,
    /// Clauses that are not in the formula (clause-permuted null).
    FalseClauses = 6,
    /// Reassignment of codes to rows (row-permuted null).
    RowPermutation = 7,
    /// Networks with random signs (random-network null).
    RandomNetwork = 8,
    /// Samples held out for tests.
    Test = 9,
    /// Samples held out for early stopping.
    Validation = 10,
    /// Scores that a ticket method draws.
    Scores = 11,
    /// Random masks.
    Mask = 12,
    /// Controls of tickets: shuffled masks, re-drawn survivors.
    Control = 13,
    /// Projections: the initial C0 of each network.
    Projection = 14,
}

/// The generator for `(seed, purpose, index)`: ChaCha with 8 rounds, keyed by the three numbers.
///
/// ```
/// use precode_core::task::rng::{stream, Purpose};
/// use rand::Rng;
/// let a = stream(7, Purpose::Init, 3).next_u64();
/// assert_eq!(a, stream(7, Purpose::Init, 3).next_u64());
/// assert_ne!(a, stream(7, Purpose::Init, 4).next_u64());
/// assert_ne!(a, stream(7, Purpose::Data, 3).next_u64());
/// ```
pub fn stream(seed: u64, purpose: Purpose, index: u64) -> ChaCha8Rng {
    let mut key = [0u8; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8..16].copy_from_slice(&(purpose as u64).to_le_bytes());
    key[16..24].copy_from_slice(&index.to_le_bytes());
    ChaCha8Rng::from_seed(key)
}
