//! Keys, as key management has them.

use std::ffi::{CStr, c_int};
use std::sync::Arc;

use aziot_keys_remote::{Curve, Public, RemoteKey};

use crate::evp::{LibCtx, Pkey};
use crate::params::{self, Given};
use crate::provider::Provider;
use crate::sys::{
    OSSL_PARAM, SELECT_ALL_PARAMETERS, SELECT_DOMAIN_PARAMETERS, SELECT_PRIVATE_KEY,
    SELECT_PUBLIC_KEY,
};

/// The type of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// On an elliptic curve.
    Ec,
    /// RSA.
    Rsa,
}

impl Type {
    /// Its name among the key managements.
    pub const fn name(self) -> &'static CStr {
        match self {
            Self::Ec => c"EC",
            Self::Rsa => c"RSA",
        }
    }

    /// The name of what signs with it.
    pub const fn signature_name(self) -> &'static CStr {
        match self {
            Self::Ec => c"ECDSA",
            Self::Rsa => c"RSA",
        }
    }

    /// The parameters in which the public and the private half are imported.
    const fn halves(self) -> (&'static CStr, &'static CStr) {
        match self {
            Self::Ec => (c"pub", c"priv"),
            Self::Rsa => (c"n", c"d"),
        }
    }

    /// The parts of a key that a selection means for this type. RSA has no domain parameters.
    pub const fn relevant(self, selection: c_int) -> c_int {
        match self {
            Self::Ec => selection,
            Self::Rsa => selection & !SELECT_DOMAIN_PARAMETERS,
        }
    }
}

/// A key, or a place for one.
pub struct Key {
    pub provider: Arc<Provider>,
    pub key_type: Type,
    /// What is known of it here. With [`Key::remote`] it is the public half, and never changes.
    pub software: Option<Pkey>,
    /// Which parts are in `software`.
    pub parts: c_int,
    /// The private half, where it is in the Keys Service.
    pub remote: Option<Arc<RemoteKey>>,
}

impl Key {
    /// A place for a key.
    pub fn empty(provider: Arc<Provider>, key_type: Type) -> Self {
        Self {
            provider,
            key_type,
            software: None,
            parts: 0,
            remote: None,
        }
    }

    /// A key pair of the Keys Service, or only its public half. `None` if there is no other provider for the latter.
    pub fn of(provider: Arc<Provider>, remote: RemoteKey, private: bool) -> Option<Self> {
        let (key_type, software) = public_key(provider.child(), remote.public())?;
        Some(Self {
            provider,
            key_type,
            software: Some(software),
            parts: SELECT_ALL_PARAMETERS | SELECT_PUBLIC_KEY,
            remote: private.then(|| Arc::new(remote)),
        })
    }

    /// A key with these parts of this one. `None` if they cannot be copied.
    pub fn duplicate(&self, selection: c_int) -> Option<Self> {
        let remote = self
            .remote
            .as_ref()
            .filter(|_| selection & SELECT_PRIVATE_KEY != 0)
            .map(Arc::clone);
        let software = match (&self.software, &remote) {
            (None, _) => None,
            // Neither changes.
            (Some(software), Some(_)) => Some(software.clone()),
            (Some(software), None) => {
                Some(software.copy(self.provider.child(), self.key_type.name(), selection)?)
            }
        };
        Some(Self {
            provider: Arc::clone(&self.provider),
            key_type: self.key_type,
            software,
            parts: if remote.is_some() {
                self.parts
            } else {
                self.parts & selection
            },
            remote,
        })
    }

    /// Whether it has all these parts.
    pub fn has(&self, selection: c_int) -> bool {
        let mut parts = self.parts;
        if self.remote.is_some() {
            parts |= SELECT_PRIVATE_KEY;
        }
        let wanted = self.key_type.relevant(selection)
            & (SELECT_PRIVATE_KEY | SELECT_PUBLIC_KEY | SELECT_DOMAIN_PARAMETERS);
        wanted & !parts == 0
    }

    /// Whether `software` is its own and may be changed.
    pub fn is_local(&self) -> bool {
        self.remote.is_none()
    }

    /// Fills the place with values of another key.
    pub fn import(&mut self, selection: c_int, params: *const OSSL_PARAM) -> bool {
        if self.software.is_some() {
            return false;
        }
        let Some(software) = Pkey::from_params(
            self.provider.child(),
            self.key_type.name(),
            selection,
            params,
        ) else {
            return false;
        };
        // SAFETY: what the caller of this function got from libcrypto.
        let given = unsafe { Given::new(params) };
        let (public, private) = self.key_type.halves();
        self.parts = selection & SELECT_ALL_PARAMETERS;
        for (part, name) in [(SELECT_PUBLIC_KEY, public), (SELECT_PRIVATE_KEY, private)] {
            if selection & part != 0 && given.has(name) {
                self.parts |= part;
            }
        }
        self.software = Some(software);
        true
    }
}

/// An ordinary key with the public half.
fn public_key(ctx: &LibCtx, public: &Public) -> Option<(Type, Pkey)> {
    let selection = SELECT_ALL_PARAMETERS | SELECT_PUBLIC_KEY;
    match public {
        Public::Ec { curve, point } => {
            let group = match curve {
                Curve::P256 => c"prime256v1",
                Curve::P384 => c"secp384r1",
            };
            let list = [
                params::text(c"group", group),
                params::bytes(c"pub", point),
                params::END,
            ];
            let key = Pkey::from_params(ctx, Type::Ec.name(), selection, list.as_ptr())?;
            Some((Type::Ec, key))
        }
        Public::Rsa { n, e } => {
            let (mut n, mut e) = (params::native(n), params::native(e));
            let list = [
                params::number(c"n", &mut n),
                params::number(c"e", &mut e),
                params::END,
            ];
            let key = Pkey::from_params(ctx, Type::Rsa.name(), selection, list.as_ptr())?;
            Some((Type::Rsa, key))
        }
    }
}
