//! Bringing a hub's modules in step with the configuration.

use core::fmt;

/// What to do with a module that is in the hub.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Action {
    /// Remove it from the hub.
    Delete,
    /// Nothing: it is configured, and was.
    Keep,
    /// Nothing: others made it.
    LeaveAlone,
    /// Give it the keys that belong to its name and generation. If that fails, delete it and create it anew.
    RefreshKeys,
}

/// Decides what happens to a module that is in the hub. Modules that are configured but not in the hub are created
/// afterwards, in ascending order of their names.
///
/// - `configured`: it is in the current settings.
/// - `was_configured`: it is in the settings of the last reconciliation with the same hub, gateway and device.
/// - `refresh`: the device was registered anew and got the same identity, so keys should be set again.
pub const fn reconcile(configured: bool, was_configured: bool, refresh: bool) -> Action {
    match (configured, was_configured) {
        (false, false) => Action::LeaveAlone,
        (false, true) => Action::Delete,
        (true, false) => Action::RefreshKeys,
        (true, true) if refresh => Action::RefreshKeys,
        (true, true) => Action::Keep,
    }
}

/// What has been done with a module.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// It is new.
    Added,
    /// It stayed as it was.
    Kept,
    /// Its keys could not be refreshed: it is deleted and will be created again.
    Recreating,
    /// It has its keys.
    Refreshed,
    /// It is gone.
    Removed,
}

/// A line for the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Change<'a> {
    /// The module's name.
    pub module: &'a str,
    /// What has been done with it.
    pub outcome: Outcome,
}

impl fmt::Display for Change<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let outcome = match self.outcome {
            Outcome::Added => "added",
            Outcome::Kept => "already exists",
            Outcome::Recreating => "will be recreated",
            Outcome::Refreshed => "already exists, keys refreshed",
            Outcome::Removed => "removed",
        };
        write!(f, "Hub identity \"{}\" {outcome}", self.module)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn is_57_truth_table() {
        use Action::{Delete, Keep, LeaveAlone, RefreshKeys};
        for (configured, was_configured, refresh, expected) in [
            (false, false, false, LeaveAlone),
            (false, false, true, LeaveAlone),
            (false, true, false, Delete),
            (false, true, true, Delete),
            (true, false, false, RefreshKeys),
            (true, false, true, RefreshKeys),
            (true, true, false, Keep),
            (true, true, true, RefreshKeys),
        ] {
            assert_eq!(reconcile(configured, was_configured, refresh), expected);
        }
    }

    /// A hub in memory: which modules there are, and their generations.
    fn run(
        hub: &[(&'static str, u32)],
        configured: &[&'static str],
        before: &[&'static str],
        refresh_fails: bool,
    ) -> (Vec<(&'static str, u32)>, Vec<String>) {
        let mut after = Vec::new();
        let mut log = Vec::new();
        let mut say = |module, outcome| log.push(Change { module, outcome }.to_string());
        let mut missing: BTreeSet<_> = configured.iter().copied().collect();
        for &(module, generation) in hub {
            match reconcile(
                configured.contains(&module),
                before.contains(&module),
                false,
            ) {
                Action::Delete => say(module, Outcome::Removed),
                Action::Keep => {
                    say(module, Outcome::Kept);
                    after.push((module, generation));
                    missing.remove(module);
                }
                Action::LeaveAlone => after.push((module, generation)),
                Action::RefreshKeys if refresh_fails => say(module, Outcome::Recreating),
                Action::RefreshKeys => {
                    say(module, Outcome::Refreshed);
                    after.push((module, generation));
                    missing.remove(module);
                }
            }
        }
        for module in missing {
            say(module, Outcome::Added);
            after.push((module, 9));
        }
        (after, log)
    }

    #[test]
    fn is_57_modules_of_others_are_left_alone() {
        let hub = [("api", 1), ("gone", 2), ("kept", 3), ("there", 4)];
        let configured = ["there", "z", "kept", "b"];
        let (after, log) = run(&hub, &configured, &["kept", "gone"], false);
        assert_eq!(
            after,
            [("api", 1), ("kept", 3), ("there", 4), ("b", 9), ("z", 9)]
        );
        assert_eq!(
            log,
            [
                "Hub identity \"gone\" removed",
                "Hub identity \"kept\" already exists",
                "Hub identity \"there\" already exists, keys refreshed",
                "Hub identity \"b\" added",
                "Hub identity \"z\" added",
            ]
        );
        // First start on a hub: generations survive, unless the refresh fails.
        assert_eq!(run(&hub, &["kept"], &[], false).0, hub);
        let (after, log) = run(&[("kept", 3)], &["kept"], &[], true);
        assert_eq!(after, [("kept", 9)]);
        assert_eq!(
            log,
            [
                "Hub identity \"kept\" will be recreated",
                "Hub identity \"kept\" added"
            ]
        );
    }
}
