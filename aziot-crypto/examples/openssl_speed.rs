//! Operations of the OpenSSL back end beside what `openssl speed` reaches, one thread each.
//!
//! `cargo run --release -p aziot-crypto --features openssl --example openssl_speed`. Look at the ratios: absolute rates
//! are those of the machine and of the moment.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a measurement, not a service"
)]

use std::hint::black_box;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use aziot_crypto::aead::OVERHEAD;
use aziot_crypto::key_pair::{Algorithm, RsaPadding};
use aziot_crypto::openssl::{AesGcm, KeyPair};

/// How often each pair of measurements is repeated; the medians count.
const ROUNDS: usize = 5;

fn main() {
    for (name, algorithm, speed) in [
        ("ECDSA P-256", Algorithm::EcP256, "ecdsap256"),
        ("ECDSA P-384", Algorithm::EcP384, "ecdsap384"),
        ("RSA-2048 PKCS1", Algorithm::Rsa2048, "rsa2048"),
    ] {
        let key = KeyPair::generate(algorithm).expect("a key pair");
        let key = KeyPair::from_pem(&key.to_pem().expect("PEM")).expect("the same key pair");
        let mut out = [0; 512];
        let mut ours = || match algorithm.curve() {
            Some(_) => key.sign_ecdsa(black_box(&[7; 32]), &mut out),
            None => key.rsa_private(RsaPadding::Pkcs1, black_box(&[7; 51]), &mut out),
        };
        let (mut rates, mut floors) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            rates.push(rate(|| {
                black_box(ours().expect("a signature"));
            }));
            floors.push(openssl_speed(speed));
        }
        let (rate, floor) = (median(rates), median(floors));
        println!(
            "{name}: {rate:.0}/s, openssl speed {floor:.0}/s, ratio {:.2}",
            rate / floor
        );
    }

    for len in [32, 1024, 65536] {
        let secret = [7; 32];
        let plaintext = vec![1; len];
        let mut out = vec![0; len + OVERHEAD];
        let kept = AesGcm::new(&secret).expect("a key");
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for _ in 0..ROUNDS {
            with.push(rate(|| {
                black_box(kept.encrypt(&[3; 12], b"aad", &plaintext, &mut out)).expect("room");
            }));
            without.push(rate(|| {
                let fresh = AesGcm::new(&secret).expect("a key");
                black_box(fresh.encrypt(&[3; 12], b"aad", &plaintext, &mut out)).expect("room");
            }));
        }
        let (with, without) = (median(with), median(without));
        println!(
            "AES-256-GCM, {len} bytes: {with:.0}/s, with a new context each time {without:.0}/s, ratio {:.2}",
            with / without
        );
    }
}

/// Operations a second, over half a second.
fn rate(mut operation: impl FnMut()) -> f64 {
    let start = Instant::now();
    let mut count = 0_u32;
    while start.elapsed() < Duration::from_millis(500) {
        for _ in 0..16 {
            operation();
        }
        count += 16;
    }
    f64::from(count) / start.elapsed().as_secs_f64()
}

/// Signatures a second as `openssl speed` counts them, over a second.
fn openssl_speed(algorithm: &str) -> f64 {
    let output = Command::new("openssl")
        .args(["speed", "-mr", "-elapsed", "-seconds", "1", algorithm])
        .stderr(Stdio::null())
        .output()
        .expect("the openssl program");
    let text = String::from_utf8_lossy(&output.stdout);
    // `+F4:3:256:53085.0:18185.0` for ECDSA, `+F2:…` for RSA: number, bits, signatures and verifications a second.
    text.lines()
        .find(|line| line.starts_with("+F4:") || line.starts_with("+F2:"))
        .and_then(|line| line.split(':').nth(3))
        .and_then(|rate| rate.parse().ok())
        .expect("a result of openssl speed")
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
