//! From ids of certificates to files (certificates-service 3). Nothing here touches a disk.

use std::ffi::OsStr;
use std::fmt::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

use aziot_core::config::certd::PreloadedCert;
use aziot_core::uri::{self, FileUriError};
use sha2::{Digest as _, Sha256};

use super::error::Error;

/// The certificates that a configuration preloads, by id.
pub type Preloaded = std::collections::BTreeMap<String, PreloadedCert>;

/// How deep lists of ids may nest. Each level needs a list of its own in the configuration; nobody needs more than two.
const LIST_DEPTH: usize = 32;

/// How many ids may be looked up for one list, those of the lists in it included. Without a limit lists that each name two
/// others would double the work with every level.
const LIST_IDS: usize = 1024;

/// Longest file name that Linux file systems take, in bytes.
const NAME_MAX: usize = 255;

/// What the names of files in the store end with.
pub const EXTENSION: &str = ".cer";

/// The file name of the certificate `id` in the directory `certs` of the service's home (certificates-service 3.1).
///
/// It may be longer than a file system takes, if the id has more than 186 letters and digits.
#[must_use]
pub fn file_name(id: &str) -> String {
    let digest = Sha256::digest(id.as_bytes());
    let mut name: String = id.chars().filter(char::is_ascii_alphanumeric).collect();
    name.push('-');
    for byte in digest {
        // Writing to a string cannot fail.
        let _ = write!(name, "{byte:02x}");
    }
    name.push_str(EXTENSION);
    name
}

/// What the id of a certificate stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    id: String,
    place: Place,
}

/// Where a certificate is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the service's own store.
    Store(PathBuf),
    /// In a file that the configuration names.
    File(PathBuf),
    /// In several, one after the other. They may be there several times.
    List(Vec<Part>),
}

/// A file that a list stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it is.
    pub path: PathBuf,
    /// Whether it is in the service's own store.
    pub stored: bool,
}

impl Target {
    /// What `id` stands for, with the store in the directory `certs`.
    ///
    /// # Errors
    /// A preloaded certificate whose location is no file of this machine, or a list that cannot be resolved.
    pub fn resolve(certs: &Path, preloaded: &Preloaded, id: &str) -> Result<Self, Error> {
        let place = match preloaded.get(id) {
            None => Place::Store(certs.join(file_name(id))),
            Some(PreloadedCert::Uri(uri)) => Place::File(file(id, uri)?),
            Some(PreloadedCert::Ids(ids)) => {
                let mut list = List {
                    certs,
                    preloaded,
                    within: vec![id],
                    left: LIST_IDS,
                    parts: Vec::new(),
                };
                list.flatten(ids)?;
                Place::List(list.parts)
            }
        };
        Ok(Self {
            id: id.to_owned(),
            place,
        })
    }

    /// The id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Where it is.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// The file that is written for this id.
    ///
    /// # Errors
    /// A list of ids is none, and a file in the store may have a name that is too long.
    pub fn single(&self) -> Result<&Path, Error> {
        match &self.place {
            Place::Store(path) => {
                let length = path.file_name().map_or(0, OsStr::len);
                if length > NAME_MAX {
                    return Err(unusable(format_args!(
                        "the file name for cert ID {:?} would have {length} bytes, and {NAME_MAX} is the most; choose an \
                         id with at most 186 letters and digits",
                        self.id
                    )));
                }
                Ok(path)
            }
            Place::File(path) => Ok(path),
            Place::List(_) => Err(unusable(format_args!(
                "preloaded cert {:?} is a list of IDs, not a single URI",
                self.id
            ))),
        }
    }
}

/// A list that is being resolved.
struct List<'a> {
    certs: &'a Path,
    preloaded: &'a Preloaded,
    /// The ids of the lists on the way to the present one, outermost first.
    within: Vec<&'a str>,
    /// Ids that may still be looked up.
    left: usize,
    parts: Vec<Part>,
}

impl<'a> List<'a> {
    fn flatten(&mut self, ids: &'a [String]) -> Result<(), Error> {
        for id in ids {
            self.left = self.left.checked_sub(1).ok_or_else(|| {
                self.refused(format_args!(
                    "names more than {LIST_IDS} certs, those of the lists in it included"
                ))
            })?;
            match self.preloaded.get(id) {
                Some(PreloadedCert::Ids(_)) if self.within.contains(&id.as_str()) => {
                    return Err(self.refused(format_args!(
                        "leads back to {id:?}; take it out of one of the lists"
                    )));
                }
                Some(PreloadedCert::Ids(_)) if self.within.len() >= LIST_DEPTH => {
                    return Err(
                        self.refused(format_args!("has lists in it more than {LIST_DEPTH} deep"))
                    );
                }
                Some(PreloadedCert::Ids(ids)) => {
                    self.within.push(id);
                    self.flatten(ids)?;
                    self.within.pop();
                }
                Some(PreloadedCert::Uri(uri)) => self.parts.push(Part {
                    path: file(id, uri)?,
                    stored: false,
                }),
                None => self.parts.push(Part {
                    path: self.certs.join(file_name(id)),
                    stored: true,
                }),
            }
        }
        Ok(())
    }

    fn refused(&self, why: std::fmt::Arguments<'_>) -> Error {
        let outermost = self.within.first().unwrap_or(&"");
        unusable(format_args!(
            "preloaded cert {outermost:?} is a list of IDs that {why}"
        ))
    }
}

/// The path that the URI of a preloaded certificate names.
fn file(id: &str, uri: &str) -> Result<PathBuf, Error> {
    let mut room = vec![0; uri.len().saturating_add(1)];
    match uri::file_path(uri, &mut room) {
        Ok(path) => Ok(OsStr::from_bytes(path).into()),
        Err(error) => {
            let reason = match error {
                FileUriError::NotFile => {
                    let scheme = uri.split_once(':').map_or(uri, |(scheme, _)| scheme);
                    format!("unrecognized scheme {scheme:?}")
                }
                FileUriError::BufferFull(_)
                | FileUriError::ControlCharacter
                | FileUriError::Host => "not a valid path".to_owned(),
            };
            Err(unusable(format_args!(
                "preloaded cert {id:?} does not have a valid URI: {reason}"
            )))
        }
    }
}

fn unusable(cause: impl std::fmt::Display) -> Error {
    Error::internal("could not get file path corresponding to cert ID").caused_by(cause)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn preloaded(entries: &[(&str, PreloadedCert)]) -> Preloaded {
        let owned = entries.iter().cloned();
        owned.map(|(id, cert)| (id.to_owned(), cert)).collect()
    }

    fn list(ids: &[&str]) -> PreloadedCert {
        PreloadedCert::Ids(ids.iter().map(|id| (*id).to_owned()).collect())
    }

    fn uri(text: &str) -> PreloadedCert {
        PreloadedCert::Uri(text.to_owned())
    }

    fn causes(result: Result<impl std::fmt::Debug, Error>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn cs_10_file_names() {
        for (id, name) in [
            (
                "device-id",
                "deviceid-bd732105ef89cf8edd2606a5309c8a26b7b5599a4e124a0fe6199b6b2f60e655.cer",
            ),
            (
                "device-id-temp",
                "deviceidtemp-18529c9171bde94d93057c5ae38aa55de93bd188cf902aae402ccff020205f2b.cer",
            ),
            (
                "device-ca",
                "deviceca-1e530a283c9bc33f3316c9542433e9397217151498ee60280a1cae14da69a38d.cer",
            ),
            (
                "est-id",
                "estid-c45f3e96a312cc524fecceddbc40dfc2aa789eae911d8bc7dd4eda19b93be900.cer",
            ),
            (
                "est-id-device-id",
                "estiddeviceid-46b3638bf20d517935dce2d02e90868d5bf1b185748afdbfda56cf66944ab331.cer",
            ),
            (
                "local-ca",
                "localca-f71a8ad7034763bddef5cd1be2038a6b758374a08a83e88a979839841e5294d4.cer",
            ),
            (
                "aziot-edged-ca",
                "aziotedgedca-86f154be7ff14480027f0d00c59c223db6d9e4ab0b559fc523cca36a7c973d6d.cer",
            ),
            (
                "a",
                "a-ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb.cer",
            ),
            (
                "",
                "-e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855.cer",
            ),
            (
                "a b",
                "ab-c8687a08aa5d6ed2044328fa6a697ab8e96dc34291e8c2034ae8c38e6fcc6d65.cer",
            ),
            (
                "a/b",
                "ab-c14cddc033f64b9dea80ea675cf280a015e672516090a5626781153dc68fea11.cer",
            ),
            (
                "../../etc/passwd",
                "etcpasswd-3754d6cb3a38e1185e5b382d5f3ef3f118af75bf4bf0254d1fdb8437f51423e0.cer",
            ),
            (
                "ünïcode-é",
                "ncode-7d31ab76d76f34222eb74149fee0dd9445000fc5ce90f6c386dc4e7cf1768dc5.cer",
            ),
            (
                "ABC_123",
                "ABC123-fd68e2bb3519f0f5cd60a3f34e1030083c7b5096b38de4d9f6ba3482d32ece3e.cer",
            ),
            (
                "日本",
                "-cf2abf0c5be326cb922a70f8163f91079c4d9aa8655c60ead89ad545c9de2e92.cer",
            ),
            (
                "€",
                "-c4cc90ed3d26f12d4b08a75140970a7904035c31cbb4515a83f19b9003c00d1d.cer",
            ),
        ] {
            assert_eq!(file_name(id), name, "{id}");
        }
    }

    #[test]
    fn cs_13_file_urls() {
        for (text, path) in [
            ("file:///a%20b/c.pem", "/a b/c.pem"),
            ("file://localhost/a", "/a"),
            ("file:/a/b", "/a/b"),
            ("file:a", "/a"),
            ("file:///a?b#c", "/a"),
        ] {
            let all = preloaded(&[("x", uri(text))]);
            let target = Target::resolve(Path::new("/certs"), &all, "x").unwrap();
            assert_eq!(target.single().unwrap(), Path::new(path), "{text}");
        }
    }

    #[test]
    fn cs_15_other_urls() {
        for (text, reason) in [
            ("https://host/a", "unrecognized scheme \"https\""),
            ("pkcs11:token=a", "unrecognized scheme \"pkcs11\""),
            ("file://host/a", "not a valid path"),
            ("file:///a%00b", "not a valid path"),
        ] {
            let all = preloaded(&[("x", uri(text)), ("list", list(&["y", "x"]))]);
            let expected = format!(
                "could not get file path corresponding to cert ID\npreloaded cert \"x\" does not have a valid URI: {reason}"
            );
            for id in ["x", "list"] {
                let target = Target::resolve(Path::new("/certs"), &all, id);
                assert_eq!(causes(target), expected, "{text}");
            }
        }
    }

    #[test]
    fn cs_14_lists_are_flattened_in_order() {
        let all = preloaded(&[
            ("outer", list(&["stored", "inner", "file", "inner"])),
            ("inner", list(&["file", "other"])),
            ("empty", list(&[])),
            ("file", uri("file:///f")),
        ]);
        let target = Target::resolve(Path::new("/certs"), &all, "outer").unwrap();
        let Place::List(parts) = target.place() else {
            panic!("{target:?}");
        };
        let stored = |id| Part {
            path: Path::new("/certs").join(file_name(id)),
            stored: true,
        };
        let file = Part {
            path: "/f".into(),
            stored: false,
        };
        assert_eq!(
            parts[..],
            [
                stored("stored"),
                file.clone(),
                stored("other"),
                file.clone(),
                file,
                stored("other"),
            ]
        );
        assert_eq!(
            causes(target.single()),
            "could not get file path corresponding to cert ID\npreloaded cert \"outer\" is a list of IDs, not a single URI"
        );
        let empty = Target::resolve(Path::new("/certs"), &all, "empty").unwrap();
        assert_eq!(empty.place(), &Place::List(Vec::new()));
    }

    #[test]
    fn cs_16_lists_that_do_not_end() {
        let all = preloaded(&[
            ("self", list(&["self"])),
            ("a", list(&["x", "b"])),
            ("b", list(&["a"])),
            ("to-a", list(&["a"])),
        ]);
        for (id, back) in [("self", "self"), ("a", "a"), ("b", "b"), ("to-a", "a")] {
            let text = causes(Target::resolve(Path::new("/certs"), &all, id));
            assert!(
                text.contains(&format!(
                    "preloaded cert {id:?} is a list of IDs that leads back to {back:?}"
                )),
                "{text}"
            );
        }
    }

    #[test]
    fn lists_are_bounded() {
        let name = |n: usize| format!("list{n}");
        let chain = |levels: usize, width: usize| -> Preloaded {
            (0..levels)
                .map(|n| {
                    let next = if n + 1 == levels {
                        "x".to_owned()
                    } else {
                        name(n + 1)
                    };
                    (name(n), PreloadedCert::Ids(vec![next; width]))
                })
                .collect()
        };
        let resolve = |all: &Preloaded| Target::resolve(Path::new("/certs"), all, "list0");
        assert!(resolve(&chain(LIST_DEPTH, 1)).is_ok());
        assert!(causes(resolve(&chain(LIST_DEPTH + 1, 1))).contains("more than 32 deep"));
        assert!(resolve(&chain(9, 2)).is_ok(), "1022 ids");
        assert!(causes(resolve(&chain(10, 2))).contains("more than 1024 certs"));
        // Also where there is no file in the end.
        let mut empty = chain(LIST_DEPTH, 2);
        empty.insert(name(LIST_DEPTH - 1), PreloadedCert::Ids(Vec::new()));
        assert!(causes(resolve(&empty)).contains("more than 1024"));
    }

    #[test]
    fn names_that_are_too_long() {
        let resolve = |letters: usize| {
            Target::resolve(Path::new("/certs"), &Preloaded::new(), &"a".repeat(letters)).unwrap()
        };
        assert!(resolve(186).single().is_ok());
        assert!(causes(resolve(187).single()).contains("would have 256 bytes"));
    }
}
