//! The methods beside autograd: what they ask gradients at, step by step.

use precode_core::task::rng::{Purpose, stream};
use precode_core::ticket::mask::Scope;
use rand::RngExt;
use tch::{Kind, Tensor};

use crate::regressions::{Ask, OPTIONS, PRUNABLE, Regressions, record, with_bias};

/// One network, plainly: tch autograd of the loss with respect to scores (and weights), and the formulas of
/// torch.optim.SGD.
struct Plain {
    objective: Regressions,
    values: Tensor,
    buffer: Tensor,
}

impl Plain {
    fn new(values: Tensor) -> Self {
        let buffer = values.zeros_like();
        Self { objective: Regressions::new(&[9], Kind::Double), values, buffer }
    }

    fn step(&mut self, gradient: &Tensor, rate: f64, nesterov: bool, weight_decay: f64) {
        let gradient = gradient + &self.values * weight_decay;
        self.buffer = &self.buffer * 0.9 + &gradient;
        let direction = if nesterov { gradient + &self.buffer * 0.9 } else { self.buffer.shallow_clone() };
        self.values = &self.values - direction * rate;
    }

    /// Gradients of loss + penalty with respect to `leaves`.
    fn gradients(&self, effective: &Tensor, penalty: Tensor, leaves: &[&Tensor]) -> Vec<Tensor> {
        Tensor::run_backward(
            &[self.objective.losses(effective).sum(Kind::Double) + penalty],
            leaves,
            false,
            false,
        )
    }
}

/// Scores of the prunable weights in [0, 1), as network 9 draws them.
fn uniform() -> Tensor {
    let mut rng = stream(3, Purpose::Scores, 9);
    let drawn: Vec<f64> = (0..PRUNABLE).map(|_| f64::from(rng.random::<f32>())).collect();
    Tensor::from_slice(&drawn).unsqueeze(0)
}

fn split_bias(theta: &Tensor) -> (Tensor, Tensor) {
    (Tensor::cat(&[theta.narrow(1, 0, 6), theta.narrow(1, 7, 4)], 1), theta.narrow(1, 6, 1))
}

fn leaf(values: &Tensor) -> Tensor {
    values.copy().set_requires_grad(true)
}

fn cosine(step: i64, steps: i64) -> f64 {
    (1.0 + (std::f64::consts::PI * step as f64 / steps as f64).cos()) / 2.0
}

/// Everything that a search asks gradients at, for network 9 and one density.
fn asked(name: &str, scope: Scope, epochs: u32) -> Vec<Tensor> {
    let mut objective = Regressions::new(&[9], Kind::Double);
    objective.epochs = epochs;
    Ask { scope, ..Ask::new(&[0.5], &[9]) }.find(record(name), &mut objective).unwrap();
    objective.asked
}

fn assert_close(ours: &[Tensor], plain: &[Tensor]) {
    assert_eq!(ours.len(), plain.len());
    for (step, (ours, plain)) in ours.iter().zip(plain).enumerate() {
        let difference = (ours - plain.detach()).abs().max().double_value(&[]);
        assert!(difference < 1e-6, "step {step}: {ours} beside {plain}");
    }
}

/// 1 for the `kept` largest.
fn best(scores: &Tensor, kept: i64) -> Tensor {
    let places = scores.topk(kept, 1, true, true).1;
    scores.zeros_like().scatter_value(1, &places, 1.0)
}

#[test]
fn edge_popup_is_what_autograd_makes_of_it() {
    for scope in [Scope::Global, Scope::PerLayer] {
        let fan_in: Vec<f64> = [vec![3.0; 6], vec![4.0; 4]].concat();
        let mut plain = Plain::new((uniform() * 2.0 - 1.0) / Tensor::from_slice(&fan_in).sqrt());
        let (weights, bias) = split_bias(&plain.objective.initial());
        let mut expected = vec![];
        for step in 0..600 {
            let scores = leaf(&plain.values);
            let magnitude = scores.abs();
            let hard = match scope {
                Scope::Global => best(&magnitude, 5),
                Scope::PerLayer => Tensor::cat(
                    &[best(&magnitude.narrow(1, 0, 6), 3), best(&magnitude.narrow(1, 6, 4), 2)],
                    1,
                ),
            };
            let mask = hard.detach() + &magnitude - magnitude.detach();
            let effective = with_bias(&(&weights * mask), &bias);
            let none = Tensor::zeros([], OPTIONS);
            let gradients = plain.gradients(&effective, none, &[&scores]);
            plain.step(&gradients[0], 0.1 * cosine(step, 600), false, 1e-4);
            expected.push(effective);
        }
        assert_close(&asked("edge-popup", scope, 30), &expected);
    }
}

#[test]
fn gem_miner_is_what_autograd_makes_of_it() {
    let mut plain = Plain::new(uniform());
    let (weights, bias) = split_bias(&plain.objective.initial());
    let mut flag = Tensor::ones([1, PRUNABLE as i64], OPTIONS);
    let mut expected = vec![];
    for step in 0..220 {
        if step == 100 || step == 200 {
            // 11 epochs: two freezes, to 7 and to 5 of the 10.
            flag = best(&(&plain.values * &flag - (1.0 - &flag)), if step == 100 { 7 } else { 5 });
        }
        let scores = leaf(&plain.values);
        let hard = scores.detach().ge(0.5).to_kind(Kind::Double);
        let mask = (hard + &scores - scores.detach()) * &flag;
        let effective = with_bias(&(&weights * mask), &bias);
        let penalty = scores.square().sum(Kind::Double) * 1e-4;
        let gradients = plain.gradients(&effective, penalty, &[&scores]);
        plain.step(&gradients[0], 0.1 * cosine(step, 220), false, 0.0);
        plain.values = plain.values.clamp(0.0, 1.0);
        expected.push(effective);
    }
    assert_close(&asked("gem-miner", Scope::Global, 11), &expected);
}

#[test]
fn continuous_sparsification_is_what_autograd_makes_of_it() {
    let mut plain = Plain::new(Tensor::zeros([1, PRUNABLE as i64], OPTIONS));
    let mut theta = Plain::new(plain.objective.initial());
    let mut expected = vec![];
    for step in 0..60 {
        let (round, within) = (step / 20, step % 20);
        let beta = 200f64.powf(within as f64 / 19.0);
        let (scores, parameters) = (leaf(&plain.values), leaf(&theta.values));
        let (weights, bias) = split_bias(&parameters);
        let mask = (&scores * beta).sigmoid() * 2.0;
        let effective = with_bias(&(weights * &mask), &bias);
        let penalty = mask.sum(Kind::Double) * 1e-8;
        let gradients = plain.gradients(&effective, penalty, &[&scores, &parameters]);
        let rate = 0.1 * cosine(within, 20);
        plain.step(&gradients[0], rate, true, 0.0);
        theta.step(&gradients[1], rate, true, 1e-4);
        if within == 19 && round < 2 {
            plain.values = (&plain.values * 200.0).clamp_max(0.0);
        }
        expected.push(effective);
    }
    assert_close(&asked("continuous-sparsification", Scope::Global, 3), &expected);
}
