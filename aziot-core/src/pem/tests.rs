use proptest::prelude::*;

use super::*;

fn decoded(text: &str) -> Vec<(String, Result<Vec<u8>, Error>)> {
    blocks(text.as_bytes())
        .map(|block| {
            let mut out = vec![0; block.max_len()];
            (
                block.label.to_owned(),
                block.decode(&mut out).map(<[u8]>::to_vec),
            )
        })
        .collect()
}

fn good(label: &str, content: &[u8]) -> (String, Result<Vec<u8>, Error>) {
    (label.to_owned(), Ok(content.to_vec()))
}

fn bad(label: &str, error: Error) -> (String, Result<Vec<u8>, Error>) {
    (label.to_owned(), Err(error))
}

#[test]
fn what_openssl_takes() {
    assert_eq!(decoded(""), []);
    assert_eq!(decoded("no block\n-----BEGIN half\n"), []);
    assert_eq!(
        decoded(
            "Bag Attributes\r\n-----BEGIN A-----\r\nAA\r\nEC \r\n-----END A-----\r\ntext\n-----BEGIN B C-----\nAw==\n-----END B C-----"
        ),
        [good("A", &[0, 1, 2]), good("B C", &[3])]
    );
    assert_eq!(
        decoded("-----BEGIN A-----\nX-Note: 1\nMore: 2\n\nAAEC\n-----END A-----\n"),
        [good("A", &[0, 1, 2])]
    );
    // Indented, it is no boundary.
    assert_eq!(decoded(" -----BEGIN A-----\nAAEC\n-----END A-----\n"), []);
}

#[test]
fn damage_is_told() {
    for (text, expected) in [
        ("-----BEGIN A-----\nAAEC\n", Error::NoEnd),
        (
            "-----BEGIN A-----\nAAEC\n-----END B-----\n",
            Error::WrongEnd,
        ),
        ("-----BEGIN A-----\nAAEC\n-----END A----\n", Error::WrongEnd),
        ("-----BEGIN A-----\n\n-----END A-----\n", Error::Empty),
        (
            "-----BEGIN A-----\nX: 1\nAAEC\n-----END A-----\n",
            Error::Headers,
        ),
        (
            "-----BEGIN A-----\nProc-Type: 4,ENCRYPTED\n\nAAEC\n-----END A-----\n",
            Error::Encrypted,
        ),
        (
            "-----BEGIN A-----\nAAE\n-----END A-----\n",
            Error::Base64(base64::Error::InvalidPadding),
        ),
    ] {
        assert_eq!(decoded(text), [bad("A", expected)], "{text}");
    }
    let padded_inside = format!(
        "-----BEGIN A-----\n{}AA==\nAAEC\n-----END A-----\n",
        "AAAA".repeat(15)
    );
    assert_eq!(
        decoded(&padded_inside),
        [bad("A", Error::Base64(base64::Error::InvalidPadding))]
    );
    // A file without its last line end, put before another one.
    assert_eq!(
        decoded(
            "-----BEGIN A-----\nAAEC\n-----END A----------BEGIN A-----\nAAEC\n-----END A-----\n"
        ),
        [bad("A", Error::WrongEnd)]
    );
    // What comes after a block that does not end is still found.
    assert_eq!(
        decoded("-----BEGIN A-----\nAAEC\n-----BEGIN B-----\nAAEC\n-----END B-----\n"),
        [bad("A", Error::NoEnd), good("B", &[0, 1, 2])]
    );
}

#[test]
fn a_short_buffer_is_an_error() {
    let text = "-----BEGIN A-----\nAAEC\n-----END A-----\n";
    let block = blocks(text.as_bytes()).next().unwrap();
    assert_eq!(block.decode(&mut [0; 2]), Err(Error::BufferFull));
    assert_eq!(block.decode(&mut [0; 3]), Ok(&[0, 1, 2][..]));
    let mut out = [0; 64];
    assert_eq!(encode("A", &[0, 1, 2], &mut out), Ok(text));
    let length = encoded_len("A", 3);
    assert_eq!(length, text.len());
    assert_eq!(
        encode("A", &[0, 1, 2], &mut out[..length - 1]),
        Err(BufferFull)
    );
}

proptest! {
    #[test]
    fn comes_back(der in prop::collection::vec(any::<u8>(), 1..300), before in "[^-]{0,20}", crlf: bool) {
        let mut out = vec![0; encoded_len("CERTIFICATE", der.len())];
        let length = out.len();
        let text = encode("CERTIFICATE", &der, &mut out).unwrap();
        prop_assert_eq!(text.len(), length);
        prop_assert!(text.lines().all(|line| line.len() <= 64));
        let text = if crlf { text.replace('\n', "\r\n") } else { text.to_owned() };
        let text = format!("{before}\n{text}{text}{before}");
        prop_assert_eq!(decoded(&text), [good("CERTIFICATE", &der), good("CERTIFICATE", &der)]);
    }

    #[test]
    fn never_panics(text in "(-----BEGIN [AB]{0,2}-----|-----END [AB]{0,2}-----|\\PC{0,5}|[A-Za-z=:]{0,6}|\r?\n){0,30}") {
        decoded(&text);
    }
}
