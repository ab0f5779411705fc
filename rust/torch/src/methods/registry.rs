//! The list of methods, and a method chosen by name.

use std::str::FromStr;

use tch::no_grad_guard;

use super::control::Control;
use super::objective::Objective;
use super::probes::translated;
use super::{
    Found, Record, Request, Start, basis, continuous_sparsification, early_bird, edge_popup, gem_miner, hot,
    iterative, obs, probes, score, sparsegpt, synflow, wanda,
};
use crate::error::{Error, Result, shape_error, value_error};

static RECORDS: &[Record] = &[
    score::RANDOM,
    score::MAGNITUDE_INIT,
    score::MAGNITUDE,
    score::CHECKPOINT_MAGNITUDE,
    score::MAGNITUDE_W2,
    iterative::IMP,
    iterative::IMP_REWIND,
    iterative::IMP_LR_REWIND,
    iterative::IMP_FINETUNE,
    obs::OBS,
    obs::OBS_ROUNDS,
    obs::OBS_LOSS,
    sparsegpt::SPARSEGPT,
    wanda::WANDA,
    wanda::WANDA_GLOBAL,
    score::SNIP,
    score::GRASP,
    score::GRASP_MAGNITUDE,
    synflow::SYNFLOW,
    early_bird::EARLY_BIRD,
    early_bird::EARLY_BIRD_NORMALIZED,
    hot::HOT_OBS,
    hot::HOT_MAGNITUDE,
    hot::HOT_IMP,
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
    translated::TARGET_STATIC,
    translated::TARGET_STATIC_BLIND,
    translated::TARGET_MOTION,
    translated::TARGET_MOTION_BLIND,
    translated::TARGET_COMBINED,
    translated::TARGET_COMBINED_BLIND,
    translated::SIGN_KEEPING,
    translated::SIGN_KEEPING_BLIND,
    translated::OBS_CODES,
    translated::OBS_CODES_BLIND,
    hot::HOT_CODES,
    hot::HOT_CODES_BLIND,
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
        self.check_moments(objective.epochs(), request)?;
        request.progress.check()?;
        match self.control {
            None => found(self.record, objective, request),
            Some(control) => control.find(self.record, objective, request),
        }
    }

    /// Refuses moments that the dense run of `epochs` does not have, or that the method does not look at.
    fn check_moments(&self, epochs: u32, request: &Request) -> Result<()> {
        let (record, rewind) = (self.record, request.rewind);
        if let Some(at) = request.at.filter(|&at| record.reads.is_early() && at > epochs) {
            return Err(value_error!("at = {at}: the dense run has {epochs} epochs"));
        }
        if rewind == 0 {
            return Ok(());
        }
        if !record.rewinds {
            return Err(value_error!(
                "rewind = {rewind}: '{}' does not rewind; those that prune a trained network do: {}",
                record.name,
                RECORDS
                    .iter()
                    .filter(|record| record.rewinds)
                    .map(|record| record.name)
                    .collect::<Vec<_>>()
                    .join(", ")
            ));
        }
        if self.control == Some(Control::Reinit) {
            return Err(value_error!(
                "rewind = {rewind}: reinit starts at permuted values of theta_0; leave rewind out"
            ));
        }
        if rewind >= epochs {
            return Err(value_error!(
                "rewind = {rewind}: the dense run has {epochs} epochs, and a ticket needs one"
            ));
        }
        Ok(())
    }
}

/// The tickets of a method, which start where the request says.
pub(super) fn found(record: &Record, objective: &mut dyn Objective, request: &Request) -> Result<Found> {
    if request.rewind == 0 {
        return (record.find)(objective, request);
    }
    // Both from one run: the method will ask for its end.
    let steps =
        [request.rewind, objective.epochs()].map(|epoch| u64::from(epoch) * objective.steps_per_epoch());
    let rewound = objective.dense_at(&steps)?.swap_remove(0);
    let mut found = (record.find)(objective, request)?;
    if matches!(found.start, Start::Initial) {
        let parameters = request.densities.iter().map(|_| iterative::handles(&rewound)).collect();
        found.start = Start::Other { parameters, epoch: request.rewind };
    }
    Ok(found)
}
