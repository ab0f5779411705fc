//! What a training run is given, whichever engine carries it out.

use std::sync::Arc;

use super::config::{EarlyStopping, TrainConfig, Watch};
use super::embedding::Embedding;
use super::network::Masks;
use crate::error::{Result, shape_error, value_error};
use crate::task::dataset::Dataset;

/// What a stack of R networks is trained on: the same for every engine.
#[derive(Clone, Copy, Debug)]
pub struct Problem<'a> {
    /// Training data of each network (R entries; networks may share one).
    pub data: &'a [Arc<Dataset>],
    /// Validation data of each network: R entries, or none.
    pub validation: &'a [Arc<Dataset>],
    /// The map in front of the first layer.
    pub embedding: &'a Embedding,
    /// Which weights may be nonzero; masked ones start at zero and stay there.
    pub masks: Option<&'a Masks>,
    /// Optimizer, batches, stopping, snapshots.
    pub config: &'a TrainConfig,
}

impl Problem<'_> {
    /// Checks that the data, the embedding, the masks and a stack of `networks` networks of the
    /// given widths fit together.
    ///
    /// # Errors
    /// [`Error::Shape`](crate::Error::Shape) or [`Error::Value`](crate::Error::Value) naming what does not fit.
    pub fn validate(&self, networks: usize, widths: &[usize]) -> Result<()> {
        self.config.validate()?;
        let (Some(&inputs), Some(&outputs)) = (widths.first(), widths.last()) else {
            return Err(value_error!("widths {widths:?}: expected [inputs, hidden.., outputs]"));
        };
        if self.data.len() != networks {
            return Err(shape_error!(
                "{} data sets for {networks} networks: pass one for each",
                self.data.len()
            ));
        }
        if !self.validation.is_empty() && self.validation.len() != networks {
            return Err(shape_error!(
                "{} validation sets for {networks} networks: pass one for each, or none",
                self.validation.len()
            ));
        }
        let samples = self.data.first().map_or(0, |data| data.samples());
        let variables = self.data.first().map_or(0, |data| data.variables());
        for data in self.data.iter().chain(self.validation) {
            if data.variables() != variables {
                return Err(shape_error!(
                    "data of {variables} and {} variables in one run: all must have the same number",
                    data.variables()
                ));
            }
            self.embedding.validate(data.variables())?;
            if self.embedding.rows(data.variables()) != inputs {
                return Err(shape_error!(
                    "the networks take {inputs} inputs, but data of {} variables embed into {}",
                    data.variables(),
                    self.embedding.rows(data.variables())
                ));
            }
            if data.outputs() != outputs {
                return Err(shape_error!(
                    "the networks have {outputs} outputs, but the data have {} labels a sample",
                    data.outputs()
                ));
            }
        }
        if u32::try_from(samples).is_err() {
            return Err(value_error!("{samples} samples: at most {} can be put in order", u32::MAX));
        }
        if let Some(other) = self.data.iter().find(|data| data.samples() != samples) {
            return Err(shape_error!(
                "data sets of {samples} and {} samples in one run: all must have the same number",
                other.samples()
            ));
        }
        if matches!(self.config.early_stopping, Some(EarlyStopping { watch: Watch::Validation, .. }))
            && self.validation.is_empty()
        {
            return Err(value_error!(
                "early stopping watches the validation loss, but there are no validation data"
            ));
        }
        if let Some(masks) = self.masks {
            masks.validate(networks, widths)?;
        }
        self.config.validate_snapshots(samples)
    }
}
