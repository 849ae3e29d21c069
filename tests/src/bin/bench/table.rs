//! The goals, what was measured, and the comparison, in one table.

use std::fmt;

/// One line of the table.
struct Row {
    what: String,
    goal: String,
    /// The counterpart measured in the same run, where there is one.
    floor: String,
    measured: String,
    ratio: String,
    verdict: Verdict,
}

#[derive(Clone, Copy, PartialEq)]
pub enum Verdict {
    Met,
    Missed,
    /// A figure without a goal.
    Info,
    /// What it is about does not exist yet.
    Later,
    /// It could not be measured; a note says why.
    Failed,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Met => "yes",
            Self::Missed => "NO",
            Self::Info => "",
            Self::Later => "later",
            Self::Failed => "FAILED",
        })
    }
}

/// How a figure is held against its goal.
pub enum Goal {
    /// At most the floor plus this.
    FloorPlus(f64),
    /// At least this share of the floor.
    FloorTimes(f64),
    /// At most this, whatever the floor.
    AtMost(f64),
    /// The figure is there to be known.
    None,
}

/// The units figures are printed in.
#[derive(Clone, Copy)]
pub enum Unit {
    Count,
    Microseconds,
    Milliseconds,
    PerSecond,
    Megabytes,
}

impl Unit {
    fn show(self, value: f64) -> String {
        match self {
            Self::Count => format!("{value:.3}"),
            Self::Microseconds => format!("{value:.1} µs"),
            Self::Milliseconds => format!("{value:.2} ms"),
            Self::PerSecond => format!("{value:.0}/s"),
            Self::Megabytes => format!("{value:.2} MB"),
        }
    }
}

#[derive(Default)]
pub struct Table {
    rows: Vec<Row>,
    notes: Vec<String>,
}

impl Table {
    /// Adds a figure, its counterpart if there is one, and the goal it is held against.
    pub fn figure(
        &mut self,
        what: &str,
        unit: Unit,
        goal: &Goal,
        floor: Option<f64>,
        measured: f64,
    ) {
        let (goal_text, met) = match (goal, floor) {
            (Goal::FloorPlus(more), Some(floor)) => (
                format!("≤ floor + {}", unit.show(*more)),
                Some(measured <= floor + more),
            ),
            (Goal::FloorTimes(share), Some(floor)) => (
                format!("≥ {share} × floor"),
                Some(measured >= floor * share),
            ),
            (Goal::AtMost(most), _) => (format!("≤ {}", unit.show(*most)), Some(measured <= *most)),
            (Goal::FloorPlus(_) | Goal::FloorTimes(_) | Goal::None, _) => (String::new(), None),
        };
        self.rows.push(Row {
            what: what.into(),
            goal: goal_text,
            floor: floor.map_or_else(String::new, |floor| unit.show(floor)),
            measured: unit.show(measured),
            ratio: floor
                .filter(|&floor| floor > 0.0)
                .map_or_else(String::new, |floor| format!("{:.2}", measured / floor)),
            verdict: match met {
                Some(true) => Verdict::Met,
                Some(false) => Verdict::Missed,
                None => Verdict::Info,
            },
        });
    }

    /// Adds a goal whose subject does not exist yet.
    pub fn later(&mut self, what: &str, goal: &str) {
        self.rows.push(Row {
            what: what.into(),
            goal: goal.into(),
            floor: String::new(),
            measured: String::new(),
            ratio: String::new(),
            verdict: Verdict::Later,
        });
    }

    /// Adds a group that could not be measured, and the reason below the table.
    pub fn failed(&mut self, what: &str, reason: &str) {
        self.later(what, "");
        if let Some(row) = self.rows.last_mut() {
            row.verdict = Verdict::Failed;
        }
        self.note(format!("{what} failed: {reason}"));
    }

    /// Whether something could not be measured.
    pub fn has_failed(&self) -> bool {
        self.rows.iter().any(|row| row.verdict == Verdict::Failed)
    }

    /// Adds a line below the table.
    pub fn note(&mut self, text: String) {
        self.notes.push(text);
    }

    /// Goals that were measured and missed.
    pub fn missed(&self) -> usize {
        self.rows
            .iter()
            .filter(|row| row.verdict == Verdict::Missed)
            .count()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const HEAD: [&str; 6] = ["what", "goal", "floor", "measured", "ratio", "met"];
        let lines: Vec<[String; 6]> = self
            .rows
            .iter()
            .map(|row| {
                let Row {
                    what,
                    goal,
                    floor,
                    measured,
                    ratio,
                    verdict,
                } = row;
                [
                    what.clone(),
                    goal.clone(),
                    floor.clone(),
                    measured.clone(),
                    ratio.clone(),
                    verdict.to_string(),
                ]
            })
            .collect();
        let mut widths = HEAD.map(|text| text.chars().count());
        for line in &lines {
            for (width, text) in widths.iter_mut().zip(line) {
                *width = (*width).max(text.chars().count());
            }
        }
        let write_line = |f: &mut fmt::Formatter<'_>, line: [&str; 6]| {
            for (column, (text, width)) in line.iter().zip(widths).enumerate() {
                // Figures are read by their last digit.
                if (2..=4).contains(&column) {
                    write!(f, "| {text:>width$} ")?;
                } else {
                    write!(f, "| {text:width$} ")?;
                }
            }
            writeln!(f, "|")
        };
        write_line(f, HEAD)?;
        for (column, width) in widths.iter().enumerate() {
            let colon = if (2..=4).contains(&column) { ":" } else { "-" };
            write!(f, "|{}{colon}", "-".repeat(width + 1))?;
        }
        writeln!(f, "|")?;
        for line in &lines {
            write_line(f, line.each_ref().map(String::as_str))?;
        }
        let measured = self
            .rows
            .iter()
            .filter(|row| matches!(row.verdict, Verdict::Met | Verdict::Missed))
            .count();
        writeln!(f, "\n{} of {measured} goals met.", measured - self.missed())?;
        for note in &self.notes {
            writeln!(f, "{note}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn goals_are_held_against_floor_and_limit() {
        let mut table = Table::default();
        table.figure(
            "a",
            Unit::Microseconds,
            &Goal::FloorPlus(5.0),
            Some(3.0),
            8.0,
        );
        table.figure(
            "b",
            Unit::Microseconds,
            &Goal::FloorPlus(5.0),
            Some(3.0),
            8.1,
        );
        table.figure(
            "c",
            Unit::PerSecond,
            &Goal::FloorTimes(0.6),
            Some(100.0),
            60.0,
        );
        table.figure(
            "d",
            Unit::PerSecond,
            &Goal::FloorTimes(0.6),
            Some(100.0),
            59.0,
        );
        table.figure("e", Unit::Megabytes, &Goal::AtMost(2.5), None, 2.5);
        table.figure("f", Unit::Count, &Goal::AtMost(0.0), None, 0.001);
        table.figure("g", Unit::Count, &Goal::None, None, 7.0);
        table.later("h", "≥ 1");
        let verdicts: Vec<_> = table
            .rows
            .iter()
            .map(|row| row.verdict.to_string())
            .collect();
        assert_eq!(
            verdicts,
            ["yes", "NO", "yes", "NO", "yes", "NO", "", "later"]
        );
        assert_eq!(table.missed(), 3);
        assert_eq!(table.rows[3].ratio, "0.59");
        assert!(table.to_string().contains("\n3 of 6 goals met.\n"));
    }

    #[test]
    fn columns_line_up() {
        let mut table = Table::default();
        table.figure(
            "µs and a long name",
            Unit::Microseconds,
            &Goal::AtMost(1.0),
            None,
            2.0,
        );
        table.later("x", "y");
        assert!(!table.has_failed());
        table.failed("z", "because");
        assert!(table.has_failed());
        assert!(table.to_string().ends_with("z failed: because\n"));
        let text = table.to_string();
        let widths: Vec<_> = text
            .lines()
            .take(5)
            .map(|line| line.chars().count())
            .collect();
        assert!(widths.windows(2).all(|pair| pair[0] == pair[1]), "{text}");
    }
}
