//! Feature probes on networks that learn formulas.

mod common;

use std::sync::Arc;

use common::{Case, adam, config};
use ndarray::{Array2, Array3, Axis, Zip};
use precode_core::Progress;
use precode_core::read::template::templates;
use precode_core::task::formula::{ClauseShape, Dnf};
use precode_core::task::rng::Purpose;
use precode_core::task::sampler::Sampler;
use precode_core::ticket::mask::{Density, Granularity};
use precode_core::ticket::probe::{Probe, choose_cells};
use precode_core::ticket::recovery::{RELATIVE_FLOOR, recovery};
use precode_core::ticket::translation::Translation;
use precode_core::train::TrainConfig;
use precode_core::{Clause, Clauses, Embedding, Readout, Weights};
use precode_torch::methods::{Found, Method, Objective, Plan, Request, StackObjective, all};
use precode_torch::{Choice, Stack};
use tch::{Device, Kind, Tensor};

const NETWORKS: usize = 3;
const ROWS: usize = 16;
const VARIABLES: usize = 16;

/// Three networks of 16 - 16 - 1 that learn four disjoint clauses of four variables.
fn case(embedding: Embedding) -> (Case, Vec<Vec<Clause>>) {
    let shape = ClauseShape { clauses: 4, width: 4, negated: 0, disjoint: true };
    let mut case = Case::new(NETWORKS, &[6], 1, TrainConfig { epochs: 10, batch: 64, ..config(adam()) });
    let streams: Vec<u64> = (0..NETWORKS as u64).collect();
    case.weights = Weights::linear_init(&[embedding.rows(VARIABLES), ROWS, 1], 2, &streams).unwrap();
    if matches!(embedding, Embedding::Projection { .. }) {
        case.weights = case.weights.with_projection(VARIABLES, 2, &streams).unwrap();
    }
    case.embedding = embedding;
    let tasks: Vec<Dnf> = streams.iter().map(|&i| Dnf::random(VARIABLES, 1, shape, 3, i).unwrap()).collect();
    let sampler = Sampler::BrokenClause { true_counts: None };
    let sample = |(task, i): (&Dnf, u64)| Arc::new(sampler.sample(task, 4000, 1, Purpose::Data, i).unwrap());
    case.data = tasks.iter().zip(streams).map(sample).collect();
    (case, tasks.iter().map(|task| task.clauses(0).to_vec()).collect())
}

struct Ask<'a> {
    case: &'a Case,
    clauses: Option<&'a [Vec<Clause>]>,
    prunable: &'a str,
    density: f64,
    granularity: Granularity,
}

impl<'a> Ask<'a> {
    fn of(case: &'a Case, clauses: &'a [Vec<Clause>]) -> Self {
        let granularity = Granularity::Weight;
        Self { case, clauses: Some(clauses), prunable: "w1", density: 0.25, granularity }
    }

    fn with<T>(&self, ask: impl FnOnce(&mut StackObjective, &Request) -> T) -> T {
        let start = Stack::from_weights(&self.case.weights, Kind::Float, Device::Cpu).unwrap();
        let progress = Progress::default();
        let mut objective =
            StackObjective::new(&start, self.case.problem(), Choice::Auto, self.prunable, &progress).unwrap();
        if let Some(clauses) = self.clauses {
            objective = objective.with_clauses(clauses.to_vec(), Vec::new()).unwrap();
        }
        let streams: Vec<u64> = (0..self.case.weights.networks as u64).collect();
        let densities = [Density::new(self.density).unwrap()];
        let request = Request {
            granularity: self.granularity,
            seed: 3,
            ..Request::new(&densities, &streams, &progress)
        };
        ask(&mut objective, &request)
    }

    fn try_find(&self, method: &str) -> Result<Found, String> {
        let method: Method = method.parse().unwrap();
        self.with(|objective, request| method.find(objective, request).map_err(|error| error.to_string()))
    }

    fn find(&self, method: &str) -> Found {
        self.try_find(method).unwrap_or_else(|error| panic!("{method}: {error}"))
    }
}

/// The probes, and the oracles that go with them.
fn names() -> Vec<&'static str> {
    let parts = ["distance", "motion", "oracle", "code", "target", "sign", "obs-codes", "hot-codes"];
    let ours = |name: &&str| parts.iter().any(|part| name.starts_with(part));
    all().iter().map(|record| record.name).filter(ours).collect()
}

fn bools(tensor: &Tensor) -> Vec<bool> {
    Vec::<bool>::try_from(tensor.flatten(0, -1)).unwrap()
}

fn doubles(tensor: &Tensor) -> Vec<f64> {
    Vec::<f64>::try_from(tensor.to_kind(Kind::Double).flatten(0, -1)).unwrap()
}

/// W1 and w2 of all networks.
type Weighted = (Array3<f64>, Array2<f64>);

fn read(values: &[Tensor]) -> Weighted {
    let w1 = Array3::from_shape_vec((NETWORKS, ROWS, VARIABLES), doubles(&values[0])).unwrap();
    (w1, Array2::from_shape_vec((NETWORKS, ROWS), doubles(&values[2])).unwrap())
}

fn readout((w1, w2): &Weighted) -> Readout<'_, f64> {
    Readout::new(w1.view(), w2.view()).unwrap()
}

/// The mask of W1 of all networks.
fn mask(found: &Found) -> Array3<bool> {
    Array3::from_shape_vec((NETWORKS, ROWS, VARIABLES), bools(&found.masks[0][0])).unwrap()
}

#[test]
fn every_probe_keeps_exactly_what_is_asked_through_every_embedding() {
    let rectangular =
        Array2::from_shape_fn((12, VARIABLES), |(row, v)| ((row * VARIABLES + v) as f32 * 0.7).sin());
    let embeddings = [
        Embedding::Identity,
        Embedding::Hadamard { normalized: false },
        Embedding::random_orthogonal(VARIABLES, 3).unwrap(),
        Embedding::Dense(rectangular),
        Embedding::Projection { rows: 12, trained: false },
        Embedding::Projection { rows: 12, trained: true },
    ];
    for embedding in embeddings {
        let (mut case, clauses) = case(embedding);
        case.config.epochs = 3;
        for prunable in ["w1", "all"] {
            let total =
                case.weights.layers[0].weight.len() / NETWORKS + if prunable == "all" { ROWS } else { 0 };
            let ask = Ask { prunable, ..Ask::of(&case, &clauses) };
            for name in names() {
                for method in [name.to_owned(), format!("{name}:invert")] {
                    let found = ask.find(&method);
                    let kept = |r: i64| -> i64 {
                        found.masks[0].iter().map(|mask| mask.get(r).sum(Kind::Int64).int64_value(&[])).sum()
                    };
                    for r in 0..NETWORKS as i64 {
                        assert_eq!(kept(r), (0.25 * total as f64).round_ties_even() as i64, "{method}");
                    }
                }
                let (plain, inverted) = (ask.find(name), ask.find(&format!("{name}:invert")));
                assert_ne!(plain.masks[0][0], inverted.masks[0][0], "{name}");
            }
        }
    }
}

#[test]
fn masks_are_those_of_the_core() {
    let (case, clauses) = case(Embedding::Identity);
    let ask = Ask::of(&case, &clauses);
    let (start, later, trained) = ask.with(|objective, _| {
        let start: Vec<Tensor> = objective.parameters().iter().map(|p| p.initial.shallow_clone()).collect();
        (start, objective.dense_at(&[126]).unwrap().remove(0), objective.dense().unwrap())
    });
    let (start, later, trained) = (read(&start), read(&later), read(&trained));
    let sets: Vec<&[Clause]> = clauses.iter().map(Vec::as_slice).collect();
    let sets = Clauses::new(&sets, NETWORKS, VARIABLES).unwrap();
    let templates: Vec<_> = templates(4).collect();
    let expect = |later: Option<&Weighted>, settings: &Probe| {
        choose_cells(&readout(&start), later.map(readout).as_ref(), &sets, &templates, 64, settings).unwrap()
    };
    assert_eq!(mask(&ask.find("distance")), expect(None, &Probe::DISTANCE));
    // Two epochs of 63 steps.
    let both = ask.find("distance+motion");
    assert_eq!(mask(&both), expect(Some(&later), &Probe::BOTH));
    assert_eq!(
        (both.cost[0].epochs.clone(), ask.find("motion").cost[0].epochs.clone()),
        (vec![2.0], vec![1.0])
    );
    let oracle = ask.find("oracle-codes");
    assert_eq!(mask(&oracle), expect(Some(&trained), &Probe::BOTH));
    assert_eq!(
        (&oracle.cost[0].epochs, &ask.find("code-rounds").cost[0].epochs),
        (&vec![10.0; NETWORKS], &vec![40.0; NETWORKS])
    );
    let aligned = ask.find("oracle");
    for r in 0..NETWORKS {
        let translation = Translation::identity(VARIABLES);
        let of = |weights: &Weighted| weights.0.index_axis(Axis(0), r).to_owned();
        let (expected, scale) = translation.align(of(&start).view(), of(&trained).view(), 64).unwrap();
        assert_eq!(mask(&aligned).index_axis(Axis(0), r), expected);
        assert_eq!(aligned.notes[0].1[0][r], scale);
    }
}

#[test]
fn features_are_read_through_the_projection_of_the_network_and_the_moment() {
    for trained in [false, true] {
        let (case, clauses) = case(Embedding::Projection { rows: 8, trained });
        let ask = Ask::of(&case, &clauses);
        let (start, later) = ask.with(|objective, _| {
            let start: Vec<Tensor> =
                objective.parameters().iter().map(|p| p.initial.shallow_clone()).collect();
            (start, objective.dense_at(&[126]).unwrap().remove(0))
        });
        let drawn = doubles(
            &Stack::from_weights(&case.weights, Kind::Float, Device::Cpu).unwrap().projection.unwrap(),
        );
        let c0 = |values: &[Tensor]| values.get(4).map_or_else(|| drawn.clone(), doubles);
        assert_eq!(c0(&start), drawn);
        assert_eq!(c0(&later) != drawn, trained);
        // C1 of network r, cell by cell.
        let read = |values: &[Tensor]| -> Weighted {
            let (w1, c0) = (doubles(&values[0]), c0(values));
            let cell = |(r, row, v): (usize, usize, usize)| -> f64 {
                (0..8).map(|a| w1[(r * ROWS + row) * 8 + a] * c0[(r * 8 + a) * VARIABLES + v]).sum()
            };
            let output = Array2::from_shape_vec((NETWORKS, ROWS), doubles(&values[2])).unwrap();
            (Array3::from_shape_fn((NETWORKS, ROWS, VARIABLES), cell), output)
        };
        let sets: Vec<&[Clause]> = clauses.iter().map(Vec::as_slice).collect();
        let sets = Clauses::new(&sets, NETWORKS, VARIABLES).unwrap();
        let templates: Vec<_> = templates(4).collect();
        let (first, second) = (read(&start), read(&later));
        let cells =
            choose_cells(&readout(&first), Some(&readout(&second)), &sets, &templates, 32, &Probe::BOTH)
                .unwrap();
        let found = bools(&ask.find("distance+motion").masks[0][0]);
        let found = Array3::from_shape_vec((NETWORKS, ROWS, 8), found).unwrap();
        let weights = Array3::from_shape_vec((NETWORKS, ROWS, 8), doubles(&start[0])).unwrap();
        let maps = Array3::from_shape_vec((NETWORKS, 8, VARIABLES), drawn).unwrap();
        let wanted = Zip::from(&first.0).and(&cells).map_collect(|&c, &kept| if kept { c } else { 0.0 });
        for r in 0..NETWORKS {
            let of = |all: &Array3<f64>| all.index_axis(Axis(0), r).to_owned();
            let map = Translation::new(of(&maps).view()).unwrap();
            let mask = map.realize(of(&weights).view(), of(&wanted).view(), 32).unwrap();
            assert_eq!(found.index_axis(Axis(0), r), mask, "network {r}");
        }
    }
}

#[test]
fn clauses_are_recovered_without_the_formula() {
    let (case, clauses) = case(Embedding::Hadamard { normalized: true });
    let found = Ask::of(&case, &clauses).find("distance+motion-blind");
    assert_eq!(found.notes[1].0, "clauses_found");
    assert_eq!(found.notes[1].1, [vec![4.0; NETWORKS]]);
    assert_eq!(found.notes[0], ("clauses_recovered".to_owned(), vec![vec![4.0; NETWORKS]]));
    // With all of them found, the order in which they are told is all that differs.
    let told = Ask::of(&case, &clauses).find("distance+motion");
    assert_eq!(found.masks, told.masks);
    let untold = Ask { clauses: None, ..Ask::of(&case, &clauses) }.find("distance+motion-blind");
    let names: Vec<&str> = untold.notes.iter().map(|note| note.0.as_str()).collect();
    assert_eq!(names, ["clauses_recovered"]);
}

/// Probes through the projection that read the clauses from the data.
const TOLD_BY_DATA: [&str; 6] =
    ["target-static", "target-motion", "target-combined", "sign-keeping", "obs-codes", "hot-codes"];

#[test]
fn the_data_tell_the_clauses() {
    for embedding in [Embedding::Identity, Embedding::Projection { rows: 8, trained: true }] {
        let (case, clauses) = case(embedding);
        for method in TOLD_BY_DATA {
            let blind = format!("{method}-blind");
            let (told, found) =
                (Ask::of(&case, &clauses).find(method), Ask::of(&case, &clauses).find(&blind));
            assert_eq!((&found.masks, &found.cost), (&told.masks, &told.cost), "{method}");
            let all = vec![vec![4.0; NETWORKS]];
            let notes = [("clauses_recovered", &all), ("clauses_found", &all)];
            assert_eq!(found.notes, notes.map(|(name, note)| (name.to_owned(), note.clone())), "{method}");
            let untold = Ask { clauses: None, ..Ask::of(&case, &clauses) }.find(&blind);
            assert_eq!((untold.masks, untold.notes.len()), (found.masks, 1), "{method}");
        }
    }
}

#[test]
fn networks_need_not_have_equally_many_clauses() {
    let (mut case, clauses) = case(Embedding::Projection { rows: 8, trained: false });
    // The second network is shown two of its four clauses.
    let own = &clauses[1][..2];
    let dnf = Dnf::new(VARIABLES, vec![own.to_vec()], false).unwrap();
    let sampler = Sampler::BrokenClause { true_counts: None };
    case.data[1] = Arc::new(sampler.sample(&dnf, 4000, 1, Purpose::Data, 1).unwrap());
    let found = Ask::of(&case, &clauses).find("target-static-blind");
    assert_eq!(found.notes[0].1, [[4.0, 2.0, 4.0]]);
    assert_eq!(found.notes[1].1, [[4.0, 2.0, 4.0]]);
}

#[test]
fn data_that_tell_no_clauses_are_refused() {
    let (mut case, clauses) = case(Embedding::Projection { rows: 8, trained: false });
    case.data.iter_mut().for_each(|data| *data = Arc::new(data.select(&[0, 1, 2, 3]).unwrap()));
    for method in TOLD_BY_DATA {
        let message = Ask::of(&case, &clauses).try_find(&format!("{method}-blind")).unwrap_err();
        assert!(message.contains("network 0: its data tell no clauses of 4 variables"), "{message}");
    }
}

#[test]
fn probes_recover_more_codes_than_magnitudes() {
    let (case, clauses) = case(Embedding::Identity);
    let ask = Ask::of(&case, &clauses);
    let sets: Vec<&[Clause]> = clauses.iter().map(Vec::as_slice).collect();
    let sets = Clauses::new(&sets, NETWORKS, VARIABLES).unwrap();
    let templates: Vec<_> = templates(4).collect();
    let recall = |method: &str| -> f64 {
        let method: Method = method.parse().unwrap();
        ask.with(|objective, request| {
            let found = method.find(objective, request).unwrap();
            let start: Vec<Tensor> =
                objective.parameters().iter().map(|p| p.initial.shallow_clone()).collect();
            let plan = Plan { masks: Some(&found.masks[0]), ..Plan::new(&start) };
            let dense = read(&objective.dense().unwrap());
            let sparse = read(&objective.train(&plan).unwrap().parameters);
            let (dense, sparse) = (readout(&dense), readout(&sparse));
            let alive = mask(&found);
            let got = recovery(&dense, &sparse, alive.view(), &sets, &templates, RELATIVE_FLOOR).unwrap();
            got.iter().map(|network| network.exact.family.recall()).sum::<f64>() / NETWORKS as f64
        })
    };
    let magnitude = recall("magnitude");
    for method in ["distance", "motion", "distance+motion"] {
        let probe = recall(method);
        assert!(probe > magnitude, "{method}: {probe} beside {magnitude}");
    }
}

#[test]
fn a_formula_of_other_variables_is_another_target() {
    let (case, clauses) = case(Embedding::Projection { rows: 8, trained: false });
    let ask = Ask::of(&case, &clauses);
    for method in ["target-combined", "sign-keeping", "obs-codes", "hot-codes", "distance"] {
        let (right, wrong) = (ask.find(method), ask.find(&format!("{method}:wrong-clauses")));
        assert_ne!(right.masks[0][0], wrong.masks[0][0], "{method}");
        assert_eq!(right.cost, wrong.cost, "{method}");
    }
    assert!(ask.try_find("snip:wrong-clauses").unwrap_err().contains("changes nothing"));
}

#[test]
fn what_a_probe_cannot_read_is_refused() {
    let (case, clauses) = case(Embedding::Identity);
    let refuse = |ask: Ask, method: &str| ask.try_find(method).unwrap_err();
    let untold = Ask { clauses: None, ..Ask::of(&case, &clauses) };
    assert!(refuse(untold, "distance").contains("-blind"));
    let rows = Ask { granularity: Granularity::Row, ..Ask::of(&case, &clauses) };
    assert!(refuse(rows, "motion").contains("granularity weight"));
    let second = Ask { prunable: "w2", ..Ask::of(&case, &clauses) };
    assert!(refuse(second, "oracle").contains("make it prunable"));
}
