//! Who may use which key: principals with wildcard patterns, and how many connections a user may hold.

use core::fmt;

use heapless::LinearMap;

use crate::id::HANDLE_VALIDATION_KEY;

/// The patterns of every configured principal, looked up by user.
///
/// Entries of one user in several files count as one list, so an implementation may yield the patterns of any number of
/// entries one after the other.
pub trait Principals {
    /// Every pattern granted to `uid`.
    fn patterns(&self, uid: u32) -> impl Iterator<Item = &str>;
}

/// One `[[principal]]` entry: a user and the patterns of the ids it may use.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Principal<'a> {
    /// The user's numeric id.
    pub uid: u32,
    /// Patterns as [`matches()`] takes them.
    pub keys: &'a [&'a str],
}

impl Principals for [Principal<'_>] {
    fn patterns(&self, uid: u32) -> impl Iterator<Item = &str> {
        self.iter()
            .filter(move |principal| principal.uid == uid)
            .flat_map(|principal| principal.keys.iter().copied())
    }
}

/// Decides whether `uid` may use the key `id`.
///
/// Uid 0 may use every key. Everyone else needs a pattern that matches the whole id. The key that authenticates handles
/// ([`HANDLE_VALIDATION_KEY`]) is out of reach of wildcards: whoever holds it can forge a handle for any key, so a pattern
/// must spell it out.
///
/// # Errors
/// [`Denied`], with the text clients see in the 401 answer.
pub fn authorize<'a, P: Principals + ?Sized>(
    principals: &P,
    uid: u32,
    id: &'a str,
) -> Result<(), Denied<'a>> {
    let allowed = uid == 0
        || if id == HANDLE_VALIDATION_KEY {
            principals.patterns(uid).any(|pattern| pattern == id)
        } else {
            principals.patterns(uid).any(|pattern| matches(pattern, id))
        };
    if allowed {
        Ok(())
    } else {
        Err(Denied { uid, id })
    }
}

/// A user may not use a key. Says nothing about whether the key exists.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub struct Denied<'a> {
    /// The caller.
    pub uid: u32,
    /// The key it asked for.
    pub id: &'a str,
}

impl fmt::Display for Denied<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "user {} is not authorized to access the key {}",
            self.uid, self.id
        )
    }
}

impl core::error::Error for Denied<'_> {}

/// Whether `pattern` matches all of `id`.
///
/// `*` stands for any sequence of characters, also none; `?` for exactly one Unicode scalar value; everything else for
/// itself. There are no escapes and no character classes; case counts; `/` and `.` are ordinary.
///
/// Needs no memory and no recursion. Only the last `*` is ever retried, so the work is at most the product of both lengths,
/// whatever the pattern.
pub fn matches(pattern: &str, id: &str) -> bool {
    let (mut pattern, mut id) = (pattern.chars(), id.chars());
    // Where to resume when a literal fails: after the last `*`, one more character swallowed by it.
    let mut retry: Option<(core::str::Chars<'_>, core::str::Chars<'_>)> = None;
    loop {
        let before_id = id.clone();
        match (pattern.next(), id.next()) {
            (Some('*'), _) => {
                id = before_id;
                retry = Some((pattern.clone(), id.clone()));
            }
            (Some('?'), Some(_)) => {}
            (Some(wanted), Some(found)) if wanted == found => {}
            (None, None) => return true,
            _ => {
                let Some((after_star, mut swallowed)) = retry.take() else {
                    return false;
                };
                if swallowed.next().is_none() {
                    return false;
                }
                pattern = after_star.clone();
                id = swallowed.clone();
                retry = Some((after_star, swallowed));
            }
        }
    }
}

/// Counts open connections per user, for at most `N` users at a time.
///
/// What is limited is the *open connection*, not the request: an idle kept-alive connection holds its place. Root is
/// counted like everyone else.
#[derive(Debug, Default)]
pub struct Accounts<const N: usize> {
    // A user without connections has no entry.
    open: LinearMap<u32, usize, N>,
}

impl<const N: usize> Accounts<N> {
    /// No connections.
    pub const fn new() -> Self {
        Self {
            open: LinearMap::new(),
        }
    }

    /// Counts a new connection of `uid`, of which at most `limit` may be open.
    ///
    /// # Errors
    /// The connection must be closed without an answer; nothing was counted.
    pub fn open(&mut self, uid: u32, limit: usize) -> Result<(), Refused> {
        let count = self.count(uid);
        if count >= limit {
            return Err(Refused::UserLimit { uid });
        }
        match self.open.insert(uid, count.saturating_add(1)) {
            Ok(_) => Ok(()),
            Err(_) => Err(Refused::Users { uid, limit: N }),
        }
    }

    /// Forgets one connection of `uid`.
    pub fn close(&mut self, uid: u32) {
        match self.open.get_mut(&uid) {
            Some(count) if *count > 1 => *count -= 1,
            Some(_) => {
                self.open.remove(&uid);
            }
            None => {}
        }
    }

    /// Open connections of `uid`.
    pub fn count(&self, uid: u32) -> usize {
        self.open.get(&uid).copied().unwrap_or(0)
    }

    /// Open connections of all users.
    pub fn total(&self) -> usize {
        self.open
            .values()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }
}

/// Why a connection is not accepted.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[cfg_attr(feature = "defmt", derive(defmt::Format))]
pub enum Refused {
    /// The user has as many connections open as `max_requests` allows.
    UserLimit {
        /// The user.
        uid: u32,
    },
    /// More different users are connected than can be counted.
    Users {
        /// The user that came too late.
        uid: u32,
        /// How many users can be counted.
        limit: usize,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UserLimit { uid } => {
                write!(f, "Max simultaneous connections reached for user {uid}")
            }
            Self::Users { uid, limit } => {
                write!(
                    f,
                    "connection of user {uid} refused: {limit} other users are connected already"
                )
            }
        }
    }
}

impl core::error::Error for Refused {}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn ks_15_pattern_table() {
        for (pattern, id, expected) in [
            ("example*", "example", true),
            ("example*", "example1", true),
            ("example*", "Example1", false),
            ("ex?mple", "example", true),
            ("ex?mple", "exmple", false),
            ("?", "é", true),
            ("?", "𝄞", true),
            ("*", "", true),
            ("*", "x/y", true),
            ("*?", "", false),
            ("a*b*c", "abc", true),
            ("a*b*c", "aXbYc", true),
            ("[ab]", "a", false),
            ("\\*", "*", false),
            ("\\*", "\\x", true),
            ("device-id", "device-id2", false),
            ("", "", true),
            ("", "a", false),
            ("**", "anything", true),
            ("*é?", "aéb", true),
            ("*é?", "aé", false),
        ] {
            assert_eq!(matches(pattern, id), expected, "{pattern} {id}");
        }
    }

    /// The definition, spelled out: exponential, but obviously right.
    fn naive(pattern: &[char], id: &[char]) -> bool {
        match pattern.split_first() {
            None => id.is_empty(),
            Some(('*', rest)) => (0..=id.len()).any(|skip| naive(rest, &id[skip..])),
            Some(('?', rest)) => !id.is_empty() && naive(rest, &id[1..]),
            Some((letter, rest)) => id.first() == Some(letter) && naive(rest, &id[1..]),
        }
    }

    fn words(alphabet: &[char], longest: usize) -> Vec<Vec<char>> {
        let mut all = vec![vec![]];
        let mut last = all.clone();
        for _ in 0..longest {
            last = last
                .iter()
                .flat_map(|word| {
                    alphabet.iter().map(move |letter| {
                        word.iter().copied().chain([*letter]).collect::<Vec<_>>()
                    })
                })
                .collect();
            all.extend(last.iter().cloned());
        }
        all
    }

    #[test]
    fn ks_15_every_short_pattern_against_the_definition() {
        let ids: Vec<(Vec<char>, String)> = words(&['a', 'b'], 6)
            .into_iter()
            .map(|id| (id.clone(), id.iter().collect()))
            .collect();
        for pattern in words(&['a', 'b', '*', '?'], 6) {
            let text: String = pattern.iter().collect();
            for (letters, id) in &ids {
                assert_eq!(matches(&text, id), naive(&pattern, letters), "{text} {id}");
            }
        }
    }

    #[test]
    fn ks_15_hostile_patterns_take_bounded_time() {
        let pattern = "*a".repeat(2000) + "b";
        let id = "a".repeat(20_000);
        assert!(!matches(&pattern, &id));
    }

    #[test]
    fn ks_15_root_needs_no_principal_and_same_uid_entries_add_up() {
        let principals = [
            Principal {
                uid: 1000,
                keys: &["imp"],
            },
            Principal {
                uid: 7,
                keys: &["*"],
            },
            Principal {
                uid: 1000,
                keys: &["other-?"],
            },
            Principal { uid: 8, keys: &[] },
        ];
        let allowed = |uid, id| authorize(&principals[..], uid, id).is_ok();
        assert!(allowed(0, "anything"));
        assert!(allowed(1000, "imp"));
        assert!(allowed(1000, "other-1"));
        assert!(!allowed(1000, "aead"));
        assert!(allowed(7, "aead"));
        assert!(!allowed(8, "aead"));
        assert!(!allowed(9, "aead"));
    }

    #[test]
    fn ks_16_denial_names_user_and_key() {
        let denied = authorize::<[Principal<'_>]>(&[], 1000, "aead").unwrap_err();
        assert_eq!(
            denied.to_string(),
            "user 1000 is not authorized to access the key aead"
        );
    }

    #[test]
    fn wildcards_do_not_reach_the_handle_key() {
        let wild = [Principal {
            uid: 7,
            keys: &["*", "handle-validation-ke?", "handle*"],
        }];
        assert!(authorize(&wild[..], 7, HANDLE_VALIDATION_KEY).is_err());
        let literal = [Principal {
            uid: 7,
            keys: &[HANDLE_VALIDATION_KEY],
        }];
        assert!(authorize(&literal[..], 7, HANDLE_VALIDATION_KEY).is_ok());
        assert!(authorize(&wild[..], 0, HANDLE_VALIDATION_KEY).is_ok());
    }

    #[test]
    fn ks_09_connections_per_user() {
        let mut accounts = Accounts::<2>::new();
        for _ in 0..10 {
            accounts.open(1000, 10).unwrap();
        }
        let refused = accounts.open(1000, 10).unwrap_err();
        assert_eq!(
            refused.to_string(),
            "Max simultaneous connections reached for user 1000"
        );
        accounts.open(0, 10).unwrap();
        assert_eq!(
            accounts.open(5, 10),
            Err(Refused::Users { uid: 5, limit: 2 })
        );
        assert_eq!(accounts.total(), 11);
        accounts.close(0);
        accounts.close(0);
        accounts.open(5, 10).unwrap();
        accounts.close(1000);
        accounts.open(1000, 10).unwrap();
        assert_eq!(accounts.count(1000), 10);
        assert_eq!(accounts.open(6, 0), Err(Refused::UserLimit { uid: 6 }));
    }

    proptest! {
        #[test]
        fn matcher_equals_definition_on_unicode(pattern in "[aé𝄞*?]{0,8}", id in "[aé𝄞]{0,8}") {
            let (p, i): (Vec<char>, Vec<char>) = (pattern.chars().collect(), id.chars().collect());
            prop_assert_eq!(matches(&pattern, &id), naive(&p, &i));
        }
    }
}
