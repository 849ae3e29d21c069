//! Alarms of services on the boot clock, and word of steps of the wall clock.

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsRawFd, OwnedFd, RawFd};
use std::time::Duration;

use rustix::time::{
    ClockId, Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, clock_gettime,
    timerfd_create, timerfd_settime,
};

use crate::service::Alarm;

/// Alarms that have been set. The boot clock also runs while the machine sleeps, so an alarm that came due in the meantime
/// rings at wake-up.
#[derive(Debug)]
pub struct Alarms {
    timer: OwnedFd,
    set: Vec<(Alarm, Duration)>,
}

impl Alarms {
    /// No alarms.
    ///
    /// # Errors
    /// Whatever the kernel reports when it makes the timer.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        Ok(Self {
            timer: timerfd_create(TimerfdClockId::Boottime, flags)?,
            set: Vec::new(),
        })
    }

    /// Sets or moves an alarm.
    pub fn set(&mut self, alarm: Alarm, after: Duration) {
        let due = boot_time() + after;
        match self.set.iter_mut().find(|(a, _)| *a == alarm) {
            Some(entry) => entry.1 = due,
            None => self.set.push((alarm, due)),
        }
        self.arm();
    }

    /// Takes an alarm back.
    pub fn clear(&mut self, alarm: Alarm) {
        self.set.retain(|(a, _)| *a != alarm);
        self.arm();
    }

    /// The next alarm that has come due.
    pub fn due(&mut self) -> Option<Alarm> {
        drain(&self.timer);
        let now = boot_time();
        let index = self.set.iter().position(|(_, due)| *due <= now);
        let alarm = index.map(|index| self.set.swap_remove(index).0);
        if alarm.is_none() {
            self.arm();
        }
        alarm
    }

    fn arm(&self) {
        let next = self
            .set
            .iter()
            .map(|(_, due)| *due)
            .min()
            .unwrap_or(Duration::ZERO);
        let spec = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: Timespec {
                tv_sec: i64::try_from(next.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: i64::from(next.subsec_nanos()) as _,
            },
        };
        // A zero value disarms, which is right for an empty list.
        if let Err(error) = timerfd_settime(&self.timer, TimerfdTimerFlags::ABSTIME, &spec) {
            log::error!("could not set a timer: {error}");
        }
    }
}

impl AsRawFd for Alarms {
    fn as_raw_fd(&self) -> RawFd {
        self.timer.as_raw_fd()
    }
}

/// Becomes readable when somebody steps the wall clock (timerfd_create(2), `TFD_TIMER_CANCEL_ON_SET`).
#[derive(Debug)]
pub struct ClockSteps(OwnedFd);

impl ClockSteps {
    /// Starts listening.
    ///
    /// # Errors
    /// Whatever the kernel reports.
    pub fn new() -> io::Result<Self> {
        let flags = TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC;
        let steps = Self(timerfd_create(TimerfdClockId::Realtime, flags)?);
        steps.arm()?;
        Ok(steps)
    }

    /// Whether the clock was stepped since the last call.
    pub fn stepped(&self) -> bool {
        let mut buffer = [MaybeUninit::<u8>::uninit(); 8];
        match rustix::io::read(&self.0, &mut buffer) {
            Err(rustix::io::Errno::CANCELED) => {
                if let Err(error) = self.arm() {
                    log::error!("could not listen for steps of the clock any more: {error}");
                }
                true
            }
            _ => false,
        }
    }

    fn arm(&self) -> io::Result<()> {
        // Far in the future: only the cancellation is of interest.
        let far = Timespec {
            tv_sec: i64::from(i32::MAX),
            tv_nsec: 0,
        };
        let spec = Itimerspec {
            it_interval: Timespec {
                tv_sec: 0,
                tv_nsec: 0,
            },
            it_value: far,
        };
        timerfd_settime(
            &self.0,
            TimerfdTimerFlags::ABSTIME | TimerfdTimerFlags::CANCEL_ON_SET,
            &spec,
        )?;
        Ok(())
    }
}

impl AsRawFd for ClockSteps {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}

fn drain(timer: &OwnedFd) {
    let mut buffer = [MaybeUninit::<u8>::uninit(); 8];
    // Nothing to read is the usual case.
    let _ = rustix::io::read(timer, &mut buffer);
}

fn boot_time() -> Duration {
    let now = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    Duration::new(seconds, u32::try_from(now.tv_nsec).unwrap_or(0))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring(alarms: &mut Alarms) -> Alarm {
        let mut poll = mio::Poll::new().unwrap();
        let fd = alarms.as_raw_fd();
        poll.registry()
            .register(
                &mut mio::unix::SourceFd(&fd),
                mio::Token(0),
                mio::Interest::READABLE,
            )
            .unwrap();
        let mut events = mio::Events::with_capacity(2);
        loop {
            poll.poll(&mut events, Some(Duration::from_secs(10)))
                .unwrap();
            if let Some(alarm) = alarms.due() {
                return alarm;
            }
            assert!(!events.is_empty(), "no alarm in ten seconds");
        }
    }

    #[test]
    fn alarms_ring_in_order_and_can_be_moved_and_cleared() {
        let mut alarms = Alarms::new().unwrap();
        alarms.set(Alarm(1), Duration::from_secs(100));
        alarms.set(Alarm(2), Duration::from_millis(30));
        alarms.set(Alarm(3), Duration::from_millis(1));
        alarms.clear(Alarm(3));
        assert_eq!(ring(&mut alarms), Alarm(2));
        alarms.set(Alarm(1), Duration::ZERO);
        assert_eq!(ring(&mut alarms), Alarm(1));
        assert_eq!(alarms.due(), None);
    }

    #[test]
    fn an_undisturbed_clock_has_no_steps() {
        assert!(!ClockSteps::new().unwrap().stepped());
    }
}
