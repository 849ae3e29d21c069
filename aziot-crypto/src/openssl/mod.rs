//! The back end over OpenSSL: key pairs and AES-GCM.
