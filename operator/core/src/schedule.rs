//! Floors by the clock: `spec.scaling.schedule`.
//!
//! The tz database is the one that is built in, so that a floor is a function of its arguments on every machine.

use std::time::Duration;

use croner::parser::{CronParser, Seconds, Year};
use croner::{Cron, Direction};
use jiff::Timestamp;
use jiff::tz::{TimeZone, TimeZoneDatabase};

use crate::scaling::Floor;

/// Time by which pods are ordered before their entry begins, in addition to the time that they need to start.
pub const AHEAD: Duration = Duration::from_secs(30);

/// Most time that an entry may last, as the schema has it.
const LONGEST: Duration = Duration::from_secs(168 * 3600);
/// Starts that are looked at: those of four years of days.
const STARTS: usize = 4 * 366;

/// More pods from each time of a cron expression on, for a while.
#[derive(Clone, Debug, PartialEq)]
pub struct Schedule {
    name: String,
    cron: Cron,
    time_zone: TimeZone,
    duration: Duration,
    replicas: u32,
}

/// What is wrong with an entry: the value, and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScheduleError {
    /// Not five fields of crontab.
    #[error(
        "{cron:?} is not a cron expression ({why}); write minute, hour, day of the month, month and day of the week, such \
         as \"30 7 * * 1-5\""
    )]
    Cron {
        /// The text.
        cron: String,
        /// What the parser says.
        why: String,
    },
    /// A day that no month has.
    #[error("{0:?} never comes, as no month has that day; correct its day of the month or its month")]
    Never(String),
    /// Not in the tz database.
    #[error("{0:?} is not a time zone of the tz database; write a name such as \"UTC\" or \"Europe/Berlin\"")]
    TimeZone(String),
}

impl Schedule {
    /// Reads an entry.
    ///
    /// # Errors
    /// [`ScheduleError::Cron`] and [`ScheduleError::Never`] for `cron`, [`ScheduleError::TimeZone`] for `time_zone`.
    pub fn parse(
        name: &str,
        cron: &str,
        time_zone: &str,
        duration: Duration,
        replicas: u32,
    ) -> Result<Self, ScheduleError> {
        Ok(Self {
            name: name.to_owned(),
            cron: parse_cron(cron)?,
            time_zone: parse_time_zone(time_zone)?,
            duration,
            replicas,
        })
    }

    /// The floor that holds at `now`, for pods that need `lead` from their order until they take tasks.
    #[must_use]
    pub fn floor(&self, now: Timestamp, lead: Duration) -> Option<Floor> {
        let seen = now.checked_add(lead).ok()?.to_zoned(self.time_zone.clone());
        // Of all that have begun by then, the last one holds longest.
        let began = self.cron.find_previous_occurrence(&seen, true).ok()?.timestamp();
        let ends = began.checked_add(self.duration).ok()?;
        (now < ends).then(|| Floor { replicas: self.replicas, reason: self.reason() })
    }

    fn reason(&self) -> String {
        let zone = self.time_zone.iana_name().unwrap_or("UTC");
        format!("entry {:?} of the schedule ({} {zone}) asks for {}", self.name, self.cron.as_str(), self.replicas)
    }
}

fn parse_cron(cron: &str) -> Result<Cron, ScheduleError> {
    let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
    let parsed =
        parser.parse(cron).map_err(|error| ScheduleError::Cron { cron: cron.to_owned(), why: said(&error) })?;
    let somewhen = Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC);
    match parsed.find_next_occurrence(&somewhen, true) {
        Ok(_) => Ok(parsed),
        Err(_) => Err(ScheduleError::Never(cron.to_owned())),
    }
}

fn said(error: &croner::errors::CronError) -> String {
    error.to_string().trim_end_matches('.').to_owned()
}

fn parse_time_zone(name: &str) -> Result<TimeZone, ScheduleError> {
    TimeZoneDatabase::bundled().get(name).map_err(|_| ScheduleError::TimeZone(name.to_owned()))
}

/// The time from each time of the cron expression `start` to the next one of `end`, both in one time zone; none where that
/// is not the same each time, is longer than an entry may be, or where a start comes before the end of the last one.
///
/// # Errors
/// [`ScheduleError::Cron`] and [`ScheduleError::Never`] for either.
pub fn lasts(start: &str, end: &str) -> Result<Option<Duration>, ScheduleError> {
    let (start, end) = (parse_cron(start)?, parse_cron(end)?);
    let mut starts = start.iter_from(Timestamp::UNIX_EPOCH.to_zoned(TimeZone::UTC), Direction::Forward);
    let mut length = None;
    let mut begins = starts.next();
    for next in starts.take(STARTS) {
        let Some(began) = begins.replace(next.clone()) else { return Ok(None) };
        let Ok(ends) = end.find_next_occurrence(&began, false) else { return Ok(None) };
        let lasts = Duration::try_from(ends.duration_since(&began)).unwrap_or_default();
        if ends > next || lasts > LONGEST || *length.get_or_insert(lasts) != lasts {
            return Ok(None);
        }
    }
    Ok(length)
}

/// The floors that hold at `now`.
#[must_use]
pub fn floors(schedules: &[Schedule], now: Timestamp, start_up: Duration) -> Vec<Floor> {
    schedules.iter().filter_map(|schedule| schedule.floor(now, start_up + AHEAD)).collect()
}
