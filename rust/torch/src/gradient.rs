//! The forward pass and its gradients in closed form: no autograd graph, so any grad mode, and the
//! gradients of R networks are those of R separate losses.

use tch::Tensor;

use crate::error::{Result, value_error};
use crate::flat::Flat;
use crate::stack::Stack;

/// The activations `[z, h1, .., logits]` of a batch, each (R, samples, width), where z is `x` or, of networks with a
/// projection, `C0 x`.
///
/// `x` may be an expanded view when the networks share their data.
pub(crate) fn forward(stack: &Stack, x: Tensor) -> Result<Vec<Tensor>> {
    forward_watched(stack, x, &|| Ok(()))
}

/// As [`forward`], calling `check` before each layer: a step of wide networks takes seconds, and libtorch cannot be
/// stopped within a matrix product.
pub(crate) fn forward_watched(
    stack: &Stack,
    x: Tensor,
    check: &dyn Fn() -> Result<()>,
) -> Result<Vec<Tensor>> {
    let mut activations = vec![match &stack.projection {
        Some(c0) => x.f_bmm(&c0.f_transpose(1, 2)?)?,
        None => x,
    }];
    for (i, (weight, bias)) in stack.layers.iter().enumerate() {
        check()?;
        let mut out = bias.f_unsqueeze(1)?.f_baddbmm(&activations[i], &weight.f_transpose(1, 2)?, 1, 1)?;
        if i + 1 < stack.layers.len() {
            let _ = out.f_relu_()?;
        }
        activations.push(out);
    }
    Ok(activations)
}

/// Writes into `gradient` the gradient of the sum over networks of the mean over samples and outputs of
/// the binary cross-entropy with logits. `labels` are (R, samples, outputs) in the networks' kind; where
/// `pruned` (Booleans of the weight's shape) is set the gradient is zero, even where it was not finite. `x` are the
/// samples that [`forward`] was given; they matter where `gradient` has projections.
pub(crate) fn backward(
    stack: &Stack,
    x: &Tensor,
    activations: &[Tensor],
    labels: &Tensor,
    pruned: &[Option<Tensor>],
    gradient: &mut Flat,
) -> Result<()> {
    backward_watched(stack, x, activations, labels, pruned, gradient, &|| Ok(()))
}

/// As [`backward`], calling `check` before each matrix product; see [`forward_watched`].
pub(crate) fn backward_watched(
    stack: &Stack,
    x: &Tensor,
    activations: &[Tensor],
    labels: &Tensor,
    pruned: &[Option<Tensor>],
    gradient: &mut Flat,
    check: &dyn Fn() -> Result<()>,
) -> Result<()> {
    let Some(logits) = activations.last() else { return Ok(()) };
    let size = logits.size();
    let scale = 1.0 / (size[1] * size[2]) as f64;
    let mut delta = logits.f_sigmoid()?.f_sub_(labels)?.f_mul_scalar_(scale)?;
    for (i, (weight, _)) in stack.layers.iter().enumerate().rev() {
        check()?;
        let (weight_gradient, bias_gradient) = &mut gradient.stack.layers[i];
        let _ = delta.f_transpose(1, 2)?.f_bmm_out(weight_gradient, &activations[i])?;
        let _ = delta.f_sum_intlist_out(bias_gradient, 1, false, None)?;
        if let Some(pruned) = &pruned[i] {
            let _ = weight_gradient.f_masked_fill_(pruned, 0.0)?;
        }
        if i > 0 {
            check()?;
            delta = activations[i].f_threshold_backward(&delta.f_bmm(weight)?, 0.0)?;
        } else if let Some(projection_gradient) = &gradient.stack.projection {
            check()?;
            let _ = delta.f_bmm(weight)?.f_transpose(1, 2)?.f_bmm_out(projection_gradient, x)?;
        }
    }
    Ok(())
}

/// What of a layer a gradient is taken with respect to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Part {
    Weight,
    Bias,
}

/// Gradients of the loss of each sample with respect to its logits, (R, samples, outputs).
pub(crate) fn residuals(activations: &[Tensor], labels: &Tensor) -> Result<Tensor> {
    let logits = logits(activations)?;
    Ok(logits.f_sigmoid()?.f_sub_(labels)?.f_div_scalar_(logits.size()[2] as f64)?)
}

/// For each output, the square root of the curvature `s (1 - s)` of a sample's loss in that logit, zero in the others,
/// (R, samples, outputs): squares of gradients that start from them are parts of the Gauss-Newton matrix.
pub(crate) fn roots_of_curvature(activations: &[Tensor]) -> Result<Vec<Tensor>> {
    let logits = logits(activations)?;
    let outputs = logits.size()[2];
    let share = logits.f_sigmoid()?;
    let root = share.f_mul(&share.f_neg()?.f_add_scalar(1)?)?.f_div_scalar(outputs as f64)?.f_sqrt()?;
    (0..outputs)
        .map(|output| {
            let only = root.f_zeros_like()?;
            only.f_select(2, output)?.f_copy_(&root.f_select(2, output)?)?;
            Ok(only)
        })
        .collect()
}

fn logits(activations: &[Tensor]) -> Result<&Tensor> {
    activations.last().ok_or_else(|| value_error!("a stack without layers"))
}

/// Gradients of each sample by itself, (R, samples, numbers), with respect to some parts of layers, counted from 0, side
/// by side in order, of what has the gradient `delta` (R, samples, outputs) with respect to the logits.
pub(crate) fn of_samples(
    stack: &Stack,
    activations: &[Tensor],
    mut delta: Tensor,
    wanted: &[(usize, Part)],
) -> Result<Tensor> {
    let mut parts: Vec<Tensor> = Vec::new();
    for (i, (weight, _)) in stack.layers.iter().enumerate().rev() {
        if wanted.contains(&(i, Part::Bias)) {
            parts.push(delta.shallow_clone());
        }
        if wanted.contains(&(i, Part::Weight)) {
            let outer = delta.f_unsqueeze(3)?.f_mul(&activations[i].f_unsqueeze(2)?)?;
            parts.push(outer.f_flatten(2, 3)?);
        }
        if i > 0 {
            delta = activations[i].f_threshold_backward(&delta.f_bmm(weight)?, 0.0)?;
        }
    }
    parts.reverse();
    Ok(Tensor::f_cat(&parts, 2)?)
}
