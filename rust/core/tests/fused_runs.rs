//! What the fused engine promises about runs: same bits, stopping, snapshots, refusals, interruption.

mod fused_reference;

use std::sync::Arc;
use std::time::{Duration, Instant};

use fused_reference::{config, data, masks, optimizers, parameters};
use precode_core::Progress;
use precode_core::cpu::Kernels;
use precode_core::train::fused::{
    MAX_HIDDEN, Options, evaluate, learn_scores, memory_bytes, supports, train,
};
use precode_core::train::scores::{ScoreRule, ScoreStep, Scores};
use precode_core::train::{EarlyStopping, Optimizer, Problem, TrainConfig, Trained, Watch};
use precode_core::{Dataset, Embedding, Error, Masks, Weights};

fn run(start: &Weights, problem: &Problem<'_>, options: Options) -> Trained {
    train(start.clone(), problem, options, &Progress::default()).unwrap()
}

fn problem<'a>(data: &'a [Arc<Dataset>], config: &'a TrainConfig) -> Problem<'a> {
    Problem { data, validation: &[], embedding: &Embedding::Identity, masks: None, config }
}

/// Bits of a history: NaN equals NaN.
fn bits(values: &[f64]) -> Vec<u64> {
    values.iter().map(|x| x.to_bits()).collect()
}

#[test]
fn same_bits_for_any_threads_and_any_stack() {
    same_bits(&Embedding::Identity);
    same_bits(&Embedding::Projection { rows: 9, trained: true });
}

fn same_bits(embedding: &Embedding) {
    let widths = [embedding.rows(20), 40, 1];
    let data: Vec<_> = (0..7).map(|seed| data(300, 20, 1, 20, seed)).collect();
    let all: Vec<u64> = (0..7).collect();
    let start = fused_reference::start(&widths, embedding, 20, &all);
    let masks = masks(7, &widths, 50, 2);
    let mut config = config(6, 64, Optimizer::adam(3e-3));
    config.snapshots = vec![0, 5, 17];
    config.early_stopping = Some(EarlyStopping { patience: 1, min_delta: 1e-3, watch: Watch::Validation });
    let problem = Problem { data: &data, validation: &data, embedding, masks: Some(&masks), config: &config };
    for level in Kernels::Fused.available() {
        let options = |threads| Options { level: Some(level), threads };
        let expected = run(&start, &problem, options(None));
        for threads in [1, 2, 5] {
            let again = run(&start, &problem, options(Some(threads)));
            assert_eq!(again.weights, expected.weights, "{level}, {threads} threads");
            assert_eq!(again.snapshots, expected.snapshots);
            assert_eq!(bits(&again.history.train_loss), bits(&expected.history.train_loss));
            assert_eq!(bits(&again.history.validation_loss), bits(&expected.history.validation_loss));
        }
        for chosen in [vec![3], vec![6, 0], vec![2, 3, 4]] {
            let pick: Vec<_> = chosen.iter().map(|r| data[*r].clone()).collect();
            let layers = masks.layers.iter().map(|mask| {
                let mask = mask.as_ref().unwrap();
                let size = mask.len() / 7;
                Some(chosen.iter().flat_map(|r| mask[r * size..][..size].to_vec()).collect())
            });
            let masks = Masks { layers: layers.collect() };
            let problem = Problem { data: &pick, validation: &pick, masks: Some(&masks), ..problem };
            let indices: Vec<u64> = chosen.iter().map(|r| *r as u64).collect();
            let part =
                run(&fused_reference::start(&widths, embedding, 20, &indices), &problem, options(None));
            for (at, r) in chosen.iter().enumerate() {
                assert_eq!(
                    parameters(&part.weights, at),
                    parameters(&expected.weights, *r),
                    "{level}, network {r}"
                );
                for (ours, theirs) in part.snapshots.iter().zip(&expected.snapshots) {
                    assert_eq!(parameters(ours, at), parameters(theirs, *r));
                }
                let epochs = config.epochs as usize;
                let row = |history: &[f64], r: usize| bits(&history[r * epochs..][..epochs]);
                assert_eq!(row(&part.history.train_loss, at), row(&expected.history.train_loss, *r));
                assert_eq!(part.history.epochs_run[at], expected.history.epochs_run[*r]);
            }
        }
    }
}

#[test]
fn early_stopping_is_that_of_the_reference() {
    let data: Vec<_> = (0..6).map(|seed| data(100, 10, 1, 30, seed)).collect();
    let validation: Vec<_> = (0..6).map(|seed| fused_reference::data(90, 10, 1, 30, seed + 50)).collect();
    let start = Weights::linear_init(&[10, 20, 1], 9, &[0, 1, 2, 3, 4, 5]).unwrap();
    for watch in [Watch::Train, Watch::Validation] {
        let mut config = config(40, 16, Optimizer::adam(1e-2));
        config.early_stopping = Some(EarlyStopping { patience: 2, min_delta: 2e-3, watch });
        config.snapshots = vec![0, 10, 40 * 7];
        let problem = Problem { validation: &validation, ..problem(&data, &config) };
        let progress = Progress::default();
        let trained = train(start.clone(), &problem, Options::default(), &progress).unwrap();
        let history = &trained.history;
        assert_eq!(
            progress.done(),
            history.epochs_run.iter().map(|epochs| u64::from(*epochs) * 7).sum::<u64>()
        );
        assert!(history.epochs_run.iter().any(|epochs| *epochs < 40), "nothing stopped");
        for r in 0..6 {
            let reference = fused_reference::train(&start, r, &problem);
            let ran = history.epochs_run[r] as usize;
            assert_eq!(ran, reference.train_loss.len(), "network {r}");
            for epoch in 0..40 {
                let at = r * 40 + epoch;
                if epoch < ran {
                    assert!((history.train_loss[at] - reference.train_loss[epoch]).abs() < 1e-4);
                    assert!((history.validation_loss[at] - reference.validation_loss[epoch]).abs() < 1e-4);
                } else {
                    assert!(history.train_loss[at].is_nan() && history.train_error[at].is_nan());
                    assert!(history.validation_loss[at].is_nan());
                }
            }
            assert_eq!(parameters(&trained.snapshots[0], r), parameters(&start, r));
            assert_ne!(parameters(&trained.snapshots[1], r), parameters(&trained.weights, r));
            assert_eq!(parameters(&trained.snapshots[2], r), parameters(&trained.weights, r));
        }
    }
}

#[test]
fn no_epochs_leave_the_masked_start() {
    let data = vec![data(10, 6, 1, 50, 0)];
    let start = Weights::linear_init(&[6, 4, 1], 0, &[0]).unwrap();
    let masks = masks(1, &[6, 4, 1], 50, 0);
    let mut config = config(0, 4, Optimizer::adam(1e-3));
    config.snapshots = vec![0];
    let trained =
        run(&start, &Problem { masks: Some(&masks), ..problem(&data, &config) }, Options::default());
    assert_eq!(trained.weights, trained.snapshots[0]);
    for ((w, before), kept) in trained.weights.layers[0]
        .weight
        .iter()
        .zip(&start.layers[0].weight)
        .zip(masks.layers[0].as_ref().unwrap())
    {
        assert_eq!(*w, if *kept { *before } else { 0.0 });
    }
    assert!(trained.history.train_loss.is_empty());
}

#[test]
fn dead_rows_and_empty_samples_leave_finite_weights() {
    let empty = Arc::new(Dataset::zeros(70, 8, 1).unwrap());
    let data = vec![empty, data(70, 8, 1, 100, 1), data(70, 8, 1, 30, 2)];
    let mut start = Weights::linear_init(&[8, 20, 1], 0, &[0, 1, 2]).unwrap();
    for (i, bias) in start.layers[0].bias.iter_mut().enumerate() {
        if i % 3 == 0 {
            *bias = -100.0;
        }
    }
    for (_, optimizer) in optimizers() {
        for level in Kernels::Fused.available() {
            let config = config(30, 32, optimizer);
            let options = Options { level: Some(level), threads: None };
            let trained = run(&start, &problem(&data, &config), options);
            let values =
                trained.weights.layers.iter().flat_map(|layer| layer.weight.iter().chain(&layer.bias));
            assert!(values.clone().all(|w| w.is_finite()), "{optimizer:?} at {level}");
            assert!(trained.history.train_loss.iter().all(|loss| loss.is_finite()));
        }
    }
}

#[test]
fn a_diverging_network_is_not_reported_as_perfect() {
    let data: Vec<_> = (0..3).map(|seed| data(200, 12, 1, 30, seed)).collect();
    let start = Weights::linear_init(&[12, 20, 1], 0, &[0, 1, 2]).unwrap();
    let masks = masks(3, &[12, 20, 1], 50, 3);
    let mut config = config(9, 32, Optimizer::Sgd { lr: 1e30, momentum: 0.0, weight_decay: 0.0 });
    for watch in [Watch::Train, Watch::Validation] {
        config.early_stopping = Some(EarlyStopping { patience: 3, min_delta: 0.0, watch });
        for masks in [None, Some(&masks)] {
            for level in Kernels::Fused.available() {
                let problem = Problem { validation: &data, masks, ..problem(&data, &config) };
                let options = Options { level: Some(level), threads: None };
                let Trained { weights, history, .. } = run(&start, &problem, options);
                assert!(
                    weights.layers[1].bias.iter().all(|bias| bias.is_nan()),
                    "{level}: the case should diverge"
                );
                // No NaN is ever the best loss, so patience ends after its own number of epochs.
                assert_eq!(history.epochs_run, [3; 3], "{level}");
                for r in 0..3 {
                    for epoch in 0..3 {
                        assert!(history.train_loss[r * 9 + epoch].is_nan(), "{level}, epoch {epoch}");
                        assert!(history.validation_loss[r * 9 + epoch].is_nan(), "{level}, epoch {epoch}");
                    }
                    assert_eq!(history.train_error[r * 9 + 2], 1.0, "{level}: NaN is no prediction");
                }
                let after =
                    evaluate(&weights, &data, &Embedding::Identity, options, &Progress::default()).unwrap();
                assert!(after.loss.iter().all(|loss| loss.is_nan()), "{level}");
                assert_eq!(after.error, [1.0; 3], "{level}");
            }
        }
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let config = config(1, 4, Optimizer::adam(1e-3));
    let small = vec![data(8, 6, 1, 50, 0)];
    let message = |widths: &[usize], data: &[Arc<Dataset>]| match supports(widths, &problem(data, &config)) {
        Err(Error::Unsupported(message)) => message,
        other => panic!("{other:?}"),
    };
    assert!(supports(&[6, 1024, 1], &problem(&small, &config)).is_ok());
    for widths in [&[6, 1][..], &[6, 4, 4, 1]] {
        let message = message(widths, &small);
        assert!(message.contains("one hidden layer") && message.contains("libtorch"), "{message}");
    }
    assert!(message(&[6, MAX_HIDDEN + 1, 1], &small).contains("4097"));
    let wide = vec![data(8, 257, 1, 50, 0)];
    assert!(message(&[257, 4, 1], &wide).contains("257"));
    let start = Weights::linear_init(&[257, 4, 1], 0, &[0]).unwrap();
    let progress = Progress::default();
    let refused = train(start.clone(), &problem(&wide, &config), Options::default(), &progress).unwrap_err();
    assert!(matches!(refused, Error::Unsupported(_)), "{refused}");
    let refused = evaluate(&start, &wide, &Embedding::Identity, Options::default(), &progress).unwrap_err();
    assert!(matches!(refused, Error::Unsupported(_)), "{refused}");

    let start = Weights::linear_init(&[6, 4, 1], 0, &[0]).unwrap();
    let zero = Options { threads: Some(0), ..Options::default() };
    let refused = train(start.clone(), &problem(&small, &config), zero, &progress).unwrap_err();
    assert!(refused.to_string().contains("threads = 0"));
    let refused = evaluate(&start, &[], &Embedding::Identity, Options::default(), &progress).unwrap_err();
    assert!(matches!(refused, Error::Shape(_)), "{refused}");
    let train_projected = |start: &Weights, rows| {
        let embedding = Embedding::Projection { rows, trained: true };
        let problem = Problem { embedding: &embedding, ..problem(&small, &config) };
        train(start.clone(), &problem, Options::default(), &progress).unwrap_err().to_string()
    };
    assert!(train_projected(&start, 6).contains("have none"));
    let narrow = Weights::linear_init(&[3, 4, 1], 0, &[0]).unwrap();
    assert!(
        train_projected(&narrow.clone().with_projection(5, 0, &[0]).unwrap(), 3).contains("of 5 variables")
    );
    let mut projected = narrow.with_projection(6, 0, &[0]).unwrap();
    assert!(train_projected(&projected, 4).contains("embed into 4"));
    projected.projection.as_mut().unwrap().matrix[7] = f32::INFINITY;
    assert!(train_projected(&projected, 3).contains("C0 contains inf"));
    projected.projection.as_mut().unwrap().matrix.pop();
    assert!(train_projected(&projected, 3).contains("17 entries"));
    let wide = Weights::linear_init(&[7, 4, 1], 0, &[0]).unwrap().with_projection(6, 0, &[0]).unwrap();
    assert!(train_projected(&wide, 7).contains("wider than the 6 variables"));
    let mut broken = start;
    broken.layers[0].weight[3] = f32::NAN;
    let refused = train(broken, &problem(&small, &config), Options::default(), &progress).unwrap_err();
    assert!(refused.to_string().contains("finite"));
}

#[test]
fn a_cancelled_run_ends_promptly() {
    let data = vec![data(5000, 32, 1, 16, 0); 4];
    let start = Weights::linear_init(&[32, 256, 1], 0, &[0, 1, 2, 3]).unwrap();
    let config = config(100_000, 64, Optimizer::adam(1e-3));
    let progress = Progress::default();
    let took = std::thread::scope(|scope| {
        let run =
            scope.spawn(|| train(start.clone(), &problem(&data, &config), Options::default(), &progress));
        while progress.done() == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        let asked = Instant::now();
        progress.cancel();
        assert!(matches!(run.join().unwrap(), Err(Error::Interrupted)));
        asked.elapsed()
    });
    // Checked every few milliseconds; a busy machine may take much longer to say so.
    assert!(took < Duration::from_secs(5), "{took:?}");
    let cancelled = evaluate(&start, &data, &Embedding::Identity, Options::default(), &progress);
    assert!(matches!(cancelled, Err(Error::Interrupted)));
}

#[test]
fn memory_grows_with_what_is_kept() {
    let adam = Optimizer::adam(1e-3);
    let sgd = Optimizer::Sgd { lr: 0.1, momentum: 0.0, weight_decay: 0.0 };
    let base = memory_bytes(&[32, 32, 1], 0, 1000, &adam, 0, 0, 1);
    assert!(memory_bytes(&[32, 32, 1], 0, 1000, &sgd, 0, 0, 1) < base);
    assert_eq!(memory_bytes(&[32, 32, 1], 0, 1000, &adam, 2, 500, 1) - base, 2 * 4 * 1089 * 1000 + 500);
    assert!(memory_bytes(&[32, 32, 1], 512, 1000, &adam, 0, 0, 1) - base >= 3 * 4 * 512 * 1000);
    assert!(memory_bytes(&[usize::MAX, 32, 1], 0, usize::MAX, &adam, 0, 0, 1) == usize::MAX);
}

#[test]
fn scores_are_the_same_for_any_threads_and_nearly_at_any_level() {
    let (widths, networks) = ([12, 37, 1], 3);
    let data: Vec<_> = (0..networks as u64).map(|r| data(150, 12, 1, 30, r)).collect();
    let config = config(2, 16, Optimizer::adam(1e-3));
    let problem = problem(&data, &config);
    let start = Weights::linear_init(&widths, 3, &[0, 1, 2]).unwrap();
    let values: Vec<f32> = start.layers[0].weight.iter().map(|w| 0.5 + w).collect();
    let steps: Vec<ScoreStep> = (0..20)
        .map(|step| ScoreStep {
            rate: 0.05,
            steepness: 1.0 + step as f32,
            restart: (step == 9).then_some(5.0),
        })
        .collect();
    let rules = [
        ScoreRule::Largest { kept: 100, weight_decay: 1e-3 },
        ScoreRule::Rounded { kept: 100, penalty: 1e-3 },
        ScoreRule::Soft { penalty: 1e-3, weight_decay: 1e-3 },
    ];
    for rule in rules {
        let learn = |options| {
            let mut scores = Scores::new(values.clone(), networks).unwrap();
            let idle = Progress::default();
            let learned =
                learn_scores(start.clone(), &mut scores, rule, &steps, &problem, options, &idle).unwrap();
            assert_eq!(learned.weights == start, !rule.learns_weights());
            assert_ne!(scores.values, values);
            (scores, learned.weights)
        };
        let one = learn(Options { threads: Some(1), level: None });
        assert!(one == learn(Options { threads: Some(3), level: None }), "{rule:?}");
        for level in Kernels::Fused.available() {
            let (scores, _) = learn(Options { threads: None, level: Some(level) });
            let off = scores.values.iter().zip(&one.0.values).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
            assert!(off < 1e-3, "{rule:?} at {level}: {off}");
        }
    }
}
