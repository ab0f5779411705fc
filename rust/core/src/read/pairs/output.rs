//! Blocks of distances, and the matrix that they are written to.

use std::marker::PhantomData;
use std::ops::Range;

use ndarray::ArrayViewMut2;

use super::distance::Distance;
use crate::error::{Result, shape_error};

/// A rectangle of the matrix of distances.
#[derive(Clone, Debug)]
pub struct Block<'a, T> {
    /// Codes of the first stack.
    pub rows: Range<usize>,
    /// Codes of the second stack.
    pub columns: Range<usize>,
    /// (rows, columns).
    pub distances: &'a [T],
}

/// A matrix that several threads write blocks of.
pub(super) struct Shared<'a, T> {
    start: *mut T,
    shape: (usize, usize),
    borrow: PhantomData<&'a mut [T]>,
}

// SAFETY: it gives nothing but `write`, whose callers promise not to overlap.
unsafe impl<T: Send> Sync for Shared<'_, T> {}

impl<'a, T: Distance> Shared<'a, T> {
    pub fn new(out: ArrayViewMut2<'a, T>, shape: (usize, usize)) -> Result<Self> {
        let found = out.dim();
        if found != shape {
            return Err(shape_error!(
                "an output of shape {found:?} does not fit {} x {} pairs",
                shape.0,
                shape.1
            ));
        }
        let out = out.into_slice().ok_or_else(|| {
            shape_error!("an output of shape {found:?} that is not row-major: pass one in standard layout")
        })?;
        Ok(Self { start: out.as_mut_ptr(), shape, borrow: PhantomData })
    }

    /// # Safety
    /// Nothing else may access the block's place in the matrix at the same time.
    pub unsafe fn write(&self, block: &Block<T>) {
        assert!(block.rows.end <= self.shape.0 && block.columns.end <= self.shape.1);
        let width = block.columns.len();
        for (row, distances) in block.rows.clone().zip(block.distances.chunks_exact(width)) {
            // SAFETY: the row and the columns are within the matrix, and the caller promises that
            // nobody else is there.
            unsafe {
                let to = self.start.add(row * self.shape.1 + block.columns.start);
                to.copy_from_nonoverlapping(distances.as_ptr(), width);
            }
        }
    }
}

/// Writes the distances of a block by columns to `reflection`.
pub(super) fn reflect<T: Distance>(block: &Block<T>, reflection: &mut Vec<T>) {
    const SQUARE: usize = 16;
    let (height, width) = (block.rows.len(), block.columns.len());
    reflection.resize(height * width, T::default());
    // Square by square: a whole column of the block would not stay in the first-level cache.
    for (top, rows) in block.distances.chunks(SQUARE * width).enumerate() {
        let top = top * SQUARE;
        for left in (0..width).step_by(SQUARE) {
            let square: Option<[&[T; SQUARE]; SQUARE]> =
                (rows.len() == SQUARE * width && left + SQUARE <= width).then(|| {
                    std::array::from_fn(|r| rows[r * width + left..].first_chunk().expect("a whole square"))
                });
            for column in left..(left + SQUARE).min(width) {
                let out = &mut reflection[column * height + top..];
                if let (Some(square), Some(out)) = (square, out.first_chunk_mut::<SQUARE>()) {
                    *out = square.map(|row| row[column - left]);
                } else {
                    for (row, out) in rows.chunks_exact(width).zip(out) {
                        *out = row[column];
                    }
                }
            }
        }
    }
}
