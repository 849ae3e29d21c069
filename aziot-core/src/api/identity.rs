//! The interface of the Identity Service.

use serde::ser::{Serialize, SerializeSeq as _, SerializeStruct as _, Serializer};

use super::{Api, Route};
use crate::http::Method::{self, Delete, Get, Post, Put};
use crate::json::{Deferred, Error, FromJson, Ignored, Raw, Reader};
use crate::{json_enum, json_object};

/// Routes and versions.
pub static API: Api<Op> = Api {
    versions: &["2020-09-01", "2021-12-01", "2022-08-01", STATUS_VERSION],
    routes: &[
        route("/identities/identity", 0, &[Get], Op::Identity),
        route("/identities/modules", 0, &[Get, Post], Op::Modules),
        route(
            "/identities/modules/{id}",
            0,
            &[Get, Put, Delete],
            Op::Module,
        ),
        route("/identities/device", 0, &[Post], Op::Device),
        route(
            "/identities/device/reprovision",
            0,
            &[Post],
            Op::Reprovision,
        ),
        route("/trust-bundle", 0, &[Get], Op::TrustBundle),
        route("/identities/provisioning", 1, &[Get], Op::Provisioning),
        route("/status", 3, &[Get], Op::Status),
    ],
};

/// The version that our own clients ask for.
pub const CLIENT_VERSION: &str = "2021-12-01";

/// The version that adds `/status`. Only this implementation has it.
pub const STATUS_VERSION: &str = "2026-11-01";

const fn route(path: &'static str, since: usize, methods: &'static [Method], id: Op) -> Route<Op> {
    Route {
        path,
        since,
        methods,
        id,
    }
}

/// What a path stands for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Op {
    /// POST [`DeviceRequest`], answer the device's [`Identity`].
    Device,
    /// GET the caller's [`Identity`].
    Identity,
    /// GET, PUT (body is JSON of any kind) and DELETE a module: [`Identity`], or 204. The query has
    /// the type.
    Module,
    /// GET [`Identities`] of the type in the query; POST [`CreateModule`], answer [`Identity`].
    Modules,
    /// GET [`ProvisioningInfo`].
    Provisioning,
    /// POST (a body, if any, is JSON of any kind), answer 204.
    Reprovision,
    /// GET [`Status`].
    Status,
    /// GET [`TrustBundle`].
    TrustBundle,
}

/// The body of a request whose content does not matter, as long as it is JSON.
pub type AnyBody = Ignored;

json_object! {
    /// Asks for the device's identity.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct DeviceRequest<'a> {
        /// Any word; `aziot` by custom.
        pub kind: &'a str = "type",
    }

    /// What clients send to update a module; the service ignores it.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct UpdateModule<'a> {
        /// `aziot`.
        pub kind: &'a str = "type",
        /// The module.
        pub module_id: &'a str = "moduleId",
    }

    /// The certificates to trust, as PEM.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct TrustBundle<'a> {
        /// PEM; empty if none are configured.
        pub certificate: &'a str = "certificate",
    }
}

json_object! {
    /// How the service stands.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct Status<'a> {
        /// One word: `provisioned`, `provisioning`, `not-provisioned`, `offline`, `unconnected` or
        /// `waiting-for-time`.
        pub state: &'a str = "state",
        /// Since when, RFC 3339.
        pub since: &'a str = "since",
        /// What went wrong last, if something did and has not been made good.
        pub reason: Option<&'a str> = "reason",
        /// When it is tried again, RFC 3339.
        pub next_attempt: Option<&'a str> = "nextAttempt",
        /// The version of the package.
        pub version: &'a str = "version",
        /// The device identity, if there is one.
        pub device: Option<DeviceStatus<'a>> = "device",
        /// Whether the hub answered last; `null` without a device.
        pub hub_reachable: Option<bool> = "hubReachable",
        /// Whether the modules at the hub are those of the configuration.
        pub reconciled: bool = "reconciled",
    }

    /// The device identity in a [`Status`].
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct DeviceStatus<'a> {
        /// The hub's host name.
        pub hub_name: &'a str = "hubName",
        /// The host to connect to: a gateway, or the hub.
        pub gateway_host: &'a str = "gatewayHost",
        /// The device.
        pub device_id: &'a str = "deviceId",
    }
}

/// Creates a module identity.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct CreateModule<'a> {
    /// `aziot` or `local`; the service refuses other words.
    pub kind: &'a str,
    /// The module's id.
    pub module_id: &'a str,
    /// For `local`: what its certificate is for.
    pub local_id_opts: Option<LocalIdOptions>,
}

/// What the certificate of a local identity is for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct LocalIdOptions {
    /// The role.
    pub attributes: LocalIdAttributes,
}

json_enum! {
    /// The role of a local identity.
    #[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
    pub enum LocalIdAttributes {
        /// It calls others.
        #[default]
        Client = "client",
        /// It is called.
        Server = "server",
    }

    enum LocalIdType {
        X509 = "x509",
    }
}

impl<'a> FromJson<'a> for CreateModule<'a> {
    fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>> {
        let request: CreateModuleMembers<'a> = FromJson::from_json(r)?;
        // Only local identities have options; for others even malformed ones are ignored.
        let local_id_opts = match request.local_id_opts {
            Some(options) if request.kind == "local" => Some(
                options
                    .decode::<LocalIdOptions>()
                    .map_err(|error| r.place(error))?,
            ),
            _ => None,
        };
        Ok(Self {
            kind: request.kind,
            module_id: request.module_id,
            local_id_opts,
        })
    }
}

impl<'a> FromJson<'a> for LocalIdOptions {
    fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>> {
        let LocalIdMembers {
            kind: LocalIdType::X509,
            attributes,
        } = FromJson::from_json(r)?;
        Ok(Self {
            attributes: attributes.unwrap_or_default(),
        })
    }
}

crate::json_input! {
    struct CreateModuleMembers<'a> {
        kind: &'a str = "type",
        module_id: &'a str = "moduleId",
        local_id_opts: Option<Deferred<'a>> = "localIdOpts",
    }

    struct LocalIdMembers {
        kind: LocalIdType = "type",
        attributes: Option<LocalIdAttributes> = "attributes",
    }
}

impl Serialize for CreateModule<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("CreateModule", 3)?;
        object.serialize_field("type", self.kind)?;
        object.serialize_field("moduleId", self.module_id)?;
        if let Some(options) = &self.local_id_opts {
            object.serialize_field("localIdOpts", options)?;
        }
        object.end()
    }
}

impl Serialize for LocalIdOptions {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("LocalIdOptions", 2)?;
        object.serialize_field("type", &LocalIdType::X509)?;
        object.serialize_field("attributes", &self.attributes)?;
        object.end()
    }
}

/// An identity, as it is answered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Identity<'a> {
    /// An identity at the hub.
    Aziot(AziotIdentity<'a>),
    /// An identity on this device only.
    Local(LocalIdentity<'a>),
}

json_object! {
    /// An identity at the hub.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct AziotIdentity<'a> {
        /// The hub's host name.
        pub hub_name: &'a str = "hubName",
        /// The host to connect to: a gateway, or the hub.
        pub gateway_host: &'a str = "gatewayHost",
        /// The device.
        pub device_id: &'a str = "deviceId",
        /// The module, unless it is the device's own identity.
        pub module_id: Option<&'a str> = "moduleId" [omit],
        /// The module's generation, if the hub told it.
        pub gen_id: Option<&'a str> = "genId" [omit],
        /// How it authenticates; not in lists.
        pub auth: Option<Authentication<'a>> = "auth" [omit],
    }

    /// How an identity authenticates.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct Authentication<'a> {
        /// With what.
        pub kind: AuthenticationType = "type",
        /// The key's handle; not for `tpm`.
        pub key_handle: Option<&'a str> = "keyHandle" [omit],
        /// The certificate's id; only for `x509`.
        pub cert_id: Option<&'a str> = "certId" [omit],
    }

    /// An identity on this device only.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct LocalIdentity<'a> {
        /// The module.
        pub module_id: &'a str = "moduleId",
        /// Its key and certificate.
        pub auth: LocalAuthentication<'a> = "auth",
    }

    /// Key and certificate of a local identity.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct LocalAuthentication<'a> {
        /// The private key, as PEM of PKCS#8.
        pub private_key: &'a str = "privateKey",
        /// The certificate, as PEM, perhaps with its chain.
        pub certificate: &'a str = "certificate",
        /// When it expires, RFC 3339.
        pub expiration: &'a str = "expiration",
    }
}

json_enum! {
    /// With what an identity authenticates.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub enum AuthenticationType {
        /// A symmetric key.
        Sas = "sas",
        /// A certificate.
        X509 = "x509",
        /// A key in the TPM.
        Tpm = "tpm",
    }

    #[derive(Clone, Copy)]
    enum IdentityType {
        Aziot = "aziot",
        Local = "local",
    }
}

impl Serialize for Identity<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Identity", 2)?;
        match self {
            Self::Aziot(spec) => {
                object.serialize_field("type", &IdentityType::Aziot)?;
                object.serialize_field("spec", spec)?;
            }
            Self::Local(spec) => {
                object.serialize_field("type", &IdentityType::Local)?;
                object.serialize_field("spec", spec)?;
            }
        }
        object.end()
    }
}

impl<'a> FromJson<'a> for Identity<'a> {
    fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>> {
        let IdentityMembers { kind, spec } = FromJson::from_json(r)?;
        let identity = match kind {
            IdentityType::Aziot => spec.decode().map(Self::Aziot),
            IdentityType::Local => spec.decode().map(Self::Local),
        };
        identity.map_err(|error| r.place(error))
    }
}

crate::json_input! {
    struct IdentityMembers<'a> {
        kind: IdentityType = "type",
        spec: Deferred<'a> = "spec",
    }
}

/// A list of identities, written as they come: `{"identities":[…]}`.
///
/// The iterator is cloned to write the list, so it has to be cheap to clone.
#[derive(Clone, Copy, Debug)]
pub struct Identities<I>(pub I);

impl<'a, I> Serialize for Identities<I>
where
    I: IntoIterator<Item = Identity<'a>> + Clone,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        struct List<'l, I>(&'l I);

        impl<'a, I: IntoIterator<Item = Identity<'a>> + Clone> Serialize for List<'_, I> {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut list = serializer.serialize_seq(None)?;
                for identity in self.0.clone() {
                    list.serialize_element(&identity)?;
                }
                list.end()
            }
        }

        let mut object = serializer.serialize_struct("Identities", 1)?;
        object.serialize_field("identities", &List(&self.0))?;
        object.end()
    }
}

/// What is configured for provisioning.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProvisioningInfo<'a> {
    /// With the Device Provisioning Service.
    Dps {
        /// `symmetric_key`, `x509` or `tpm`.
        auth: &'a str,
        /// The service's URL in normal form.
        endpoint: &'a str,
        /// The id scope.
        scope_id: &'a str,
        /// The registration id.
        registration_id: &'a str,
        /// The content of the payload file; `null` if there is none.
        payload: Raw<'a>,
    },
    /// By hand.
    Manual {
        /// `sas` or `x509`.
        auth: &'a str,
    },
    /// Not at all.
    None,
}

impl Serialize for ProvisioningInfo<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("ProvisioningInfo", 6)?;
        match self {
            Self::Dps {
                auth,
                endpoint,
                scope_id,
                registration_id,
                payload,
            } => {
                object.serialize_field("source", "dps")?;
                object.serialize_field("auth", auth)?;
                object.serialize_field("endpoint", endpoint)?;
                object.serialize_field("scope_id", scope_id)?;
                object.serialize_field("registration_id", registration_id)?;
                object.serialize_field("payload", payload)?;
            }
            Self::Manual { auth } => {
                object.serialize_field("source", "manual")?;
                object.serialize_field("auth", auth)?;
            }
            Self::None => object.serialize_field("source", "none")?,
        }
        object.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{from_slice, to_slice};

    fn written(value: &impl Serialize) -> String {
        let mut out = [0; 1024];
        let length = to_slice(value, &mut out).unwrap();
        String::from_utf8(out[..length].to_vec()).unwrap()
    }

    const DEVICE: AziotIdentity<'_> = AziotIdentity {
        hub_name: "example.azure-devices.net",
        gateway_host: "example.azure-devices.net",
        device_id: "my-device",
        module_id: None,
        gen_id: None,
        auth: Some(Authentication {
            kind: AuthenticationType::X509,
            key_handle: Some("h"),
            cert_id: Some("device-id"),
        }),
    };

    #[test]
    fn is_23_identities_omit_what_is_absent() {
        let text = r#"{"type":"aziot","spec":{"hubName":"example.azure-devices.net","gatewayHost":"example.azure-devices.net","deviceId":"my-device","auth":{"type":"x509","keyHandle":"h","certId":"device-id"}}}"#;
        assert_eq!(written(&Identity::Aziot(DEVICE)), text);
        let mut copy = text.as_bytes().to_vec();
        assert_eq!(from_slice(&mut copy), Ok(Identity::Aziot(DEVICE)));

        let module = AziotIdentity {
            module_id: Some("m"),
            gen_id: Some("637"),
            auth: Some(Authentication {
                kind: AuthenticationType::Tpm,
                key_handle: None,
                cert_id: None,
            }),
            ..DEVICE
        };
        assert!(
            written(&Identity::Aziot(module))
                .ends_with(r#""moduleId":"m","genId":"637","auth":{"type":"tpm"}}}"#)
        );

        let local = Identity::Local(LocalIdentity {
            module_id: "m",
            auth: LocalAuthentication {
                private_key: "-----BEGIN\n",
                certificate: "c",
                expiration: "2026-11-22T19:29:15+00:00",
            },
        });
        let text = r#"{"type":"local","spec":{"moduleId":"m","auth":{"privateKey":"-----BEGIN\n","certificate":"c","expiration":"2026-11-22T19:29:15+00:00"}}}"#;
        assert_eq!(written(&local), text);
        let mut copy = text.as_bytes().to_vec();
        assert_eq!(from_slice(&mut copy), Ok(local));
    }

    #[test]
    fn is_25_lists_have_no_authentication() {
        let entry = Identity::Aziot(AziotIdentity {
            auth: None,
            module_id: Some("m"),
            ..DEVICE
        });
        let text = written(&Identities([entry, entry]));
        assert!(text.starts_with(r#"{"identities":[{"type":"aziot","spec":{"hubName""#));
        assert_eq!(text.matches("moduleId").count(), 2);
        assert!(!text.contains("auth"));
        assert_eq!(written(&Identities([])), r#"{"identities":[]}"#);
    }

    #[test]
    fn is_24_provisioning_information() {
        let dps = |payload| ProvisioningInfo::Dps {
            auth: "symmetric_key",
            endpoint: "https://localhost:8443/",
            scope_id: "0ne",
            registration_id: "r",
            payload,
        };
        assert_eq!(
            written(&dps(Raw::NULL)),
            r#"{"source":"dps","auth":"symmetric_key","endpoint":"https://localhost:8443/","scope_id":"0ne","registration_id":"r","payload":null}"#
        );
        let payload = Raw::new(" {\"b\": 1e400, \"a\": \"\\u00e9\"}\n").unwrap();
        assert!(written(&dps(payload)).ends_with(r#""payload":{"b": 1e400, "a": "\u00e9"}}"#));
        assert_eq!(
            written(&ProvisioningInfo::Manual { auth: "sas" }),
            r#"{"source":"manual","auth":"sas"}"#
        );
        assert_eq!(written(&ProvisioningInfo::None), r#"{"source":"none"}"#);
    }

    #[test]
    fn is_64_options_of_local_identities() {
        let read = |text: &str| {
            let text = Box::leak(text.as_bytes().to_vec().into_boxed_slice());
            from_slice::<CreateModule<'_>>(text)
                .map(|request| request.local_id_opts.map(|options| options.attributes))
                .map_err(|error| error.to_string())
        };
        assert_eq!(read(r#"{"type":"local","moduleId":"m"}"#), Ok(None));
        assert_eq!(
            read(r#"{"type":"local","moduleId":"m","localIdOpts":null}"#),
            Ok(None)
        );
        assert_eq!(
            read(r#"{"localIdOpts":{"type":"x509"},"type":"local","moduleId":"m"}"#),
            Ok(Some(LocalIdAttributes::Client))
        );
        assert_eq!(
            read(
                r#"{"type":"local","moduleId":"m","localIdOpts":{"type":"x509","attributes":"server"}}"#
            ),
            Ok(Some(LocalIdAttributes::Server))
        );
        assert_eq!(
            read(
                r#"{"type":"local","moduleId":"m","localIdOpts":{"type":"x509","attributes":"bad"}}"#
            ),
            Err(
                "unknown variant `bad`, expected `client` or `server` at line 1 column 80"
                    .to_owned()
            )
        );
        assert!(read(r#"{"type":"local","moduleId":"m","localIdOpts":{}}"#).is_err());
        // Options mean nothing for hub identities.
        assert_eq!(
            read(r#"{"type":"aziot","moduleId":"m","localIdOpts":7}"#),
            Ok(None)
        );
        let request = CreateModule {
            kind: "local",
            module_id: "m",
            local_id_opts: Some(LocalIdOptions::default()),
        };
        let text = written(&request);
        let mut copy = text.into_bytes();
        assert_eq!(from_slice(&mut copy), Ok(request));
    }

    #[test]
    fn is_22_any_type_will_do_for_the_device() {
        for kind in ["", "aziot", "x"] {
            let mut text = format!(r#"{{"type":"{kind}"}}"#).into_bytes();
            assert_eq!(from_slice(&mut text), Ok(DeviceRequest { kind }));
        }
        let mut text = b"{}".to_vec();
        assert_eq!(
            from_slice::<DeviceRequest<'_>>(&mut text)
                .unwrap_err()
                .to_string(),
            "missing field `type` at line 1 column 2"
        );
    }
}
