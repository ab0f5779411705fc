//! Controls: what is left of a ticket when a part of what its method chose is taken away.

use precode_core::named;
use precode_core::task::rng::{Purpose, stream};
use precode_core::ticket::mask::Granularity;
use rand::seq::SliceRandom;
use tch::Tensor;

use super::objective::Objective;
use super::select::matrix_shape;
use super::{Found, Record, Request, Start, initial, registry};
use crate::error::{Result, value_error};
use crate::samples::index_tensor;

/// A control of any method's tickets. Each keeps the number of weights of every layer, but for
/// [`Invert`](Self::Invert), which keeps their number in all; all densities of a network are put through one
/// and the same permutation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Control {
    /// The entries of each mask are permuted (arXiv 2009.08576).
    ShuffleLayer,
    /// The entries of each row of a mask, the weights into one neuron, are permuted.
    ShuffleRow,
    /// The entries of each column of a mask, the weights from one input, are permuted.
    ShuffleColumn,
    /// The mask is kept, but training starts at theta_0 with the values of each prunable tensor permuted: new
    /// values of the same distribution, for any initialization (our definition).
    Reinit,
    /// The weights of the smallest scores are kept.
    Invert,
    /// The method is told the clauses of another formula: those of the network's own with the variables permuted (our
    /// definition).
    WrongClauses,
}
named!(Control, "control", "shuffle-layer" => ShuffleLayer, "shuffle-row" => ShuffleRow,
    "shuffle-column" => ShuffleColumn, "reinit" => Reinit, "invert" => Invert,
    "wrong-clauses" => WrongClauses);

impl Control {
    /// One line.
    pub fn title(self) -> &'static str {
        match self {
            Self::ShuffleLayer => "Mask entries permuted within each tensor",
            Self::ShuffleRow => "Mask entries permuted within each row",
            Self::ShuffleColumn => "Mask entries permuted within each column",
            Self::Reinit => "Values of theta_0 permuted within each prunable tensor, mask kept",
            Self::Invert => "The smallest scores kept instead of the largest",
            Self::WrongClauses => "Told the clauses of another formula, for methods that need clauses",
        }
    }

    /// The tickets of a method, put through the control.
    pub(super) fn find(
        self,
        record: &Record,
        objective: &mut dyn Objective,
        request: &Request,
    ) -> Result<Found> {
        let whole = match self {
            Self::ShuffleRow => request.granularity == Granularity::Row,
            Self::ShuffleColumn => request.granularity == Granularity::Column,
            _ => false,
        };
        if whole {
            return Err(value_error!(
                "{} of tickets of whole units of that kind changes nothing: use shuffle-layer, or the \
                 granularity weight",
                self.name()
            ));
        }
        if self == Self::WrongClauses && !record.needs.clauses {
            return Err(value_error!(
                "{} of '{}' changes nothing: it is not told the clauses; use it on methods that need them",
                self.name(),
                record.name
            ));
        }
        let invert = request.invert != (self == Self::Invert);
        let wrong_clauses = request.wrong_clauses || self == Self::WrongClauses;
        let mut found = registry::found(record, objective, &Request { invert, wrong_clauses, ..*request })?;
        match self {
            Self::Invert | Self::WrongClauses => {}
            Self::Reinit => found.start = self.redrawn(objective, request)?,
            Self::ShuffleLayer | Self::ShuffleRow | Self::ShuffleColumn => {
                self.shuffle(&mut found, request)?
            }
        }
        Ok(found)
    }

    fn shuffle(self, found: &mut Found, request: &Request) -> Result<()> {
        let Some(first) = found.masks.first() else { return Ok(()) };
        let sources = self.sources(first, request)?;
        let mut changed = Vec::with_capacity(found.masks.len());
        for masks in &mut found.masks {
            let shuffled: Vec<Tensor> = masks
                .iter()
                .zip(&sources)
                .map(|(mask, source)| permuted(mask, source))
                .collect::<Result<_>>()?;
            changed.push(fraction_changed(masks, &shuffled)?);
            *masks = shuffled;
        }
        found.notes.push(("mask_entries_changed".to_owned(), changed));
        Ok(())
    }

    /// theta_0 with every prunable tensor permuted, for each density.
    fn redrawn(self, objective: &dyn Objective, request: &Request) -> Result<Start> {
        let start = initial(objective);
        let prunable = super::prunable(objective, initial(objective));
        let mut sources = self.sources(&prunable, request)?.into_iter();
        let parameters = objective.parameters().iter().zip(start);
        let redrawn: Vec<Tensor> = parameters
            .map(|(parameter, value)| match parameter.prunable.then(|| sources.next()).flatten() {
                Some(source) => permuted(&value, &source),
                None => Ok(value),
            })
            .collect::<Result<_>>()?;
        let copy = |_| redrawn.iter().map(Tensor::shallow_clone).collect();
        Ok(Start::Other { parameters: request.densities.iter().map(copy).collect(), epoch: 0 })
    }

    /// For each tensor and network, (R, weights), the flat index that each entry comes from.
    fn sources(self, tensors: &[Tensor], request: &Request) -> Result<Vec<Tensor>> {
        let shapes: Vec<[usize; 3]> =
            tensors.iter().map(|tensor| matrix_shape(&tensor.size()[1..])).collect();
        let mut sources: Vec<Vec<usize>> = vec![Vec::new(); tensors.len()];
        for &index in request.streams {
            let mut rng = stream(request.seed, Purpose::Control, index);
            for (sources, &[rows, columns, inner]) in sources.iter_mut().zip(&shapes) {
                request.progress.check()?;
                let mut source: Vec<usize> = (0..rows * columns * inner).collect();
                match self {
                    Self::ShuffleRow => {
                        source.chunks_mut((columns * inner).max(1)).for_each(|row| row.shuffle(&mut rng));
                    }
                    Self::ShuffleColumn => {
                        let mut from = Vec::with_capacity(rows * inner);
                        for column in 0..columns {
                            let places = || {
                                (0..rows).flat_map(|row| {
                                    (0..inner).map(move |i| (row * columns + column) * inner + i)
                                })
                            };
                            from.clear();
                            from.extend(places());
                            from.shuffle(&mut rng);
                            places().zip(&from).for_each(|(place, from)| source[place] = *from);
                        }
                    }
                    _ => source.shuffle(&mut rng),
                }
                sources.extend(source);
            }
        }
        let networks = request.streams.len() as i64;
        let index = |(sources, tensor): (Vec<usize>, &Tensor)| {
            Ok(index_tensor(&sources, tensor.device())?.f_view([networks, -1])?)
        };
        sources.into_iter().zip(tensors).map(index).collect()
    }
}

/// A tensor (R, ..) whose entries are taken from the flat indices `source` of each network.
fn permuted(tensor: &Tensor, source: &Tensor) -> Result<Tensor> {
    let size = tensor.size();
    let flat = tensor.f_contiguous()?.f_view([size[0], -1])?;
    Ok(flat.f_gather(1, source, false)?.f_view(size.as_slice())?)
}

/// For each network, the fraction of the entries of all masks that differ.
fn fraction_changed(before: &[Tensor], after: &[Tensor]) -> Result<Vec<f64>> {
    let differing = before.iter().zip(after).map(|(a, b)| {
        let size = a.size();
        // The mean is taken in float64, which not all devices have.
        Ok(a.f_logical_xor(b)?.f_view([size[0], -1])?.f_to_device(tch::Device::Cpu)?)
    });
    let differing: Vec<Tensor> = differing.collect::<Result<_>>()?;
    let fraction = Tensor::f_cat(&differing, 1)?.f_to_kind(tch::Kind::Double)?.f_mean_dim(
        [1i64].as_slice(),
        false,
        tch::Kind::Double,
    )?;
    super::select::flat(&fraction)
}
