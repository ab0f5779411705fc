//! Records the torch version that the extension is compiled against, for the check at import.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB")
        .unwrap_or_else(|_| panic!("torch-sys names the folder of libtorch on Linux and macOS alone"));
    let version_file = Path::new(&lib).with_file_name("version.py");
    println!("cargo:rerun-if-changed={}", version_file.display());
    let Ok(text) = std::fs::read_to_string(&version_file) else {
        panic!(
            "the torch that an earlier build found is no longer at {lib}: run `cargo clean --package torch-sys`, \
             activate the environment that has torch, and build again"
        );
    };
    let version = text
        .lines()
        .find(|line| line.starts_with("__version__"))
        .and_then(|line| line.split(['\'', '"']).nth(1))
        .unwrap_or_else(|| panic!("{} states no __version__", version_file.display()));
    println!("cargo:rustc-env=PRECODE_TORCH_VERSION={version}");
}
