//! Authenticated encryption, and the format of its ciphertexts.
