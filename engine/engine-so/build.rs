//! How the shared object is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // Keys outlive the engine that has loaded them, and so do the callbacks that release what belongs to them.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
