//! The texts of the state files, and of key derivation.

use crate::hub::Module;
use crate::id::{DeviceId, HubName, ModuleId};
use crate::json;
use crate::output::{BufferFull, Output};

/// Bytes that a module backup may have: ids are at most 128 characters, and this is room for any escapes.
pub const MODULE_BACKUP: usize = 4096;

/// The device that a file `device_info` is about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DeviceInfo<'a> {
    /// The hub, whose name is in token audiences.
    pub hub: HubName<'a>,
    /// Where requests to the hub are sent: the parent gateway, or the hub itself.
    pub gateway: HubName<'a>,
    /// The device.
    pub device: DeviceId<'a>,
}

impl DeviceInfo<'_> {
    /// Writes the content of the file (TOML). The feature `alloc` has its reader, in `config`.
    ///
    /// # Errors
    /// `out` is too small.
    pub fn write<'o>(&self, out: &'o mut [u8]) -> Result<&'o str, BufferFull> {
        let mut out = Output::new(out);
        for (name, value) in [
            ("hub_name", self.hub.as_str()),
            ("local_gateway_hostname", self.gateway.as_str()),
            ("device_id", self.device.as_str()),
        ] {
            write!(out, "{name} = ");
            put_toml_string(value, &mut out);
            out.put(b"\n");
        }
        out.finish_str()
    }
}

/// Appends a TOML basic string: a JSON string, except that U+007F must be escaped too.
fn put_toml_string(text: &str, out: &mut Output<'_>) {
    out.put(b"\"");
    for (index, piece) in text.split('\u{7f}').enumerate() {
        if index > 0 {
            out.put(b"\\u007f");
        }
        json::put_escaped(piece, out);
    }
    out.put(b"\"");
}

/// Writes the backup of a module: compact JSON without anything secret.
///
/// # Errors
/// `out` is too small.
pub fn write_module_backup<'o>(
    module: &Module<'_>,
    out: &'o mut [u8],
) -> Result<&'o [u8], BufferFull> {
    let length = json::to_slice(module, out)?;
    out.get(..length).ok_or(BufferFull)
}

/// Reads the backup of a module, decoding it in place.
///
/// # Errors
/// It is not JSON, or a required member is missing.
pub fn read_module_backup(text: &mut [u8]) -> Result<Module<'_>, json::Error<'_>> {
    json::from_slice(text)
}

/// Which of a module's two keys.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KeySlot {
    /// The one whose handle callers get.
    Primary,
    /// The spare one.
    Secondary,
}

/// Writes the data from which a key of a module is derived: `<module>:<generation>:primary` or `…:secondary`.
///
/// The keys are HMAC-SHA256 of these bytes under the key [`crate::id::MASTER_KEY`]; they are registered with the hub, so
/// the data must never change for a module that exists.
///
/// # Errors
/// `out` is too small.
pub fn derivation_data<'o>(
    module: ModuleId<'_>,
    generation: &str,
    slot: KeySlot,
    out: &'o mut [u8],
) -> Result<&'o [u8], BufferFull> {
    let mut out = Output::new(out);
    let slot = match slot {
        KeySlot::Primary => "primary",
        KeySlot::Secondary => "secondary",
    };
    write!(out, "{module}:{generation}:{slot}");
    out.finish()
}

#[cfg(test)]
mod tests {
    use base64ct::{Base64, Encoding};
    use hmac::{Hmac, KeyInit, Mac};
    use proptest::prelude::*;
    use sha2::Sha256;

    use super::*;

    fn info<'a>(hub: &'a str, gateway: &'a str, device: &'a str) -> DeviceInfo<'a> {
        DeviceInfo {
            hub: HubName::new(hub).unwrap(),
            gateway: HubName::new(gateway).unwrap(),
            device: DeviceId::new(device).unwrap(),
        }
    }

    #[test]
    fn is_58_device_info() {
        let mut out = [0; 256];
        let hub = "example.azure-devices.net";
        assert_eq!(
            info(hub, hub, "my-device").write(&mut out).unwrap(),
            "hub_name = \"example.azure-devices.net\"\n\
             local_gateway_hostname = \"example.azure-devices.net\"\n\
             device_id = \"my-device\"\n"
        );
        assert_eq!(
            info("h:1", "g", "a\"b\\\u{7f}\né")
                .write(&mut out)
                .unwrap()
                .lines()
                .last(),
            Some(r#"device_id = "a\"b\\\u007f\né""#)
        );
        assert!(info(hub, hub, "d").write(&mut [0; 50]).is_err());
    }

    #[test]
    fn is_55_module_backup() {
        let module = Module {
            module: "testmodule",
            device: "my-device",
            managed_by: None,
            generation: Some("637453221143452938"),
        };
        let text = br#"{"moduleId":"testmodule","deviceId":"my-device","generationId":"637453221143452938"}"#;
        let mut out = [0; 256];
        assert_eq!(write_module_backup(&module, &mut out).unwrap(), text);
        assert_eq!(read_module_backup(&mut text.to_vec()), Ok(module));
        let managed = Module {
            managed_by: Some("me"),
            generation: None,
            ..module
        };
        assert_eq!(
            write_module_backup(&managed, &mut out).unwrap(),
            br#"{"moduleId":"testmodule","managedBy":"me","deviceId":"my-device"}"#
        );
        for bad in [
            "",
            "{}",
            r#"{"moduleId":"m","deviceId":1}"#,
            r#"{"moduleId":"m","deviceId":"d"} x"#,
        ] {
            assert!(read_module_backup(&mut bad.as_bytes().to_vec()).is_err());
        }
    }

    #[test]
    fn is_54_derivation_data_and_keys() {
        let master: Vec<u8> = (0..32).collect();
        for (module, generation, slot, sent, key) in [
            (
                "testmodule",
                "6370",
                KeySlot::Primary,
                "dGVzdG1vZHVsZTo2MzcwOnByaW1hcnk=",
                "fUOpsZtpL8x+CnEKDvkBNlHyGT0MrYLVQA+kV9cCb7o=",
            ),
            (
                "testmodule",
                "6370",
                KeySlot::Secondary,
                "dGVzdG1vZHVsZTo2MzcwOnNlY29uZGFyeQ==",
                "SdkBugrxs1HRbMLJ4xb6urzAJLE/u4IbEBtHTv4kipk=",
            ),
            (
                "$edgeAgent",
                "637453221143452938",
                KeySlot::Primary,
                "JGVkZ2VBZ2VudDo2Mzc0NTMyMjExNDM0NTI5Mzg6cHJpbWFyeQ==",
                "ybPTE6mNXHzktFkqiVYJq2s59+E/NafKCEu5vFpokA4=",
            ),
            (
                "$edgeAgent",
                "637453221143452938",
                KeySlot::Secondary,
                "JGVkZ2VBZ2VudDo2Mzc0NTMyMjExNDM0NTI5Mzg6c2Vjb25kYXJ5",
                "j1yCZ0gTJ6qTSG7eoowansIxDzXu880A8zcnaoWkDRo=",
            ),
        ] {
            let mut out = [0; 128];
            let data = derivation_data(ModuleId::new(module).unwrap(), generation, slot, &mut out)
                .unwrap();
            assert_eq!(Base64::encode_string(data), sent);
            let mut mac = Hmac::<Sha256>::new_from_slice(&master).unwrap();
            mac.update(data);
            assert_eq!(Base64::encode_string(&mac.finalize().into_bytes()), key);
        }
        assert!(
            derivation_data(
                ModuleId::new("m").unwrap(),
                "g",
                KeySlot::Primary,
                &mut [0; 5]
            )
            .is_err()
        );
    }

    proptest! {
        #[test]
        fn backups_round_trip(module in any::<String>(), device in any::<String>(), managed_by in any::<Option<String>>(), generation in any::<Option<String>>()) {
            let module = Module { module: &module, device: &device, managed_by: managed_by.as_deref(), generation: generation.as_deref() };
            let mut out = vec![0; 64 * 1024];
            let mut text = write_module_backup(&module, &mut out).unwrap().to_vec();
            prop_assert_eq!(read_module_backup(&mut text), Ok(module));
        }

        #[test]
        fn device_info_is_toml(device in any::<String>()) {
            prop_assume!(DeviceId::new(&device).is_ok());
            let mut out = vec![0; 6 * device.len() + 128];
            let text = info("h", "g", &device).write(&mut out).unwrap();
            // A basic string without U+007F is a JSON string, and its escape is the same in both.
            let value = text.lines().last().unwrap().strip_prefix("device_id = ").unwrap();
            prop_assert_eq!(serde_json::from_str::<String>(value).unwrap(), device.clone());
            let escaped = !text.contains('\u{7f}');
            prop_assert!(escaped);
        }
    }
}
