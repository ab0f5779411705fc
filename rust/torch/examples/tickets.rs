//! Finds lottery tickets by three methods, trains them, and compares them with their dense networks.
//!
//! `cargo run --release --example tickets [DENSITY]`, an eighth of the first layer's weights by default.

use std::sync::Arc;

use precode_core::task::formula::ClauseShape;
use precode_core::task::rng::Purpose;
use precode_core::task::sampler::Sampler;
use precode_core::ticket::mask::Density;
use precode_core::train::{Problem, TrainConfig};
use precode_core::{Dnf, Embedding, Progress, Weights};
use precode_torch::methods::{Method, Objective, Plan, Request, StackObjective};
use precode_torch::{Choice, Result, Stack, evaluate};
use tch::{Device, Kind, Tensor};

const METHODS: [&str; 3] = ["random", "snip", "magnitude"];

fn main() {
    let density = match std::env::args().nth(1) {
        None => Ok(0.125),
        Some(text) => text.parse().map_err(|_| format!("'{text}' is no density: give a number in (0, 1]")),
    };
    if let Err(message) = density.and_then(|density| compare(density).map_err(|error| error.to_string())) {
        eprintln!("tickets: {message}");
        std::process::exit(2);
    }
}

fn compare(density: f64) -> Result<()> {
    let (progress, networks) = (Progress::default(), 8);
    let density = [Density::new(density)?];
    let indices: Vec<u64> = (0..networks).collect();
    let shape = ClauseShape { clauses: 8, ..ClauseShape::default() };
    let task = |&index| Dnf::random(32, 1, shape, 0, index).map(Arc::new);
    let tasks = indices.iter().map(task).collect::<std::result::Result<Vec<_>, _>>()?;
    let sampler = Sampler::default();
    let data = sampler.sample_all(&tasks, 20_000, 0, Purpose::Data, &indices, &progress)?;
    let test = sampler.sample_all(&tasks, 10_000, 0, Purpose::Test, &indices, &progress)?;
    let config = TrainConfig { epochs: 25, early_stopping: None, ..TrainConfig::default() };
    let embedding = Embedding::Identity;
    let problem =
        Problem { data: &data, validation: &[], embedding: &embedding, masks: None, config: &config };
    let start =
        Stack::from_weights(&Weights::linear_init(&[32, 32, 1], 0, &indices)?, Kind::Float, Device::Cpu)?;
    let accuracy = |values: &[Tensor]| -> Result<f64> {
        let layers = values.chunks_exact(2).map(|pair| (pair[0].shallow_clone(), pair[1].shallow_clone()));
        let stack = Stack { layers: layers.collect(), projection: None };
        let error = evaluate(&stack, &test, &embedding, &progress)?.error;
        Ok(1.0 - error.iter().sum::<f64>() / error.len() as f64)
    };
    for (number, name) in METHODS.into_iter().enumerate() {
        let mut objective = StackObjective::new(&start, problem, Choice::Auto, "w1", &progress)?;
        if number == 0 {
            println!("{:10} accuracy {:.3}", "dense", accuracy(&objective.dense()?)?);
        }
        let request = Request::new(&density, &indices, &progress);
        let found = name.parse::<Method>()?.find(&mut objective, &request)?;
        let initial: Vec<Tensor> =
            objective.parameters().iter().map(|parameter| parameter.initial.shallow_clone()).collect();
        let plan = Plan { masks: Some(&found.masks[0]), ..Plan::new(&initial) };
        println!("{name:10} accuracy {:.3}", accuracy(&objective.train(&plan)?.parameters)?);
    }
    Ok(())
}
