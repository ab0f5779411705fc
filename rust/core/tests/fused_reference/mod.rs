//! A plain float64 implementation of a training run, and problems to compare on.
#![allow(dead_code)]

use std::sync::Arc;

use ndarray::Array2;
use precode_core::train::{Optimizer, Patience, Problem, TrainConfig, Watch, epoch_order};
use precode_core::{Dataset, Embedding, Layer, Masks, Projection, Weights};

/// The buffers of a network.
pub type Parameters<T> = [Vec<T>; 5];

/// One network in float64.
#[derive(Clone)]
pub struct Reference {
    pub inputs: usize,
    pub hidden: usize,
    pub outputs: usize,
    /// w1 (j, m), b1 (j), w2 (o, j), b2 (o), C0 (m, n).
    pub parameters: Parameters<f64>,
    moments: [Parameters<f64>; 2],
    masks: [Option<Vec<bool>>; 5],
    trains_projection: bool,
    steps: i32,
}

/// A finished reference run.
pub struct Outcome {
    pub network: Reference,
    /// Parameters after each step, step 0 first.
    pub path: Vec<Parameters<f64>>,
    pub train_loss: Vec<f64>,
    pub train_error: Vec<f64>,
    pub validation_loss: Vec<f64>,
}

impl Reference {
    /// Network r of a stack, its masked weights at zero; the embedding is of so many variables.
    pub fn new(
        weights: &Weights,
        r: usize,
        embedding: &Embedding,
        variables: usize,
        masks: Option<&Masks>,
    ) -> Self {
        let one = weights.network(r);
        let double = |values: &[f32]| values.iter().map(|w| f64::from(*w)).collect::<Vec<_>>();
        let [first, second] = [&one.layers[0], &one.layers[1]];
        let c0 = match &one.projection {
            Some(Projection { matrix, .. }) => double(matrix),
            None => double(embedding.matrix(variables).unwrap().as_slice().unwrap()),
        };
        let mut parameters =
            [double(&first.weight), double(&first.bias), double(&second.weight), double(&second.bias), c0];
        let mask = |layer: usize| -> Option<Vec<bool>> {
            let size = one.layers[layer].weight.len();
            Some(masks?.layers[layer].as_ref()?[r * size..][..size].to_vec())
        };
        let masks = [mask(0), None, mask(1), None, None];
        for (values, mask) in parameters.iter_mut().zip(&masks) {
            for (w, keep) in values.iter_mut().zip(mask.iter().flatten()) {
                *w *= f64::from(u8::from(*keep));
            }
        }
        let blank = parameters.clone().map(|values| vec![0.0; values.len()]);
        Self {
            inputs: first.inputs,
            hidden: first.outputs,
            outputs: second.outputs,
            parameters,
            moments: [blank.clone(), blank],
            masks,
            trains_projection: embedding.is_trained(),
            steps: 0,
        }
    }

    /// (sum of losses, wrong labels, gradients of the mean loss) over some samples.
    pub fn gradient(&self, data: &Dataset, samples: &[usize]) -> (f64, usize, Parameters<f64>) {
        let [w1, b1, w2, b2, c0] = &self.parameters;
        let (m, j, o, n) = (self.inputs, self.hidden, self.outputs, data.variables());
        let mut gradients = self.parameters.clone().map(|values| vec![0.0; values.len()]);
        let (mut loss, mut wrong) = (0.0, 0);
        let x = data.unpack_inputs();
        for &sample in samples {
            let embedded: Vec<f64> =
                (0..m).map(|a| (0..n).map(|v| c0[a * n + v] * f64::from(x[sample * n + v])).sum()).collect();
            let h: Vec<f64> =
                (0..j).map(|r| b1[r] + (0..m).map(|a| w1[r * m + a] * embedded[a]).sum::<f64>()).collect();
            for k in 0..o {
                let z: f64 = b2[k] + (0..j).map(|r| w2[k * j + r] * h[r].max(0.0)).sum::<f64>();
                let label = data.label(sample, k);
                let y = f64::from(u8::from(label));
                loss += z.max(0.0) - z * y + (-z.abs()).exp().ln_1p();
                wrong += usize::from((z > 0.0) != label);
                let delta = (1.0 / (1.0 + (-z).exp()) - y) / (samples.len() * o) as f64;
                gradients[3][k] += delta;
                for r in 0..j {
                    gradients[2][k * j + r] += delta * h[r].max(0.0);
                    if h[r] > 0.0 {
                        let error = delta * w2[k * j + r];
                        gradients[1][r] += error;
                        for a in 0..m {
                            gradients[0][r * m + a] += error * embedded[a];
                            for v in 0..n {
                                gradients[4][a * n + v] +=
                                    error * w1[r * m + a] * f64::from(x[sample * n + v]);
                            }
                        }
                    }
                }
            }
        }
        (loss, wrong, gradients)
    }

    /// One step with the formulas of `torch.optim`.
    fn update(&mut self, gradients: Parameters<f64>, optimizer: &Optimizer) {
        self.steps += 1;
        let t = self.steps;
        let trained = if self.trains_projection { 5 } else { 4 };
        for (p, gradient) in gradients.into_iter().enumerate().take(trained) {
            for (i, mut g) in gradient.into_iter().enumerate() {
                let w = &mut self.parameters[p][i];
                let [m, v] = self.moments.each_mut().map(|all| &mut all[p][i]);
                match *optimizer {
                    Optimizer::Sgd { lr, momentum, weight_decay } => {
                        g += weight_decay * *w;
                        *m = momentum * *m + g;
                        *w -= lr * *m;
                    }
                    Optimizer::Adam { lr, betas, eps, weight_decay }
                    | Optimizer::AdamW { lr, betas, eps, weight_decay } => {
                        if matches!(optimizer, Optimizer::AdamW { .. }) {
                            *w *= 1.0 - lr * weight_decay;
                        } else {
                            g += weight_decay * *w;
                        }
                        *m = betas.0 * *m + (1.0 - betas.0) * g;
                        *v = betas.1 * *v + (1.0 - betas.1) * g * g;
                        let denominator = (*v / (1.0 - betas.1.powi(t))).sqrt() + eps;
                        *w -= lr * (*m / (1.0 - betas.0.powi(t))) / denominator;
                    }
                }
                if self.masks[p].as_ref().is_some_and(|mask| !mask[i]) {
                    *w = 0.0;
                }
            }
        }
    }
}

/// Trains network r of a problem.
pub fn train(start: &Weights, r: usize, problem: &Problem<'_>) -> Outcome {
    let config = problem.config;
    let data = &problem.data[r];
    let mut network = Reference::new(start, r, problem.embedding, data.variables(), problem.masks);
    let mut path = vec![network.parameters.clone()];
    let (mut train_loss, mut train_error, mut validation_loss) = (vec![], vec![], vec![]);
    let mut patience = config.early_stopping.map(Patience::new);
    let labels = (data.samples() * data.outputs()) as f64;
    for epoch in 0..config.epochs {
        let order: Vec<usize> = epoch_order(config.order_seed, config.first_epoch + epoch, data.samples())
            .iter()
            .map(|s| *s as usize)
            .collect();
        let (mut loss, mut wrong) = (0.0, 0);
        for batch in order.chunks(config.batch) {
            let (batch_loss, batch_wrong, gradients) = network.gradient(data, batch);
            loss += batch_loss;
            wrong += batch_wrong;
            network.update(gradients, &config.optimizer);
            path.push(network.parameters.clone());
        }
        train_loss.push(loss / labels);
        train_error.push(wrong as f64 / labels);
        if let Some(held_out) = problem.validation.get(r) {
            let all: Vec<usize> = (0..held_out.samples()).collect();
            let total = network.gradient(held_out, &all).0;
            validation_loss.push(total / (held_out.samples() * held_out.outputs()) as f64);
        }
        let watched = match config.early_stopping.map(|rule| rule.watch) {
            Some(Watch::Validation) => validation_loss[epoch as usize],
            _ => train_loss[epoch as usize],
        };
        if patience.as_mut().is_some_and(|patience| patience.update(watched)) {
            break;
        }
    }
    Outcome { network, path, train_loss, train_error, validation_loss }
}

/// The parameter buffers of network r of a stack, C0 where it has its own.
pub fn parameters(weights: &Weights, r: usize) -> Parameters<f32> {
    let one = weights.network(r);
    let [first, second]: [Layer; 2] = one.layers.try_into().unwrap();
    let c0 = one.projection.map(|projection| projection.matrix).unwrap_or_default();
    [first.weight, first.bias, second.weight, second.bias, c0]
}

/// The largest difference between an f32 network and a float64 one.
pub fn difference(ours: &Parameters<f32>, reference: &Parameters<f64>) -> f64 {
    let pairs = ours.iter().zip(reference).flat_map(|(ours, reference)| ours.iter().zip(reference));
    pairs
        .map(|(a, b)| (f64::from(*a) - b).abs())
        .fold(0.0, |worst, d| if d.is_nan() { f64::NAN } else { worst.max(d) })
}

/// A small generator for test inputs.
pub struct Lcg(pub u64);

impl Lcg {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        self.0 >> 33
    }

    /// True with the given probability in percent.
    pub fn percent(&mut self, chance: u64) -> bool {
        self.next() % 100 < chance
    }
}

/// Random data; every variable is True with the given probability in percent, and labels follow the
/// first variables with some noise.
pub fn data(samples: usize, variables: usize, outputs: usize, chance: u64, seed: u64) -> Arc<Dataset> {
    let mut random = Lcg(seed * 2 + 1);
    let x: Vec<bool> = (0..samples * variables).map(|_| random.percent(chance)).collect();
    let y: Vec<bool> = (0..samples * outputs)
        .map(|i| {
            let (sample, output) = (i / outputs, i % outputs);
            x[sample * variables + output % variables] ^ random.percent(20)
        })
        .collect();
    Arc::new(Dataset::from_bools(&x, &y, variables, outputs).unwrap())
}

/// Random masks that keep a given percentage of both layers.
pub fn masks(networks: usize, widths: &[usize], keep: u64, seed: u64) -> Masks {
    let mut random = Lcg(seed * 2 + 1);
    let layers = widths
        .windows(2)
        .map(|pair| Some((0..networks * pair[0] * pair[1]).map(|_| random.percent(keep)).collect()))
        .collect();
    Masks { layers }
}

/// The optimizers of the tests, by name.
pub fn optimizers() -> Vec<(&'static str, Optimizer)> {
    let (betas, eps) = ((0.9, 0.999), 1e-8);
    vec![
        ("Adam", Optimizer::adam(1e-3)),
        ("Adam, decay", Optimizer::Adam { lr: 2e-3, betas: (0.8, 0.99), eps: 1e-6, weight_decay: 0.05 }),
        ("AdamW", Optimizer::AdamW { lr: 1e-3, betas, eps, weight_decay: 0.1 }),
        ("SGD", Optimizer::Sgd { lr: 0.05, momentum: 0.0, weight_decay: 0.0 }),
        ("SGD, momentum", Optimizer::Sgd { lr: 0.02, momentum: 0.9, weight_decay: 0.01 }),
    ]
}

pub fn config(epochs: u32, batch: usize, optimizer: Optimizer) -> TrainConfig {
    TrainConfig {
        epochs,
        batch,
        optimizer,
        order_seed: 3,
        first_epoch: 0,
        early_stopping: None,
        snapshots: vec![],
    }
}

/// Networks of seed 11 that start behind an embedding.
pub fn start(widths: &[usize], embedding: &Embedding, variables: usize, indices: &[u64]) -> Weights {
    let start = Weights::linear_init(widths, 11, indices).unwrap();
    match embedding {
        Embedding::Projection { .. } => start.with_projection(variables, 11, indices).unwrap(),
        _ => start,
    }
}

/// The embeddings of the tests for n variables, by name.
pub fn embeddings(variables: usize) -> Vec<(&'static str, Embedding)> {
    let entry = |i: usize| (((i * 7919 + 13) % 101) as f32 / 50.5 - 1.0) / (variables as f32).sqrt();
    let matrix =
        Array2::from_shape_fn((variables + 3, variables), |(row, column)| entry(row * variables + column));
    vec![
        ("identity", Embedding::Identity),
        ("hadamard", Embedding::Hadamard { normalized: true }),
        ("hadamard-raw", Embedding::Hadamard { normalized: false }),
        ("orthogonal", Embedding::random_orthogonal(variables, 5).unwrap()),
        ("dense", Embedding::Dense(matrix)),
        ("projection, fixed", Embedding::Projection { rows: variables.div_ceil(2), trained: false }),
        ("projection, trained", Embedding::Projection { rows: variables.div_ceil(2), trained: true }),
        ("projection to 1", Embedding::Projection { rows: 1, trained: true }),
        ("square projection", Embedding::Projection { rows: variables, trained: true }),
    ]
}
