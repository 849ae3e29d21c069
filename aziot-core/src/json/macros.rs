//! Declaring types that are read from and written as JSON.

/// Declares structs that are JSON objects, read with [`FromJson`](crate::json::FromJson) and
/// written with `serde::Serialize`.
///
/// Each member gives its name on the wire after `=`. Unknown members are ignored, repeated ones
/// refused; a member of type `Option` may be absent or `null`. An array with the members in order
/// is accepted in place of the object. An `Option` that is `None` is written as `null`, or, with
/// `[omit]` after its name, not at all.
///
/// ```
/// aziot_core::json_object! {
///     /// A key, to be made.
///     #[derive(Debug, PartialEq)]
///     pub struct CreateKey<'a> {
///         /// Its id.
///         pub id: &'a str = "keyId",
///         /// Its bytes, if it is imported.
///         pub bytes: Option<aziot_core::json::Bytes<'a>> = "keyBytes" [omit],
///     }
/// }
///
/// let mut document = *br#"{"keyId":"a\u0062"}"#;
/// let key: CreateKey<'_> = aziot_core::json::from_slice(&mut document).unwrap();
/// assert_eq!(key, CreateKey { id: "ab", bytes: None });
///
/// let mut out = [0; 64];
/// let length = aziot_core::json::to_slice(&key, &mut out).unwrap();
/// assert_eq!(&out[..length], br#"{"keyId":"ab"}"#);
/// ```
#[macro_export]
macro_rules! json_object {
    ($(
        $(#[$meta:meta])*
        $vis:vis struct $name:ident $(<$lt:lifetime>)? {
            $(
                $(#[$member_meta:meta])*
                $member_vis:vis $member:ident : $type:ty = $key:literal $([$omit:ident])?
            ),* $(,)?
        }
    )*) => { $(
        $crate::json_input! {
            $(#[$meta])*
            $vis struct $name $(<$lt>)? {
                $( $(#[$member_meta])* $member_vis $member: $type = $key ),*
            }
        }

        impl $(<$lt>)? $crate::json::private::Serialize for $name $(<$lt>)? {
            fn serialize<S: $crate::json::private::Serializer>(
                &self,
                serializer: S,
            ) -> ::core::result::Result<S::Ok, S::Error> {
                use $crate::json::private::SerializeStruct as _;
                let mut object = serializer.serialize_struct(
                    ::core::stringify!($name),
                    <[&str]>::len(&[$($key),*]),
                )?;
                $( $crate::json_object!(@member self object $member $key $($omit)?); )*
                object.end()
            }
        }
    )* };
    (@member $self:ident $object:ident $member:ident $key:literal) => {
        $object.serialize_field($key, &$self.$member)?;
    };
    (@member $self:ident $object:ident $member:ident $key:literal omit) => {
        if let ::core::option::Option::Some(value) = &$self.$member {
            $object.serialize_field($key, value)?;
        }
    };
}

/// As [`json_object!`](crate::json_object), for structs that are only read.
#[macro_export]
macro_rules! json_input {
    ($(
        $(#[$meta:meta])*
        $vis:vis struct $name:ident $(<$lt:lifetime>)? {
            $(
                $(#[$member_meta:meta])*
                $member_vis:vis $member:ident : $type:ty = $key:literal
            ),* $(,)?
        }
    )*) => { $(
        $(#[$meta])*
        $vis struct $name $(<$lt>)? {
            $( $(#[$member_meta])* $member_vis $member: $type, )*
        }

        $crate::json_input!(@impl $name [$($lt)?] $($member $key ($type))*);
    )* };
    (@impl $name:ident [] $($rest:tt)*) => {
        impl<'json> $crate::json::FromJson<'json> for $name {
            $crate::json_input!(@body 'json $name $($rest)*);
        }
    };
    (@impl $name:ident [$lt:lifetime] $($rest:tt)*) => {
        impl<$lt> $crate::json::FromJson<$lt> for $name<$lt> {
            $crate::json_input!(@body $lt $name $($rest)*);
        }
    };
    (@body $lt:lifetime $name:ident $($member:ident $key:literal ($type:ty))*) => {
        fn from_json(
            r: &mut $crate::json::Reader<$lt>,
        ) -> ::core::result::Result<Self, $crate::json::Error<$lt>> {
            use ::core::option::Option::{self, None, Some};
            use ::core::result::Result::Ok;
            use $crate::json::{Error, ErrorKind, FromJson};

            const EXPECTED: &str = ::core::concat!("struct ", ::core::stringify!($name));
            const MEMBERS: usize = <[&str]>::len(&[$($key),*]);

            r.object_or_array(
                EXPECTED,
                |r| {
                    $( let mut $member: Option<$type> = None; )*
                    let mut first = true;
                    while let Some(key) = r.next_key(&mut first)? {
                        match key {
                            $( $key => {
                                if $member.is_some() {
                                    return ::core::result::Result::Err(
                                        Error::duplicate_field($key),
                                    );
                                }
                                $member = Some(r.value()?);
                            } )*
                            _ => r.skip_value()?,
                        }
                    }
                    $(
                        let $member = match $member {
                            Some(value) => value,
                            None => <$type as FromJson<$lt>>::absent()
                                .ok_or(Error::missing_field($key))?,
                        };
                    )*
                    Ok(Self { $($member),* })
                },
                |r| {
                    let mut first = true;
                    let mut length = 0;
                    let too_short = |length| {
                        Error::new(ErrorKind::InvalidLength {
                            length,
                            expected: EXPECTED,
                            members: MEMBERS,
                        })
                    };
                    $(
                        if !r.next_element(&mut first)? {
                            return ::core::result::Result::Err(too_short(length));
                        }
                        let $member = <$type as FromJson<$lt>>::from_json(r)?;
                        length = ::core::primitive::usize::saturating_add(length, 1);
                    )*
                    let _ = length;
                    Ok(Self { $($member),* })
                },
            )
        }
    };
}

/// Declares enums of words: JSON strings of which one must be there.
///
/// ```
/// aziot_core::json_enum! {
///     /// How to sign.
///     #[derive(Clone, Copy, Debug, PartialEq)]
///     pub enum Algorithm {
///         /// With a key pair.
///         Ecdsa = "ECDSA",
///         /// With a symmetric key.
///         HmacSha256 = "HMAC-SHA256",
///     }
/// }
///
/// let mut document = *br#""HMAC""#;
/// let error = aziot_core::json::from_slice::<Algorithm>(&mut document).unwrap_err();
/// assert_eq!(
///     error.to_string(),
///     "unknown variant `HMAC`, expected `ECDSA` or `HMAC-SHA256` at line 1 column 6",
/// );
/// assert_eq!(Algorithm::Ecdsa.as_str(), "ECDSA");
/// ```
#[macro_export]
macro_rules! json_enum {
    ($(
        $(#[$meta:meta])*
        $vis:vis enum $name:ident {
            $( $(#[$variant_meta:meta])* $variant:ident = $word:literal ),* $(,)?
        }
    )*) => { $(
        $(#[$meta])*
        $vis enum $name {
            $( $(#[$variant_meta])* $variant, )*
        }

        impl $name {
            /// All words, in the order of the variants.
            pub const WORDS: &'static [&'static str] = &[$($word),*];

            /// The word on the wire.
            #[must_use]
            pub const fn as_str(&self) -> &'static str {
                match self {
                    $( Self::$variant => $word, )*
                }
            }

            /// The variant with this word, if there is one.
            #[must_use]
            pub fn from_word(word: &str) -> ::core::option::Option<Self> {
                match word {
                    $( $word => ::core::option::Option::Some(Self::$variant), )*
                    _ => ::core::option::Option::None,
                }
            }
        }

        impl<'json> $crate::json::FromJson<'json> for $name {
            fn from_json(
                r: &mut $crate::json::Reader<'json>,
            ) -> ::core::result::Result<Self, $crate::json::Error<'json>> {
                let found = r.string("a string")?;
                Self::from_word(found).ok_or_else(|| {
                    r.place($crate::json::Error::new($crate::json::ErrorKind::UnknownVariant {
                        found,
                        expected: Self::WORDS,
                    }))
                })
            }
        }

        impl $crate::json::private::Serialize for $name {
            fn serialize<S: $crate::json::private::Serializer>(
                &self,
                serializer: S,
            ) -> ::core::result::Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }
    )* };
}
