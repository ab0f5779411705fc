//! One network in the layout of the kernels: column by column, rows side by side in vectors.

use super::projection::Projected;
use super::simd::{Simd, lanes, lanes_mut};
use super::tile::{PLACES, TILE};

/// Sizes of a network and its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    /// Boolean variables of a sample, n.
    pub(super) variables: usize,
    /// Width of the embedded input, m.
    pub(super) inputs: usize,
    /// Hidden rows, j.
    pub(super) hidden: usize,
    /// Outputs, o.
    pub(super) outputs: usize,
    /// Whether the embedding is the identity, so that W1 and C1 are one matrix.
    pub(super) identity: bool,
    /// Whether each network has a C0 of its own, and if so, whether it is trained.
    pub(super) projection: Option<bool>,
}

impl Shape {
    /// Numbers of a network that are trained.
    pub(super) fn parameters(&self) -> usize {
        let projection = if self.trains_projection() { self.projection_size() } else { 0 };
        self.hidden * (self.inputs + 1) + self.outputs * (self.hidden + 1) + projection
    }

    /// Entries of a network's own C0.
    pub(super) fn projection_size(&self) -> usize {
        if self.projection.is_some() { self.inputs * self.variables } else { 0 }
    }

    /// Whether each network has a C0 of its own that is trained.
    pub(super) fn trains_projection(&self) -> bool {
        self.projection == Some(true)
    }
}

/// The row-major buffers of one network: w1 (j, m), b1 (j), w2 (o, j), b2 (o), and its own C0 (m, n), empty where it has
/// none (of moments: where it is not trained).
#[derive(Debug)]
pub(super) struct Buffers<T> {
    pub(super) w1: T,
    pub(super) b1: T,
    pub(super) w2: T,
    pub(super) b2: T,
    pub(super) c0: T,
}

impl<'a> Buffers<&'a mut [f32]> {
    /// Cuts one slice of `shape.parameters()` numbers into the buffers.
    pub(super) fn split(all: &'a mut [f32], shape: &Shape) -> Self {
        let (w1, rest) = all.split_at_mut(shape.hidden * shape.inputs);
        let (b1, rest) = rest.split_at_mut(shape.hidden);
        let (w2, rest) = rest.split_at_mut(shape.outputs * shape.hidden);
        let (b2, c0) = rest.split_at_mut(shape.outputs);
        Self { w1, b1, w2, b2, c0 }
    }
}

/// Which weights of a network may be nonzero, row-major as its weights.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Kept<'a> {
    pub(super) w1: Option<&'a [bool]>,
    pub(super) w2: Option<&'a [bool]>,
}

/// Which rows and variables of a network take part at all.
#[derive(Clone, Debug)]
pub(super) struct Alive {
    /// Rows with a kept weight in W1.
    pub(super) rows: Vec<usize>,
    /// The others: the same value at every sample.
    pub(super) constant: Vec<usize>,
    /// Variables whose column in C1 can be nonzero, as bits.
    pub(super) variables: Vec<u64>,
}

impl Alive {
    pub(super) fn new(shape: &Shape, kept: Kept<'_>) -> Self {
        let mut variables = vec![0; shape.variables.div_ceil(TILE)];
        let keeps = |row: usize, input: usize| kept.w1.is_none_or(|w1| w1[row * shape.inputs + input]);
        for v in 0..shape.variables {
            // An embedding spreads every weight over all variables.
            if !shape.identity || (0..shape.hidden).any(|row| keeps(row, v)) {
                variables[v / TILE] |= 1 << (v % TILE);
            }
        }
        let (rows, constant) =
            (0..shape.hidden).partition(|&row| (0..shape.inputs).any(|input| keeps(row, input)));
        Self { rows, constant, variables }
    }
}

/// Index of variable v among the columns of C1. Each 64 variables are followed by a null column: that
/// is where the number of trailing zeros of an empty word points.
#[inline(always)]
pub(super) fn column(variable: usize) -> usize {
    variable + variable / TILE
}

/// Columns of C1, null columns included.
fn columns(variables: usize) -> usize {
    variables.div_ceil(TILE) * PLACES
}

/// Columns of 64 variables and the null column.
pub(super) type Columns<S, const V: usize> = [[<S as Simd>::Vector; V]; PLACES];

/// The numbers of a block: its weights, or one of their moments.
pub(super) struct Part<S: Simd, const V: usize> {
    /// W1 by input (for the identity: by [`column`]).
    pub(super) matrix: Vec<[S::Vector; V]>,
    pub(super) bias: [S::Vector; V],
    /// w2 by output.
    pub(super) output: Vec<[S::Vector; V]>,
}

/// V vectors of hidden rows.
pub(super) struct Block<S: Simd, const V: usize> {
    /// Rows that no weight connects to the inputs: they have no columns.
    pub(super) constant: bool,
    /// Hidden row of each lane, `None` for padding.
    rows: Vec<Option<usize>>,
    pub(super) weights: Part<S, V>,
    pub(super) moments: [Part<S, V>; 2],
    /// C1 by [`column`]; empty for the identity, where it is `weights.matrix`.
    pub(super) features: Vec<[S::Vector; V]>,
    pub(super) matrix_mask: Option<Vec<[S::Mask; V]>>,
    pub(super) output_mask: Option<Vec<[S::Mask; V]>>,
    /// Gradients of the batch so far (by input or [`column`], as the matrix).
    pub(super) gradient: Part<S, V>,
    /// Whether each row is active, by sample of the tile.
    pub(super) active: Vec<[S::Mask; V]>,
    /// Values of the rows by sample of the tile, with several outputs only.
    pub(super) values: Vec<[S::Vector; V]>,
}

/// A network, its moments and what a step needs.
pub(super) struct Net<S: Simd, const V: usize> {
    pub(super) s: S,
    pub(super) shape: Shape,
    pub(super) blocks: Vec<Block<S, V>>,
    /// b2, its moments and its gradient, lane by lane.
    pub(super) output_bias: [Vec<[S::Vector; 1]>; 4],
    pub(super) projection: Projected<S>,
}

/// Which numbers of a network are moved in or out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Which {
    Weights,
    First,
    Second,
}

impl<S: Simd, const V: usize> Net<S, V> {
    /// A network of zeros.
    pub(super) fn new(s: S, shape: Shape, alive: &Alive, kept: Kept<'_>) -> Self {
        let zero = [s.zero(); V];
        let (matrix, features) = match shape.identity {
            true => (columns(shape.variables), 0),
            false => (shape.inputs, columns(shape.variables)),
        };
        let width = V * S::LANES;
        let mut blocks = Vec::new();
        for (rows, constant) in [(&alive.rows, false), (&alive.constant, true)] {
            for rows in rows.chunks(width) {
                let (matrix, features) = if constant { (0, 0) } else { (matrix, features) };
                let part =
                    || Part { matrix: vec![zero; matrix], bias: zero, output: vec![zero; shape.outputs] };
                let mut lanes: Vec<_> = rows.iter().copied().map(Some).collect();
                lanes.resize(width, None);
                let mut gradient = part();
                gradient.matrix.resize(matrix.max(features), zero);
                let mut block = Block {
                    constant,
                    rows: lanes,
                    weights: part(),
                    moments: [part(), part()],
                    features: vec![zero; features],
                    matrix_mask: None,
                    output_mask: None,
                    gradient,
                    active: vec![[s.mask_from_bits(0); V]; TILE],
                    values: vec![zero; if shape.outputs > 1 && !constant { TILE } else { 0 }],
                };
                if let Some(kept) = kept.w1.filter(|_| !constant) {
                    let mut masks = vec![[s.mask_from_bits(0); V]; matrix];
                    for input in 0..shape.inputs {
                        let at = if shape.identity { column(input) } else { input };
                        masks[at] = block.mask(s, |row| kept[row * shape.inputs + input]);
                    }
                    block.matrix_mask = Some(masks);
                }
                if let Some(kept) = kept.w2 {
                    let masks = (0..shape.outputs).map(|o| block.mask(s, |row| kept[o * shape.hidden + row]));
                    block.output_mask = Some(masks.collect());
                }
                blocks.push(block);
            }
        }
        let output_bias = std::array::from_fn(|_| vec![[s.zero()]; shape.outputs.div_ceil(S::LANES)]);
        Self { s, shape, blocks, output_bias, projection: Projected::new(s, &shape, width) }
    }

    /// All weights with their first moments, part by part.
    pub(super) fn numbers_mut(&mut self) -> impl Iterator<Item = [&mut [f32]; 2]> {
        let of_blocks = self.blocks.iter_mut().flat_map(|block| {
            let Block { weights: w, moments: [first, _], .. } = block;
            [
                [w.matrix.as_flattened_mut(), first.matrix.as_flattened_mut()],
                [&mut w.bias, &mut first.bias],
                [w.output.as_flattened_mut(), first.output.as_flattened_mut()],
            ]
        });
        let [bias, first, ..] = &mut self.output_bias;
        of_blocks
            .chain([[bias.as_flattened_mut(), first.as_flattened_mut()], self.projection.numbers_mut()])
            .map(|pair| pair.map(lanes_mut::<S>))
    }

    /// Sets first moments to zero that no weight can feel, before they become denormal.
    ///
    /// A first moment without gradients, as that of a row that no sample activates, shrinks to some units of the least
    /// denormal number and stays there: the product with its factor is rounded back to it. Many CPUs take a hundred times
    /// as long for such numbers.
    #[inline(always)]
    pub(super) fn flush_moments(&mut self) {
        for number in self.numbers_mut().flat_map(|[_, first]| first) {
            if number.abs() < FLUSHED {
                *number = 0.0;
            }
        }
    }

    /// Takes a network's numbers from its buffers.
    pub(super) fn load<T: AsRef<[f32]>>(&mut self, which: Which, from: &Buffers<T>) {
        let Shape { hidden, outputs, .. } = self.shape;
        let width = V * S::LANES;
        for block in &mut self.blocks {
            let part = match which {
                Which::Weights => &mut block.weights,
                Which::First => &mut block.moments[0],
                Which::Second => &mut block.moments[1],
            };
            let matrix = lanes_mut::<S>(part.matrix.as_flattened_mut());
            matrix_places(&block.rows, block.constant, &self.shape)
                .for_each(|(place, lane)| matrix[lane] = from.w1.as_ref()[place]);
            for (lane, row) in places(&block.rows) {
                lanes_mut::<S>(&mut part.bias)[lane] = from.b1.as_ref()[row];
                let output = lanes_mut::<S>(part.output.as_flattened_mut());
                for o in 0..outputs {
                    output[o * width + lane] = from.w2.as_ref()[o * hidden + row];
                }
            }
        }
        let bias = lanes_mut::<S>(self.output_bias[which as usize].as_flattened_mut());
        bias[..outputs].copy_from_slice(from.b2.as_ref());
        self.projection.load(which, &self.shape, from.c0.as_ref());
    }

    /// Writes a network's numbers to its buffers. The numbers of constant rows' pruned weights stay as they are.
    pub(super) fn store(&self, which: Which, to: &mut Buffers<&mut [f32]>) {
        let Shape { hidden, outputs, .. } = self.shape;
        let width = V * S::LANES;
        for block in &self.blocks {
            let part = match which {
                Which::Weights => &block.weights,
                Which::First => &block.moments[0],
                Which::Second => &block.moments[1],
            };
            let matrix = lanes::<S>(part.matrix.as_flattened());
            block.matrix_places(&self.shape).for_each(|(place, lane)| to.w1[place] = matrix[lane]);
            for (lane, row) in places(&block.rows) {
                to.b1[row] = lanes::<S>(&part.bias)[lane];
                let output = lanes::<S>(part.output.as_flattened());
                for o in 0..outputs {
                    to.w2[o * hidden + row] = output[o * width + lane];
                }
            }
        }
        to.b2.copy_from_slice(&lanes::<S>(self.output_bias[which as usize].as_flattened())[..outputs]);
        self.projection.store(which, &self.shape, to.c0);
    }
}

/// First moments below this are flushed: 2^-100, which is 10^8 times the least number that is not denormal. With an epsilon
/// of 10^-8 it would move a weight by 10^-22 times the learning rate.
const FLUSHED: f32 = f32::from_bits((127 - 100) << 23);

/// Lane and hidden row of the lanes that are no padding.
fn places(rows: &[Option<usize>]) -> impl Iterator<Item = (usize, usize)> {
    rows.iter().enumerate().filter_map(|(lane, row)| Some((lane, (*row)?)))
}

/// Where W1's numbers of a block of some rows are: row-major, and in the block's lanes.
fn matrix_places(
    rows: &[Option<usize>],
    constant: bool,
    shape: &Shape,
) -> impl Iterator<Item = (usize, usize)> {
    let (inputs, identity, width) = (shape.inputs, shape.identity, rows.len());
    places(rows).filter(move |_| !constant).flat_map(move |(lane, row)| {
        (0..inputs).map(move |input| {
            let at = if identity { column(input) } else { input };
            (row * inputs + input, at * width + lane)
        })
    })
}

impl<S: Simd, const V: usize> Block<S, V> {
    /// Where W1's numbers of the block are: row-major, and in the block's lanes.
    pub(super) fn matrix_places(&self, shape: &Shape) -> impl Iterator<Item = (usize, usize)> {
        matrix_places(&self.rows, self.constant, shape)
    }

    /// The mask of the rows that `keep` accepts.
    fn mask(&self, s: S, keep: impl Fn(usize) -> bool) -> [S::Mask; V] {
        std::array::from_fn(|k| {
            let rows = self.rows[k * S::LANES..][..S::LANES].iter().enumerate();
            let bits = rows.map(|(lane, row)| u64::from(row.is_some_and(&keep)) << lane).sum();
            s.mask_from_bits(bits)
        })
    }

    /// C1, for each word of 64 variables.
    #[inline(always)]
    pub(super) fn columns(&self) -> &[Columns<S, V>] {
        let columns = if self.features.is_empty() { &self.weights.matrix } else { &self.features };
        columns.as_chunks().0
    }
}

impl Buffers<&mut [f32]> {
    /// Takes over the numbers of another network of the same sizes.
    pub(super) fn copy_from(&mut self, other: &Self) {
        self.w1.copy_from_slice(other.w1);
        self.b1.copy_from_slice(other.b1);
        self.w2.copy_from_slice(other.w2);
        self.b2.copy_from_slice(other.b2);
        self.c0.copy_from_slice(other.c0);
    }
}

#[cfg(test)]
mod tests {
    use super::super::blocked::{self, Blocked};
    use super::*;
    use crate::cpu::Kernels;

    struct Flush;

    impl Blocked for Flush {
        type Output = ();

        #[inline(always)]
        fn run<S: Simd, const V: usize>(self, s: S) {
            let shape = Shape {
                variables: 6,
                inputs: 2,
                hidden: 3,
                outputs: 1,
                identity: false,
                projection: Some(true),
            };
            let kept = [true, true, true, false, false, false];
            let kept = Kept { w1: Some(&kept), w2: None };
            let mut net = Net::<S, V>::new(s, shape, &Alive::new(&shape, kept), kept);
            let numbers: Vec<f32> = (0..shape.parameters()).map(|i| 1e-26 * 0.1f32.powi(i as i32)).collect();
            let [mut first, mut second] = [numbers.clone(), numbers.clone()];
            first[7] = f32::NAN;
            for (which, all) in [(Which::First, &mut first), (Which::Second, &mut second)] {
                net.load(which, &Buffers::split(all, &shape));
            }
            net.flush_moments();
            for (which, all) in [(Which::First, &mut first), (Which::Second, &mut second)] {
                net.store(which, &mut Buffers::split(all, &shape));
            }
            assert_eq!(second, numbers);
            assert!(first[7].is_nan());
            // The weights of the row that nothing connects have no moments in the layout.
            let flushed = |i: usize| numbers[i] < FLUSHED && i != 7 && !(4..6).contains(&i);
            for i in (0..numbers.len()).filter(|&i| i != 7) {
                assert_eq!(first[i], if flushed(i) { 0.0 } else { numbers[i] }, "{i}");
            }
        }
    }

    #[test]
    fn first_moments_that_no_weight_can_feel_become_zero() {
        assert_eq!(FLUSHED, 2f32.powi(-100));
        for level in Kernels::Fused.available() {
            blocked::run(Kernels::Fused.select(Some(level)).unwrap(), 3, Flush);
        }
    }
}
