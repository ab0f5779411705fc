//! One trait for everything that trains stacks of networks, and the choice between them.

use std::sync::Arc;

use precode_core::Progress;
use precode_core::train::{Evaluation, Optimizer, Problem, Trained, fused};
use precode_core::{Dataset, Embedding, named};
use tch::{Device, Kind};

use crate::error::{Error, Result};
use crate::fused::{Fused, check_place, place};
use crate::libtorch::{Libtorch, Workload};
use crate::stack::Stack;

/// Trains and evaluates stacks of networks.
pub trait Engine: Send + Sync {
    /// The name by which the engine is chosen.
    fn name(&self) -> &'static str;

    /// Whether the engine can train networks of the widths `[inputs, hidden.., outputs]` on the problem.
    ///
    /// # Errors
    /// [`precode_core::Error::Unsupported`] saying what it cannot do.
    fn supports(&self, widths: &[usize], problem: &Problem) -> Result<()>;

    /// Trains copies of `start`, which is left as it is. Progress counts network-steps; a network that
    /// stops early counts no further ones.
    ///
    /// # Errors
    /// A start, problem or engine that do not fit together; [`precode_core::Error::Interrupted`] once
    /// progress was cancelled.
    fn train(&self, start: &Stack, problem: &Problem, progress: &Progress) -> Result<Trained<Stack>>;

    /// Loss and error of each network on its data set (R sets, which may differ in their number of
    /// samples). A logit above 0 says True; a NaN logit is wrong whatever the label, and the loss of a network
    /// with a logit that is not finite is not finite. Progress counts networks.
    ///
    /// # Errors
    /// As [`Engine::train`].
    fn evaluate(
        &self,
        stack: &Stack,
        data: &[Arc<Dataset>],
        embedding: &Embedding,
        progress: &Progress,
    ) -> Result<Evaluation>;
}

/// Which engine to take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Choice {
    /// The fastest that supports the problem.
    #[default]
    Auto,
    /// [`Fused`], or an error saying why it cannot.
    Fused,
    /// [`Libtorch`].
    Libtorch,
}
named!(Choice, "engine", "auto" => Auto, "fused" => Fused, "libtorch" => Libtorch);

/// The engine for networks of the given widths, element type and device, and the reason in one sentence.
///
/// # Errors
/// The chosen engine (for [`Choice::Auto`], any engine) cannot train them.
pub fn choose(
    choice: Choice,
    widths: &[usize],
    problem: &Problem,
    kind: Kind,
    device: Device,
) -> Result<(Box<dyn Engine>, String)> {
    let libtorch = Libtorch { kind, device };
    if choice == Choice::Libtorch {
        libtorch.supports(widths, problem)?;
        return Ok((Box::new(libtorch), format!("libtorch: asked for, {}", place(kind, device))));
    }
    let fused = Fused::default();
    let cannot = match check_place(kind, device).and_then(|()| fused.supports(widths, problem)) {
        Ok(()) => {
            return Ok((Box::new(fused), format!("fused: one hidden layer, {}", place(kind, device))));
        }
        Err(cannot) if choice == Choice::Fused => return Err(cannot),
        Err(cannot) => cannot,
    };
    libtorch.supports(widths, problem)?;
    Ok((Box::new(libtorch), format!("libtorch: {cannot}")))
}

/// An estimate of the peak bytes of host memory that training takes on the engine that [`choose`] will take, data that
/// are given not included.
pub fn memory_bytes(
    choice: Choice,
    size: &Workload,
    optimizer: &Optimizer,
    kind: Kind,
    device: Device,
) -> usize {
    let fits =
        check_place(kind, device).is_ok() && fused::supports_sizes(size.widths, size.variables).is_ok();
    if choice == Choice::Fused || (choice == Choice::Auto && fits) {
        let threads = std::thread::available_parallelism().map_or(1, usize::from);
        let Workload { widths, projection, networks, snapshots, .. } = *size;
        return fused::memory_bytes(widths, projection, networks, optimizer, snapshots, 0, threads);
    }
    Libtorch { kind, device }.memory_bytes(size)
}

/// Loss and error of each network on its data set: by the fused engine where it can, otherwise by libtorch.
///
/// # Errors
/// As [`Engine::evaluate`].
pub fn evaluate(
    stack: &Stack,
    data: &[Arc<Dataset>],
    embedding: &Embedding,
    progress: &Progress,
) -> Result<Evaluation> {
    match Fused::default().evaluate(stack, data, embedding, progress) {
        Err(Error::Core(precode_core::Error::Unsupported(_))) => {
            let libtorch = Libtorch { kind: stack.kind()?, device: stack.device() };
            libtorch.evaluate(stack, data, embedding, progress)
        }
        outcome => outcome,
    }
}
