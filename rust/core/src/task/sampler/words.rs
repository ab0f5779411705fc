//! Random words that are read ahead.

use std::convert::Infallible;

use chacha20::ChaCha8Rng;
use rand::{Rng, RngExt, TryRng};

/// Words that can be seen before they are taken.
pub(super) const AHEAD: usize = 8;

/// Words that are drawn at once: enough that drawing them is fast, few enough to stay in cache.
const DRAWN: usize = 512;

/// The words of a generator, some of which can be seen before they are taken. As a generator it gives the same ones.
pub(super) struct Words {
    rng: ChaCha8Rng,
    drawn: [u32; DRAWN],
    taken: usize,
}

impl Words {
    pub fn new(rng: ChaCha8Rng) -> Self {
        Self { rng, drawn: [0; DRAWN], taken: DRAWN }
    }

    /// The next words, which remain the next ones.
    #[inline]
    pub fn ahead(&mut self) -> &[u32; AHEAD] {
        if self.taken > DRAWN - AHEAD {
            self.draw();
        }
        let ahead = &self.drawn[self.taken..];
        ahead.first_chunk().expect("as many words are left")
    }

    /// Takes words that were ahead.
    #[inline]
    pub fn take(&mut self, words: usize) {
        self.taken += words;
    }

    #[inline(never)]
    fn draw(&mut self) {
        self.drawn.copy_within(self.taken.., 0);
        let left = DRAWN - self.taken;
        self.rng.fill(&mut self.drawn[left..]);
        self.taken = 0;
    }
}

impl TryRng for Words {
    type Error = Infallible;

    #[inline]
    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let word = self.ahead()[0];
        self.take(1);
        Ok(word)
    }

    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        let (low, high) = (self.next_u32(), self.next_u32());
        Ok(u64::from(high) << 32 | u64::from(low))
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Infallible> {
        for chunk in bytes.chunks_mut(4) {
            let word = self.next_u32().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
        Ok(())
    }
}
