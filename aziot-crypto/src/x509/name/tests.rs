use proptest::prelude::*;

use super::*;

fn encoded<'f>(fields: &[(&'f str, &'f str)]) -> Result<Vec<u8>, NameError<'f>> {
    let mut out = [0; 2048];
    encode(fields.iter().copied(), &mut out).map(<[u8]>::to_vec)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn fault(field: &str, value: &str) -> Option<Fault> {
    let checked = check(field, value).err();
    let built = encoded(&[(field, value)]).err();
    assert_eq!(checked, built);
    checked.map(|error| {
        assert_eq!(error.field, field);
        assert!(error.to_string().contains(&format!("{field:?}")));
        error.fault
    })
}

#[test]
fn cs_04_name_vectors() {
    let long = format!("{}áaBBB", "a".repeat(63));
    let cut = format!("304c314a304806035504030c41{}c3a1", "61".repeat(63));
    let cases: [(&[(&str, &str)], &str); 5] = [
        (
            &[("CN", "test-device")],
            "30163114301206035504030c0b746573742d646576696365",
        ),
        (
            &[("CN", "test-device"), ("L", "AQ"), ("ST", "Antarctica")],
            "30383114301206035504030c0b746573742d646576696365310b300906035504070c0241513113301106035504080c0a416e746172637469\
             6361",
        ),
        (&[("CN", &long)], &cut),
        (&[], "3000"),
        (
            &[
                ("DC", "com"),
                ("emailAddress", "a@b.c"),
                ("serialNumber", "12"),
            ],
            "303831133011060a0992268993f22c6401191603636f6d3114301206092a864886f70d01090116056140622e63310b30090603550405130\
             23132",
        ),
    ];
    for (fields, expected) in cases {
        assert_eq!(hex(&encoded(fields).unwrap()), expected, "{fields:?}");
    }
    assert_eq!(encoded(&[]).unwrap(), EMPTY);
}

#[test]
fn cs_04_only_cn_is_cut() {
    let long = "é".repeat(65);
    let cn = encoded(&[("CN", &long)]).unwrap();
    assert_eq!(cn, encoded(&[("CN", &long[..128])]).unwrap());
    let too_long = Some(Fault::Length {
        chars: 65,
        min: 1,
        max: 64,
    });
    for field in ["commonName", "2.5.4.3", "O"] {
        assert_eq!(fault(field, &long), too_long);
        assert_eq!(fault(field, &long[..128]), None);
    }
    assert_eq!(fault("cn", "x"), Some(Fault::Unknown));
}

#[test]
fn what_a_field_cannot_be() {
    for field in [
        "",
        "cn",
        "Cn",
        "COMMONNAME",
        "2.5.4.",
        "2",
        "2.",
        ".5",
        "3.1.2",
        "1.40.1",
        "2.5.-4",
        "2.5.+4",
        "2.5 4",
        "2.5.9223372036854775808",
        "2.9223372036854775800",
        "sha256 ",
    ] {
        assert_eq!(fault(field, "x"), Some(Fault::Unknown), "{field:?}");
    }
    for (field, value, min, max) in [
        ("CN", "", 1, 64),
        ("C", "D", 2, 2),
        ("C", "DEU", 2, 2),
        ("DC", "", 1, usize::MAX),
    ] {
        let chars = value.chars().count();
        assert_eq!(fault(field, value), Some(Fault::Length { chars, min, max }));
    }
    for (field, value, character) in [
        ("C", "D@", '@'),
        ("serialNumber", "1_2", '_'),
        ("emailAddress", "ä@b.c", 'ä'),
        ("DC", "cö", 'ö'),
        ("2.5.4.6", "é1", 'é'),
    ] {
        assert_eq!(fault(field, value), Some(Fault::Character(character)));
    }
}

#[test]
fn a_short_buffer_names_the_field_that_does_not_fit() {
    let fields = [("CN", "x"), ("O", "y")];
    let whole = encoded(&fields).unwrap();
    let mut out = vec![0; whole.len()];
    assert_eq!(encode(fields, &mut out), Ok(&whole[..]));
    let error = encode(fields, &mut out[1..]).unwrap_err();
    assert_eq!((error.field, error.fault), ("O", Fault::BufferFull));
}

#[test]
fn names_as_text() {
    let text = |fields: &[(&str, &str)]| Text(&encoded(fields).unwrap()).to_string();
    assert_eq!(text(&[("CN", "device"), ("O", "x")]), "CN=device,O=x");
    assert_eq!(text(&[("2.5.4.10", "x"), ("1.2.3", "y")]), "O=x,1.2.3=y");
    assert_eq!(
        text(&[("CN", "a,b=c\n\u{202e}é")]),
        "CN=a\\,b\\=c\\0A\\E2\\80\\AEé"
    );
    assert_eq!(text(&[]), "(empty name)");
    for (value, expected) in [
        // T.61 as Latin-1, two bytes a character, something else, bytes that are no UTF-8.
        (&[0x14, 2, b'a', 0xe4][..], "CN=aä"),
        (&[0x1e, 4, 0, b'a', 0x20, 0xac], "CN=a€"),
        (&[0x1e, 3, 0xd8, 0, 0], "CN=\u{fffd}\\00"),
        (&[0x02, 1, 5], "CN=#020105"),
        (&[0x0c, 2, b'a', 0xff], "CN=a\\FF"),
    ] {
        let mut out = [0; 64];
        let mut writer = Writer::new(&mut out);
        writer.sequence(|w| {
            w.nested(Tag::SET, |w| {
                w.sequence(|w| {
                    w.object_identifier(&[0x55, 4, 3]);
                    w.put(value);
                });
            });
        });
        assert_eq!(Text(writer.finish().unwrap()).to_string(), expected);
    }
    // Several fields in one part.
    let both = [
        0x30, 0x16, 0x31, 0x14, 0x30, 0x08, 0x06, 0x03, 0x55, 0x04, 0x03, 0x0c, 0x01, b'x', 0x30,
        0x08, 0x06, 0x03, 0x55, 0x04, 0x0a, 0x0c, 0x01, b'y',
    ];
    assert_eq!(Text(&both).to_string(), "CN=x+O=y");
    assert_eq!(Text(&both[1..]).to_string(), "(unreadable name)");
    assert_eq!(Text(&[0x30, 2, 0x31, 1]).to_string(), "(unreadable name)");
}

proptest! {
    #[test]
    fn values_come_back(fields in prop::collection::vec(("(CN|O|OU|UID|1\\.2\\.840\\.[1-9][0-9]{0,8})", "[a-zA-Z0-9é€ ]{1,60}"), 0..6)) {
        let fields: Vec<(&str, &str)> = fields.iter().map(|(field, value)| (field.as_str(), value.as_str())).collect();
        let der = encoded(&fields).unwrap();
        let mut reader = Reader::new(&der);
        prop_assert_eq!(read(&mut reader), Ok(&der[..]));
        let expected: Vec<String> = fields.iter().map(|(field, value)| format!("{field}={value}")).collect();
        let expected = if expected.is_empty() { "(empty name)".to_owned() } else { expected.join(",") };
        prop_assert_eq!(Text(&der).to_string(), expected);
    }

    #[test]
    fn never_panics(field in "\\PC{0,12}|[0-9.]{0,24}", value in "\\PC{0,80}", der in prop::collection::vec(any::<u8>(), 0..80)) {
        let _ = check(&field, &value);
        let _ = Text(&der).to_string();
        let _ = read(&mut Reader::new(&der));
    }
}

#[cfg(feature = "openssl")]
mod against_openssl {
    use openssl::nid::Nid;
    use openssl::x509::X509NameBuilder;

    use super::super::attributes::ATTRIBUTES;
    use super::*;

    fn theirs(field: &str, value: &str) -> Option<Vec<u8>> {
        let mut builder = X509NameBuilder::new().unwrap();
        builder.append_entry_by_text(field, value).ok()?;
        builder.build().to_der().ok()
    }

    /// Names, types and limits are OpenSSL's.
    #[test]
    fn cs_04_attributes_are_those_of_openssl() {
        let lengths = [0, 1, 2, 3, 12, 64, 65, 128, 129, 256, 257, 32768, 32769];
        let values = lengths.map(|length| "a".repeat(length));
        let values = values.iter().map(String::as_str).chain([
            "é",
            "a_b",
            "a@b",
            "*",
            "1 2",
            "'()+,-./:=?",
            "\u{1f600}\u{1f600}",
        ]);
        let values: Vec<&str> = values.collect();
        let mut out = vec![0; 40_000];
        for attribute in ATTRIBUTES {
            let dotted = crate::x509::ObjectId::new(attribute.id).to_string();
            for field in [attribute.short, attribute.long, &dotted] {
                for value in &values {
                    // What is cut here is cut before OpenSSL sees it.
                    let given = if field == "CN" {
                        first_chars(value, 64)
                    } else {
                        value
                    };
                    let ours = encode([(field, *value)], &mut out).ok().map(<[u8]>::to_vec);
                    assert!(
                        ours == theirs(field, given),
                        "{field} with {} bytes: {}",
                        value.len(),
                        ours.is_some()
                    );
                }
            }
        }
    }

    /// Of the other attributes none is treated in a way of its own, unless it has a table entry that nobody wants in a name.
    #[test]
    fn unknown_object_identifiers_are_written_as_by_openssl() {
        for field in [
            "1.2.3.4",
            "2.5.4.200",
            "2.999.1",
            "0.0",
            "1.39.4294967296",
            "2.25.9223372036854775807",
        ] {
            for value in ["", "x", "é"] {
                assert_eq!(
                    encoded(&[(field, value)]).ok(),
                    theirs(field, value),
                    "{field}"
                );
            }
        }
    }

    #[test]
    fn names_of_attributes_mean_the_same() {
        for attribute in ATTRIBUTES {
            let dotted = crate::x509::ObjectId::new(attribute.id).to_string();
            let object = openssl::asn1::Asn1Object::from_str(&dotted).unwrap();
            assert_ne!(object.nid(), Nid::UNDEF, "{dotted}");
            assert_eq!(object.nid().short_name().unwrap(), attribute.short);
            assert_eq!(object.nid().long_name().unwrap(), attribute.long);
        }
    }
}
