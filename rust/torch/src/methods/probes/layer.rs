//! The layer that codes are read from, and the masks that a probe chooses of it.

use ndarray::{Array2, Array3, Axis, Slice, Zip};
use precode_core::error::{in_parallel, shaped};
use precode_core::read::blind::{self, Affinity};
use precode_core::read::template::templates;
use precode_core::task::rng::{Purpose, stream};
use precode_core::ticket::mask::{Density, Granularity, Scope};
use precode_core::ticket::probe::{Probe, choose_cells};
use precode_core::ticket::translation::Translation;
use precode_core::{Clause, Clauses, Readout, Template};
use rand::seq::SliceRandom;
use rayon::prelude::*;
use tch::{Device, Kind, Tensor};

use crate::error::{Error, Result, unsupported, value_error};
use crate::methods::objective::{FeaturePair, Objective};
use crate::methods::score::magnitudes;
use crate::methods::select::{flat, select};
use crate::methods::{Request, initial, prunable};

/// Width of recovered clauses where nothing is told: that of arXiv 2504.08842, section 4.
const BLIND_WIDTH: usize = 4;

/// Numbers that a probe reports of itself, as of [`Found`](crate::methods::Found).
pub(super) type Notes = Vec<(String, Vec<Vec<f64>>)>;

/// The layer that codes are read from, as a probe sees it.
pub(super) struct Layer {
    pub networks: usize,
    pub rows: usize,
    /// Its place among the parameters, and that of its outputs' weights.
    pub first: usize,
    /// Its place among the prunable parameters.
    pub place: usize,
    second: usize,
    output: i64,
    pub inputs: usize,
    pub variables: usize,
    /// C0 where training does not change it: one of all networks or one of each; empty where it is among the
    /// parameters.
    fixed: Vec<Translation>,
    /// Place of the networks' own C0 among the parameters.
    projection: Option<usize>,
    pub clauses: Option<Vec<Vec<Clause>>>,
    complemented: Vec<bool>,
    shape: Vec<i64>,
    device: Device,
}

impl Layer {
    pub fn of(objective: &dyn Objective, request: &Request) -> Result<Self> {
        if request.granularity != Granularity::Weight {
            return Err(unsupported!("probes choose single weights: use the granularity weight"));
        }
        let Some(pair) = objective.features() else {
            return Err(unsupported!(
                "probes read codes from networks of one hidden layer on Boolean variables"
            ));
        };
        let &FeaturePair { first, second, output, projection, .. } = pair;
        let parameter = &objective.parameters()[first];
        if !parameter.prunable {
            return Err(unsupported!("probes choose weights of {}: make it prunable", parameter.name));
        }
        let (shape, device) = (parameter.initial.size(), parameter.initial.device());
        let (networks, rows, inputs) = parameter.initial.size3()?;
        let fixed = match (projection, &pair.embedding) {
            (Some(_), _) => Vec::new(),
            (None, None) => vec![Translation::identity(inputs as usize)],
            (None, Some(matrix)) => translations(matrix)?,
        };
        let c0 = pair.c0(&initial(objective));
        let variables = c0.and_then(|c0| c0.size().last().copied()).unwrap_or(inputs);
        let (mut clauses, complemented) = (pair.clauses.clone(), pair.complemented.clone());
        if request.wrong_clauses {
            clauses = clauses.map(|clauses| renamed(clauses, variables as usize, request));
        }
        let place = objective.parameters()[..first].iter().filter(|parameter| parameter.prunable).count();
        let (networks, rows) = (networks as usize, rows as usize);
        Ok(Self {
            networks,
            rows,
            first,
            place,
            second,
            output: output as i64,
            inputs: inputs as usize,
            variables: variables as usize,
            fixed,
            projection,
            clauses,
            complemented,
            shape,
            device,
        })
    }

    /// C0 at given values: one of all networks or one of each.
    pub fn translations(&self, values: &[Tensor]) -> Result<Vec<Translation>> {
        match self.projection {
            Some(place) => translations(&values[place]),
            None => Ok(self.fixed.clone()),
        }
    }

    /// C1 of all networks, (R, rows, variables), in float64.
    pub fn c1(&self, values: &[Tensor]) -> Result<Array3<f64>> {
        let (weights, maps) = (self.weights(values)?, self.translations(values)?);
        if let [map] = maps.as_slice() {
            return Ok(map.features(weights.view())?);
        }
        let of_each: Vec<Array3<f64>> = maps
            .par_iter()
            .enumerate()
            .map(|(r, map)| Ok(map.features(weights.slice_axis(Axis(0), Slice::from(r..r + 1)))?))
            .collect::<Result<_>>()?;
        let entries = of_each.into_iter().flatten().collect();
        Ok(shaped(entries, (self.networks, self.rows, self.variables))?)
    }

    /// W1 of all networks, (R, rows, inputs), in float64.
    pub fn weights(&self, values: &[Tensor]) -> Result<Array3<f64>> {
        let weights = flat(&values[self.first].f_detach()?.f_to_kind(Kind::Double)?)?;
        Ok(shaped(weights, (self.networks, self.rows, self.inputs))?)
    }

    /// Norms of the weights from each row to all outputs, (R, rows), in float64.
    pub fn reach(&self, values: &[Tensor]) -> Result<Array2<f64>> {
        let weights = values[self.second].f_detach()?.f_to_kind(Kind::Double)?;
        let norms = weights.f_square()?.f_sum_dim_intlist(1, false, Kind::Double)?.f_sqrt()?;
        Ok(shaped(flat(&norms)?, (self.networks, self.rows))?)
    }

    /// The clauses of each network, if they are told.
    pub fn told(&self) -> Result<Vec<Clauses>> {
        self.each(self.clauses.as_ref().ok_or_else(super::no_clauses)?)
    }

    fn each(&self, formulas: &[Vec<Clause>]) -> Result<Vec<Clauses>> {
        let of_network = |formula: &Vec<Clause>| Ok(Clauses::new(&[formula], 1, self.variables)?);
        formulas.iter().map(of_network).collect()
    }

    /// The clauses of each network as its data tell them, and notes as of [`recovered`](Self::recovered).
    pub fn told_by_data(
        &self,
        objective: &mut dyn Objective,
        request: &Request,
    ) -> Result<(Vec<Clauses>, Notes)> {
        let data = objective.samples()?;
        let width_of = |network: usize| -> usize {
            let told = self.clauses.as_ref().and_then(|clauses| clauses.get(network)?.first());
            told.map_or(BLIND_WIDTH.min(self.variables), Vec::len)
        };
        let found: Vec<Vec<Clause>> = in_parallel(self.networks, |network| {
            let (complemented, width) =
                (self.complemented.get(network).copied().unwrap_or(false), width_of(network));
            let found = blind::recover_from_data(&data[network], complemented, width, request.progress)?;
            if found.is_empty() {
                return Err(value_error!(
                    "network {network}: its data tell no clauses of {width} variables that are not negated; tell the \
                     clauses and use the probe without -blind, or give more data"
                ));
            }
            Ok::<_, Error>(found)
        })?;
        Ok((self.each(&found)?, self.notes(&found, request)))
    }

    /// How many clauses there are and, where the formula is known, how many are right.
    fn notes(&self, found: &[Vec<Clause>], request: &Request) -> Notes {
        let note = |name: &str, numbers: Vec<f64>| (name.to_owned(), vec![numbers; request.densities.len()]);
        let mut notes =
            vec![note("clauses_recovered", found.iter().map(|found| found.len() as f64).collect())];
        if let Some(told) = &self.clauses {
            let hits = found.iter().zip(told).map(|(found, told)| blind::hits(found, told) as f64);
            notes.push(note("clauses_found", hits.collect()));
        }
        notes
    }

    /// C1 and output weights of all networks, in float64; output weights as they speak for the clauses.
    pub fn features(&self, values: &[Tensor]) -> Result<Features> {
        let output = values[self.second].f_detach()?.f_select(1, self.output)?.f_to_kind(Kind::Double)?;
        let mut output = shaped(flat(&output)?, (self.networks, self.rows))?;
        for (mut weights, _) in
            output.rows_mut().into_iter().zip(&self.complemented).filter(|(_, negated)| **negated)
        {
            weights.mapv_inplace(|weight: f64| -weight);
        }
        Ok(Features { features: self.c1(values)?, output })
    }

    /// Clauses recovered from warmed-up networks, and notes of how many there are and, where the formula is known, how
    /// many are right.
    pub fn recovered(&self, warm: &[Tensor], request: &Request) -> Result<(Vec<Vec<Clause>>, Notes)> {
        let features = self.features(warm)?;
        let readout = features.readout()?;
        let told = self.clauses.as_ref();
        let of_network = |network: usize| {
            let formula = told.and_then(|clauses| clauses.get(network));
            let (count, width) =
                match formula.and_then(|formula| Some((formula.len(), formula.first()?.len()))) {
                    Some(told) => told,
                    None => ((self.rows / 2).max(1), BLIND_WIDTH.min(self.variables)),
                };
            if width == 1 {
                let singles = Affinity::Interaction.of_singles(&readout, network);
                return Ok::<_, Error>(blind::recover_singles(&singles, count)?);
            }
            let affinity = Affinity::Interaction.of(&readout, network);
            Ok(blind::recover(affinity.view(), count, width)?)
        };
        let found: Vec<Vec<Clause>> = in_parallel(self.networks, of_network)?;
        let notes = self.notes(&found, request);
        Ok((found, notes))
    }

    pub fn chooser(
        &self,
        start: &[Tensor],
        formula: &[Vec<Clause>],
        settings: Probe,
        request: &Request,
    ) -> Result<Chooser<'_>> {
        let sets: Vec<&[Clause]> = formula.iter().map(Vec::as_slice).collect();
        let clauses = Clauses::new(&sets, self.networks, self.variables)?;
        Ok(Chooser {
            layer: self,
            values: start.iter().map(Tensor::shallow_clone).collect(),
            weights: self.weights(start)?,
            translations: self.translations(start)?,
            start: self.features(start)?,
            templates: templates(clauses.width()).collect(),
            clauses,
            settings: Probe { invert: request.invert, ..settings },
        })
    }

    /// How many weights of this layer a density keeps of each network, and the masks of the other prunable
    /// parameters: those keep the same density by themselves, of the largest magnitudes.
    pub fn share(
        &self,
        objective: &dyn Objective,
        latest: &[Tensor],
        density: Density,
        request: &Request,
    ) -> Result<(usize, Vec<Tensor>)> {
        let per_network = |tensor: &Tensor| tensor.numel() / self.networks;
        let first = self.rows * self.inputs;
        let all: usize = prunable(objective, initial(objective)).iter().map(per_network).sum();
        let kept = density.of(if request.scope == Scope::PerLayer { first } else { all })?;
        let latest: Vec<Tensor> = latest
            .iter()
            .zip(objective.parameters())
            .enumerate()
            .filter(|(place, (_, parameter))| parameter.prunable && *place != self.first)
            .map(|(_, (value, _))| value.shallow_clone())
            .collect();
        if latest.is_empty() {
            return Ok((kept, Vec::new()));
        }
        if request.scope == Scope::PerLayer {
            return Ok((kept, select(&magnitudes(&latest)?, None, density, request)?));
        }
        let rest = all - first;
        // At least so many that the others do not have to keep more than all of this layer.
        let of_rest =
            ((density.value() * rest as f64).round_ties_even() as usize).max(kept.saturating_sub(first));
        let others = match of_rest.min(kept) {
            0 => latest
                .iter()
                .map(|value| Ok(value.f_zeros_like()?.f_to_kind(Kind::Bool)?))
                .collect::<Result<_>>()?,
            count => {
                let density = Density::new(count as f64 / rest as f64)?;
                select(&magnitudes(&latest)?, None, density, request)?
            }
        };
        Ok((kept - of_rest.min(kept), others))
    }

    /// One mask for each prunable parameter, in order.
    pub fn with_others(
        &self,
        kept: impl IntoIterator<Item = bool>,
        mut others: Vec<Tensor>,
    ) -> Result<Vec<Tensor>> {
        let kept: Vec<bool> = kept.into_iter().collect();
        let mask = Tensor::f_from_slice(&kept)?.f_view(self.shape.as_slice())?;
        others.insert(self.place, mask.f_to_device(self.device)?);
        Ok(others)
    }
}

/// C1 (R, rows, variables) and output weights (R, rows) of all networks.
pub(super) struct Features {
    pub features: Array3<f64>,
    pub output: Array2<f64>,
}

impl Features {
    pub fn readout(&self) -> Result<Readout<'_, f64>> {
        Ok(Readout::new(self.features.view(), self.output.view())?)
    }
}

/// A probe of all networks, for any density.
pub(super) struct Chooser<'a> {
    layer: &'a Layer,
    /// All parameters as they were read first, and W1 among them.
    values: Vec<Tensor>,
    weights: Array3<f64>,
    translations: Vec<Translation>,
    start: Features,
    clauses: Clauses,
    templates: Vec<Template>,
    settings: Probe,
}

impl Chooser<'_> {
    /// One mask for each prunable parameter, read at `latest` values where they are given.
    pub fn masks(
        &self,
        objective: &dyn Objective,
        latest: Option<&[Tensor]>,
        density: Density,
        request: &Request,
    ) -> Result<Vec<Tensor>> {
        request.progress.check()?;
        let layer = self.layer;
        let (rows, variables) = (layer.rows, layer.variables);
        let (keep, others) = layer.share(objective, latest.unwrap_or(&self.values), density, request)?;
        let later = latest.map(|values| layer.features(values)).transpose()?;
        let later = later.as_ref().map(Features::readout).transpose()?;
        let (start, budget) = (self.start.readout()?, keep.min(rows * variables));
        let cells =
            choose_cells(&start, later.as_ref(), &self.clauses, &self.templates, budget, &self.settings)?;
        if self.translations.iter().all(Translation::is_identity) {
            return layer.with_others(cells, others);
        }
        let wanted =
            Zip::from(&self.start.features).and(&cells).map_collect(|&c, &kept| if kept { c } else { 0.0 });
        let (weights, translations) = (&self.weights, &self.translations);
        let networks: Vec<Array2<bool>> = (0..layer.networks)
            .into_par_iter()
            .map(|r| {
                let (weights, wanted) = (weights.index_axis(Axis(0), r), wanted.index_axis(Axis(0), r));
                Ok(of_network(translations, r).realize(weights, wanted, keep)?)
            })
            .collect::<Result<_>>()?;
        layer.with_others(networks.into_iter().flatten(), others)
    }
}

/// The clauses of each network with the variables permuted: those of another formula of the same kind, for a network
/// alone as among others.
fn renamed(mut clauses: Vec<Vec<Clause>>, variables: usize, request: &Request) -> Vec<Vec<Clause>> {
    for (formula, &index) in clauses.iter_mut().zip(request.streams) {
        let mut names: Vec<usize> = (0..variables).collect();
        names.shuffle(&mut stream(request.seed, Purpose::Control, index));
        formula.iter_mut().flatten().for_each(|literal| literal.variable = names[literal.variable]);
    }
    clauses
}

/// C0 (inputs, variables) of all networks, or (R, inputs, variables) of each.
fn translations(c0: &Tensor) -> Result<Vec<Translation>> {
    let size = c0.size();
    let (inputs, variables) = (size[size.len() - 2] as usize, size[size.len() - 1] as usize);
    let entries: Vec<f64> = flat(&c0.f_detach()?.f_to_kind(Kind::Double)?)?;
    let networks = entries.len() / (inputs * variables).max(1);
    let entries = shaped(entries, (networks, inputs, variables))?;
    entries.outer_iter().map(|matrix| Ok(Translation::new(matrix)?)).collect()
}

/// That of network r, of one of all or one of each.
pub(super) fn of_network(translations: &[Translation], r: usize) -> &Translation {
    &translations[if translations.len() == 1 { 0 } else { r }]
}
