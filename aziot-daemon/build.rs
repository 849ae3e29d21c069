//! Says which OpenSSL there is: keys of the Keys Service come through a provider from 3.0 on, and
//! through methods before.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-check-cfg=cfg(ossl300)");
    let version = std::env::var("DEP_OPENSSL_VERSION_NUMBER")
        .ok()
        .and_then(|version| u64::from_str_radix(&version, 16).ok());
    if version.is_some_and(|version| version >= 0x3000_0000) {
        println!("cargo::rustc-cfg=ossl300");
    }
}
