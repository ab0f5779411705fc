//! Records the torch version that the extension is compiled against, for the check at import.

use std::path::Path;

fn main() {
    println!("cargo:rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    let lib = std::env::var("DEP_TCH_LIBTORCH_LIB").unwrap_or_default();
    let version_file = Path::new(&lib).parent().map(|torch| torch.join("version.py"));
    let version = version_file
        .and_then(|path| std::fs::read_to_string(path).ok())
        .and_then(|text| {
            let line = text.lines().find(|line| line.starts_with("__version__"))?.to_owned();
            line.split(['\'', '"']).nth(1).map(str::to_owned)
        })
        .unwrap_or_else(|| panic!("no torch/version.py beside {lib}: install torch before building"));
    println!("cargo:rustc-env=PRECODE_TORCH_VERSION={version}");
}
