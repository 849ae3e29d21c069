//! Wiping memory that has held secrets.

/// Overwrites `bytes` with zeros in a way that the compiler does not leave out, at the speed of `memset`. For the buffers of
/// requests, which are wiped thousands of times a second; `zeroize` itself writes byte by byte.
pub fn wipe(bytes: &mut [u8]) {
    bytes.fill(0);
    zeroize::optimization_barrier(bytes);
}

#[cfg(test)]
mod tests {
    #[test]
    fn nothing_is_left() {
        let mut bytes = *b"secret";
        super::wipe(&mut bytes);
        assert_eq!(bytes, [0; 6]);
    }
}
