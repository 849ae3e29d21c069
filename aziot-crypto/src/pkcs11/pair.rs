//! The public parameters of a key pair in a token.

use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectHandle};

use super::ec::{compressed_point, order_bits, without_leading_zeros};
use super::error::Cause;
use super::token::Work;
use crate::key_pair::{Curve, Parameter, ParameterValue, signature_bound};

/// What the public object says.
#[derive(Debug)]
pub(super) enum Public {
    Ec {
        /// `None` for a curve whose identifier is not told.
        curve: Option<Curve>,
        order_bits: usize,
        /// Compressed.
        point: Vec<u8>,
    },
    Rsa {
        /// Without leading zeros, as is the exponent.
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
}

impl Public {
    pub(super) fn parameter(&self, parameter: Parameter) -> Result<ParameterValue<'_>, Cause> {
        match (self, parameter) {
            (Self::Ec { .. }, Parameter::Algorithm) => Ok(ParameterValue::Ec),
            (Self::Ec { curve, .. }, Parameter::EcCurveOid) => curve
                .map(|curve| ParameterValue::Bytes(curve.oid()))
                .ok_or(Cause::Curve),
            (Self::Ec { point, .. }, Parameter::EcPoint) => Ok(ParameterValue::Bytes(point)),
            (Self::Rsa { .. }, Parameter::Algorithm) => Ok(ParameterValue::Rsa),
            (Self::Rsa { modulus, .. }, Parameter::RsaModulus) => {
                Ok(ParameterValue::Bytes(modulus))
            }
            (Self::Rsa { exponent, .. }, Parameter::RsaExponent) => {
                Ok(ParameterValue::Bytes(exponent))
            }
            (_, parameter) => Err(Cause::NoParameter(parameter)),
        }
    }

    pub(super) fn signature_bound(&self) -> Option<usize> {
        match self {
            Self::Ec { order_bits, .. } => Some(signature_bound(*order_bits)),
            Self::Rsa { .. } => None,
        }
    }

    pub(super) fn modulus(&self) -> Option<&[u8]> {
        match self {
            Self::Ec { .. } => None,
            Self::Rsa { modulus, .. } => Some(modulus),
        }
    }
}

/// `CKA_KEY_TYPE` and `CKA_ID` of an object; the id is empty where there is none.
pub(super) fn type_and_id(
    work: &Work<'_>,
    object: ObjectHandle,
) -> Result<(Option<KeyType>, Vec<u8>), Cause> {
    let attributes = work
        .session
        .get_attributes(object, &[AttributeType::KeyType, AttributeType::Id])?;
    let (mut key_type, mut id) = (None, Vec::new());
    for attribute in attributes {
        match attribute {
            Attribute::KeyType(found) => key_type = Some(found),
            Attribute::Id(found) => id = found,
            _ => {}
        }
    }
    Ok((key_type, id))
}

/// Reads the public parameters of an object of this type.
pub(super) fn read(
    work: &Work<'_>,
    object: ObjectHandle,
    key_type: KeyType,
) -> Result<Public, Cause> {
    match key_type {
        KeyType::EC => read_ec(work, object),
        KeyType::RSA => read_rsa(work, object),
        _ => Err(Cause::KeyTypes),
    }
}

fn read_ec(work: &Work<'_>, object: ObjectHandle) -> Result<Public, Cause> {
    let attributes = work
        .session
        .get_attributes(object, &[AttributeType::EcParams, AttributeType::EcPoint])?;
    let (mut oid, mut point) = (Vec::new(), Vec::new());
    for attribute in attributes {
        match attribute {
            Attribute::EcParams(found) => oid = found,
            Attribute::EcPoint(found) => point = found,
            _ => {}
        }
    }
    let order_bits = order_bits(&oid).ok_or(Cause::Curve)?;
    let point = compressed_point(&point, order_bits).ok_or(Cause::Malformed("CKA_EC_POINT"))?;
    Ok(Public::Ec {
        curve: Curve::from_oid(&oid),
        order_bits,
        point,
    })
}

fn read_rsa(work: &Work<'_>, object: ObjectHandle) -> Result<Public, Cause> {
    let attributes = work.session.get_attributes(
        object,
        &[AttributeType::Modulus, AttributeType::PublicExponent],
    )?;
    let (mut modulus, mut exponent) = (Vec::new(), Vec::new());
    for attribute in attributes {
        match attribute {
            Attribute::Modulus(found) => modulus = without_leading_zeros(&found).to_vec(),
            Attribute::PublicExponent(found) => exponent = without_leading_zeros(&found).to_vec(),
            _ => {}
        }
    }
    if modulus.is_empty() {
        return Err(Cause::Malformed("CKA_MODULUS"));
    }
    if exponent.is_empty() {
        return Err(Cause::Malformed("CKA_PUBLIC_EXPONENT"));
    }
    Ok(Public::Rsa { modulus, exponent })
}
