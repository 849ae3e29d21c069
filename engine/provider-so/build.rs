//! How the shared object is linked.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    // libcrypto keeps pointers to the names of error reasons, and the runtime of Rust has destructors for each thread: both
    // outlive the provider in a program that unloads it.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
}
