//! The update rules of `torch.optim` on one flat buffer, in place.

use precode_core::train::Optimizer;
use tch::Tensor;

use crate::error::Result;
use crate::flat::Flat;

/// An update rule with its moments. Every rule leaves a weight at exactly zero if the weight, its
/// gradient and its moments are zero, which is how pruned weights stay pruned.
pub(crate) struct Updater {
    rule: Optimizer,
    /// First moment (Adam) or momentum buffer (SGD).
    first: Option<Flat>,
    /// Second moment (Adam).
    second: Option<Flat>,
    scratch: Tensor,
    step: i32,
}

impl Updater {
    /// Before the first step.
    pub fn new(rule: Optimizer, weights: &Flat) -> Result<Self> {
        let (first, second) = match rule {
            Optimizer::Adam { .. } | Optimizer::AdamW { .. } => (true, true),
            Optimizer::Sgd { momentum, .. } => (momentum != 0.0, false),
        };
        let moment = |wanted: bool| wanted.then(|| weights.zeros_like()).transpose();
        Ok(Self {
            rule,
            first: moment(first)?,
            second: moment(second)?,
            scratch: weights.all.f_zeros_like()?,
            step: 0,
        })
    }

    /// The state of the networks numbered by `rows` (int64).
    pub fn rows(&self, rows: &Tensor, weights: &Flat) -> Result<Self> {
        let moment = |flat: &Option<Flat>| flat.as_ref().map(|flat| flat.rows(rows)).transpose();
        Ok(Self {
            rule: self.rule,
            first: moment(&self.first)?,
            second: moment(&self.second)?,
            scratch: weights.all.f_zeros_like()?,
            step: self.step,
        })
    }

    /// Moves `weights` by one step along `gradient`, which is overwritten.
    pub fn step(&mut self, weights: &mut Tensor, gradient: &mut Tensor) -> Result<()> {
        self.step += 1;
        match self.rule {
            Optimizer::Adam { lr, betas, eps, weight_decay } => {
                self.add_decay(weights, gradient, weight_decay)?;
                self.adam(weights, gradient, lr, betas, eps)
            }
            Optimizer::AdamW { lr, betas, eps, weight_decay } => {
                if weight_decay != 0.0 {
                    let _ = weights.f_mul_scalar_(1.0 - lr * weight_decay)?;
                }
                self.adam(weights, gradient, lr, betas, eps)
            }
            Optimizer::Sgd { lr, momentum, weight_decay } => {
                self.add_decay(weights, gradient, weight_decay)?;
                let direction = match &mut self.first {
                    Some(buffer) => {
                        let _ = buffer.all.f_mul_scalar_(momentum)?.f_add_(gradient)?;
                        &buffer.all
                    }
                    None => &*gradient,
                };
                let update = direction.f_mul_scalar_out(&self.scratch, -lr)?;
                let _ = weights.f_add_(&update)?;
                Ok(())
            }
        }
    }

    /// L2 penalty: gradient += weight_decay * weights.
    fn add_decay(&self, weights: &Tensor, gradient: &mut Tensor, weight_decay: f64) -> Result<()> {
        if weight_decay != 0.0 {
            let decay = weights.f_mul_scalar_out(&self.scratch, weight_decay)?;
            let _ = gradient.f_add_(&decay)?;
        }
        Ok(())
    }

    /// weights -= lr / c1 * m / (sqrt(v) / sqrt(c2) + eps) with the bias corrections c = 1 - beta^step.
    fn adam(
        &mut self,
        weights: &mut Tensor,
        gradient: &Tensor,
        lr: f64,
        betas: (f64, f64),
        eps: f64,
    ) -> Result<()> {
        let (Some(first), Some(second)) = (&mut self.first, &mut self.second) else { return Ok(()) };
        let step_size = lr / (1.0 - betas.0.powi(self.step));
        let correction = (1.0 - betas.1.powi(self.step)).sqrt();
        let _ = first.all.f_lerp_(gradient, 1.0 - betas.0)?;
        let square = gradient.f_mul_out(&self.scratch, gradient)?;
        let _ = second.all.f_lerp_(&square, 1.0 - betas.1)?;
        // tch has no `value` for addcdiv: the factor -step_size goes into the denominator.
        let mut denominator = second.all.f_sqrt_out(&self.scratch)?;
        let _ =
            denominator.f_mul_scalar_(-1.0 / (correction * step_size))?.f_add_scalar_(-eps / step_size)?;
        let _ = weights.f_addcdiv_(&first.all, &denominator)?;
        Ok(())
    }
}
