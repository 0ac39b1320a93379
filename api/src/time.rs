//! Times as objects carry them, and durations as the command line prints them.

use jiff::{SignedDuration, Timestamp};

/// Text that is not a time.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("parsing time {text:?} as {layout:?}: cannot parse {rest:?} as {element:?}")]
pub struct ParseError {
    text: String,
    layout: &'static str,
    rest: String,
    element: &'static str,
}

const LAYOUT: &str = "2006-01-02T15:04:05Z07:00";
const MICRO_LAYOUT: &str = "2006-01-02T15:04:05.000000Z07:00";

/// `2006-01-02T15:04:05Z`.
pub fn format(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// `2006-01-02T15:04:05.000000Z`.
pub fn format_micro(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%S.%6fZ").to_string()
}

/// Parses RFC 3339.
pub fn parse(text: &str) -> Result<Timestamp, ParseError> {
    parse_as(text, LAYOUT)
}

fn parse_as(text: &str, layout: &'static str) -> Result<Timestamp, ParseError> {
    let failed = |at: usize, element| ParseError {
        text: text.to_owned(),
        layout,
        rest: String::from_utf8_lossy(text.as_bytes().get(at..).unwrap_or_default()).into_owned(),
        element,
    };
    const ELEMENTS: [(usize, usize, &str); 11] = [
        (0, 4, "2006"),
        (4, 5, "-"),
        (5, 7, "01"),
        (7, 8, "-"),
        (8, 10, "02"),
        (10, 11, "T"),
        (11, 13, "15"),
        (13, 14, ":"),
        (14, 16, "04"),
        (16, 17, ":"),
        (17, 19, "05"),
    ];
    for (from, to, element) in ELEMENTS {
        let good = text.as_bytes().get(from..to).is_some_and(|part| match element.len() {
            1 => part == element.as_bytes(),
            _ => part.iter().all(u8::is_ascii_digit),
        });
        if !good {
            return Err(failed(from, element));
        }
    }
    text.parse::<Timestamp>().map_err(|_| failed(19, "Z07:00"))
}

/// The canonical form to the second, where `text` is not in it already.
pub(crate) fn normalise(text: &str) -> Result<Option<String>, ParseError> {
    let parsed = parse(text)?;
    let canonical = text.len() == 20 && text.ends_with('Z');
    Ok((!canonical).then(|| format(parsed)))
}

/// The canonical form to the microsecond, where `text` is not in it already.
pub(crate) fn normalise_micro(text: &str) -> Result<Option<String>, ParseError> {
    let parsed = parse_as(text, MICRO_LAYOUT)?;
    let canonical = text.len() == 27 && text.ends_with('Z') && text.as_bytes().get(19) == Some(&b'.');
    Ok((!canonical).then(|| format_micro(parsed)))
}

/// An age as kubectl prints it: about two digits that matter.
pub fn human_duration(duration: SignedDuration) -> String {
    let seconds = duration.as_secs();
    if seconds < -1 {
        return "<invalid>".to_owned();
    }
    let (minutes, hours) = (seconds / 60, seconds / 3600);
    let two = |big: i64, unit: char, small: i64, small_unit: char| match small {
        0 => format!("{big}{unit}"),
        small => format!("{big}{unit}{small}{small_unit}"),
    };
    match () {
        () if seconds < 0 => "0s".to_owned(),
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => two(minutes, 'm', seconds % 60, 's'),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => two(hours, 'h', minutes % 60, 'm'),
        () if hours < 48 => format!("{hours}h"),
        () if hours < 192 => two(hours / 24, 'd', hours % 24, 'h'),
        () if hours < 24 * 365 * 2 => format!("{}d", hours / 24),
        () if hours < 24 * 365 * 8 => two(hours / 24 / 365, 'y', hours / 24 % 365, 'd'),
        () => format!("{}y", hours / 24 / 365),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_errors_as_go_does() {
        let error = parse("yesterday").expect_err("no time").to_string();
        let expected =
            r#"parsing time "yesterday" as "2006-01-02T15:04:05Z07:00": cannot parse "yesterday" as "2006""#;
        assert_eq!(error, expected);
    }

    #[test]
    fn normalises() {
        assert_eq!(normalise("2024-01-02T03:04:05Z"), Ok(None));
        assert_eq!(
            normalise("2024-01-02T03:04:05.7+01:00").expect("time").as_deref(),
            Some("2024-01-02T02:04:05Z")
        );
        let micro = normalise_micro("2024-01-02T03:04:05Z").expect("time");
        assert_eq!(micro.as_deref(), Some("2024-01-02T03:04:05.000000Z"));
    }

    #[test]
    fn prints_ages() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (125, "2m5s"),
            (601, "10m"),
            (10_799, "179m"),
            (10_800, "3h"),
            (11_000, "3h3m"),
            (172_799, "47h"),
            (180_000, "2d2h"),
            (700_000, "8d"),
            (63_158_400, "2y1d"),
        ] {
            assert_eq!(human_duration(SignedDuration::from_secs(seconds)), text, "{seconds}");
        }
    }
}
