//! Reading the Identity Service's state file `device_info`.

use alloc::string::String;

use super::{Invalid, Merged, Reader};

/// The device as of the last successful provisioning (`identity-service` 12.2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct DeviceInfo {
    /// Host of the hub.
    pub hub_name: String,
    /// Host that requests go to: the parent device, or the hub again.
    pub local_gateway_hostname: String,
    /// The device's id at the hub.
    pub device_id: String,
}

/// Reads the content of `device_info`, found at `name`. `None` if it says that there is no device.
///
/// # Errors
///
/// The text is not TOML or lacks one of the three strings.
pub fn device_info(name: &str, text: &str) -> Result<Option<DeviceInfo>, Invalid> {
    if text == "unprovisioned" {
        return Ok(None);
    }
    let mut merged = Merged::new();
    merged.add(name, text)?;
    let reader = Reader::new(&merged);
    let root = reader.root();
    let remedy = "remove the file and provision the device again";
    let hub_name = root.required("hub_name", remedy);
    let local_gateway_hostname = root.required("local_gateway_hostname", remedy);
    let device_id = root.required("device_id", remedy);
    drop(root);
    let info = || {
        Some(DeviceInfo {
            hub_name: hub_name?,
            local_gateway_hostname: local_gateway_hostname?,
            device_id: device_id?,
        })
    };
    let info = info();
    reader.finish(info).map(|loaded| Some(loaded.settings))
}
