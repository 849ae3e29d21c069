//! Requests at the same time: nobody waits for somebody else's key, and no key is lost or made twice.
#![allow(clippy::unwrap_used, reason = "a step that fails, fails the test")]

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use aziot_tests::back_end::{BackEnd, Site, bytes, ecdsa_body};
use aziot_tests::client::request;
use aziot_tests::fixture::{self, VERSION};
use openssl::bn::BigNumContext;
use openssl::ec::{EcGroup, EcKey, EcPoint};
use openssl::ecdsa::EcdsaSig;
use openssl::nid::Nid;
use openssl::pkey::Public;
use serde_json::json;

const INVALID: &str = "a parameter has an invalid value";

fn start(back_end: BackEnd) -> Site {
    Site::start(back_end, false, "max_requests = 100\n", |launch| launch)
}

fn point(site: &Site, handle: &str) -> Vec<u8> {
    bytes(&site.parameter(handle, "ec-point"), "value")
}

fn public(encoded: &[u8]) -> EcKey<Public> {
    let group = EcGroup::from_curve_name(Nid::X9_62_PRIME256V1).unwrap();
    let mut context = BigNumContext::new().unwrap();
    let point = EcPoint::from_bytes(&group, encoded, &mut context).unwrap();
    EcKey::from_public_key(&group, &point).unwrap()
}

#[test]
fn ks_36_eight_clients_work_while_a_large_key_is_generated() {
    let site = start(BackEnd::Files);
    let pairs: Vec<String> = (0..8)
        .map(|n| site.pair(&format!("pair{n}"), "ec-p256"))
        .collect();
    let generated = AtomicBool::new(false);
    thread::scope(|scope| {
        let workers: Vec<_> = pairs
            .iter()
            .enumerate()
            .map(|(number, pair)| {
                let (site, generated) = (&site, &generated);
                scope.spawn(move || {
                    let key = site.keyd.create(&format!("key{number}"));
                    let mut client = site.keyd.connect();
                    let mut done = 0_u64;
                    while !generated.load(Ordering::Relaxed) {
                        for body in [ecdsa_body(pair, &[1; 32]), fixture::sign_body(&key, b"m")] {
                            let bytes = request("POST", &format!("/sign?{VERSION}"), Some(&body));
                            assert_eq!(client.exchange(bytes).status, 200);
                        }
                        // What needs a worker and the disk, too.
                        site.keyd
                            .import(&format!("import{number}"), &done.to_le_bytes());
                        done += 1;
                    }
                    done
                })
            })
            .collect();
        for n in 0..4 {
            let response = site.create_pair(&format!("large{n}"), Some("rsa-4096"));
            assert_eq!(response.status, 200);
        }
        generated.store(true, Ordering::Relaxed);
        for worker in workers {
            assert!(worker.join().unwrap() > 2, "all got on meanwhile");
        }
    });
}

#[test]
fn concurrent_creations_of_one_id_make_one_key() {
    for back_end in [BackEnd::Files, BackEnd::SoftHsm] {
        let site = start(back_end);
        for round in 0..6 {
            let id = format!("id{round}");
            let algorithms = ["ec-p256", "rsa-2048"][usize::from(round == 5)];
            let pairs: BTreeSet<String> = thread::scope(|scope| {
                let threads: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| {
                            let handle = site.pair(&id, algorithms);
                            let name = if round == 5 {
                                "rsa-modulus"
                            } else {
                                "ec-point"
                            };
                            site.parameter(&handle, name).member("value")
                        })
                    })
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .collect()
            });
            assert_eq!(pairs.len(), 1, "{back_end:?}, {round}");
            let id = format!("symmetric{round}");
            let macs: BTreeSet<String> = thread::scope(|scope| {
                let threads: Vec<_> = (0..8)
                    .map(|_| {
                        scope.spawn(|| {
                            let handle = site.keyd.create(&id);
                            site.keyd.sign(&handle, b"m").member("signature")
                        })
                    })
                    .collect();
                threads
                    .into_iter()
                    .map(|thread| thread.join().unwrap())
                    .collect()
            });
            assert_eq!(macs.len(), 1, "{back_end:?}, {round}");
        }
        if let Some(token) = &site.token {
            // Six pairs, six keys, and the one for handles.
            assert_eq!(token.objects().len(), 6 * 2 + 6 + 1);
        } else {
            assert_eq!(site.files().len(), 13);
        }
    }
}

/// A pair that wanders between two ids is never lost, and nobody ever signs with another.
#[test]
fn moves_and_signatures_at_the_same_time() {
    for (back_end, rounds) in [(BackEnd::Files, 200), (BackEnd::SoftHsm, 40)] {
        let site = start(back_end);
        let here = site.pair("here", "ec-p256");
        let there = site.pair("there", "ec-p256");
        assert_eq!(site.keyd.delete("/keypair", &there).status, 204);
        let encoded = point(&site, &here);
        let stop = AtomicBool::new(false);
        let signed: usize = thread::scope(|scope| {
            let signers: Vec<_> = (0..4)
                .map(|number| {
                    let handle = if number % 2 == 0 { &here } else { &there };
                    let (site, stop, key) = (&site, &stop, public(&encoded));
                    scope.spawn(move || {
                        let mut signed = 0;
                        while !stop.load(Ordering::Relaxed) {
                            let response = site.ecdsa(handle, &[7; 32]);
                            if response.status == 200 {
                                let der = bytes(&response, "signature");
                                let signature = EcdsaSig::from_der(&der).unwrap();
                                assert!(signature.verify(&[7; 32], &key).unwrap());
                                signed += 1;
                            } else {
                                response.assert_message(400, INVALID);
                            }
                        }
                        signed
                    })
                })
                .collect();
            for round in 0..rounds {
                let (from, to) = [("here", "there"), ("there", "here")][round % 2];
                let response = site.move_pair(from, to);
                assert_eq!(response.status, 204, "{back_end:?}, {round}: {response}");
            }
            stop.store(true, Ordering::Relaxed);
            signers
                .into_iter()
                .map(|signer| signer.join().unwrap())
                .sum()
        });
        assert!(signed > 0, "somebody met the pair");
        assert_eq!(point(&site, &here), encoded);
        site.keyd.get("/keypair/there").assert_message(400, INVALID);
    }
}

/// As certificates are renewed: a new pair is made beside the old one and moved over it, while the old one is in use.
#[test]
fn a_pair_is_replaced_while_it_is_used() {
    for (back_end, rounds) in [(BackEnd::Files, 60), (BackEnd::SoftHsm, 15)] {
        let site = start(back_end);
        let handle = site.pair("id", "ec-p256");
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            let signers: Vec<_> = (0..3)
                .map(|_| {
                    let (site, stop, handle) = (&site, &stop, &handle);
                    scope.spawn(move || {
                        while !stop.load(Ordering::Relaxed) {
                            let response = site.ecdsa(handle, &[7; 32]);
                            assert_eq!(response.status, 200, "{back_end:?}: {response}");
                        }
                    })
                })
                .collect();
            for _ in 0..rounds {
                let stale = site.keyd.get("/keypair/id-temp");
                if stale.status == 200 {
                    site.keyd.delete("/keypair", &stale.member("keyHandle"));
                }
                let fresh = point(&site, &site.pair("id-temp", "ec-p256"));
                assert_eq!(site.move_pair("id-temp", "id").status, 204);
                assert_eq!(point(&site, &handle), fresh);
            }
            stop.store(true, Ordering::Relaxed);
            for signer in signers {
                signer.join().unwrap();
            }
        });
    }
}

/// Two that move in opposite directions, one that deletes a third, one that creates: whatever the order, the pairs that nobody
/// deleted are there afterwards, and a file or object of each is whole.
#[test]
fn opposite_moves_and_deletions() {
    for (back_end, rounds) in [(BackEnd::Files, 25), (BackEnd::SoftHsm, 6)] {
        let site = start(back_end);
        for round in 0..rounds {
            let encoded = point(&site, &site.pair("a", "ec-p256"));
            thread::scope(|scope| {
                scope.spawn(|| site.move_pair("a", "b"));
                scope.spawn(|| site.move_pair("b", "a"));
                scope.spawn(|| {
                    let handle = site.pair("c", "ec-p256");
                    assert_eq!(site.keyd.delete("/keypair", &handle).status, 204);
                });
                scope.spawn(|| site.pair("d", "ec-p256"));
            });
            let found: Vec<Vec<u8>> = ["a", "b"]
                .iter()
                .filter_map(|id| {
                    let response = site.keyd.get(&format!("/keypair/{id}"));
                    (response.status == 200).then(|| point(&site, &response.member("keyHandle")))
                })
                .collect();
            assert_eq!(found, [encoded], "{back_end:?}, {round}");
            site.keyd.get("/keypair/c").assert_message(400, INVALID);
            assert_eq!(site.keyd.get("/keypair/d").status, 200);
            for id in ["a", "b"] {
                let response = site.keyd.get(&format!("/keypair/{id}"));
                if response.status == 200 {
                    site.keyd.delete("/keypair", &response.member("keyHandle"));
                }
            }
        }
        if let Some(token) = &site.token {
            let objects = token.objects();
            let labels: BTreeSet<String> =
                objects.iter().map(|object| object.label.clone()).collect();
            let expected = ["d", "handle-validation-key"].map(str::to_owned);
            assert_eq!(labels, BTreeSet::from(expected), "{objects:?}");
        }
    }
}

#[test]
fn imports_are_seen_whole() {
    for back_end in [BackEnd::Files, BackEnd::SoftHsm] {
        let site = start(back_end);
        let keys = [[1_u8; 32], [2; 32]];
        let handle = site.keyd.import("key", &keys[0]);
        let known = keys.map(|key| fixture::hmac(&key, b"m"));
        let stop = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    while !stop.load(Ordering::Relaxed) {
                        let response = site.keyd.sign(&handle, b"m");
                        let signature = response.json()["signature"].clone();
                        assert!(
                            known.iter().any(|known| json!(known) == signature),
                            "{back_end:?}: {response}"
                        );
                    }
                });
            }
            for round in 0..40 {
                site.keyd.import("key", &keys[round % 2]);
            }
            stop.store(true, Ordering::Relaxed);
        });
        assert_eq!(site.keyd.sign(&handle, b"m").member("signature"), known[1]);
    }
}
