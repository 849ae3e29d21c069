//! Moves between files; those of keys in tokens are in `tests/store_tokens.rs`.

use super::*;

/// What is at one end of a move.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Missing,
    Empty,
    Broken,
    Pair,
    Symmetric,
}

const ENDS: [End; 5] = [
    End::Missing,
    End::Empty,
    End::Broken,
    End::Pair,
    End::Symmetric,
];

/// What becomes of a move.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Outcome {
    Moved,
    /// Refused as the caller's mistake.
    Refused,
    /// Refused because something is broken or missing.
    Failed,
}

fn expected(from: End, to: End) -> Outcome {
    match (from, to) {
        (End::Missing | End::Empty | End::Broken, _) => Outcome::Failed,
        (End::Pair, End::Symmetric) | (End::Symmetric, End::Pair | End::Broken) => Outcome::Refused,
        (End::Pair | End::Symmetric, _) => Outcome::Moved,
    }
}

#[test]
fn kf_11_moves_of_and_onto_everything() {
    for from in ENDS {
        for to in ENDS {
            for (from_id, to_id) in [
                ("a", "b"),
                ("a", "preloaded b"),
                ("preloaded a", "b"),
                ("preloaded a", "preloaded b"),
            ] {
                let (home, store) = store();
                let dir = TempDir::new().unwrap();
                for id in ["preloaded a", "preloaded b"] {
                    let path = dir.path().join(id);
                    store
                        .preload(id, &format!("file://{}", path.display()))
                        .unwrap();
                }
                let path = |id: &str| match id.strip_prefix("preloaded") {
                    Some(_) => dir.path().join(id),
                    None => file_of(&home, id),
                };
                fs::create_dir(home.path().join("keys")).unwrap();
                let contents = |end| match end {
                    End::Missing => None,
                    End::Empty => Some(Vec::new()),
                    End::Broken => Some(PEM.as_bytes().to_vec()),
                    End::Pair => Some(pem()),
                    End::Symmetric => Some(b"symmetric".to_vec()),
                };
                let (source, target) = (contents(from), contents(to));
                for (id, contents) in [(from_id, &source), (to_id, &target)] {
                    if let Some(contents) = contents {
                        fs::write(path(id), contents).unwrap();
                    }
                }
                let case = format!("{from:?} at {from_id} to {to:?} at {to_id}");
                let outcome = match store.move_key_pair(from_id, to_id) {
                    Ok(()) => Outcome::Moved,
                    Err(err) if err.is_invalid_parameter() => Outcome::Refused,
                    Err(_) => Outcome::Failed,
                };
                assert_eq!(outcome, expected(from, to), "{case}");
                let left = |id| fs::read(path(id)).ok();
                if outcome == Outcome::Moved {
                    assert_eq!((left(from_id), left(to_id)), (None, source), "{case}");
                } else {
                    assert_eq!((left(from_id), left(to_id)), (source, target), "{case}");
                }
                assert!(
                    keys_in(&home) + fs::read_dir(dir.path()).unwrap().count() <= 2,
                    "{case}"
                );
            }
        }
    }
}

#[test]
fn moving_a_key_to_itself_changes_nothing() {
    let (home, store) = store();
    let pair = store.create_key_pair("pair", None).unwrap();
    // The same file under another id.
    let uri = format!("file://{}", file_of(&home, "pair").display());
    store.preload("alias", &uri).unwrap();
    for (from, to) in [("pair", "pair"), ("pair", "alias"), ("alias", "pair")] {
        store.move_key_pair(from, to).unwrap();
        assert_eq!(point(&store.key_pair("pair").unwrap()), point(&pair));
    }
    let err = store.move_key_pair("missing", "missing").unwrap_err();
    assert!(matches!(err, Error::Move(MoveError::SourceMissing { .. })));
    assert!(!err.is_invalid_parameter());
}

#[test]
fn moving_a_key_to_a_link_that_leads_to_it_changes_nothing() {
    let (_home, store) = store();
    let dir = TempDir::new().unwrap();
    let whole = pem();
    fs::write(dir.path().join("real"), &whole).unwrap();
    symlink("real", dir.path().join("relative")).unwrap();
    symlink(dir.path().join("real"), dir.path().join("absolute")).unwrap();
    fs::hard_link(dir.path().join("real"), dir.path().join("hard")).unwrap();
    let names = ["real", "relative", "absolute", "hard"];
    for name in names {
        let uri = format!("file://{}/{name}", dir.path().display());
        store.preload(name, &uri).unwrap();
    }
    for from in names {
        for to in names {
            store.move_key_pair(from, to).unwrap();
            for name in names {
                let pair = store.key_pair(name).unwrap();
                assert_eq!(point(&pair), point_of(&whole), "{name}: {from} to {to}");
            }
        }
    }
}

#[test]
fn a_move_that_the_file_system_refuses_changes_nothing() {
    let (home, store) = store();
    let pair = store.create_key_pair("pair", None).unwrap();
    let dir = TempDir::new().unwrap();
    let orphan = format!("file://{}/missing/key", dir.path().display());
    store.preload("orphan", &orphan).unwrap();
    let err = store.move_key_pair("pair", "orphan").unwrap_err();
    assert!(matches!(err, Error::File(_)), "{err}");
    // A directory where the file would be.
    fs::create_dir(file_of(&home, "directory")).unwrap();
    assert!(store.move_key_pair("pair", "directory").is_err());
    assert_eq!(point(&store.key_pair("pair").unwrap()), point(&pair));
}

#[test]
fn a_link_is_moved_only_where_it_leads_to_the_same_file() {
    let (home, store) = store();
    let dir = TempDir::new().unwrap();
    let whole = pem();
    fs::write(dir.path().join("real"), &whole).unwrap();
    for (id, target) in [
        ("relative", "real".into()),
        ("absolute", dir.path().join("real")),
    ] {
        symlink(target, dir.path().join(id)).unwrap();
        store
            .preload(id, &format!("file://{}/{id}", dir.path().display()))
            .unwrap();
    }
    let err = store.move_key_pair("relative", "moved").unwrap_err();
    assert!(matches!(err, Error::Move(MoveError::Link { .. })), "{err}");
    assert_eq!(
        point(&store.key_pair("relative").unwrap()),
        point_of(&whole)
    );
    store.move_key_pair("absolute", "moved").unwrap();
    assert_eq!(point(&store.key_pair("moved").unwrap()), point_of(&whole));
    assert_eq!(keys_in(&home), 1);
}
