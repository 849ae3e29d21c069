//! Every operation while every function of the token fails, at every point.

use crate::fixture::*;

/// Functions that change or look for objects.
const FUNCTIONS: [&str; 5] = [
    "C_FindObjectsInit",
    "C_GetAttributeValue",
    "C_SetAttributeValue",
    "C_CreateObject",
    "C_DestroyObject",
];

/// Ways to fail: of no consequence for sessions, or with the token gone; done all the same, or not; once, or from then on.
const WAYS: [&str; 4] = ["0x50 1", "0x32 *", "0x50 1 after", "0x50 * after"];

/// Calls `each` with what starts every failure, until one is not reached. `each` ends it, and says whether the operation
/// failed and what was left of the script.
fn everywhere(fixture: &Fixture, mut each: impl FnMut(&dyn Fn(), &str) -> (bool, String)) {
    let mut failures = 0;
    for function in FUNCTIONS {
        for way in WAYS {
            for before in 0..40 {
                let start = || {
                    if before > 0 {
                        fixture.fail(function, "0x0", &format!("{before} after"));
                    }
                    let (value, times) = way.split_once(' ').unwrap();
                    fixture.fail(function, value, times);
                };
                let (failed, rest) = each(&start, &format!("{function} {way} after {before}"));
                failures += usize::from(failed);
                if rest.contains("0x0 ") {
                    break;
                }
            }
        }
    }
    assert!(failures > 5, "only {failures} failures");
}

#[test]
fn a_failing_import_leaves_the_old_key() {
    with_tokens("failing::a_failing_import_leaves_the_old_key", |fixture| {
        for (in_file, in_token) in [(true, false), (true, true)] {
            everywhere(fixture, |fail, case| {
                let case = format!("{case}, file {in_file}, token {in_token}");
                let (_, store) = fixture.files();
                if in_file {
                    store.import_key("k", &long(b"file"), SIGN).unwrap();
                }
                configure(&store);
                if in_token {
                    store.import_key("k", &long(b"token"), SIGN).unwrap();
                }
                let old = tag(&store.key("k").unwrap());
                fail();
                let result = store.import_key("k", &long(b"new"), SIGN);
                let rest = fixture.script();
                fixture.heal();
                let now = tag(&store.key("k").unwrap());
                let expected = match &result {
                    Ok(_) => tag_of(&long(b"new")),
                    Err(_) => old,
                };
                assert_eq!(now, expected, "{case}: {result:?}");
                // Whatever is left of it is in nobody's way.
                store.import_key("k", &long(b"newer"), SIGN).unwrap();
                assert_eq!(
                    tag(&store.key("k").unwrap()),
                    tag_of(&long(b"newer")),
                    "{case}"
                );
                store.delete_key("k").unwrap();
                refused(store.key("k"));
                (result.is_err(), rest)
            });
        }
    });
}

#[test]
fn a_failing_move_leaves_both_keys_or_completes() {
    with_tokens(
        "failing::a_failing_move_leaves_both_keys_or_completes",
        |fixture| {
            for with_target in [false, true] {
                everywhere(fixture, |fail, case| {
                    let case = format!("{case}, target {with_target}");
                    let (_, store) = fixture.store();
                    let from = point(&store.create_key_pair("from", None).unwrap());
                    let to =
                        with_target.then(|| point(&store.create_key_pair("to", None).unwrap()));
                    fail();
                    let result = store.move_key_pair("from", "to");
                    let rest = fixture.script();
                    fixture.heal();
                    let at = |id| {
                        store.key_pair(id).ok().map(|pair| {
                            let mut signature = [0; 80];
                            pair.sign_ecdsa(&[1; 32], &mut signature).unwrap();
                            point(&pair)
                        })
                    };
                    let now = (at("from"), at("to"));
                    let moved = (None, Some(from.clone()));
                    let stays = (Some(from), to);
                    match &result {
                        Ok(()) => assert_eq!(now, moved, "{case}"),
                        Err(err) => {
                            assert!(now == moved || now == stays, "{case}: {err}: {now:02x?}");
                        }
                    }
                    store.delete_key_pair("from").unwrap();
                    assert_eq!((at("from"), at("to")), (None, now.1), "{case}");
                    store.delete_key_pair("to").unwrap();
                    assert_eq!((at("from"), at("to")), (None, None), "{case}");
                    (result.is_err(), rest)
                });
            }
        },
    );
}
