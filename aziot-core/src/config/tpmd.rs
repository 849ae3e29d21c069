//! Settings of the TPM Service.
