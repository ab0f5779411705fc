//! The ticket room: exact-k masks, exact removal, probes, translation into weight space, recovery, and ticket files.

pub mod file;
pub mod mask;
pub mod obs;
pub mod probe;
pub mod recovery;
pub mod sparsegpt;
pub mod storage;
pub mod translation;
pub mod zeroing;
