//! Microseconds that the fused engine takes for one step of one network.
//!
//! `cargo run --release --example throughput [NETWORKS] [HIDDEN]`, 128 networks of 32 rows by default: 32 variables,
//! batches of 64, Adam, 20,000 samples for each network. The middle of seven runs of one epoch is printed.

use std::sync::Arc;
use std::time::Instant;

use precode_core::task::formula::ClauseShape;
use precode_core::task::rng::Purpose;
use precode_core::task::sampler::Sampler;
use precode_core::train::fused::{Options, train};
use precode_core::train::{Problem, TrainConfig};
use precode_core::{Dnf, Embedding, Error, Progress, Weights};

const VARIABLES: usize = 32;
const SAMPLES: usize = 20_000;
const RUNS: usize = 7;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = match arguments.as_slice() {
        [_, _, extra, ..] => {
            Err(format!("{extra}: give at most the number of networks and the hidden width"))
        }
        given => number(given.first(), 128)
            .and_then(|networks| Ok((networks, number(given.get(1), 32)?)))
            .and_then(|(networks, hidden)| measure(networks, hidden).map_err(|error| error.to_string())),
    };
    if let Err(message) = result {
        eprintln!("throughput: {message}");
        std::process::exit(2);
    }
}

fn number(argument: Option<&String>, usual: usize) -> Result<usize, String> {
    let Some(text) = argument else { return Ok(usual) };
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!("'{text}' is no number of networks or rows: give a whole number of at least 1")),
    }
}

fn measure(networks: usize, hidden: usize) -> Result<(), Error> {
    let indices: Vec<u64> = (0..networks as u64).collect();
    let shape = ClauseShape { clauses: 16, width: 4, negated: 0, disjoint: false };
    let tasks = indices
        .iter()
        .map(|&index| Dnf::random(VARIABLES, 1, shape, 0, index).map(Arc::new))
        .collect::<Result<Vec<_>, _>>()?;
    let sampler = Sampler::BrokenClause { true_counts: None };
    let data: Vec<_> = sampler
        .sample_all(&tasks, SAMPLES, 0, Purpose::Data, &indices, &Progress::default())?
        .into_iter()
        .map(Arc::new)
        .collect();
    let config = TrainConfig { epochs: 1, ..TrainConfig::default() };
    let problem = Problem {
        data: &data,
        validation: &[],
        embedding: &Embedding::Identity,
        masks: None,
        config: &config,
    };
    let start = Weights::linear_init(&[VARIABLES, hidden, 1], 0, &indices)?;
    let options = Options::default();
    let steps = networks as f64 * config.steps_per_epoch(SAMPLES) as f64;
    let mut times = Vec::with_capacity(RUNS);
    for _ in 0..=RUNS {
        let weights = start.clone();
        let began = Instant::now();
        train(weights, &problem, options, &Progress::default())?;
        times.push(began.elapsed().as_secs_f64() * 1e6 / steps);
    }
    times.remove(0); // The first run warms up.
    times.sort_by(f64::total_cmp);
    println!(
        "{networks} networks of {hidden} rows: {:.3} microseconds a network-step ({:.3} to {:.3}), level {:?}",
        times[RUNS / 2],
        times[0],
        times[RUNS - 1],
        options.resolve_level()?
    );
    Ok(())
}
