//! The fused engine of precode-core on stacks of tensors.

use std::sync::Arc;

use precode_core::Progress;
use precode_core::train::fused::{self, Options};
use precode_core::train::{Evaluation, Problem, Trained};
use precode_core::{Dataset, Embedding};
use tch::{Device, Kind};

use crate::engine::Engine;
use crate::error::{Result, unsupported};
use crate::stack::Stack;

/// [`precode_core::train::fused`]: one hidden layer, float32 on the CPU, many times faster than [`Libtorch`](crate::Libtorch).
///
/// It runs on rayon's threads, not on torch's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fused {
    /// Instruction level and threads.
    pub options: Options,
}

impl Engine for Fused {
    fn name(&self) -> &'static str {
        "fused"
    }

    fn supports(&self, widths: &[usize], problem: &Problem) -> Result<()> {
        Ok(fused::supports(widths, problem)?)
    }

    fn train(&self, start: &Stack, problem: &Problem, progress: &Progress) -> Result<Trained<Stack>> {
        check_place(start.kind()?, start.device())?;
        let trained = fused::train(start.to_weights()?, problem, self.options, progress)?;
        let stack = |weights| Stack::from_buffers(weights, Kind::Float, Device::Cpu);
        Ok(Trained {
            weights: stack(&trained.weights)?,
            snapshots: trained.snapshots.iter().map(stack).collect::<Result<_>>()?,
            history: trained.history,
        })
    }

    fn evaluate(
        &self,
        stack: &Stack,
        data: &[Arc<Dataset>],
        embedding: &Embedding,
        progress: &Progress,
    ) -> Result<Evaluation> {
        check_place(stack.kind()?, stack.device())?;
        Ok(fused::evaluate(&stack.to_weights()?, data, embedding, self.options, progress)?)
    }
}

/// Refuses what is not float32 on the CPU.
pub(crate) fn check_place(kind: Kind, device: Device) -> Result<()> {
    match (kind, device) {
        (Kind::Float, Device::Cpu) => Ok(()),
        _ => Err(unsupported!(
            "the fused engine trains float32 on the CPU, not {}: use the libtorch engine",
            place(kind, device)
        )),
    }
}

/// "float32 on cpu", as Python spells it.
pub(crate) fn place(kind: Kind, device: Device) -> String {
    let kind = match kind {
        Kind::Half => "float16".to_owned(),
        Kind::BFloat16 => "bfloat16".to_owned(),
        Kind::Float => "float32".to_owned(),
        Kind::Double => "float64".to_owned(),
        other => format!("{other:?}"),
    };
    let device = match device {
        Device::Cpu => "the CPU".to_owned(),
        Device::Cuda(index) => format!("cuda:{index}"),
        other => format!("{other:?}").to_lowercase(),
    };
    format!("{kind} on {device}")
}
