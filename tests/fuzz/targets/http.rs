//! Request heads in any pieces, routing, and the chunked coding.
#![no_main]

use aziot_core::api::{Api, identity, keys};
use aziot_core::http::chunked::Decoder;
use aziot_core::http::request::{self, HeadError, HeadSearch};
use aziot_core::http::{BodyLength, ContentType};
use aziot_core::limits;
use aziot_fuzz::Input;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let mut input = Input(data);
    let (what, step) = (input.byte(), usize::from(input.byte()).max(1));
    if what.is_multiple_of(4) {
        chunks(input.0, step);
    } else {
        head(input.0, step);
    }
});

fn head(bytes: &[u8], step: usize) {
    let whole = HeadSearch::new().find(bytes);
    // However the bytes come in, the end is found in the same place.
    let mut search = HeadSearch::new();
    let mut pieces = Ok(None);
    for end in (step..bytes.len()).step_by(step).chain([bytes.len()]) {
        pieces = search.find(&bytes[..end]);
        if pieces != Ok(None) {
            break;
        }
    }
    if pieces == Err(HeadError::NotHttp) {
        // Seen at the first byte, or else by the parser once all is there.
        if let Ok(Some(length)) = whole {
            assert!(request::parse(&bytes[..length]).is_err());
        }
        return;
    }
    assert_eq!(pieces, whole);
    let Ok(Some(length)) = whole else {
        return;
    };
    let bytes = &bytes[..length];
    let head = match request::parse(bytes) {
        Ok(head) => head,
        Err(error) => {
            assert_eq!(error.status().is_none(), error == HeadError::Http2Preface);
            return;
        }
    };

    assert!(
        bytes
            .windows(head.target.len())
            .any(|part| part == head.target.as_bytes())
    );
    assert!(!head.path.is_empty() && !head.path.contains(['?', '#']));
    assert!(!head.query.contains('#'));
    assert!(head.target.len() <= limits::TARGET);
    let fields: Vec<_> = head.headers.into_iter().collect();
    assert!(fields.len() <= limits::HEADER_FIELDS);
    let values = |name: &str| {
        let fields = fields
            .iter()
            .filter(move |field| field.name.eq_ignore_ascii_case(name));
        fields.map(|field| field.value).collect::<Vec<_>>()
    };
    // Once more from the list of fields, which is read separately.
    let lengths = values("content-length");
    match head.body {
        BodyLength::Chunked => assert_eq!(values("transfer-encoding").len(), 1),
        BodyLength::Known(length) => {
            assert!(values("transfer-encoding").is_empty());
            assert!(!lengths.is_empty() || length == 0);
            for text in lengths {
                let text = std::str::from_utf8(text).expect("digits");
                assert_eq!(text.parse(), Ok(length));
            }
        }
    }
    assert_eq!(
        head.content_type == ContentType::Absent,
        values("content-type").is_empty()
    );
    routed(&keys::API, &head);
    routed(&identity::API, &head);
}

/// A request that finds a route finds it again when its parameter is written plainly.
fn routed<R: Copy + PartialEq + std::fmt::Debug>(api: &Api<R>, head: &request::Head<'_>) {
    // U+FFFD takes three times the room of what is not UTF-8.
    let mut scratch = vec![0; 3 * head.target.len()];
    let Ok(matched) = api.route(head, &mut scratch) else {
        return;
    };
    let _ = matched.body_rule();
    let Some(parameter) = matched.parameter else {
        return;
    };
    assert!(!parameter.is_empty());
    let encoded: String = parameter
        .bytes()
        .map(|byte| format!("%{byte:02X}"))
        .collect();
    let (before, _) = head.path.rsplit_once('/').expect("a path with a parameter");
    let version = api.versions[matched.version];
    let text = format!(
        "{} {before}/{encoded}?api-version={version} HTTP/1.1\r\n\r\n",
        head.method_name
    );
    // Escapes may take more room than a target has.
    let Ok(head) = request::parse(text.as_bytes()) else {
        return;
    };
    let mut scratch = vec![0; head.target.len()];
    let again = api.route(&head, &mut scratch).expect("the same route");
    assert_eq!((again.id, again.parameter), (matched.id, matched.parameter));
}

fn chunks(bytes: &[u8], step: usize) {
    // What any bytes decode to does not depend on how they arrive.
    let whole = {
        let mut buffer = bytes.to_vec();
        Decoder::new().decode(&mut buffer).map(|step| {
            assert!(step.produced <= step.consumed && step.consumed <= bytes.len());
            assert_eq!(buffer[step.consumed..], bytes[step.consumed..]);
            (buffer[..step.produced].to_vec(), step.consumed, step.done)
        })
    };
    let pieces = (|| {
        let (mut decoder, mut body, mut consumed, mut done) =
            (Decoder::new(), Vec::new(), 0, false);
        for piece in bytes.chunks(step) {
            if done {
                break;
            }
            let mut piece = piece.to_vec();
            let step = decoder.decode(&mut piece)?;
            body.extend_from_slice(&piece[..step.produced]);
            consumed += step.consumed;
            done = step.done;
        }
        Ok((body, consumed, done))
    })();
    assert_eq!(pieces, whole);

    // Any bytes come back when they are sent in chunks.
    let mut text = Vec::new();
    for chunk in bytes.chunks(step) {
        text.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        text.extend_from_slice(chunk);
        text.extend_from_slice(b"\r\n");
    }
    text.extend_from_slice(b"0\r\n\r\nGET /");
    let step = Decoder::new()
        .decode(&mut text)
        .expect("well-formed chunks");
    assert!(step.done);
    assert_eq!(&text[..step.produced], bytes);
    assert_eq!(&text[step.consumed..], b"GET /");
}
