//! Who may use which keys.

use std::sync::Arc;

use aziot_core::access::{self, Denied, Principals};
use aziot_core::config::keyd::Principal;

/// The configured principals. Shared, because a check in a worker goes by those of the time the request came in.
#[derive(Debug)]
pub struct Grants(pub Vec<Principal>);

impl Principals for Grants {
    fn patterns(&self, uid: u32) -> impl Iterator<Item = &str> {
        let principals = self.0.iter().filter(move |principal| principal.uid == uid);
        principals.flat_map(|principal| principal.keys.iter().map(String::as_str))
    }
}

/// Who sent a request, and what that user may do.
#[derive(Clone, Debug)]
pub struct Caller {
    /// The user's id.
    pub uid: u32,
    /// The principals in force.
    pub grants: Arc<Grants>,
}

impl Caller {
    /// Whether the user may use the key `id`.
    ///
    /// # Errors
    /// [`Denied`]; the text is for the client.
    pub fn authorize<'a>(&self, id: &'a str) -> Result<(), Denied<'a>> {
        access::authorize(&*self.grants, self.uid, id)
    }

    /// Whether the user may be told about a key. Of a key whose id is not known, only root may know.
    #[must_use]
    pub fn sees(&self, id: Option<&str>) -> bool {
        match id {
            Some(id) => self.authorize(id).is_ok(),
            None => self.uid == 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use aziot_core::id::HANDLE_VALIDATION_KEY;

    use super::*;

    #[test]
    fn only_own_keys_are_seen() {
        let principal = |uid, pattern: &str| Principal {
            uid,
            keys: vec![pattern.to_owned()],
        };
        let grants = Arc::new(Grants(vec![
            principal(1000, "dev*"),
            principal(1001, "*"),
            principal(1000, "x"),
        ]));
        let caller = |uid| Caller {
            uid,
            grants: Arc::clone(&grants),
        };
        for (uid, id, seen) in [
            (1000, Some("device-id"), true),
            (1000, Some("x"), true),
            (1000, Some("y"), false),
            (1000, None, false),
            (1001, Some("y"), true),
            (1001, None, false),
            (1001, Some(HANDLE_VALIDATION_KEY), false),
            (1002, Some("x"), false),
            (0, Some(HANDLE_VALIDATION_KEY), true),
            (0, None, true),
        ] {
            assert_eq!(caller(uid).sees(id), seen, "{uid} {id:?}");
        }
    }
}
