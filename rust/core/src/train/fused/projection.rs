//! A C0 of the network's own, which is trained with the other weights.
//!
//! With S\[r, v\] as in [`backward`](super::backward), the gradient of C0 is dC0\[a, v\] = sum over rows r of
//! (W1\[r, a\] w2\[r\]) S\[r, v\]. Its lanes are variables, those of S are rows: S is transposed, a square at a time.

use super::embed::{PANEL, Rows, combine, panels_of};
use super::net::{Block, Net, Shape, Which, column};
use super::optimizer::Update;
use super::simd::{MAX_LANES, Simd, lanes, lanes_mut};

/// C0, its moments and its gradient, in panels of 32 variables: see [`panels_of`]. Empty where a network has none.
pub(super) struct Projected<S: Simd> {
    numbers: [Vec<S::Vector>; 3],
    gradient: Vec<S::Vector>,
    /// S of a block and a panel, row by row.
    rows: Vec<S::Vector>,
}

impl<S: Simd> Projected<S> {
    pub(super) fn new(s: S, shape: &Shape, block_rows: usize) -> Self {
        let length = |wanted: bool, numbers: usize| if wanted { numbers / S::LANES } else { 0 };
        let (has, trained) = (shape.projection.is_some(), shape.trains_projection());
        let size = shape.variables.div_ceil(PANEL) * PANEL * shape.inputs;
        let zeros = |length| vec![s.zero(); length];
        Self {
            numbers: [has, trained, trained].map(|wanted| zeros(length(wanted, size))),
            gradient: zeros(length(trained, size)),
            rows: zeros(length(trained, block_rows * PANEL)),
        }
    }

    /// C0.
    #[inline(always)]
    pub(super) fn panels(&self) -> &[f32] {
        lanes::<S>(&self.numbers[0])
    }

    /// C0 with its first moments.
    pub(super) fn numbers_mut(&mut self) -> [&mut [S::Vector]; 2] {
        let [c0, first, _] = &mut self.numbers;
        [c0, first]
    }

    /// Takes the numbers of C0 (inputs, variables) or of a moment.
    pub(super) fn load(&mut self, which: Which, shape: &Shape, from: &[f32]) {
        if from.is_empty() {
            return;
        }
        let panels = lanes_mut::<S>(&mut self.numbers[which as usize]);
        for (place, part) in panels_of(from, shape.inputs, shape.variables) {
            panels[place..][..part.len()].copy_from_slice(part);
        }
    }

    /// Writes the numbers of C0 (inputs, variables) or of a moment.
    pub(super) fn store(&self, which: Which, shape: &Shape, to: &mut [f32]) {
        if to.is_empty() {
            return;
        }
        let panels = lanes::<S>(&self.numbers[which as usize]);
        for row in 0..shape.inputs {
            let parts = to[row * shape.variables..][..shape.variables].chunks_mut(PANEL);
            for (first, part) in (0..).step_by(PANEL).zip(parts) {
                part.copy_from_slice(&panels[first * shape.inputs + row * PANEL..][..part.len()]);
            }
        }
    }
}

impl<S: Simd, const V: usize> Net<S, V> {
    /// The gradient of C0 where it is trained, from the gradients by C1 that the blocks hold.
    #[inline(always)]
    pub(super) fn differentiate_projection(&mut self, scratch: &mut Vec<[S::Vector; V]>) {
        if !self.shape.trains_projection() {
            return;
        }
        // A panel has 32 numbers a row at every level.
        if S::LANES == 16 {
            self.differentiate_panels::<2>(scratch);
        } else {
            self.differentiate_panels::<4>(scratch);
        }
    }

    /// [`differentiate_projection`](Self::differentiate_projection) with `W` vectors in a panel's row.
    #[inline(always)]
    fn differentiate_panels<const W: usize>(&mut self, scratch: &mut Vec<[S::Vector; V]>) {
        let (s, inputs) = (self.s, self.shape.inputs);
        let Projected { gradient, rows, .. } = &mut self.projection;
        gradient.fill(s.zero());
        let gradients: &mut [[S::Vector; W]] = gradient.as_chunks_mut().0;
        let rows: &mut [[S::Vector; W]] = rows.as_chunks_mut().0;
        for block in self.blocks.iter().filter(|block| !block.constant) {
            block.weigh_inputs(s, scratch);
            let weights = Rows(lanes::<S>(scratch.as_flattened()), V * S::LANES);
            for (panel, gradients) in gradients.chunks_exact_mut(inputs).enumerate() {
                block.transpose_panel(s, panel, rows);
                combine::<_, _, true>(s, rows, weights, gradients);
            }
        }
    }

    /// The step of C0 where it is trained, with its gradient.
    #[inline(always)]
    pub(super) fn update_projection(&mut self, update: &Update<S>) {
        // A row of a panel is two or four vectors.
        let Projected { numbers: [c0, first, second], gradient, .. } = &mut self.projection;
        let numbers = c0.as_chunks_mut::<2>().0.iter_mut().zip(gradient.as_chunks::<2>().0);
        let moments = first.as_chunks_mut::<2>().0.iter_mut().zip(second.as_chunks_mut::<2>().0);
        for ((c0, gradient), (first, second)) in numbers.zip(moments) {
            if update.plain {
                update.apply::<2, true>(c0, first, second, *gradient, None);
            } else {
                update.apply::<2, false>(c0, first, second, *gradient, None);
            }
        }
    }
}

impl<S: Simd, const V: usize> Block<S, V> {
    /// Into `out`, by input: W1 times w2 where S lacks this factor, that is with one output.
    #[inline(always)]
    fn weigh_inputs(&self, s: S, out: &mut Vec<[S::Vector; V]>) {
        out.clear();
        out.extend_from_slice(&self.weights.matrix);
        if self.values.is_empty() {
            for column in out {
                for k in 0..V {
                    column[k] = s.mul(column[k], self.weights.output[0][k]);
                }
            }
        }
    }

    /// Into `rows`: S of the block's rows and the variables of a panel.
    #[inline(always)]
    fn transpose_panel<const W: usize>(&self, s: S, panel: usize, rows: &mut [[S::Vector; W]]) {
        // Beyond the last variable there are columns of zeros.
        let columns = &self.gradient.matrix[column(panel * PANEL)..][..PANEL];
        for (w, columns) in columns.chunks_exact(S::LANES).enumerate() {
            for (k, rows) in rows.chunks_exact_mut(S::LANES).enumerate() {
                let mut square = [s.zero(); MAX_LANES];
                for (vector, column) in square.iter_mut().zip(columns) {
                    *vector = column[k];
                }
                let square = s.transpose(square);
                for (row, vector) in rows.iter_mut().zip(square) {
                    row[w] = vector;
                }
            }
        }
    }
}
