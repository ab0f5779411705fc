//! Networks so small that every mask can be tried.

use precode_core::Progress;
use precode_core::task::rng::{Purpose, stream};
use precode_core::ticket::mask::{Density, Granularity, Scope};
use precode_torch::Result;
use precode_torch::methods::{
    Batch, FeaturePair, Found, Objective, Outcome, Parameter, Plan, Record, Request, all,
};
use rand::RngExt;
use tch::{Device, Kind, Tensor};

/// Weights of the two prunable parameters, and of all parameters.
pub const PRUNABLE: usize = 10;
pub const ALL: usize = 11;
pub const OPTIONS: (Kind, Device) = (Kind::Double, Device::Cpu);

/// R linear regressions: loss (theta - best)' H (theta - best) / 2 for theta = (2 x 3 weights, a bias that
/// is not pruned, 4 weights).
pub struct Regressions {
    pub parameters: Vec<Parameter>,
    /// (R, ALL, ALL).
    pub hessian: Tensor,
    /// (R, ALL, 1).
    pub best: Tensor,
    pub epochs: u32,
    /// What gradients were asked at, as (R, ALL).
    pub asked: Vec<Tensor>,
    /// Cancels it at the tenth gradient.
    pub cancels: Option<&'static Progress>,
}

pub fn numbers(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.reshape([-1])).unwrap()
}

pub fn joined(tensors: &[Tensor]) -> Tensor {
    let rows = tensors[0].size()[0];
    Tensor::cat(&tensors.iter().map(|tensor| tensor.reshape([rows, -1])).collect::<Vec<_>>(), 1)
}

/// The weights of (R, PRUNABLE) and the bias in the order of the parameters.
pub fn with_bias(weights: &Tensor, bias: &Tensor) -> Tensor {
    Tensor::cat(&[weights.narrow(1, 0, 6), bias.shallow_clone(), weights.narrow(1, 6, 4)], 1)
}

impl Regressions {
    /// The regressions of the given numbers; `best` is near a part of the initial weights.
    pub fn new(numbers: &[u64], kind: Kind) -> Self {
        let (mut initial, mut hessian, mut best) = (vec![], vec![], vec![]);
        for &number in numbers {
            let mut rng = stream(77, Purpose::Data, number);
            let mut draw = |count: usize| -> Tensor {
                Tensor::from_slice(&(0..count).map(|_| rng.random_range(-1.0..1.0)).collect::<Vec<f64>>())
            };
            let theta = draw(ALL);
            let inputs = draw(40 * ALL).view([40, ALL as i64]);
            hessian.push(inputs.transpose(0, 1).matmul(&inputs) * (0.3 / 40.0));
            best.push((&theta * (draw(ALL) * 0.7 + 0.5)).unsqueeze(1));
            initial.push(theta);
        }
        let initial = Tensor::stack(&initial, 0).to_kind(kind);
        let parameter = |name: &str, from: i64, size: &[i64], prunable: bool| {
            let length = size.iter().product();
            let size: Vec<i64> = [numbers.len() as i64].iter().chain(size).copied().collect();
            let initial = initial.narrow(1, from, length).contiguous().view(size.as_slice());
            Parameter { name: name.into(), initial, prunable }
        };
        Self {
            parameters: vec![
                parameter("w1", 0, &[2, 3], true),
                parameter("b1", 6, &[1], false),
                parameter("w2", 7, &[4], true),
            ],
            hessian: Tensor::stack(&hessian, 0),
            best: Tensor::stack(&best, 0),
            epochs: 30,
            asked: vec![],
            cancels: None,
        }
    }

    pub fn initial(&self) -> Tensor {
        let tensors: Vec<Tensor> = self.parameters.iter().map(|p| p.initial.shallow_clone()).collect();
        joined(&tensors).to_kind(Kind::Double)
    }

    /// The loss of each network at theta (R, ALL), in any grad mode.
    pub fn losses(&self, theta: &Tensor) -> Tensor {
        let away = theta.unsqueeze(2) - &self.best;
        (away.transpose(1, 2).matmul(&self.hessian).matmul(&away) * 0.5).reshape([-1])
    }

    /// The losses of each network under a mask (R or 1, PRUNABLE), at theta_0 or at the best values that the
    /// mask allows.
    fn losses_under(&self, mask: &Tensor, trained: bool) -> Vec<f64> {
        let mask = mask.to_kind(Kind::Double).expand([self.best.size()[0], PRUNABLE as i64], false);
        let mask = with_bias(&mask, &Tensor::ones([self.best.size()[0], 1], OPTIONS));
        let theta = if trained {
            // Rows and columns that are masked become those of the identity.
            let (rows, columns) = (mask.unsqueeze(2), mask.unsqueeze(1));
            let matrix = &self.hessian * &rows * columns + Tensor::diag_embed(&(1.0 - &mask), 0, -2, -1);
            let wanted = self.hessian.matmul(&self.best) * rows;
            Tensor::linalg_solve(&matrix, &wanted, true).squeeze_dim(2)
        } else {
            self.initial() * mask
        };
        Vec::try_from(self.losses(&theta)).unwrap()
    }

    /// How the loss of each network under the masks found compares with that under all masks of as many
    /// weights: the fraction of them that are better; the excess over the best, where the mean mask has 1.
    pub fn compare(&self, found: &[Tensor], kept: u32, trained: bool) -> Vec<(f64, f64)> {
        let ours = self.losses_under(&joined(found), trained);
        let all: Vec<Vec<f64>> = (0u32..1 << PRUNABLE)
            .filter(|bits| bits.count_ones() == kept)
            .map(|bits| {
                let mask: Vec<bool> = (0..PRUNABLE).map(|i| bits >> i & 1 == 1).collect();
                self.losses_under(&Tensor::from_slice(&mask), trained)
            })
            .collect();
        let number = all.len() as f64;
        ours.iter()
            .enumerate()
            .map(|(network, &loss)| {
                let losses = || all.iter().map(|losses| losses[network]);
                let (best, mean) = (losses().fold(f64::INFINITY, f64::min), losses().sum::<f64>() / number);
                let better = losses().filter(|other| *other < loss - 1e-6).count() as f64;
                (better / number, (loss - best) / (mean - best))
            })
            .collect()
    }
}

impl Objective for Regressions {
    fn parameters(&self) -> &[Parameter] {
        &self.parameters
    }

    fn steps_per_epoch(&self) -> u64 {
        20
    }

    fn epochs(&self) -> u32 {
        self.epochs
    }

    fn gradient(&mut self, at: &[Tensor], batch: Batch) -> Result<Vec<Tensor>> {
        assert_eq!(batch, Batch::Step(self.asked.len() as u64 % (20 * u64::from(self.epochs))));
        let theta = joined(at).to_kind(Kind::Double);
        // Plain sums, so that a network's bits do not depend on the others.
        let (hessian, away) = (numbers(&self.hessian), numbers(&(theta.unsqueeze(2) - &self.best)));
        let products = hessian.chunks(ALL).enumerate().map(|(row, hessian)| {
            let away = &away[row / ALL * ALL..][..ALL];
            hessian.iter().zip(away).map(|(a, b)| a * b).sum::<f64>()
        });
        let gradient = Tensor::from_slice(&products.collect::<Vec<_>>()).view([-1, ALL as i64]);
        self.asked.push(theta);
        if let Some(progress) = self.cancels.filter(|_| self.asked.len() == 10) {
            progress.cancel();
        }
        let mut start = 0;
        Ok(at
            .iter()
            .map(|tensor| {
                let length: i64 = tensor.size()[1..].iter().product();
                start += length;
                let part = gradient.narrow(1, start - length, length);
                part.reshape(tensor.size()).to_kind(tensor.kind())
            })
            .collect())
    }

    fn curvature(&mut self, _: &[Tensor], _: f64) -> Result<Vec<Tensor>> {
        unreachable!("a learned mask asks for gradients alone")
    }

    fn flow(&mut self, _: Vec<Tensor>) -> Result<Vec<Tensor>> {
        unreachable!("a learned mask asks for gradients alone")
    }

    fn dense(&mut self) -> Result<Vec<Tensor>> {
        unreachable!("a learned mask needs no dense run")
    }

    fn dense_at(&mut self, _: &[u64]) -> Result<Vec<Vec<Tensor>>> {
        unreachable!("a learned mask needs no dense run")
    }

    fn train(&mut self, _: &Plan) -> Result<Outcome> {
        unreachable!("a learned mask asks for gradients alone")
    }

    fn features(&self) -> Option<&FeaturePair> {
        None
    }
}

/// What the tests vary in a request.
pub struct Ask<'a> {
    pub densities: &'a [f64],
    pub streams: &'a [u64],
    pub scope: Scope,
    pub granularity: Granularity,
    pub invert: bool,
}

impl<'a> Ask<'a> {
    pub fn new(densities: &'a [f64], streams: &'a [u64]) -> Self {
        Self { densities, streams, scope: Scope::Global, granularity: Granularity::Weight, invert: false }
    }

    pub fn find(&self, record: &Record, objective: &mut Regressions) -> Result<Found> {
        let densities: Vec<Density> = self.densities.iter().map(|&d| Density::new(d).unwrap()).collect();
        let idle = Progress::default();
        let request = Request {
            granularity: self.granularity,
            scope: self.scope,
            invert: self.invert,
            seed: 3,
            ..Request::new(&densities, self.streams, objective.cancels.unwrap_or(&idle))
        };
        (record.find)(objective, &request)
    }
}

/// The methods that learn a mask.
pub const LEARNED: [&str; 3] = ["edge-popup", "gem-miner", "continuous-sparsification"];

pub fn record(name: &str) -> &'static Record {
    all().iter().find(|record| record.name == name).unwrap()
}

pub fn bits(mask: &Tensor) -> Vec<bool> {
    Vec::try_from(mask.reshape([-1])).unwrap()
}
