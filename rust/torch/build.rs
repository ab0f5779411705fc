//! Links this package's own tests and benches with libtorch so that they run with only the virtual
//! environment active: link arguments of `torch-sys` do not reach them.

fn main() {
    println!("cargo:rerun-if-changed=build.rs");
    println!("cargo:rerun-if-env-changed=DEP_TCH_LIBTORCH_LIB");
    if std::env::var("CARGO_CFG_TARGET_OS").as_deref() != Ok("linux") {
        return;
    }
    // Set by torch-sys (`links = "tch"`), which is a direct dependency for this alone.
    if let Ok(lib) = std::env::var("DEP_TCH_LIBTORCH_LIB") {
        let library = std::path::Path::new(&lib).join("libtorch.so");
        println!("cargo:rerun-if-changed={}", library.display());
        assert!(
            library.exists(),
            "the torch that an earlier build found is no longer at {lib}: run `cargo clean --package torch-sys`, \
             activate the environment that has torch, and build again"
        );
        println!("cargo:rustc-link-search=native={lib}");
        println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
    }
    // libtorch registers its CUDA kernels when it is loaded; no symbol of it is used, so the linker
    // would drop it and CUDA would silently be missing.
    println!("cargo:rustc-link-arg=-Wl,--no-as-needed");
    println!("cargo:rustc-link-arg=-ltorch");
}
