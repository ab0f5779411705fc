//! From a formula to codes: draws data, trains networks, and reads which rows compute which clause, before and after.
//!
//! `cargo run --release --example codes`

use std::sync::Arc;

use ndarray::Axis;
use precode_core::read::codes::channels;
use precode_core::read::template::Template;
use precode_core::task::formula::ClauseShape;
use precode_core::task::rng::Purpose;
use precode_core::task::sampler::Sampler;
use precode_core::train::fused::{Options, train};
use precode_core::train::{Problem, TrainConfig};
use precode_core::{Clauses, Dnf, Embedding, Error, Progress, Readout, Weights};

const VARIABLES: usize = 32;
const ROWS: usize = 32;
const NETWORKS: usize = 4;

fn main() -> Result<(), Error> {
    let shape = ClauseShape { clauses: 8, ..ClauseShape::default() };
    let task = Arc::new(Dnf::random(VARIABLES, 1, shape, 0, 0)?);
    let indices: Vec<u64> = (0..NETWORKS as u64).collect();
    let (tasks, progress) = (vec![Arc::clone(&task); NETWORKS], Progress::default());
    let data = Sampler::default().sample_all(&tasks, 20_000, 0, Purpose::Data, &indices, &progress)?;

    let config = TrainConfig { epochs: 25, ..TrainConfig::default() };
    let problem = Problem {
        data: &data,
        validation: &[],
        embedding: &Embedding::Identity,
        masks: None,
        config: &config,
    };
    let start = Weights::linear_init(&[VARIABLES, ROWS, 1], 0, &indices)?;
    let trained = train(start.clone(), &problem, Options::default(), &progress)?;

    println!(
        "{NETWORKS} networks of {ROWS} rows on {} clauses; rows that carry 4P, for each clause:",
        shape.clauses
    );
    for (moment, weights) in [("at initialization", &start), ("after training", &trained.weights)] {
        let (features, output) = (weights.features(&Embedding::Identity, VARIABLES)?, weights.output(0)?);
        let readout = Readout::new(features.view(), output.view())?;
        let clauses = Clauses::new(&[task.clauses(0)], NETWORKS, VARIABLES)?;
        let carried = channels(&readout, &clauses, "4P".parse::<Template>()?, 0.0)?;
        let carriers = carried.axis_iter(Axis(1)).map(|rows| rows.iter().filter(|&&carries| carries).count());
        let means: Vec<String> =
            carriers.map(|count| format!("{:4.1}", count as f64 / NETWORKS as f64)).collect();
        println!("{moment:18} {}", means.join(" "));
    }
    Ok(())
}
