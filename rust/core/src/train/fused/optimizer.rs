//! The update rules of `torch.optim`, arranged so that a step takes few operations.

use super::simd::Simd;
use crate::train::Optimizer;

/// Numbers of one optimizer step that depend on how many steps came before.
#[derive(Clone, Copy, Debug)]
pub(super) struct StepScale {
    rate: f32,
    eps: f32,
}

impl StepScale {
    /// A step that moves no weight.
    pub(super) const ZERO: Self = Self { rate: 0.0, eps: 0.0 };
}

/// The update rule with its constants in f32.
///
/// Adam's moments are kept as m / (1 - beta1) and v / (1 - beta2): then each needs one operation
/// less, and the factors go into the step's rate and epsilon, as do the bias corrections:
/// lr m^ / (sqrt(v^) + eps) = rate m' / (2 sqrt(v') + eps'), where the 2 saves an operation, too.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    adaptive: bool,
    /// L2 penalty, added to the gradient.
    penalty: f32,
    /// Factor on the weights before the update (AdamW's decay).
    shrink: f32,
    /// Decay of the first moment, or momentum.
    first: f32,
    /// Decay of the second moment.
    second: f32,
}

impl Rule {
    pub(super) fn new(optimizer: &Optimizer) -> Self {
        match *optimizer {
            Optimizer::Adam { betas, weight_decay, .. } => Self {
                adaptive: true,
                penalty: weight_decay as f32,
                shrink: 1.0,
                first: betas.0 as f32,
                second: betas.1 as f32,
            },
            Optimizer::AdamW { lr, betas, weight_decay, .. } => Self {
                adaptive: true,
                penalty: 0.0,
                shrink: (1.0 - lr * weight_decay) as f32,
                first: betas.0 as f32,
                second: betas.1 as f32,
            },
            Optimizer::Sgd { momentum, weight_decay, .. } => Self {
                adaptive: false,
                penalty: weight_decay as f32,
                shrink: 1.0,
                first: momentum as f32,
                second: 0.0,
            },
        }
    }

    /// The rule of steps that leave the gradients as first moments; with [`StepScale::ZERO`] no weight moves.
    pub(super) fn gradients() -> Self {
        Self { adaptive: false, penalty: 0.0, shrink: 1.0, first: 0.0, second: 0.0 }
    }

    /// Whether the rule has a second moment.
    pub(super) fn is_adaptive(&self) -> bool {
        self.adaptive
    }
}

/// The scales of `count` steps after `done` steps.
pub(super) fn step_scales(optimizer: &Optimizer, done: u64, count: usize) -> Vec<StepScale> {
    match *optimizer {
        Optimizer::Adam { lr, betas, eps, .. } | Optimizer::AdamW { lr, betas, eps, .. } => {
            let mut powers = (betas.0.powf(done as f64), betas.1.powf(done as f64));
            let root = (1.0 - betas.1).sqrt();
            (0..count)
                .map(|_| {
                    powers = (powers.0 * betas.0, powers.1 * betas.1);
                    let correction = 2.0 * (1.0 - powers.1).sqrt() / root;
                    let rate = lr * correction * (1.0 - betas.0) / (1.0 - powers.0);
                    StepScale { rate: rate as f32, eps: (eps * correction) as f32 }
                })
                .collect()
        }
        Optimizer::Sgd { lr, .. } => vec![StepScale { rate: lr as f32, eps: 0.0 }; count],
    }
}

/// One step of a rule, its constants spread over vectors.
#[derive(Clone, Copy)]
pub(super) struct Update<S: Simd> {
    s: S,
    /// Adam without weight decay, for which [`apply`](Self::apply) has a short form.
    pub(super) plain: bool,
    adaptive: bool,
    /// Whether a weight of zero may move without a gradient: where the rate overflows or epsilon vanishes in f32.
    unsteady: bool,
    penalty: S::Vector,
    shrink: S::Vector,
    first: S::Vector,
    second: S::Vector,
    rate: S::Vector,
    eps: S::Vector,
}

impl<S: Simd> Update<S> {
    #[inline(always)]
    pub(super) fn new(s: S, rule: &Rule, scale: StepScale) -> Self {
        Self {
            s,
            plain: rule.adaptive && rule.penalty == 0.0 && rule.shrink == 1.0,
            adaptive: rule.adaptive,
            unsteady: !scale.rate.is_finite() || rule.adaptive && scale.eps <= 0.0,
            penalty: s.splat(rule.penalty),
            shrink: s.splat(rule.shrink),
            first: s.splat(rule.first),
            second: s.splat(rule.second),
            rate: s.splat(scale.rate),
            eps: s.splat(scale.eps),
        }
    }

    /// Moves weights `w` against the gradient `g`; where a mask is given and unset, nothing moves.
    /// `PLAIN` may only be set if [`plain`](Self::plain) is.
    #[inline(always)]
    pub(super) fn apply<const V: usize, const PLAIN: bool>(
        &self,
        w: &mut [S::Vector; V],
        m: &mut [S::Vector; V],
        v: &mut [S::Vector; V],
        mut g: [S::Vector; V],
        mask: Option<&[S::Mask; V]>,
    ) {
        let s = self.s;
        if !PLAIN {
            for k in 0..V {
                g[k] = s.mul_add(self.penalty, w[k], g[k]);
                w[k] = s.mul(w[k], self.shrink);
            }
        }
        if let Some(mask) = mask {
            for k in 0..V {
                g[k] = s.select(mask[k], g[k]);
            }
        }
        if PLAIN || self.adaptive {
            for k in 0..V {
                m[k] = s.mul_add(self.first, m[k], g[k]);
                v[k] = s.mul_add(self.second, v[k], s.mul(g[k], g[k]));
                w[k] = s.sub_mul(w[k], self.rate, s.over_two_roots(m[k], v[k], self.eps));
            }
        } else {
            for k in 0..V {
                m[k] = s.mul_add(self.first, m[k], g[k]);
                w[k] = s.sub_mul(w[k], self.rate, m[k]);
            }
        }
        // A masked gradient leaves a zero weight at zero.
        if let Some(mask) = mask.filter(|_| self.unsteady) {
            for k in 0..V {
                w[k] = s.select(mask[k], w[k]);
            }
        }
    }
}
