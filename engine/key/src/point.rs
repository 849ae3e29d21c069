//! Public points: what the Keys Service gives is compressed, what OpenSSL and TLS want is not.
#![allow(unsafe_code, reason = "calls to libcrypto")]

use std::ffi::c_int;
use std::ptr;

use aziot_crypto::key_pair::Curve;
use openssl_sys as ffi;

unsafe extern "C" {
    /// `openssl/err.h`.
    fn ERR_set_mark() -> c_int;
    /// `openssl/err.h`.
    fn ERR_pop_to_mark() -> c_int;
}

/// The point of a curve in uncompressed form (SEC 1, section 2.3.3), given in any form. `None` if it is not on the curve,
/// or the point at infinity.
pub fn uncompressed(curve: Curve, point: &[u8]) -> Option<Vec<u8>> {
    let nid = match curve {
        Curve::P256 => ffi::NID_X9_62_prime256v1,
        Curve::P384 => ffi::NID_secp384r1,
    };
    let group = Group::new(nid)?;
    let decoded = Point::new(&group)?;
    // SAFETY: both objects are alive, the point belongs to the group, and the slice says how long it is. Only points on the
    // curve are taken. The caller has its own error to show, and may have some on the queue.
    let ok = unsafe {
        ERR_set_mark();
        let ok = ffi::EC_POINT_oct2point(
            group.0,
            decoded.0,
            point.as_ptr(),
            point.len(),
            ptr::null_mut(),
        );
        ERR_pop_to_mark();
        ok
    };
    let mut out = vec![0; 1 + 2 * curve.order_len()];
    // SAFETY: as above; the buffer is as long as is said.
    let len = unsafe {
        if ok == 1 {
            ffi::EC_POINT_point2oct(
                group.0,
                decoded.0,
                ffi::point_conversion_form_t::POINT_CONVERSION_UNCOMPRESSED,
                out.as_mut_ptr(),
                out.len(),
                ptr::null_mut(),
            )
        } else {
            0
        }
    };
    // The point at infinity takes one byte.
    (len == out.len()).then_some(out)
}

struct Group(*mut ffi::EC_GROUP);

impl Group {
    fn new(nid: c_int) -> Option<Self> {
        // SAFETY: takes a number, gives an object of our own, or NULL.
        let group = unsafe { ffi::EC_GROUP_new_by_curve_name(nid) };
        (!group.is_null()).then_some(Self(group))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nothing refers to it any more.
        unsafe { ffi::EC_GROUP_free(self.0) }
    }
}

struct Point(*mut ffi::EC_POINT);

impl Point {
    fn new(group: &Group) -> Option<Self> {
        // SAFETY: the group is alive. The object is our own, or NULL.
        let point = unsafe { ffi::EC_POINT_new(group.0) };
        (!point.is_null()).then_some(Self(point))
    }
}

impl Drop for Point {
    fn drop(&mut self) {
        // SAFETY: it is ours, and nothing refers to it any more.
        unsafe { ffi::EC_POINT_free(self.0) }
    }
}

#[cfg(test)]
mod tests {
    use openssl::bn::BigNumContext;
    use openssl::ec::{EcGroup, EcKey, PointConversionForm};
    use openssl::nid::Nid;

    use super::*;

    #[test]
    fn points_in_every_form() {
        let mut context = BigNumContext::new().unwrap();
        for (curve, nid) in [
            (Curve::P256, Nid::X9_62_PRIME256V1),
            (Curve::P384, Nid::SECP384R1),
        ] {
            let group = EcGroup::from_curve_name(nid).unwrap();
            for _ in 0..8 {
                let key = EcKey::generate(&group).unwrap();
                let mut bytes = |form| {
                    key.public_key()
                        .to_bytes(&group, form, &mut context)
                        .unwrap()
                };
                let expected = bytes(PointConversionForm::UNCOMPRESSED);
                for form in [
                    PointConversionForm::COMPRESSED,
                    PointConversionForm::UNCOMPRESSED,
                    PointConversionForm::HYBRID,
                ] {
                    assert_eq!(uncompressed(curve, &bytes(form)).as_ref(), Some(&expected));
                }
            }
        }
    }

    #[test]
    fn what_is_no_point() {
        for curve in [Curve::P256, Curve::P384] {
            let len = curve.order_len();
            let mut above_the_field = vec![0xff; 1 + len];
            above_the_field[0] = 2;
            let mut off_the_curve = vec![1; 1 + 2 * len];
            off_the_curve[0] = 4;
            for bytes in [&[][..], &[0], &[2], &above_the_field, &off_the_curve] {
                assert_eq!(uncompressed(curve, bytes), None, "{bytes:?}");
            }
        }
    }
}
