//! The ids that this process has dealt with, for the report.

use std::sync::{Mutex, MutexGuard, PoisonError};

/// Ids that are remembered; the one that has not been looked up for longest makes room.
const IDS: usize = 256;

/// Ids that were looked up or made and found, with what there is to say about them.
#[derive(Debug, Default)]
pub(super) struct Used {
    /// Most recent first.
    ids: Mutex<Vec<Id>>,
}

#[derive(Debug)]
struct Id {
    id: Box<str>,
    remark: Option<String>,
}

impl Used {
    /// Notes that there is a key. What was remarked stays.
    pub(super) fn note(&self, id: &str) {
        let mut ids = self.ids();
        match ids.iter().position(|known| *known.id == *id) {
            Some(at) => {
                if let Some(moved) = ids.get_mut(..=at) {
                    moved.rotate_right(1);
                }
            }
            None => {
                ids.truncate(IDS - 1);
                let id = id.into();
                ids.insert(0, Id { id, remark: None });
            }
        }
    }

    /// Notes that there is a key, and what is to be said about it now.
    pub(super) fn remark(&self, id: &str, remark: Option<String>) {
        self.note(id);
        if let Some(known) = self.ids().iter_mut().find(|known| *known.id == *id) {
            known.remark = remark;
        }
    }

    /// Forgets a key that is no more.
    pub(super) fn forget(&self, id: &str) {
        self.ids().retain(|known| *known.id != *id);
    }

    /// Lets what is known of `from` be known of `to`.
    pub(super) fn rename(&self, from: &str, to: &str) {
        let mut ids = self.ids();
        ids.retain(|known| *known.id != *to);
        if let Some(known) = ids.iter_mut().find(|known| *known.id == *from) {
            known.id = to.into();
        }
    }

    /// All ids with their remarks.
    pub(super) fn all(&self) -> Vec<(String, Option<String>)> {
        let ids = self.ids();
        ids.iter()
            .map(|known| (known.id.to_string(), known.remark.clone()))
            .collect()
    }

    fn ids(&self) -> MutexGuard<'_, Vec<Id>> {
        // The list is consistent after every statement.
        self.ids.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_recent_ids_are_kept_with_their_remarks() {
        let used = Used::default();
        used.remark("first", Some("why".to_owned()));
        for n in 0..300 {
            used.note("first");
            used.note(&n.to_string());
        }
        used.note("first");
        let all = used.all();
        assert_eq!(all.len(), IDS);
        assert_eq!(
            all.first(),
            Some(&("first".to_owned(), Some("why".to_owned())))
        );
        assert_eq!(all.get(1), Some(&("299".to_owned(), None)));
        used.rename("first", "299");
        assert_eq!(
            used.all().iter().filter(|(id, _)| id == "299").count(),
            1,
            "the target's entry is replaced"
        );
        used.remark("299", None);
        used.forget("298");
        assert_eq!(used.all().len(), IDS - 2);
        assert!(used.all().iter().all(|(_, remark)| remark.is_none()));
    }
}
