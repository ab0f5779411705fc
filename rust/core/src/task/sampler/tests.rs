use std::collections::HashSet;

use proptest::prelude::*;
use rand::{Rng, RngExt};

use super::*;
use crate::task::dataset::WORD_BITS;
use crate::task::formula::{Clause, ClauseShape, Literal};

const BROKEN: Sampler = Sampler::BrokenClause { true_counts: None };

fn bit(words: &[u32], variable: usize) -> bool {
    words[variable / WORD_BITS] >> (variable % WORD_BITS) & 1 == 1
}

fn count(words: &[u32]) -> usize {
    words.iter().map(|word| word.count_ones() as usize).sum()
}

/// The formula evaluated literal by literal, without bit masks.
fn plain_label(task: &Dnf, data: &Dataset, sample: usize, output: usize) -> bool {
    let value = |literal: &Literal| bit(data.input(sample), literal.variable) != literal.negated;
    task.clauses(output).iter().any(|clause| clause.iter().all(value)) != task.complemented()
}

/// The definition, literal by literal: the input drawn for a sample whose DNF (before complementing) is `satisfied`.
fn plain_broken_clause(
    task: &Dnf,
    rng: &mut impl Rng,
    true_counts: Option<(usize, usize)>,
    satisfied: impl Fn(usize) -> bool,
) -> Option<Vec<bool>> {
    for _ in 0..200 {
        let (mut fixed, mut positive) = (vec![None; task.variables()], HashSet::new());
        let mut agree = true;
        for output in 0..task.outputs() {
            let clause = &task.clauses(output)[rng.random_range(0..task.clauses(output).len())];
            let broken = (!satisfied(output)).then(|| rng.random_range(0..clause.len()));
            for (i, literal) in clause.iter().enumerate() {
                let value = literal.negated == (broken == Some(i));
                agree &= fixed[literal.variable].is_none_or(|fixed| fixed == value);
                fixed[literal.variable] = Some(value);
                if !literal.negated {
                    positive.insert(literal.variable);
                }
            }
            if !agree {
                break;
            }
        }
        let start = fixed.iter().filter(|&&value| value == Some(true)).count();
        let (low, high) = true_counts.unwrap_or((positive.len(), positive.len() + 2));
        let (low, high) = (low.max(start), high.min(task.variables()));
        if !agree || low > high {
            continue;
        }
        for _ in 0..200 {
            let target = rng.random_range(low..=high);
            let mut input: Vec<bool> = fixed.iter().map(|&value| value == Some(true)).collect();
            if target - start > fixed.iter().filter(|value| value.is_none()).count() {
                continue;
            }
            while input.iter().filter(|&&value| value).count() < target {
                let variable = rng.random_range(0..task.variables());
                input[variable] |= fixed[variable].is_none();
            }
            let holds =
                |clause: &Clause| clause.iter().all(|literal| input[literal.variable] != literal.negated);
            if (0..task.outputs()).all(|o| task.clauses(o).iter().any(holds) == satisfied(o)) {
                return Some(input);
            }
        }
    }
    None
}

proptest! {
    #![proptest_config(crate::examples(60))]
    #[test]
    fn broken_clauses_are_drawn_as_defined(
        n in 4usize..80, clauses in 1usize..12, width in 1usize..5, negated in 0usize..3, outputs in 1usize..4,
        complemented: bool, counts in prop::option::of((0usize..6, 6usize..12)), seed in 0u64..1000,
    ) {
        let shape = ClauseShape { clauses, width, negated: negated.min(width), disjoint: false };
        let Ok(task) = Dnf::random(n, outputs, shape, seed, 0) else { return Ok(()) };
        let sets = (0..outputs).map(|o| task.clauses(o).to_vec()).collect();
        let task = Dnf::new(n, sets, complemented).unwrap();
        let counts = counts.map(|(low, high)| (low.min(n), high.min(n)));
        let mut rng = stream(seed, Purpose::Data, 0);
        let mut draw = |s: usize| plain_broken_clause(&task, &mut rng, counts, |o| (s >> o & 1 == 1) != complemented);
        let plain: Option<Vec<Vec<bool>>> = (0..24).map(&mut draw).collect();
        let drawn = Sampler::BrokenClause { true_counts: counts }.sample(&task, 24, seed, Purpose::Data, 0).ok();
        let unpack = |data: Dataset| (0..24).map(|s| (0..n).map(|v| bit(data.input(s), v)).collect()).collect();
        prop_assert_eq!(drawn.map(unpack), plain);
    }
}

proptest! {
    #![proptest_config(crate::examples(40))]
    #[test]
    fn samples_are_labelled_balanced_and_sparse(
        n in 12usize..80, clauses in 1usize..12, width in 2usize..5, negated in 0usize..2,
        outputs in 1usize..7, seed in 0u64..1000,
    ) {
        let shape = ClauseShape { clauses, width, negated, disjoint: false };
        let task = Dnf::random(n, outputs, shape, seed, 0).unwrap();
        let Ok(data) = BROKEN.sample(&task, 64, seed, Purpose::Data, 0) else { return Ok(()) };
        for s in 0..64 {
            let true_count = count(data.input(s));
            let positives = outputs * (width - negated);
            prop_assert!(true_count <= positives + 2);
            if outputs == 1 {
                prop_assert!(true_count >= positives);
            }
            for o in 0..outputs {
                prop_assert_eq!(data.label(s, o), plain_label(&task, &data, s, o));
                prop_assert_eq!(data.label(s, o), s >> o & 1 == 1);
            }
        }
        prop_assert_eq!(&data, &BROKEN.sample(&task, 64, seed, Purpose::Data, 0).unwrap());
        // A task on the edge of the possible may be sampled in one stream and refused in another.
        for (purpose, stream) in [(Purpose::Data, 1), (Purpose::Test, 0)] {
            if let Ok(other) = BROKEN.sample(&task, 64, seed, purpose, stream) {
                prop_assert_ne!(&data, &other);
            }
        }
    }
}

#[test]
fn published_counts_are_uniform_on_both_labels() {
    let shape = ClauseShape { clauses: 16, width: 4, negated: 0, disjoint: false };
    let task = Dnf::random(32, 1, shape, 0, 0).unwrap();
    let data = BROKEN.sample(&task, 30_000, 0, Purpose::Data, 0).unwrap();
    let mut counts = [[0usize; 3]; 2];
    for s in 0..30_000 {
        counts[usize::from(data.label(s, 0))][count(data.input(s)) - 4] += 1;
    }
    assert_eq!(counts[1].iter().sum::<usize>(), 15_000);
    // Label 1 is exactly uniform; label 0 loses the few larger inputs that turn the formula True.
    for (label, tolerance) in [(1, 300), (0, 700)] {
        assert!(counts[label].iter().all(|&c| c.abs_diff(5_000) < tolerance), "{counts:?}");
    }
}

#[test]
fn cnf_by_duality_and_other_samplers() {
    let or = |a: i64, b: i64| -> Clause { [!a, !b].map(Literal::from_signed).to_vec() };
    let cnf = Dnf::new(4, vec![vec![or(0, 1), or(2, 3)]], true).unwrap();
    let table = Sampler::TruthTable.sample(&cnf, 0, 0, Purpose::Data, 0).unwrap();
    assert_eq!(table.samples(), 16);
    for s in 0..16 {
        assert_eq!(table.input(s), [s as u32]);
        assert_eq!(table.label(s, 0), (s & 3 != 0) && (s & 12 != 0));
    }
    let biased = Sampler::Biased { probability: 0.75, balanced: true };
    let data = biased.sample(&cnf, 1000, 0, Purpose::Data, 0).unwrap();
    assert_eq!((0..1000).filter(|&s| data.label(s, 0)).count(), 500);
    let free = Sampler::Biased { probability: 0.75, balanced: false };
    let data = free.sample(&cnf, 20_000, 0, Purpose::Data, 0).unwrap();
    let rate = data.unpack_inputs().iter().map(|&b| f64::from(b)).sum::<f64>() / 80_000.0;
    assert!((rate - 0.75).abs() < 0.01, "{rate}");
}

#[test]
fn impossible_requests_are_refused() {
    let shape = ClauseShape { clauses: 4, width: 4, negated: 0, disjoint: false };
    let task = Dnf::random(20, 1, shape, 0, 0).unwrap();
    let refuse = |sampler: Sampler| sampler.sample(&task, 10, 0, Purpose::Data, 0).unwrap_err().to_string();
    assert!(refuse(Sampler::TruthTable).contains("20 variables has 2^20 rows"));
    assert!(refuse(Sampler::BrokenClause { true_counts: Some((7, 5)) }).contains("(7, 5)"));
    assert!(refuse(Sampler::BrokenClause { true_counts: Some((0, 1)) }).contains("0 to 1 True variables"));
    assert!(refuse(Sampler::Biased { probability: 1.5, balanced: false }).contains("1.5"));
    assert!(refuse(Sampler::Biased { probability: 0.0, balanced: true }).contains("balanced"));
}
