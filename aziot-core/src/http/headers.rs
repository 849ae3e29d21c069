use core::fmt;

/// The header fields of a head that has been parsed, in order.
///
/// Looking one up goes through the text again; a parsed head already carries what every message
/// needs.
#[derive(Clone, Copy, Debug, Default)]
pub struct Headers<'a>(&'a [u8]);

impl<'a> Headers<'a> {
    /// The fields after the start line of `head`, which must be well formed.
    pub(super) fn of_head(head: &'a [u8]) -> Self {
        let blank = head
            .iter()
            .position(|byte| !matches!(byte, b'\r' | b'\n'))
            .unwrap_or(head.len());
        let head = head.get(blank..).unwrap_or_default();
        let line = head.iter().position(|&byte| byte == b'\n');
        let fields = line.and_then(|end| head.get(end.saturating_add(1)..));
        Self(fields.unwrap_or_default())
    }

    /// The value of the first field called `name`, in any case.
    #[must_use]
    pub fn value(self, name: &str) -> Option<&'a [u8]> {
        self.into_iter()
            .find(|field| field.name.eq_ignore_ascii_case(name))
            .map(|field| field.value)
    }

    /// As [`value`](Self::value), if it is printable ASCII.
    #[must_use]
    pub fn text(self, name: &str) -> Option<&'a str> {
        self.value(name).and_then(printable)
    }
}

/// One header field.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header<'a> {
    /// The name, in the case it was sent.
    pub name: &'a str,
    /// The value without the white space around it. Any bytes but control characters.
    pub value: &'a [u8],
}

impl<'a> IntoIterator for Headers<'a> {
    type Item = Header<'a>;
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        Iter(self.0)
    }
}

/// Goes through [`Headers`].
#[derive(Clone, Debug)]
pub struct Iter<'a>(&'a [u8]);

impl<'a> Iterator for Iter<'a> {
    type Item = Header<'a>;

    fn next(&mut self) -> Option<Header<'a>> {
        let end = self.0.iter().position(|&byte| byte == b'\n')?;
        let (line, rest) = self.0.split_at_checked(end)?;
        self.0 = rest.get(1..).unwrap_or_default();
        let colon = line.iter().position(|&byte| byte == b':')?;
        let (name, value) = line.split_at_checked(colon)?;
        Some(Header {
            name: core::str::from_utf8(name).ok()?.trim_ascii_end(),
            value: value.get(1..)?.trim_ascii(),
        })
    }
}

/// Lists the fields for a log, `{"content-type": "application/json", "content-length": "20"}`, with
/// names in lower case and without the values that can carry credentials.
impl fmt::Display for Headers<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("{")?;
        for (index, field) in self.into_iter().enumerate() {
            if index != 0 {
                f.write_str(", ")?;
            }
            f.write_str("\"")?;
            for char in field.name.chars() {
                fmt::Write::write_char(f, char.to_ascii_lowercase())?;
            }
            f.write_str("\": \"")?;
            if SECRET
                .iter()
                .any(|name| field.name.eq_ignore_ascii_case(name))
            {
                f.write_str("******")?;
            } else {
                for &byte in field.value {
                    match byte {
                        b'"' => f.write_str("\\\"")?,
                        b'\t' | b' '..=b'~' => fmt::Write::write_char(f, byte.into())?,
                        _ => write!(f, "\\x{byte:02x}")?,
                    }
                }
            }
            f.write_str("\"")?;
        }
        f.write_str("}")
    }
}

/// The value as text, if it is printable ASCII.
pub(super) fn printable(value: &[u8]) -> Option<&str> {
    let printable = value.iter().all(|byte| matches!(byte, b'\t' | b' '..=b'~'));
    printable
        .then(|| core::str::from_utf8(value).ok())
        .flatten()
}

const SECRET: [&str; 3] = ["authorization", "cookie", "proxy-authorization"];
