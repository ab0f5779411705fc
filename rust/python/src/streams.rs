//! The CUDA streams of the thread that called, for the thread that works for it: what one begins the other sees, and memory
//! that one frees the other does not overwrite.

use pyo3::prelude::*;

/// Streams of `torch.cuda`, that of the current device last; none where the process has not used CUDA yet.
pub struct Streams(Vec<Py<PyAny>>);

impl Streams {
    /// Those of this thread.
    pub fn of_this_thread(py: Python<'_>) -> PyResult<Self> {
        let cuda = py.import("torch.cuda")?;
        if !cuda.call_method0("is_initialized")?.extract::<bool>()? {
            return Ok(Self(Vec::new()));
        }
        let current: usize = cuda.call_method0("current_device")?.extract()?;
        let mut devices: Vec<usize> = (0..cuda.call_method0("device_count")?.extract()?).collect();
        devices.sort_by_key(|&device| device == current);
        let stream = |device| Ok(cuda.call_method1("current_stream", (device,))?.unbind());
        devices.into_iter().map(stream).collect::<PyResult<_>>().map(Self)
    }

    /// Makes them those of the thread that calls this.
    pub fn enter(&self) -> PyResult<()> {
        if self.0.is_empty() {
            return Ok(());
        }
        Python::attach(|py| {
            let cuda = py.import("torch.cuda")?;
            self.0.iter().try_for_each(|stream| cuda.call_method1("set_stream", (stream,)).map(drop))
        })
    }
}
