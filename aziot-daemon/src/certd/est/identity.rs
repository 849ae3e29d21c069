//! EST identities as they are found: the certificate in the store, the key pair in the Keys Service. Everything here blocks.

use std::fmt;

use aziot_core::renewal::{Leaf, Pair};
use openssl::pkey::{PKey, Private};

use super::super::error::Error;
use super::chain::{Chain, ChainError};
use super::keys;
use super::plan::Names;
use super::shared::Shared;
use crate::client::Identity;
use crate::clock;

/// Why an identity cannot be used.
#[derive(Debug)]
pub enum Unusable {
    /// It is missing, damaged, expired or without its key: it has to be established again, if that is possible.
    Lost(Loss),
    /// It could not be looked at. That passes, and is no reason to give it up (DB-20).
    Failed(Error),
}

/// What is wrong with an identity that has to be established again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// There is no certificate.
    NoCertificate,
    /// What is stored is no certificate.
    Chain(ChainError),
    /// It has expired.
    Expired,
    /// The key pair is missing, or belongs to another certificate.
    Key,
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NoCertificate => f.write_str("there is no certificate"),
            Self::Chain(error) => error.fmt(f),
            Self::Expired => f.write_str("it has expired"),
            Self::Key => f.write_str("its key pair is missing or belongs to another certificate"),
        }
    }
}

/// The wall clock in seconds since 1970.
#[must_use]
pub fn now() -> i64 {
    i64::try_from(clock::now()).unwrap_or(i64::MAX)
}

/// What a client proves with this identity: the entire chain, and the key pair.
///
/// # Errors
/// See [`Unusable`].
pub fn usable(shared: &Shared, names: &Names) -> Result<Identity, Unusable> {
    let text = shared
        .read(&names.cert)
        .map_err(Unusable::Failed)?
        .ok_or(Unusable::Lost(Loss::NoCertificate))?;
    let chain = Chain::parse(&text).map_err(|error| Unusable::Lost(Loss::Chain(error)))?;
    let leaf = chain
        .renewal()
        .map_err(|error| Unusable::Lost(Loss::Chain(error.into())))?;
    if leaf.has_expired(now()) {
        return Err(Unusable::Lost(Loss::Expired));
    }
    let key = keys::load(&shared.tools, &names.key).map_err(|error| {
        let what = format!(
            "could not load the key pair {:?} of an EST identity",
            names.key
        );
        Unusable::Failed(Error::internal(what).caused_by(error))
    })?;
    match key {
        Some(key) if chain.is_for(&key) => Ok(with_key(chain, key)),
        _ => Err(Unusable::Lost(Loss::Key)),
    }
}

/// A chain and its key.
#[must_use]
pub fn with_key(chain: Chain, key: PKey<Private>) -> Identity {
    let (certificate, chain) = chain.into_parts();
    Identity {
        certificate,
        chain,
        key,
    }
}

/// The bootstrap identity: a certificate (a list of ids will do) and its key pair.
///
/// # Errors
/// It is not there, or cannot be looked at. The text is that of the renewal log.
pub fn bootstrap(shared: &Shared, cert: &str, key: &str) -> Result<Identity, String> {
    let chain = match shared.read(cert) {
        Ok(Some(text)) => Chain::parse(&text).map_err(|error| error.to_string()),
        Ok(None) => Err("could not get EST bootstrap identity cert: entity not found".to_owned()),
        Err(error) => Err(error.one_line()),
    };
    let chain = chain.map_err(|error| format!("failed to read bootstrap cert: {error}"))?;
    let no_key = |error: &dyn fmt::Display| format!("failed to load EST auth key: {error}");
    match keys::load(&shared.tools, key).map_err(|error| no_key(&error))? {
        Some(key) => Ok(with_key(chain, key)),
        None => Err(no_key(&format_args!("there is no key pair {key:?}"))),
    }
}

/// What an identity looks like, for its registration.
#[derive(Debug)]
pub struct Found {
    /// The certificate.
    pub leaf: Leaf,
    /// Whose it is; not known if the Keys Service cannot tell.
    pub pair: Option<Pair>,
}

/// Looks at an identity. `None` if there is no certificate.
///
/// # Errors
/// The certificate cannot be read, or is none.
pub fn examine(shared: &Shared, names: &Names) -> Result<Option<Found>, Error> {
    let Some(text) = shared.read(&names.cert)? else {
        return Ok(None);
    };
    let chain = Chain::parse(&text).map_err(Error::internal)?;
    let leaf = chain.renewal().map_err(Error::internal)?;
    let pair = match compare(shared, names, &chain) {
        Ok(pair) => Some(pair),
        Err(error) => {
            log::warn!(
                "could not compare the EST identity {} with its key pair: {error}",
                names.cert
            );
            None
        }
    };
    Ok(Some(Found { leaf, pair }))
}

/// Which key a certificate belongs to.
///
/// # Errors
/// The Keys Service cannot tell.
pub fn compare(shared: &Shared, names: &Names, chain: &Chain) -> Result<Pair, keys::Error> {
    let belongs = |id: &str| -> Result<bool, keys::Error> {
        let key = keys::load(&shared.tools, id)?;
        Ok(key.is_some_and(|key| chain.is_for(&key)))
    };
    Ok(if belongs(&names.key)? {
        Pair::Key
    } else if belongs(&names.temporary_key())? {
        Pair::Temporary
    } else {
        Pair::Neither
    })
}
