//! Microseconds that the fused engine takes for one step of one network.
//!
//! `cargo run --release --example throughput [NETWORKS] [HIDDEN] [--projection WIDTH] [--density DENSITY]`, 128 networks
//! of 32 rows by default: 32 variables, batches of 64, Adam, 20,000 samples for each network. With `--projection`,
//! networks behind a fixed and a trained C0 of that width are measured beside them; with `--density`, networks whose
//! first layer is pruned at random. The cells take turns; the middle of seven runs of one epoch is printed.

use std::sync::Arc;
use std::time::Instant;

use precode_core::task::formula::ClauseShape;
use precode_core::task::rng::{Purpose, stream};
use precode_core::task::sampler::Sampler;
use precode_core::train::fused::{Options, train};
use precode_core::train::{Problem, TrainConfig};
use precode_core::{Dataset, Dnf, Embedding, Error, Masks, Progress, Weights};
use rand::RngExt;

const VARIABLES: usize = 32;
const SAMPLES: usize = 20_000;
const RUNS: usize = 7;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let result = Asked::read(&arguments).and_then(|asked| measure(&asked).map_err(|error| error.to_string()));
    if let Err(message) = result {
        eprintln!("throughput: {message}");
        std::process::exit(2);
    }
}

/// What the command line asks for.
struct Asked {
    networks: usize,
    hidden: usize,
    projection: Option<usize>,
    density: Option<f64>,
}

impl Asked {
    fn read(arguments: &[String]) -> Result<Self, String> {
        let mut asked = Self { networks: 128, hidden: 32, projection: None, density: None };
        let mut numbers = 0;
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            match argument.as_str() {
                "--projection" => asked.projection = Some(number(arguments.next().unwrap_or(argument))?),
                "--density" => {
                    let given = arguments.next().and_then(|text| text.parse().ok());
                    asked.density = Some(given.ok_or("--density takes a number above 0 and at most 1")?);
                }
                text => {
                    let place = [&mut asked.networks, &mut asked.hidden].into_iter().nth(numbers);
                    *place.ok_or(format!("{text}: give at most two numbers"))? = number(text)?;
                    numbers += 1;
                }
            }
        }
        Ok(asked)
    }
}

fn number(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err(format!(
            "'{text}' is no number of networks, rows or inputs: give a whole number of at least 1"
        )),
    }
}

/// Networks that are measured beside the others.
struct Cell {
    name: String,
    embedding: Embedding,
    start: Weights,
    masks: Option<Masks>,
}

fn cells(asked: &Asked, indices: &[u64]) -> Result<Vec<Cell>, Error> {
    let plain = Weights::linear_init(&[VARIABLES, asked.hidden, 1], 0, indices)?;
    let cell =
        |name: String, masks| Cell { name, embedding: Embedding::Identity, start: plain.clone(), masks };
    let mut cells = vec![cell("identity".to_owned(), None)];
    if let Some(density) = asked.density {
        let mut random = stream(0, Purpose::Mask, 0);
        let kept = plain.layers[0].weight.iter().map(|_| random.random::<f64>() < density).collect();
        cells.push(cell(format!("density {density}"), Some(Masks { layers: vec![Some(kept), None] })));
    }
    for trained in [false, true].into_iter().filter(|_| asked.projection.is_some()) {
        let rows = asked.projection.unwrap_or(VARIABLES);
        let start = Weights::linear_init(&[rows, asked.hidden, 1], 0, indices)?;
        cells.push(Cell {
            name: format!("projection {rows}, {}", if trained { "trained" } else { "fixed" }),
            embedding: Embedding::Projection { rows, trained },
            start: start.with_projection(VARIABLES, 0, indices)?,
            masks: None,
        });
    }
    Ok(cells)
}

/// Samples of a formula for each network.
fn data(indices: &[u64]) -> Result<Vec<Arc<Dataset>>, Error> {
    let task = |&index| Dnf::random(VARIABLES, 1, ClauseShape::default(), 0, index).map(Arc::new);
    let tasks = indices.iter().map(task).collect::<Result<Vec<_>, _>>()?;
    Sampler::default().sample_all(&tasks, SAMPLES, 0, Purpose::Data, indices, &Progress::default())
}

fn measure(asked: &Asked) -> Result<(), Error> {
    let indices: Vec<u64> = (0..asked.networks as u64).collect();
    let (data, cells) = (data(&indices)?, cells(asked, &indices)?);
    let config = TrainConfig { epochs: 1, ..TrainConfig::default() };
    let options = Options::default();
    let steps = asked.networks as f64 * config.steps_per_epoch(SAMPLES) as f64;
    let mut times = vec![Vec::with_capacity(RUNS); cells.len()];
    for run in 0..=RUNS {
        for (cell, times) in cells.iter().zip(&mut times) {
            let (embedding, masks) = (&cell.embedding, cell.masks.as_ref());
            let problem = Problem { data: &data, validation: &[], embedding, masks, config: &config };
            let weights = cell.start.clone();
            let began = Instant::now();
            train(weights, &problem, options, &Progress::default())?;
            // The first run warms up.
            if run > 0 {
                times.push(began.elapsed().as_secs_f64() * 1e6 / steps);
            }
        }
    }
    times.iter_mut().for_each(|times| times.sort_by(f64::total_cmp));
    for (cell, sorted) in cells.iter().zip(&times) {
        println!(
            "{} networks of {} rows, {}: {:.3} microseconds a network-step ({:.3} to {:.3}), {:.2} of the first, level {:?}",
            asked.networks,
            asked.hidden,
            cell.name,
            sorted[RUNS / 2],
            sorted[0],
            sorted[RUNS - 1],
            sorted[RUNS / 2] / times[0][RUNS / 2],
            options.resolve_level()?
        );
    }
    Ok(())
}
