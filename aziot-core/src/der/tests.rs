use der::asn1::{Any, Int, ObjectIdentifier, Uint};
use der::{Decode as _, Encode as _};
use proptest::prelude::*;

use super::*;

fn written(capacity: usize, write: impl FnOnce(&mut Writer<'_>)) -> Result<Vec<u8>, BufferFull> {
    let mut buffer = vec![0xee; capacity];
    let mut writer = Writer::new(&mut buffer);
    write(&mut writer);
    writer.finish().map(<[u8]>::to_vec)
}

#[test]
fn lengths_have_one_form() {
    for (der, expected) in [
        (&[0x04, 0x00][..], Ok(0)),
        (&[0x04, 0x01, 7], Ok(1)),
        (&[0x04, 0x80, 0, 0], Err(Error::Length)),
        (&[0x04, 0x81, 0x01, 7], Err(Error::Length)),
        (&[0x04, 0x82, 0x00, 0x01, 7], Err(Error::Length)),
        (&[0x04, 0x84, 0xff, 0xff, 0xff, 0xff], Err(Error::Truncated)),
        (
            &[0x04, 0x89, 1, 0, 0, 0, 0, 0, 0, 0, 0],
            Err(Error::Truncated),
        ),
        (&[0x04, 0xff], Err(Error::Truncated)),
        (&[0x04, 0x02, 7], Err(Error::Truncated)),
        (&[0x04], Err(Error::Truncated)),
        (&[], Err(Error::Missing)),
        (&[0x1f, 0x81, 0x01, 0x00], Err(Error::HighTag)),
    ] {
        let read = Reader::new(der).element();
        assert_eq!(
            read.map(|element| element.content.len()),
            expected,
            "{der:02x?}"
        );
    }
    for length in [0, 0x7f, 0x80, 0xff, 0x100, 0xffff, 0x10000] {
        let content = vec![7; length];
        let der = written(length + 8, |w| w.element(Tag::OCTET_STRING, &content)).unwrap();
        assert_eq!(Reader::new(&der).octet_string(), Ok(&content[..]));
        let nested = written(length + 8, |w| {
            w.nested(Tag::OCTET_STRING, |w| w.put(&content));
        });
        assert_eq!(nested.unwrap(), der);
        assert_eq!(
            written(der.len() - 1, |w| w.element(Tag::OCTET_STRING, &content)),
            Err(BufferFull)
        );
        assert_eq!(
            written(der.len() - 1, |w| w
                .nested(Tag::OCTET_STRING, |w| w.put(&content))),
            Err(BufferFull)
        );
    }
}

#[test]
fn elements_are_told_apart() {
    let der = [0x30, 0x06, 0x02, 0x01, 0x05, 0x01, 0x01, 0xff, 0x05, 0x00];
    let mut reader = Reader::new(&der);
    assert_eq!(
        reader.expect(Tag::SET),
        Err(Error::Tag {
            expected: Tag::SET,
            found: Tag::SEQUENCE
        })
    );
    let mut content = reader.sequence().unwrap();
    assert_eq!(content.optional(Tag::BOOLEAN), Ok(None));
    assert_eq!(content.unsigned(), Ok(&[5][..]));
    assert_eq!(content.boolean(), Ok(true));
    assert_eq!(content.boolean(), Err(Error::Missing));
    assert_eq!(content.finish(), Ok(()));
    assert_eq!(reader.finish(), Err(Error::Trailing));
    assert_eq!(Reader::whole_sequence(&der).err(), Some(Error::Trailing));
    assert!(Reader::whole_sequence(&der[..8]).is_ok());
}

#[test]
fn contents_have_one_form() {
    for (der, expected) in [
        (&[0x02, 0x00][..], Err(Error::Integer)),
        (&[0x02, 0x02, 0x00, 0x7f], Err(Error::Integer)),
        (&[0x02, 0x02, 0xff, 0x80], Err(Error::Integer)),
        (&[0x02, 0x01, 0x80], Err(Error::Integer)),
        (&[0x02, 0x02, 0x00, 0x80], Ok(&[0x80][..])),
        (&[0x02, 0x01, 0x00], Ok(&[][..])),
    ] {
        assert_eq!(Reader::new(der).unsigned(), expected, "{der:02x?}");
    }
    for (der, expected) in [
        (&[0x06, 0x00][..], false),
        (&[0x06, 0x02, 0x80, 0x01], false),
        (&[0x06, 0x01, 0x81], false),
        (&[0x06, 0x03, 0x55, 0x80, 0x01], false),
        (&[0x06, 0x03, 0x55, 0x1d, 0x0e], true),
        (&[0x06, 0x03, 0x55, 0x81, 0x00], true),
    ] {
        assert_eq!(Reader::new(der).object_identifier().is_ok(), expected);
    }
    assert_eq!(
        Reader::new(&[0x01, 0x01, 0x01]).boolean(),
        Err(Error::Boolean)
    );
    assert_eq!(
        Reader::new(&[0x01, 0x02, 0, 0]).boolean(),
        Err(Error::Boolean)
    );
    assert_eq!(
        Reader::new(&[0x03, 0x02, 0x01, 0x80]).bit_string(),
        Err(Error::BitString)
    );
    assert_eq!(
        Reader::new(&[0x03, 0x00]).bit_string(),
        Err(Error::BitString)
    );
    assert_eq!(
        Reader::new(&[0x03, 0x02, 0x00, 0x80]).bit_string(),
        Ok(&[0x80][..])
    );
}

#[test]
fn filling_sees_what_is_there_and_stops_at_an_overflow() {
    let der = written(8, |w| {
        w.put(&[1, 2]);
        w.fill(|written, unused| {
            assert_eq!((written, unused.len()), (&[1, 2][..], 6));
            unused[0] = 3;
            Ok::<_, ()>(1)
        })
        .unwrap();
        assert_eq!(w.fill(|_, _| Err("no")), Err("no"));
    });
    assert_eq!(der.unwrap(), [1, 2, 3]);
    let full = written(1, |w| {
        w.put(&[1, 2]);
        w.fill(|_, _| -> Result<usize, ()> { panic!("there is no place") })
            .unwrap();
    });
    assert_eq!(full, Err(BufferFull));
}

/// What the `der` crate takes for one element of a tag that we know.
fn theirs(bytes: &[u8]) -> Option<Vec<u8>> {
    Any::from_der(bytes).ok().map(|any| any.value().to_vec())
}

fn ours(bytes: &[u8]) -> Option<Vec<u8>> {
    let mut reader = Reader::new(bytes);
    let element = reader.element().ok()?;
    reader.finish().ok()?;
    assert_eq!(element.raw, bytes);
    Some(element.content.to_vec())
}

proptest! {
    #[test]
    fn reads_as_the_der_crate_does(
        tag in prop::sample::select(vec![2_u8, 3, 4, 5, 6, 0x0c, 0x13, 0x16, 0x30, 0x31, 0xa0, 0xa3, 0x80]),
        length in prop::collection::vec(any::<u8>(), 0..3),
        content in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = [&[tag][..], &length, &content].concat();
        prop_assert_eq!(ours(&bytes), theirs(&bytes));
        let mut right = vec![0; content.len() + 8];
        let mut writer = Writer::new(&mut right);
        writer.element(Tag(tag), &content);
        let right = writer.finish().unwrap();
        prop_assert_eq!(ours(right), Some(content));
        prop_assert_eq!(ours(right), theirs(right));
    }

    #[test]
    fn integers_are_those_of_the_der_crate(content in prop::collection::vec(any::<u8>(), 0..12), zeros in 0_usize..3) {
        let der = written(300, |w| w.element(Tag::INTEGER, &content)).unwrap();
        let theirs = Int::from_der(&der).ok().map(|int| int.as_bytes().to_vec());
        prop_assert_eq!(Reader::new(&der).integer().ok().map(<[u8]>::to_vec), theirs);

        let number = [vec![0; zeros], content].concat();
        let der = written(300, |w| w.unsigned(&number)).unwrap();
        if !number.is_empty() {
            prop_assert_eq!(&der, &Uint::new(&number).unwrap().to_der().unwrap());
        }
        let magnitude: Vec<u8> = number.into_iter().skip_while(|byte| *byte == 0).collect();
        prop_assert_eq!(Reader::new(&der).unsigned(), Ok(&magnitude[..]));
    }

    #[test]
    fn object_identifiers_are_those_of_the_der_crate(
        first in 0_u32..3,
        second in 0_u32..40,
        more in prop::collection::vec(any::<u32>(), 1..6),
        cut in 0_usize..30,
    ) {
        let arcs = [first, second].into_iter().chain(more);
        let identifier = <ObjectIdentifier>::from_arcs(arcs).unwrap();
        let content = identifier.as_bytes();
        let der = identifier.to_der().unwrap();
        prop_assert_eq!(Reader::new(&der).object_identifier(), Ok(content));
        prop_assert_eq!(written(300, |w| w.object_identifier(content)).unwrap(), der);

        // Cut short it is another one, unless an arc is broken.
        let part = &content[..content.len().min(cut)];
        let der = written(300, |w| w.object_identifier(part)).unwrap();
        let whole = part.last().is_some_and(|last| last & 0x80 == 0);
        prop_assert_eq!(Reader::new(&der).object_identifier().is_ok(), whole);
    }

    /// Any nesting comes out as if it had been put together from the inside.
    #[test]
    fn nested_elements_are_moved_right(depth in 0_usize..20, content in prop::collection::vec(any::<u8>(), 0..400), capacity in 0_usize..800) {
        fn nest(w: &mut Writer<'_>, depth: usize, content: &[u8]) {
            if depth == 0 {
                w.put(content);
            } else {
                w.sequence(|w| nest(w, depth - 1, content));
            }
        }
        let mut expected = content.clone();
        for _ in 0..depth {
            expected = Any::new(der::Tag::Sequence, expected).unwrap().to_der().unwrap();
        }
        let got = written(capacity, |w| nest(w, depth, &content));
        if expected.len() <= capacity {
            prop_assert_eq!(got, Ok(expected));
        } else {
            prop_assert_eq!(got, Err(BufferFull));
        }
    }

    #[test]
    fn never_panics(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let mut reader = Reader::new(&bytes);
        while let Ok(element) = reader.element() {
            let _ = element.reader().integer();
            let _ = element.reader().unsigned();
            let _ = element.reader().boolean();
            let _ = element.reader().object_identifier();
            let _ = element.reader().bit_string();
            let _ = element.reader().optional(Tag::SET);
        }
    }
}
