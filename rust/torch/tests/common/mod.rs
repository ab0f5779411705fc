//! Small problems, and training written plainly: one network at a time, tch autograd, the formulas
//! of torch.optim's documentation.
#![allow(dead_code, missing_docs)]

use std::sync::Arc;

use ndarray::Array2;
use precode_core::Progress;
use precode_core::train::{EarlyStopping, Optimizer, Problem, TrainConfig, Trained, epoch_order};
use precode_core::{Dataset, Embedding, Masks, Weights};
use precode_torch::methods::{Objective, StackObjective};
use precode_torch::{Choice, Engine, Libtorch, Stack};
use tch::{Device, Kind, Tensor};

/// A stream of reproducible numbers (splitmix64).
pub struct Random(pub u64);

impl Random {
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub fn bools(&mut self, count: usize, out_of: u64) -> Vec<bool> {
        (0..count).map(|_| self.next().is_multiple_of(out_of)).collect()
    }
}

/// Sparse random inputs; label o says whether variables o and o + 1 differ, with some noise.
pub fn dataset(seed: u64, samples: usize, variables: usize, outputs: usize) -> Arc<Dataset> {
    let mut random = Random(seed);
    let x = random.bools(samples * variables, 3);
    let y: Vec<bool> = (0..samples * outputs)
        .map(|i| {
            let (row, output) = (&x[i / outputs * variables..], i % outputs);
            (row[output] != row[output + 1]) != (random.next().is_multiple_of(10))
        })
        .collect();
    Arc::new(Dataset::from_bools(&x, &y, variables, outputs).unwrap())
}

pub fn adam() -> Optimizer {
    Optimizer::adam(1e-2)
}

pub fn config(optimizer: Optimizer) -> TrainConfig {
    TrainConfig {
        epochs: 2,
        batch: 16,
        optimizer,
        order_seed: 5,
        first_epoch: 0,
        early_stopping: None,
        snapshots: vec![],
    }
}

/// Everything a problem borrows.
pub struct Case {
    pub weights: Weights,
    pub data: Vec<Arc<Dataset>>,
    pub validation: Vec<Arc<Dataset>>,
    pub embedding: Embedding,
    pub masks: Option<Masks>,
    pub config: TrainConfig,
}

impl Case {
    /// `networks` networks of the given hidden widths on 8 variables, each with data of its own.
    pub fn new(networks: usize, hidden: &[usize], outputs: usize, config: TrainConfig) -> Self {
        // The tests run side by side; threads for such small tensors would only wait for each other.
        tch::set_num_threads(1);
        let widths: Vec<usize> = [8].iter().chain(hidden).chain(&[outputs]).copied().collect();
        let indices: Vec<u64> = (0..networks as u64).collect();
        Self {
            weights: Weights::linear_init(&widths, 1, &indices).unwrap(),
            data: indices.iter().map(|i| dataset(100 + i, 100, 8, outputs)).collect(),
            validation: vec![],
            embedding: Embedding::Identity,
            masks: None,
            config,
        }
    }

    /// The networks of the case behind another embedding, drawn anew.
    pub fn behind(mut self, embedding: Embedding) -> Self {
        let mut widths = self.widths();
        widths[0] = embedding.rows(8);
        let indices: Vec<u64> = (0..self.weights.networks as u64).collect();
        self.weights = Weights::linear_init(&widths, 1, &indices).unwrap();
        if matches!(embedding, Embedding::Projection { .. }) {
            self.weights = self.weights.with_projection(8, 1, &indices).unwrap();
        }
        self.embedding = embedding;
        self
    }

    pub fn widths(&self) -> Vec<usize> {
        self.weights.widths()
    }

    pub fn problem(&self) -> Problem<'_> {
        Problem {
            data: &self.data,
            validation: &self.validation,
            embedding: &self.embedding,
            masks: self.masks.as_ref(),
            config: &self.config,
        }
    }

    /// Network `r` of the case, alone.
    pub fn alone(&self, r: usize) -> Self {
        let masks = self.masks.as_ref().map(|masks| Masks {
            layers: masks
                .layers
                .iter()
                .map(|mask| {
                    mask.as_ref().map(|mask| {
                        let size = mask.len() / self.weights.networks;
                        mask[r * size..][..size].to_vec()
                    })
                })
                .collect(),
        });
        Self {
            weights: self.weights.network(r),
            data: vec![Arc::clone(&self.data[r])],
            validation: self.validation.get(r).map(Arc::clone).into_iter().collect(),
            embedding: self.embedding.clone(),
            masks,
            config: self.config.clone(),
        }
    }

    pub fn train(&self, kind: Kind) -> Trained<Stack> {
        self.train_on(kind, Device::Cpu)
    }

    pub fn train_on(&self, kind: Kind, device: Device) -> Trained<Stack> {
        let start = Stack::from_weights(&self.weights, kind, device).unwrap();
        Libtorch { kind, device }.train(&start, &self.problem(), &Progress::default()).unwrap()
    }

    /// Masks out about a third of the weights of every layer.
    pub fn mask_randomly(&mut self) {
        let mut random = Random(9);
        let mask = |length: usize| (0..length).map(|_| !random.next().is_multiple_of(3)).collect();
        self.masks = Some(Masks {
            layers: self.weights.layers.iter().map(|layer| layer.weight.len()).map(mask).map(Some).collect(),
        });
    }
}

pub fn every_optimizer() -> Vec<Optimizer> {
    let betas = (0.8, 0.95);
    vec![
        Optimizer::adam(1e-3),
        Optimizer::Adam { lr: 1e-2, betas, eps: 1e-6, weight_decay: 0.01 },
        Optimizer::AdamW { lr: 1e-2, betas, eps: 1e-8, weight_decay: 0.1 },
        Optimizer::Sgd { lr: 0.1, momentum: 0.0, weight_decay: 0.0 },
        Optimizer::Sgd { lr: 0.1, momentum: 0.9, weight_decay: 0.01 },
    ]
}

pub fn every_embedding() -> Vec<Embedding> {
    let rectangular = Array2::from_shape_fn((5, 8), |(row, v)| ((row * 8 + v) as f32 * 0.7).sin());
    vec![
        Embedding::Identity,
        Embedding::Hadamard { normalized: true },
        Embedding::Hadamard { normalized: false },
        Embedding::random_orthogonal(8, 3).unwrap(),
        Embedding::Dense(rectangular),
        Embedding::Projection { rows: 5, trained: false },
        Embedding::Projection { rows: 5, trained: true },
    ]
}

pub fn stopping(patience: u32, watch: precode_core::train::Watch) -> Option<EarlyStopping> {
    Some(EarlyStopping { patience, min_delta: 0.0, watch })
}

/// Embedded inputs (samples, rows) of a data set; as they are where each network has its own C0.
pub fn embedded(data: &Dataset, embedding: &Embedding, kind: Kind) -> Tensor {
    let (samples, variables) = (data.samples() as i64, data.variables() as i64);
    let x = Tensor::from_slice(&data.unpack_inputs()).view([samples, variables]).to_kind(kind);
    if matches!(embedding, Embedding::Projection { .. }) {
        return x;
    }
    let matrix = embedding.matrix(data.variables()).unwrap();
    let matrix = Tensor::from_slice(matrix.as_slice().unwrap()).to_kind(kind);
    x.matmul(&matrix.view([-1, variables]).transpose(0, 1))
}

pub fn labels(data: &Dataset, kind: Kind) -> Tensor {
    Tensor::from_slice(&data.unpack_labels()).view([data.samples() as i64, -1]).to_kind(kind)
}

/// Logits of one network whose parameters are `[w1, b1, w2, ..]`, and C0 where it has its own.
pub fn logits(parameters: &[Tensor], x: &Tensor) -> Tensor {
    let (layers, c0) = parameters.as_chunks::<2>();
    let mut h = match c0 {
        [c0] => x.matmul(&c0.transpose(0, 1)),
        _ => x.shallow_clone(),
    };
    for (i, layer) in layers.iter().enumerate() {
        h = h.matmul(&layer[0].transpose(0, 1)) + &layer[1];
        if i + 1 < layers.len() {
            h = h.relu();
        }
    }
    h
}

pub fn loss(logits: &Tensor, labels: &Tensor) -> Tensor {
    logits.binary_cross_entropy_with_logits::<Tensor>(labels, None, None, tch::Reduction::Mean)
}

/// The parameters `[w1, b1, w2, ..]` of network `r`, and C0 where it has its own, in the given kind.
pub fn parameters(stack: &Stack, r: i64, kind: Kind) -> Vec<Tensor> {
    let pairs = stack.layers.iter().flat_map(|(weight, bias)| [weight.get(r), bias.get(r)]);
    let tensors = pairs.chain(stack.projection.iter().map(|c0| c0.get(r)));
    tensors.map(|tensor| tensor.copy().to_kind(kind).to_device(Device::Cpu)).collect()
}

/// Trains network `r` of the case alone for `steps` steps; its parameters `[w1, b1, w2, ..]`.
pub fn plainly(case: &Case, r: usize, kind: Kind, steps: usize) -> Vec<Tensor> {
    let start = Stack::from_weights(&case.weights, kind, Device::Cpu).unwrap();
    let mut weights = parameters(&start, r as i64, kind);
    let masks: Vec<Option<Tensor>> = (0..weights.len())
        .map(|i| {
            let mask = case.masks.as_ref()?.layers.get(i / 2)?.as_ref().filter(|_| i % 2 == 0)?;
            let (size, shape) = (weights[i].numel(), weights[i].size());
            Some(Tensor::from_slice(&mask[r * size..][..size]).view(shape.as_slice()).to_kind(kind))
        })
        .collect();
    for (weight, mask) in weights.iter_mut().zip(&masks) {
        if let Some(mask) = mask {
            *weight *= mask;
        }
    }
    let x = embedded(&case.data[r], &case.embedding, kind);
    let y = labels(&case.data[r], kind);
    let mut first: Vec<Tensor> = weights.iter().map(|weight| weight.zeros_like()).collect();
    let mut second: Vec<Tensor> = weights.iter().map(|weight| weight.zeros_like()).collect();
    let mut step = 0;
    for epoch in 0..case.config.epochs {
        let order =
            epoch_order(case.config.order_seed, case.config.first_epoch + epoch, case.data[r].samples());
        for batch in order.chunks(case.config.batch) {
            if step == steps {
                return weights;
            }
            step += 1;
            let rows = Tensor::from_slice(&batch.iter().map(|&i| i64::from(i)).collect::<Vec<_>>());
            let leaves: Vec<Tensor> = weights.iter().map(|w| w.detach().set_requires_grad(true)).collect();
            let loss = loss(&logits(&leaves, &x.index_select(0, &rows)), &y.index_select(0, &rows));
            let gradients = Tensor::run_backward(&[loss], &leaves, false, false);
            // A C0 that is not trained comes last.
            let fixed = matches!(case.embedding, Embedding::Projection { trained: false, .. });
            for i in 0..weights.len() - usize::from(fixed) {
                let gradient = match &masks[i] {
                    Some(mask) => &gradients[i] * mask,
                    None => gradients[i].shallow_clone(),
                };
                weights[i] = update(
                    case.config.optimizer,
                    &weights[i],
                    gradient,
                    &mut first[i],
                    &mut second[i],
                    step as i32,
                );
            }
        }
    }
    assert_eq!(step, steps, "the case trains for {step} steps");
    weights
}

fn update(
    rule: Optimizer,
    weight: &Tensor,
    gradient: Tensor,
    m: &mut Tensor,
    v: &mut Tensor,
    step: i32,
) -> Tensor {
    let mut adam = |weight: Tensor, gradient: &Tensor, lr: f64, betas: (f64, f64), eps: f64| {
        *m = &*m * betas.0 + gradient * (1.0 - betas.0);
        *v = &*v * betas.1 + gradient * gradient * (1.0 - betas.1);
        let m_hat = &*m / (1.0 - betas.0.powi(step));
        let v_hat = &*v / (1.0 - betas.1.powi(step));
        weight - m_hat * lr / (v_hat.sqrt() + eps)
    };
    match rule {
        Optimizer::Adam { lr, betas, eps, weight_decay } => {
            let gradient = gradient + weight * weight_decay;
            adam(weight.shallow_clone(), &gradient, lr, betas, eps)
        }
        Optimizer::AdamW { lr, betas, eps, weight_decay } => {
            adam(weight * (1.0 - lr * weight_decay), &gradient, lr, betas, eps)
        }
        Optimizer::Sgd { lr, momentum, weight_decay } => {
            *m = &*m * momentum + gradient + weight * weight_decay;
            weight - &*m * lr
        }
    }
}

/// Largest difference of network `r` from reference parameters, relative to the largest entry of each tensor.
pub fn distance(stack: &Stack, r: usize, reference: &[Tensor]) -> f64 {
    let ours = parameters(stack, r as i64, Kind::Double);
    assert_eq!(ours.len(), reference.len());
    let difference = |(a, b): (&Tensor, &Tensor)| {
        let b = b.to_kind(Kind::Double);
        ((a - &b).abs().max() / b.abs().max()).double_value(&[])
    };
    ours.iter().zip(reference).map(difference).fold(0.0, f64::max)
}

pub fn assert_same_bits(a: &Stack, b: &Stack) {
    assert_eq!(a.to_weights().unwrap(), b.to_weights().unwrap());
}

/// What the networks of a case, as a stack of the given kind, answer to ticket methods.
pub fn with<T>(
    case: &Case,
    kind: Kind,
    prunable: &str,
    ask: impl FnOnce(&mut StackObjective, &Progress) -> T,
) -> T {
    let start = Stack::from_weights(&case.weights, kind, Device::Cpu).unwrap();
    let progress = Progress::default();
    let mut objective =
        StackObjective::new(&start, case.problem(), Choice::Auto, prunable, &progress).unwrap();
    ask(&mut objective, &progress)
}

/// theta_0.
pub fn initial(objective: &StackObjective) -> Vec<Tensor> {
    objective.parameters().iter().map(|parameter| parameter.initial.shallow_clone()).collect()
}
