//! The same engine on a CUDA device; skipped where there is none.

mod common;

use common::*;
use precode_core::train::Watch;
use tch::{Device, Kind};

#[test]
fn a_cuda_device_trains_the_same_networks() {
    if !tch::Cuda::is_available() {
        println!("skipped: this process sees no CUDA device");
        return;
    }
    let device = Device::Cuda(0);
    for embedding in every_embedding() {
        let mut case = Case::new(3, &[6, 5], 2, config(adam())).behind(embedding);
        case.mask_randomly();
        case.config.snapshots = vec![0, 7];
        case.validation = case.data.clone();
        case.config.early_stopping = stopping(1, Watch::Validation);
        let (ours, cpu) = (case.train_on(Kind::Double, device), case.train(Kind::Double));
        assert_eq!(ours.weights.device(), device);
        assert_eq!(ours.history.epochs_run, cpu.history.epochs_run);
        let stacks = ours.snapshots.iter().chain([&ours.weights]);
        for (ours, cpu) in stacks.zip(cpu.snapshots.iter().chain([&cpu.weights])) {
            for r in 0..3 {
                assert!(distance(ours, r, &parameters(cpu, r as i64, Kind::Double)) < 1e-10);
            }
        }
    }
}
