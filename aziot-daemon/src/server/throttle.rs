//! How many connections each user may have open (spec, daemon chapter B.4).

/// Connections in all. Each costs a descriptor and some hundred bytes; buffers are lent only while bytes are under way.
pub const CONNECTIONS: usize = 2048;

/// Open connections by user.
#[derive(Debug)]
pub struct Throttle {
    limit: u64,
    users: Vec<(u32, u64)>,
}

impl Throttle {
    /// A table that allows `limit` connections a user; 0 refuses everyone.
    #[must_use]
    pub fn new(limit: u64) -> Self {
        Self { limit, users: Vec::new() }
    }

    /// Changes the limit for connections to come.
    pub fn set_limit(&mut self, limit: u64) {
        self.limit = limit;
    }

    /// Counts a connection of `uid`, if it may have one more.
    pub fn admit(&mut self, uid: u32) -> bool {
        match self.users.iter_mut().find(|(u, _)| *u == uid) {
            Some((_, open)) if *open >= self.limit => false,
            Some((_, open)) => {
                *open += 1;
                true
            }
            None if self.limit == 0 => false,
            None => {
                self.users.push((uid, 1));
                true
            }
        }
    }

    /// A connection of `uid` has ended.
    pub fn release(&mut self, uid: u32) {
        if let Some(index) = self.users.iter().position(|(u, _)| *u == uid) {
            let open = &mut self.users[index].1;
            *open = open.saturating_sub(1);
            if *open == 0 {
                self.users.swap_remove(index);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ht_07_counts_per_user() {
        let mut throttle = Throttle::new(2);
        assert!(throttle.admit(1) && throttle.admit(1) && !throttle.admit(1));
        assert!(throttle.admit(2));
        throttle.release(1);
        assert!(throttle.admit(1) && !throttle.admit(1));
        assert!(!Throttle::new(0).admit(0));
    }

    #[test]
    fn users_without_connections_take_no_room() {
        let mut throttle = Throttle::new(1);
        for uid in 0..1000 {
            assert!(throttle.admit(uid));
            throttle.release(uid);
        }
        assert!(throttle.users.is_empty());
    }
}
