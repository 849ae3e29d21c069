//! A small blocking client of the Keys Service.
