//! Reports about keys in tokens, and tokens.

use aziot_crypto::pkcs11::Condition;
use aziot_crypto::store::{Item, KeyReport, Kind, Location, Store, TokenReport};

use crate::fixture::*;

fn report(store: &Store) -> (Vec<KeyReport>, Vec<TokenReport>) {
    let (mut keys, mut tokens) = (Vec::new(), Vec::new());
    store.report(&mut |item| match item {
        Item::Key(key) => keys.push(key.clone()),
        Item::Token(token) => tokens.push(token.clone()),
    });
    (keys, tokens)
}

#[test]
fn keys_and_tokens_are_told_of_without_secrets() {
    with_tokens(
        "report::keys_and_tokens_are_told_of_without_secrets",
        |fixture| {
            let (_, store) = fixture.files();
            store.create_key_pair("old", None).unwrap();
            configure(&store);
            store.create_key("handle-validation-key", SIGN).unwrap();
            store.create_key_pair("pair", None).unwrap();
            preload_in(&store, "preloaded", "other", "label");
            let (keys, tokens) = report(&store);
            let told: Vec<_> = keys
                .iter()
                .map(|key| {
                    (
                        key.id.as_deref().unwrap(),
                        key.kind,
                        key.location,
                        key.preloaded,
                    )
                })
                .collect();
            assert_eq!(
                told,
                [
                    (
                        "handle-validation-key",
                        Some(Kind::Symmetric),
                        Some(Location::Pkcs11),
                        false
                    ),
                    ("old", Some(Kind::Pair), Some(Location::File), false),
                    ("pair", Some(Kind::Pair), Some(Location::Pkcs11), false),
                    ("preloaded", None, None, true),
                ]
            );
            assert_eq!(
                keys[0].place.as_deref(),
                Some("pkcs11:token=base;object=handle%2Dvalidation%2Dkey")
            );
            assert_eq!(
                keys[3].place.as_deref(),
                Some("pkcs11:token=other;object=label")
            );
            assert!(
                keys[1]
                    .remark
                    .as_ref()
                    .unwrap()
                    .contains("pkcs11:token=base")
            );
            let uris: Vec<&str> = tokens.iter().map(|token| token.uri.as_str()).collect();
            assert_eq!(uris, ["pkcs11:token=base", "pkcs11:token=other"]);
            assert_eq!(tokens[0].state.condition, Condition::Working);
            assert!(!format!("{keys:?}{tokens:?}").contains(PIN));

            // A token that fails is told of once, and its keys with the reason.
            fixture.calls();
            fixture.fail("C_FindObjectsInit", CKR_DEVICE_MEMORY, "*");
            let (keys, tokens) = report(&store);
            assert_eq!(tokens.len(), 2);
            let pair = keys
                .iter()
                .find(|key| key.id.as_deref() == Some("pair"))
                .unwrap();
            assert_eq!((pair.kind, pair.location), (None, None));
            assert!(pair.remark.as_ref().unwrap().contains("CKR_DEVICE_MEMORY"));
            let old = keys
                .iter()
                .find(|key| key.id.as_deref() == Some("old"))
                .unwrap();
            assert_eq!(old.location, Some(Location::File));
            let asked = fixture.calls().matches("C_FindObjectsInit").count();
            assert!(asked <= 4, "{asked}");
        },
    );
}
