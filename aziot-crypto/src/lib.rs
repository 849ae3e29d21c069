//! Key logic over small traits, with its back ends.
#![cfg_attr(not(any(test, feature = "std")), no_std)]
