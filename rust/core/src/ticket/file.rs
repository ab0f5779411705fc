//! Tickets as files: one safetensors file holds the tensors and, in its `__metadata__`, a JSON manifest.
//!
//! Tensors (little-endian): `mask.<name>` (BOOL), one for each prunable parameter; `start.<name>` (F16, BF16, F32 or
//! F64), one for each parameter, zero wherever its mask is false; `final.<name>`, trained values of all parameters,
//! likewise, or none. The manifest stands under the key `precode`.
//!
//! Reading trusts nothing: whatever does not fit together is an error that names the file.

use std::collections::{BTreeMap, HashMap};
use std::fmt::{Display, Write as _};
use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use safetensors::Dtype;
use safetensors::tensor::Metadata;
use safetensors::{SafeTensors, View};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::{Error, Result};
use crate::ticket::mask::{Density, Granularity, Scope};
use crate::ticket::storage::{read_whole, write_whole};

/// The version of the format that is written, and the one that is read.
pub const FORMAT: u32 = 1;

/// Most axes of a tensor: torch computes with no more.
pub const AXES: usize = 64;

/// Most bytes of a header, by the format's specification.
const HEADER: u64 = 100_000_000;
const KEY: &str = "precode";
const KIND: &str = "ticket";
const DAMAGED: &str = "the file is damaged or was altered: take another copy, or save the ticket again";

/// A tensor with its name in the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NamedTensor {
    /// `mask.`, `start.` or `final.`, and the name of the parameter.
    pub name: String,
    /// Type of its elements.
    pub dtype: Dtype,
    /// Sizes of its axes; none for a single number.
    pub shape: Vec<usize>,
    /// Elements in row-major order, little-endian.
    pub data: Vec<u8>,
}

impl View for &NamedTensor {
    fn dtype(&self) -> Dtype {
        self.dtype
    }
    fn shape(&self) -> &[usize] {
        &self.shape
    }
    fn data(&self) -> std::borrow::Cow<'_, [u8]> {
        self.data.as_slice().into()
    }
    fn data_len(&self) -> usize {
        self.data.len()
    }
}

type Object = serde_json::Map<String, serde_json::Value>;

/// What is said of a ticket beside its tensors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct About {
    /// Name of the method that found it.
    pub method: String,
    /// Settings of the method.
    pub settings: Object,
    /// The fraction of the prunable weights that was asked for.
    pub density: f64,
    /// What was kept or pruned as one.
    pub granularity: String,
    /// Over what scores were compared.
    pub scope: String,
    /// What finding it took, by name.
    pub cost: BTreeMap<String, f64>,
    /// Versions of the software that found it, by name.
    pub versions: BTreeMap<String, String>,
    /// How it was found: seeds, epochs and the like.
    pub config: Object,
}

/// How many weights are kept, and of how many.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Count {
    /// Weights kept.
    pub kept: u64,
    /// Weights in all.
    pub total: u64,
}

/// The manifest of a ticket's file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// Version of the format, [`FORMAT`].
    pub format: u32,
    /// What the file holds: `ticket`.
    pub kind: String,
    /// What is said of the ticket.
    pub about: About,
    /// Counts over all masks.
    pub counts: Count,
    /// Counts of each mask, by the parameter's name.
    pub tensors: BTreeMap<String, Count>,
    /// SHA-256, in hexadecimal, of this manifest as compact JSON with an empty `sha256`, and then of every tensor in
    /// the order of names: name, dtype (such as `F32`), shape (each size as u64), bytes. Each of these is preceded by
    /// its length in bytes as u64; integers are little-endian.
    pub sha256: String,
}

/// The fields that are looked at first: a newer format may have others beside them.
#[derive(Deserialize)]
struct Version {
    format: u32,
    kind: String,
}

impl Manifest {
    fn new(about: About, tensors: &BTreeMap<&str, &NamedTensor>) -> Checked<Self> {
        Density::new(about.density).map_err(|error| error.to_string())?;
        about.granularity.parse::<Granularity>().map_err(|error| error.to_string())?;
        about.scope.parse::<Scope>().map_err(|error| error.to_string())?;
        let by_name = counts(tensors)?;
        if by_name.values().all(|count| count.kept == 0) {
            return Err("its masks keep no weight".into());
        }
        let mut manifest = Self {
            format: FORMAT,
            kind: KIND.into(),
            about,
            counts: Count {
                kept: by_name.values().map(|count| count.kept).sum(),
                total: by_name.values().map(|count| count.total).sum(),
            },
            tensors: by_name,
            sha256: String::new(),
        };
        manifest.sha256 = hash(&manifest.to_json()?, tensors);
        Ok(manifest)
    }

    /// The manifest as compact JSON.
    ///
    /// # Errors
    /// A message; a manifest that was read or written never fails.
    pub fn to_json(&self) -> std::result::Result<String, String> {
        serde_json::to_string(self).map_err(|error| format!("the manifest is not JSON ({error})"))
    }
}

/// Result with a message that does not name the file yet.
type Checked<T> = std::result::Result<T, String>;

/// Writes a ticket, whole or not at all (see [`write_whole`]). `about` is an [`About`] as JSON.
///
/// # Errors
/// [`Error::Value`] for a ticket that would be refused when read; [`Error::File`] if it cannot be written.
pub fn save(path: &Path, tensors: &[NamedTensor], about: &str) -> Result<()> {
    let refuse =
        |why: String| Error::Value(format!("{}: this ticket cannot be saved: {why}", path.display()));
    let about = serde_json::from_str(about).map_err(|error| refuse(format!("manifest: {error}")))?;
    write_whole(path, &encode(tensors, about).map_err(refuse)?)
}

/// Reads a ticket and verifies it.
///
/// # Errors
/// [`Error::File`] naming the file, what is wrong with it, and the remedy.
pub fn load(path: &Path) -> Result<(Vec<NamedTensor>, Manifest)> {
    let bytes = read_whole(path, look)?;
    decode(&bytes).map_err(|why| Error::File(format!("{}: {why}", path.display())))
}

fn encode(tensors: &[NamedTensor], about: About) -> Checked<Vec<u8>> {
    let sorted = by_name(tensors)?;
    let manifest = Manifest::new(about, &sorted)?.to_json()?;
    let metadata = HashMap::from([(KEY.to_owned(), manifest)]);
    safetensors::serialize(sorted, Some(metadata)).map_err(|error| error.to_string())
}

fn damaged(why: impl Display) -> String {
    format!("no valid safetensors file ({why}): {DAMAGED}")
}

/// Refuses, by its header, a file that is no ticket or has another length than its header says.
fn look(file: &mut File, length: u64) -> Checked<()> {
    let mut size = [0; 8];
    file.read_exact(&mut size).map_err(damaged)?;
    let size = u64::from_le_bytes(size);
    if size > HEADER.min(length.saturating_sub(8)) {
        return Err(damaged(format!("a header of {size} bytes in a file of {length}")));
    }
    let mut header = Vec::new();
    file.take(size).read_to_end(&mut header).map_err(damaged)?;
    let header: Metadata = serde_json::from_slice(&header).map_err(damaged)?;
    let described = (header.data_len() as u64).saturating_add(8 + size);
    if described != length {
        return Err(damaged(format!("its header describes {described} bytes, but it has {length}")));
    }
    manifest(&header).map(drop)
}

/// The manifest that a header has, if it is of a ticket in the format that is read.
fn manifest(header: &Metadata) -> Checked<Manifest> {
    let foreign =
        "it was not written by precode: export it from the program that wrote it, or check the path";
    let metadata = header.metadata().as_ref();
    let text = metadata
        .and_then(|metadata| metadata.get(KEY))
        .ok_or_else(|| format!("its metadata have no entry '{KEY}', so it is no ticket: {foreign}"))?;
    let unreadable = |error: serde_json::Error| format!("its manifest cannot be read ({error}): {DAMAGED}");
    let version: Version = serde_json::from_str(text).map_err(unreadable)?;
    if version.kind != KIND {
        return Err(format!("it holds a '{}', not a '{KIND}': {foreign}", version.kind));
    }
    if version.format != FORMAT {
        return Err(format!(
            "it has format version {}, but this version of precode reads {FORMAT}: use the precode that wrote it, \
             or a newer one",
            version.format
        ));
    }
    serde_json::from_str(text).map_err(unreadable)
}

fn decode(bytes: &[u8]) -> Checked<(Vec<NamedTensor>, Manifest)> {
    let (_, header) = SafeTensors::read_metadata(bytes).map_err(damaged)?;
    let manifest = manifest(&header)?;
    let tensors: Vec<NamedTensor> = SafeTensors::deserialize(bytes)
        .map_err(damaged)?
        .tensors()
        .into_iter()
        .map(|(name, view)| {
            let (dtype, shape, data) = (view.dtype(), view.shape().to_vec(), view.data().to_vec());
            NamedTensor { name, dtype, shape, data }
        })
        .collect();
    let sorted = by_name(&tensors).map_err(|why| format!("{why}: {DAMAGED}"))?;
    let expected =
        Manifest::new(manifest.about.clone(), &sorted).map_err(|why| format!("{why}: {DAMAGED}"))?;
    if (manifest.counts, &manifest.tensors) != (expected.counts, &expected.tensors) {
        return Err(format!("its manifest counts other weights than its masks keep: {DAMAGED}"));
    }
    if manifest.sha256 != expected.sha256 {
        return Err(format!("its content does not have the SHA-256 that its manifest states: {DAMAGED}"));
    }
    let order: Vec<String> = sorted.keys().map(|&name| name.to_owned()).collect();
    let mut tensors: HashMap<String, NamedTensor> =
        tensors.into_iter().map(|tensor| (tensor.name.clone(), tensor)).collect();
    Ok((order.iter().filter_map(|name| tensors.remove(name)).collect(), manifest))
}

fn by_name(tensors: &[NamedTensor]) -> Checked<BTreeMap<&str, &NamedTensor>> {
    let mut sorted = BTreeMap::new();
    for tensor in tensors {
        if sorted.insert(tensor.name.as_str(), tensor).is_some() {
            return Err(format!("two tensors are named '{}'", tensor.name));
        }
    }
    Ok(sorted)
}

fn hash(manifest: &str, tensors: &BTreeMap<&str, &NamedTensor>) -> String {
    let mut digest = Sha256::new();
    let mut add = |bytes: &[u8]| {
        digest.update((bytes.len() as u64).to_le_bytes());
        digest.update(bytes);
    };
    add(manifest.as_bytes());
    for (name, tensor) in tensors {
        add(name.as_bytes());
        add(tensor.dtype.to_string().as_bytes());
        add(&tensor.shape.iter().flat_map(|&size| (size as u64).to_le_bytes()).collect::<Vec<u8>>());
        add(&tensor.data);
    }
    digest.finalize().iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Checks all tensors against each other, and counts what the masks keep.
fn counts(tensors: &BTreeMap<&str, &NamedTensor>) -> Checked<BTreeMap<String, Count>> {
    let mut counts = BTreeMap::new();
    let trained = tensors.keys().any(|name| name.starts_with("final."));
    for (name, tensor) in tensors {
        check_shape(tensor)?;
        match name.split_once('.') {
            Some(("mask", parameter)) => {
                if !tensors.contains_key(format!("start.{parameter}").as_str()) {
                    return Err(format!("'{name}' has no tensor 'start.{parameter}' beside it"));
                }
                counts.insert(parameter.to_owned(), count(tensor)?);
            }
            Some(("start", parameter)) => {
                check_values(tensor, tensors.get(format!("mask.{parameter}").as_str()).copied())?;
                let last = tensors.get(format!("final.{parameter}").as_str());
                if trained
                    && last.is_none_or(|last| (last.dtype, &last.shape) != (tensor.dtype, &tensor.shape))
                {
                    return Err(format!(
                        "'{name}' has no tensor 'final.{parameter}' of its shape and type beside it"
                    ));
                }
            }
            Some(("final", parameter)) if tensors.contains_key(format!("start.{parameter}").as_str()) => {
                check_values(tensor, tensors.get(format!("mask.{parameter}").as_str()).copied())?;
            }
            _ => return Err(format!("'{name}' belongs to no ticket: expected mask.*, start.* and final.*")),
        }
    }
    if counts.is_empty() {
        return Err("there is no mask".into());
    }
    Ok(counts)
}

/// Refuses what torch has no tensor for: it counts sizes and strides, also of empty tensors, in 63 bits.
fn check_shape(tensor: &NamedTensor) -> Checked<()> {
    let NamedTensor { name, shape, .. } = tensor;
    if shape.len() > AXES {
        return Err(format!("'{name}' has {} axes, but tensors have at most {AXES}", shape.len()));
    }
    let bytes = shape.iter().try_fold(8u64, |bytes, &size| bytes.checked_mul(size.max(1) as u64));
    if bytes.is_none_or(|bytes| i64::try_from(bytes).is_err()) {
        return Err(format!("'{name}' has shape {shape:?}, which no tensor can have"));
    }
    Ok(())
}

fn count(mask: &NamedTensor) -> Checked<Count> {
    let NamedTensor { name, dtype, data, .. } = mask;
    if *dtype != Dtype::BOOL {
        return Err(format!("'{name}' has type {dtype}, but masks are BOOL"));
    }
    if let Some(byte) = data.iter().find(|&&byte| byte > 1) {
        return Err(format!("'{name}' holds the byte {byte}, but a Boolean is 0 or 1"));
    }
    Ok(Count { kept: data.iter().map(|&byte| u64::from(byte)).sum(), total: data.len() as u64 })
}

/// Finite floats, zero (of either sign) where the mask is false.
fn check_values(tensor: &NamedTensor, mask: Option<&NamedTensor>) -> Checked<()> {
    let NamedTensor { name, dtype, shape, data } = tensor;
    let exponent: u64 = match dtype {
        Dtype::F16 => 0x7c00,
        Dtype::BF16 => 0x7f80,
        Dtype::F32 => 0x7f80_0000,
        Dtype::F64 => 0x7ff0_0000_0000_0000,
        _ => return Err(format!("'{name}' has type {dtype}, but values are F16, BF16, F32 or F64")),
    };
    if let Some(mask) = mask
        && mask.shape != *shape
    {
        return Err(format!("'{name}' has shape {shape:?}, but '{}' {:?}", mask.name, mask.shape));
    }
    let width = dtype.bitsize() / 8;
    for (i, element) in data.chunks(width).enumerate() {
        let mut bits = [0; 8];
        bits[..element.len()].copy_from_slice(element);
        let bits = u64::from_le_bytes(bits);
        if bits & exponent == exponent {
            return Err(format!("'{name}' is not finite at flat index {i}"));
        }
        let kept = mask.is_none_or(|mask| mask.data.get(i) != Some(&0));
        if !kept && bits << (64 - 8 * width) << 1 != 0 {
            return Err(format!("'{name}' is not zero at flat index {i}, which its mask prunes"));
        }
    }
    Ok(())
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
