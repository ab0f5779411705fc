//! The extension module `precode._precode`: functions that convert, release the GIL, call and convert.
//! The public API with its documentation is the Python package `precode`.

// Every item here is private to the package; its documentation is in Python.
#![allow(missing_docs)]

mod arrays;
mod boundary;
mod codes;
mod methods;
mod module_objective;
mod pairs;
mod recovery;
mod streams;
mod tasks;
mod tickets;
mod training;

use pyo3::prelude::*;

#[pymodule]
mod _precode {
    use super::*;

    #[pymodule_export]
    use super::arrays::{arrays_from_bytes, arrays_to_bytes};
    #[pymodule_export]
    use super::codes::{
        channels, conflicts, crowding, distances, embedding_matrix, epoch_order, feature_capacity,
        hamming_probabilities, mean_row_cosine, pattern_counts, pattern_name, permute_rows, random_signs,
        signs, templates,
    };
    #[pymodule_export]
    use super::methods::{controls, find_stack_tickets, methods};
    #[pymodule_export]
    use super::module_objective::find_module_ticket;
    #[pymodule_export]
    use super::pairs::{code_distance_counts, code_distances, nearest_codes};
    #[pymodule_export]
    use super::recovery::{liveness, recovery};
    #[pymodule_export]
    use super::tasks::{Formula, Samples, sample_all};
    #[pymodule_export]
    use super::tickets::{best_weights, load_ticket, save_ticket, zero_pruned};
    #[pymodule_export]
    use super::training::{evaluate, linear_init, memory_needed, projection_init, train};

    #[pymodule_init]
    fn init(module: &Bound<'_, PyModule>) -> PyResult<()> {
        // libtorch must be loaded and initialized before anything here touches a tensor.
        module.py().import("torch")?;
        module.add("VERSION", env!("CARGO_PKG_VERSION"))?;
        module.add("MOST_REMOVED_TOGETHER", precode_core::ticket::obs::MOST_WEIGHTS)?;
        module.add("MOST_SPARSEGPT_INPUTS", precode_torch::methods::MOST_SPARSEGPT_INPUTS)?;
        module.add("TORCH_VERSION", env!("PRECODE_TORCH_VERSION"))
    }
}
