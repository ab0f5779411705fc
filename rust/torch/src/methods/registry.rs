//! The list of methods, and a method chosen by name.

use std::str::FromStr;

use tch::no_grad_guard;

use super::control::Control;
use super::objective::Objective;
use super::{
    Found, Record, Request, basis, continuous_sparsification, early_bird, edge_popup, gem_miner, iterative,
    probes, score, synflow,
};
use crate::error::{Error, Result, shape_error, value_error};

static RECORDS: &[Record] = &[
    score::RANDOM,
    score::MAGNITUDE_INIT,
    score::MAGNITUDE,
    iterative::IMP,
    iterative::IMP_REWIND,
    iterative::IMP_LR_REWIND,
    iterative::IMP_FINETUNE,
    score::SNIP,
    score::GRASP,
    score::GRASP_MAGNITUDE,
    synflow::SYNFLOW,
    early_bird::EARLY_BIRD,
    early_bird::EARLY_BIRD_NORMALIZED,
    edge_popup::RECORD,
    gem_miner::RECORD,
    continuous_sparsification::RECORD,
    probes::DISTANCE,
    probes::DISTANCE_PLAIN,
    probes::DISTANCE_BLIND,
    probes::MOTION,
    probes::MOTION_PLAIN,
    probes::MOTION_BLIND,
    probes::BOTH,
    probes::BOTH_PLAIN,
    probes::BOTH_BLIND,
    probes::CODE_ROUNDS,
    probes::ORACLE_CODES,
    probes::ORACLE,
    basis::BASIS_MAGNITUDE,
];

/// All methods.
pub fn all() -> &'static [Record] {
    RECORDS
}

/// A method, and the control that its tickets are put through: `name` or `name:control`.
#[derive(Clone, Copy, Debug)]
pub struct Method {
    /// The method.
    pub record: &'static Record,
    /// The control.
    pub control: Option<Control>,
}

impl FromStr for Method {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let (method, control) = match name.split_once(':') {
            Some((method, control)) => (method, Some(control.parse()?)),
            None => (name, None),
        };
        let Some(record) = RECORDS.iter().find(|record| record.name == method) else {
            let names: Vec<&str> = RECORDS.iter().map(|record| record.name).collect();
            return Err(value_error!("method '{method}' is unknown: use one of {}", names.join(", ")));
        };
        Ok(Self { record, control })
    }
}

impl Method {
    /// The tickets of the networks of `objective`.
    ///
    /// # Errors
    /// A request that does not fit the networks; scores that are not finite; what the objective cannot do;
    /// [`precode_core::Error::Interrupted`].
    pub fn find(&self, objective: &mut dyn Objective, request: &Request) -> Result<Found> {
        let _guard = no_grad_guard();
        let parameters = objective.parameters();
        let Some(first) = parameters.iter().find(|parameter| parameter.prunable) else {
            return Err(value_error!("no prunable parameters: name at least one"));
        };
        let networks = first.initial.size().first().copied().unwrap_or_default() as usize;
        if request.streams.len() != networks {
            return Err(shape_error!(
                "{} random streams for {networks} networks: pass one for each",
                request.streams.len()
            ));
        }
        if request.densities.is_empty() {
            return Err(value_error!("no densities: pass at least one"));
        }
        request.progress.check()?;
        match self.control {
            None => (self.record.find)(objective, request),
            Some(control) => control.find(self.record, objective, request),
        }
    }
}
