//! Schedules in the five fields of cron, or by a word such as `@daily`.

/// Why a schedule makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Not five fields.
    #[error("expected exactly 5 fields, found {count}: [{fields}]")]
    Fields {
        /// How many there are.
        count: usize,
        /// The fields, parted by blanks.
        fields: String,
    },
    /// A word that is none of the known ones.
    #[error("unrecognized descriptor: {0}")]
    Descriptor(String),
    /// A part of a field that is no number.
    #[error("failed to parse int from {0}: strconv.Atoi: parsing {0:?}: invalid syntax")]
    Number(String),
    /// A number below the field's range.
    #[error("beginning of range ({0}) below minimum ({1}): {2}")]
    Below(u32, u32, String),
    /// A number above the field's range.
    #[error("end of range ({0}) above maximum ({1}): {2}")]
    Above(u32, u32, String),
    /// A range that ends before it begins.
    #[error("beginning of range ({0}) beyond end of range ({1}): {2}")]
    Reversed(u32, u32, String),
    /// A step of nothing.
    #[error("step of range should be a positive number: {0}")]
    Step(String),
    /// Signs too many.
    #[error("too many hyphens: {0}")]
    Hyphens(String),
    /// Signs too many.
    #[error("too many slashes: {0}")]
    Slashes(String),
}

/// What one field may hold.
struct Bounds {
    least: u32,
    most: u32,
    names: &'static [&'static str],
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELDS: [Bounds; 5] = [
    Bounds { least: 0, most: 59, names: &[] },
    Bounds { least: 0, most: 23, names: &[] },
    Bounds { least: 1, most: 31, names: &[] },
    Bounds { least: 1, most: 12, names: MONTHS },
    Bounds { least: 0, most: 6, names: DAYS },
];
const WORDS: [&str; 7] = ["@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"];

/// Whether a schedule makes sense.
pub fn check(schedule: &str) -> Result<(), CronError> {
    if schedule.starts_with('@') {
        let every = schedule.strip_prefix("@every ").is_some_and(|rest| !rest.trim().is_empty());
        return match every || WORDS.contains(&schedule) {
            true => Ok(()),
            false => Err(CronError::Descriptor(schedule.to_owned())),
        };
    }
    let fields: Vec<&str> = schedule.split_whitespace().collect();
    if fields.len() != FIELDS.len() {
        return Err(CronError::Fields { count: fields.len(), fields: fields.join(" ") });
    }
    let each = fields.iter().zip(&FIELDS);
    each.flat_map(|(field, bounds)| field.split(',').map(move |part| (part, bounds)))
        .try_for_each(|(part, bounds)| range(part, bounds))
}

/// `N`, `N-M`, `*`, `?`, each with a step or without.
fn range(part: &str, bounds: &Bounds) -> Result<(), CronError> {
    let shown = || part.to_owned();
    let pieces: Vec<&str> = part.split('/').collect();
    if pieces.len() > 2 {
        return Err(CronError::Slashes(shown()));
    }
    let ends: Vec<&str> = pieces[0].split('-').collect();
    let (first, mut last) = match ends.as_slice() {
        ["*" | "?"] => (bounds.least, bounds.most),
        [one] => (number(one, bounds)?, number(one, bounds)?),
        [first, last] => (number(first, bounds)?, number(last, bounds)?),
        _ => return Err(CronError::Hyphens(shown())),
    };
    if let Some(step) = pieces.get(1) {
        // `N/S` goes on to the end.
        if ends.len() == 1 {
            last = bounds.most;
        }
        if step.parse::<u32>().map_err(|_| CronError::Number((*step).to_owned()))? == 0 {
            return Err(CronError::Step(shown()));
        }
    }
    if first < bounds.least {
        return Err(CronError::Below(first, bounds.least, shown()));
    }
    if last > bounds.most {
        return Err(CronError::Above(last, bounds.most, shown()));
    }
    if first > last {
        return Err(CronError::Reversed(first, last, shown()));
    }
    Ok(())
}

fn number(text: &str, bounds: &Bounds) -> Result<u32, CronError> {
    let lower = text.to_lowercase();
    if let Some(at) = bounds.names.iter().position(|name| *name == lower) {
        return Ok(at as u32 + bounds.least);
    }
    text.parse().map_err(|_| CronError::Number(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(schedule: &str, why: &str) {
        assert_eq!(check(schedule).expect_err(schedule).to_string(), why);
    }

    #[test]
    fn schedules_that_make_sense() {
        for schedule in
            ["* * * * *", "*/5 0-6 1,15 jan-MAR ?", "0 0 * * sun", "@daily", "@every 1h", "5/10 * * * 6"]
        {
            assert_eq!(check(schedule), Ok(()), "{schedule}");
        }
    }

    #[test]
    fn schedules_that_make_none() {
        refused("* *", "expected exactly 5 fields, found 2: [* *]");
        refused("61 * * * *", "end of range (61) above maximum (59): 61");
        refused("* * 0 * *", "beginning of range (0) below minimum (1): 0");
        refused("9-3 * * * *", "beginning of range (9) beyond end of range (3): 9-3");
        refused("*/0 * * * *", "step of range should be a positive number: */0");
        refused("x * * * *", "failed to parse int from x: strconv.Atoi: parsing \"x\": invalid syntax");
        refused("@noon", "unrecognized descriptor: @noon");
        refused("1-2-3 * * * *", "too many hyphens: 1-2-3");
    }
}
