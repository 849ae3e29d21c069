//! Settings of the Certificates Service, as `config apply` writes them.
