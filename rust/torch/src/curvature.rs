//! Products of the Hessian of the loss with a direction in closed form, by Pearlmutter's R-operator (*Fast
//! Exact Multiplication by the Hessian*, Neural Computation 6, 1994): the derivative of the gradient
//! along the direction, at the price of a second forward and backward pass.

use tch::Tensor;

use crate::error::Result;
use crate::flat::Flat;
use crate::stack::Stack;

/// Writes into `product` the Hessian times `direction`, for the loss of
/// [`backward`](crate::gradient::backward) of `logits / temperature`. `activations` are those of
/// [`forward`](crate::gradient::forward); ReLU counts as linear on either side of zero.
pub(crate) fn times_direction(
    stack: &Stack,
    direction: &Stack,
    activations: &[Tensor],
    labels: &Tensor,
    temperature: f64,
    product: &mut Flat,
) -> Result<()> {
    let Some(logits) = activations.last() else { return Ok(()) };
    let depth = stack.layers.len();
    // Derivatives of the activations along the direction; those of the data are zero.
    let mut moved: Vec<Option<Tensor>> = vec![None];
    for (i, ((weight, _), (toward, toward_bias))) in stack.layers.iter().zip(&direction.layers).enumerate() {
        let mut out =
            toward_bias.f_unsqueeze(1)?.f_baddbmm(&activations[i], &toward.f_transpose(1, 2)?, 1, 1)?;
        if let Some(moved) = &moved[i] {
            out = out.f_baddbmm(moved, &weight.f_transpose(1, 2)?, 1, 1)?;
        }
        if i + 1 < depth {
            out = activations[i + 1].f_threshold_backward(&out, 0.0)?;
        }
        moved.push(Some(out));
    }
    let size = logits.size();
    let scale = 1.0 / ((size[1] * size[2]) as f64 * temperature);
    let probability = logits.f_div_scalar(temperature)?.f_sigmoid()?;
    let mut delta = probability.f_sub(labels)?.f_mul_scalar(scale)?;
    let slope = probability.f_mul(&probability.f_neg()?.f_add_scalar(1.0)?)?;
    let Some(Some(moved_logits)) = moved.last() else { return Ok(()) };
    let mut moved_delta = slope.f_mul(moved_logits)?.f_mul_scalar(scale / temperature)?;
    for (i, ((weight, _), (toward, _))) in stack.layers.iter().zip(&direction.layers).enumerate().rev() {
        let (weight_product, bias_product) = &mut product.stack.layers[i];
        let _ = moved_delta.f_transpose(1, 2)?.f_bmm_out(weight_product, &activations[i])?;
        if let Some(moved) = &moved[i] {
            let _ = weight_product.f_baddbmm_(&delta.f_transpose(1, 2)?, moved)?;
        }
        let _ = moved_delta.f_sum_intlist_out(bias_product, 1, false, None)?;
        if i > 0 {
            let back = delta.f_bmm(toward)?.f_baddbmm(&moved_delta, weight, 1, 1)?;
            moved_delta = activations[i].f_threshold_backward(&back, 0.0)?;
            delta = activations[i].f_threshold_backward(&delta.f_bmm(weight)?, 0.0)?;
        }
    }
    Ok(())
}
