//! The back end over PKCS#11: keys that live in tokens.
