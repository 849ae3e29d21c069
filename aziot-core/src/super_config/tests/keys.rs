//! Keys and where they are: Base64, key locations, connection strings.

use super::*;

#[test]
fn sc_07_base64_table() {
    let key = |text: &str| {
        let text = format!(
            "[provisioning]\nsource = \"manual\"\niothub_hostname = \"h\"\ndevice_id = \"d\"\n\
             authentication = {{ method = \"sas\", device_id_pk = {{ value = \"{text}\" }} }}\n"
        );
        parse("c", &text).map(|loaded| match loaded.settings.provisioning {
            Provisioning::Manual {
                authentication: Authentication::Sas(DeviceKey::Inline(key)),
                ..
            } => key.to_vec(),
            other => unreachable!("{other:?}"),
        })
    };
    assert_eq!(key("YQ==").unwrap(), b"a");
    assert_eq!(key("YQ").unwrap(), b"a");
    for (text, expected) in [
        ("YQ=", "Invalid padding"),
        ("YQ===", "Invalid symbol 61, offset 2."),
        ("YR==", "Invalid last symbol 82, offset 1."),
        (" YQ==", "Invalid symbol 32, offset 0."),
        ("YQ-_", "Invalid symbol 45, offset 2."),
        ("A", "Invalid input length: 1"),
    ] {
        let error = key(text).unwrap_err().to_string();
        assert_eq!(
            error,
            format!(
                "c:5:61: `provisioning.authentication.device_id_pk.value`: not valid base64: {expected}: \
                 copy the key again, completely"
            )
        );
    }
    assert_starts(
        &key("").unwrap_err().to_string(),
        "c:5:61: the symmetric key in `provisioning.authentication.device_id_pk.value` is empty: ",
    );
}

#[test]
fn sc_08_key_locations_are_canonical() {
    for (written, canonical) in [
        ("file:/a", Ok("file:///a")),
        ("file:a", Ok("file:///a")),
        ("file://localhost/a", Ok("file:///a")),
        ("file:///a?x#y", Ok("file:///a")),
        ("file:///a/../b", Ok("file:///b")),
        ("file:///a%2Fb", Ok("file:///a/b")),
        ("file:///é", Ok("file:///%C3%A9")),
        ("file://host/a", Err("cannot convert to file path")),
        ("/a", Err("missing scheme")),
        ("PKCS11:slot-id=0", Err("unrecognized scheme")),
        ("foo:bar", Err("unrecognized scheme")),
        (
            "pkcs11:object=a-b;type=private;token=My%20Token?pin-value=12%2334&module-name=x",
            Ok("pkcs11:token=My%20Token;object=a%2Db?pin-value=12%2334"),
        ),
        (
            "pkcs11:token=T;slot-id=3;object=o",
            Ok("pkcs11:slot-id=3;object=o"),
        ),
        (
            "pkcs11:slot-id=00;object=device-id?pin-value=12_34",
            Ok("pkcs11:slot-id=0;object=device%2Did?pin-value=12%5F34"),
        ),
        (
            "pkcs11:slot-id=0?pin-source=file:/x",
            Ok("pkcs11:slot-id=0"),
        ),
        (
            "pkcs11:slot-id=0;object=?pin-value=12",
            Ok("pkcs11:slot-id=0;object=?pin-value=12"),
        ),
        (
            "pkcs11:object=x",
            Err("URI has neither [slot-id] nor [token] components"),
        ),
        (
            "pkcs11:slot-id=0x1",
            Err("component has malformed value [0x1]"),
        ),
    ] {
        let read = parse("c", &format!("{NONE}[preloaded_keys]\nk = \"{written}\"\n"));
        match canonical {
            Ok(canonical) => assert_eq!(
                read.unwrap().settings.preloaded_keys["k"].as_str(),
                canonical,
                "{written}"
            ),
            Err(part) => {
                let error = read.unwrap_err().to_string();
                assert_starts(&error, "c:4:5: `preloaded_keys.k`: ");
                assert!(error.contains(part), "{written}: {error}");
            }
        }
    }
}

#[test]
fn connection_string_vectors() {
    let read = |text: &str| {
        text.parse::<ConnectionString>()
            .map_err(|error| error.to_string())
    };
    let full = read("HostName=hub;DeviceId=d;SharedAccessKey=AAAA").unwrap();
    assert_eq!(
        (
            full.host_name.as_str(),
            full.device_id.as_str(),
            &full.key[..]
        ),
        ("hub", "d", &[0; 3][..])
    );
    for same in [
        "HostName=hub;DeviceId=d;SharedAccessKey=AAAA;",
        "ModuleId=m;HostName=hub;x509=true;DeviceId=d;SharedAccessKey=AAAA",
        "HostName=other;no equals sign;HostName=hub;DeviceId=d;SharedAccessKey=AAAA",
    ] {
        assert_eq!(read(same).unwrap(), full, "{same}");
    }
    assert_eq!(
        read("HostName=h;DeviceId=a=b;SharedAccessKey=YQ==")
            .unwrap()
            .device_id,
        "a=b"
    );
    for (text, expected) in [
        (
            "hostname=hub;DeviceId=d;SharedAccessKey=AAAA",
            "required parameter \"HostName\" is missing",
        ),
        (
            " HostName=hub;DeviceId=d;SharedAccessKey=AAAA",
            "required parameter \"HostName\" is missing",
        ),
        (
            "HostName=hub;SharedAccessKey=AAAA",
            "required parameter \"DeviceId\" is missing",
        ),
        (
            "HostName=hub;DeviceId=d",
            "required parameter \"SharedAccessKey\" is missing",
        ),
        ("", "required parameter \"HostName\" is missing"),
        (
            "HostName=;DeviceId=d;SharedAccessKey=AAAA",
            "required parameter \"HostName\" is empty",
        ),
        (
            "HostName=h;DeviceId=;SharedAccessKey=AAAA",
            "required parameter \"DeviceId\" is empty",
        ),
        (
            "HostName=h;DeviceId=d;SharedAccessKey=",
            "required parameter \"SharedAccessKey\" is empty",
        ),
        (
            "HostName=h;DeviceId=d;SharedAccessKey=@@",
            "connection string's \"SharedAccessKey\" parameter could not be decoded from base64: Invalid symbol 64, offset 0.",
        ),
    ] {
        assert_eq!(read(text).unwrap_err(), expected, "{text}");
    }
}
