//! One binary, one test: torch's thread count belongs to the process.

mod common;

use common::*;
use tch::Kind;

#[test]
fn the_thread_count_does_not_change_a_bit() {
    // Large enough that torch splits its work.
    for (hidden, networks) in [(vec![40], 64), (vec![40, 20], 64), (vec![300], 2)] {
        let mut case = Case::new(networks, &hidden, 2, config(adam()));
        case.mask_randomly();
        case.config.batch = 64;
        let mut runs = [1, 2, 3].map(|threads| {
            tch::set_num_threads(threads);
            case.train(Kind::Float)
        });
        for _ in 0..2 {
            assert_same_bits(&runs[0].weights, &runs[1].weights);
            assert_eq!(runs[0].history.train_loss, runs[1].history.train_loss);
            runs.swap(1, 2);
        }
    }
}
