//! How the Keys Service stands: the answer to `GET /status`.
//!
//! Release 1.6.0 has no such route; it exists under [`STATUS_VERSION`] only.

use serde::ser::{Serialize, SerializeSeq as _, SerializeStruct as _, Serializer};

use crate::json::{Deferred, Error, FromJson, Reader};
use crate::{json_enum, json_input, json_object};

/// The version that adds `/status`, the same for all services.
pub use crate::api::identity::STATUS_VERSION;

/// How the service stands. `K` is a list of [`KeyStatus`], `T` one of [`TokenStatus`]: a [`List`] to write, whatever
/// collection suits the reader to read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Status<'a, K, T> {
    /// Whether all is well.
    pub state: State,
    /// Since when, RFC 3339: the start of the service, or the first failure of those that last.
    pub since: &'a str,
    /// What is wrong, unless all is well.
    pub reason: Option<&'a str>,
    /// When what is wrong is looked at again without being asked for, or earliest tried again when it is, RFC 3339;
    /// none if the next use tries at once.
    pub next_attempt: Option<&'a str>,
    /// The version of the package.
    pub version: &'a str,
    /// The key library.
    pub library: LibraryStatus<'a>,
    /// The keys that the caller may use; all for root. None if the library cannot tell.
    pub keys: Option<K>,
    /// The tokens. None if the library cannot tell.
    pub tokens: Option<T>,
    /// How many keys and tokens were left out, because the answer would be longer than
    /// [`limits::STATUS_ENTRIES`](crate::limits::STATUS_ENTRIES) and [`limits::STATUS_TEXT`](crate::limits::STATUS_TEXT)
    /// allow.
    pub more: u32,
}

json_enum! {
    /// Whether all is well.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub enum State {
        /// It is, as far as is known.
        Running = "running",
        /// A token fails. Keys that are not in it can be used.
        Degraded = "degraded",
    }

    /// What kind of key.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub enum KeyKind {
        /// A symmetric key.
        Symmetric = "symmetric",
        /// A key pair.
        KeyPair = "keyPair",
        /// It has not been looked at.
        Unknown = "unknown",
    }

    /// Where a key is.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub enum KeyLocation {
        /// In a file.
        File = "file",
        /// In a PKCS#11 token.
        Pkcs11 = "pkcs11",
        /// Nowhere: it has a configured location, and is not there.
        None = "none",
    }

    /// How a token stands.
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub enum TokenState {
        /// Nobody has needed it yet.
        Unused = "unused",
        /// The last use succeeded.
        Working = "working",
        /// The last use failed.
        Failing = "failing",
    }
}

json_object! {
    /// The key library in a [`Status`].
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct LibraryStatus<'a> {
        /// The version of its function list: `0x` and eight hexadecimal digits in lower case.
        pub version: &'a str = "version",
        /// Whether it is ours: only then is it known where keys are, and only then are requests carried out in parallel.
        pub extended: bool = "extended",
    }

    /// A key in a [`Status`].
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct KeyStatus<'a> {
        /// Its id; none for a file that was not used since the start, because its name does not tell.
        pub id: Option<&'a str> = "id",
        /// What it is.
        pub kind: KeyKind = "kind",
        /// Where it is.
        pub location: KeyLocation = "location",
        /// The path, or the URI without its PIN.
        pub place: Option<&'a str> = "place",
        /// Whether the configuration gives it a location of its own.
        pub preloaded: bool = "preloaded",
        /// Why it cannot be used, or that it is not where it was wanted.
        pub remark: Option<&'a str> = "remark",
    }

    /// A token in a [`Status`].
    #[derive(Clone, Copy, Debug, Eq, PartialEq)]
    pub struct TokenStatus<'a> {
        /// Its `pkcs11:` URI without the PIN.
        pub uri: &'a str = "uri",
        /// How it stands.
        pub state: TokenState = "state",
        /// Since when, RFC 3339; none if it is unused.
        pub since: Option<&'a str> = "since",
        /// Why it fails, if it does.
        pub failure: Option<&'a str> = "failure",
        /// When its module is loaded again at the earliest, RFC 3339; none if the next use tries at once.
        pub next_attempt: Option<&'a str> = "nextAttempt",
        /// Open sessions.
        pub sessions: u32 = "sessions",
    }
}

/// A list that is written as it comes. The iterator is cloned for it, so it has to be cheap to clone.
#[derive(Clone, Copy, Debug)]
pub struct List<I>(pub I);

impl<I> Serialize for List<I>
where
    I: IntoIterator<Item: Serialize> + Clone,
{
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_seq(None)?;
        for element in self.0.clone() {
            list.serialize_element(&element)?;
        }
        list.end()
    }
}

impl<K: Serialize, T: Serialize> Serialize for Status<'_, K, T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut object = serializer.serialize_struct("Status", 9)?;
        object.serialize_field("state", &self.state)?;
        object.serialize_field("since", self.since)?;
        object.serialize_field("reason", &self.reason)?;
        object.serialize_field("nextAttempt", &self.next_attempt)?;
        object.serialize_field("version", self.version)?;
        object.serialize_field("library", &self.library)?;
        object.serialize_field("keys", &self.keys)?;
        object.serialize_field("tokens", &self.tokens)?;
        object.serialize_field("more", &self.more)?;
        object.end()
    }
}

impl<'a, K: FromJson<'a>, T: FromJson<'a>> FromJson<'a> for Status<'a, K, T> {
    fn from_json(r: &mut Reader<'a>) -> Result<Self, Error<'a>> {
        let members: StatusMembers<'a> = FromJson::from_json(r)?;
        let keys = members.keys.map(Deferred::decode).transpose();
        let tokens = members.tokens.map(Deferred::decode).transpose();
        Ok(Self {
            state: members.state,
            since: members.since,
            reason: members.reason,
            next_attempt: members.next_attempt,
            version: members.version,
            library: members.library,
            keys: keys.map_err(|error| r.place(error))?,
            tokens: tokens.map_err(|error| r.place(error))?,
            more: members.more,
        })
    }
}

json_input! {
    struct StatusMembers<'a> {
        state: State = "state",
        since: &'a str = "since",
        reason: Option<&'a str> = "reason",
        next_attempt: Option<&'a str> = "nextAttempt",
        version: &'a str = "version",
        library: LibraryStatus<'a> = "library",
        keys: Option<Deferred<'a>> = "keys",
        tokens: Option<Deferred<'a>> = "tokens",
        more: u32 = "more",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::{from_slice, to_slice};

    type Read<'a> = Status<'a, heapless::Vec<KeyStatus<'a>, 4>, heapless::Vec<TokenStatus<'a>, 4>>;

    const KEYS: [KeyStatus<'_>; 2] = [
        KeyStatus {
            id: Some("k\"1"),
            kind: KeyKind::Symmetric,
            location: KeyLocation::File,
            place: Some("/var/lib/aziot/keyd/keys/k1-0.key"),
            preloaded: false,
            remark: None,
        },
        KeyStatus {
            id: None,
            kind: KeyKind::Unknown,
            location: KeyLocation::None,
            place: None,
            preloaded: true,
            remark: Some("not found"),
        },
    ];

    const TOKENS: [TokenStatus<'_>; 1] = [TokenStatus {
        uri: "pkcs11:token=t",
        state: TokenState::Failing,
        since: Some("2026-11-01T00:00:00Z"),
        failure: Some("C_Login: CKR_PIN_INCORRECT"),
        next_attempt: None,
        sessions: 0,
    }];

    fn status<K, T>(keys: Option<K>, tokens: Option<T>) -> Status<'static, K, T> {
        Status {
            state: State::Degraded,
            since: "2026-11-01T00:00:00Z",
            reason: Some("r"),
            next_attempt: None,
            version: "1.7.0",
            library: LibraryStatus {
                version: "0x02010000",
                extended: true,
            },
            keys,
            tokens,
            more: 3,
        }
    }

    fn written(value: &impl Serialize) -> String {
        let mut out = [0; 2048];
        let length = to_slice(value, &mut out).unwrap();
        String::from_utf8(out[..length].to_vec()).unwrap()
    }

    #[test]
    fn what_is_written_is_read_as_the_same() {
        let text = written(&status(Some(List(KEYS)), Some(List(TOKENS))));
        assert_eq!(
            text,
            "{\"state\":\"degraded\",\"since\":\"2026-11-01T00:00:00Z\",\"reason\":\"r\",\"nextAttempt\":null,\
             \"version\":\"1.7.0\",\"library\":{\"version\":\"0x02010000\",\"extended\":true},\"keys\":[\
             {\"id\":\"k\\\"1\",\"kind\":\"symmetric\",\"location\":\"file\",\"place\":\"/var/lib/aziot/keyd/keys/k1-0.key\",\
             \"preloaded\":false,\"remark\":null},{\"id\":null,\"kind\":\"unknown\",\"location\":\"none\",\"place\":null,\
             \"preloaded\":true,\"remark\":\"not found\"}],\"tokens\":[{\"uri\":\"pkcs11:token=t\",\"state\":\"failing\",\
             \"since\":\"2026-11-01T00:00:00Z\",\"failure\":\"C_Login: CKR_PIN_INCORRECT\",\"nextAttempt\":null,\
             \"sessions\":0}],\"more\":3}"
        );
        let mut bytes = text.into_bytes();
        let read: Read<'_> = from_slice(&mut bytes).unwrap();
        assert_eq!(read.keys.as_deref(), Some(&KEYS[..]));
        assert_eq!(read.tokens.as_deref(), Some(&TOKENS[..]));
        assert_eq!((read.state, read.more), (State::Degraded, 3));
    }

    #[test]
    fn a_library_that_cannot_tell_is_not_one_without_keys() {
        let nothing = status(
            None::<List<[KeyStatus<'_>; 0]>>,
            None::<List<[TokenStatus<'_>; 0]>>,
        );
        let text = written(&nothing);
        assert!(text.contains("\"keys\":null,\"tokens\":null"), "{text}");
        let mut bytes = text.into_bytes();
        let read: Read<'_> = from_slice(&mut bytes).unwrap();
        assert_eq!((read.keys, read.tokens), (None, None));
        let text = written(&status(
            Some(List([KEYS[0]; 0])),
            Some(List([TOKENS[0]; 0])),
        ));
        assert!(text.contains("\"keys\":[],\"tokens\":[]"), "{text}");
    }
}
