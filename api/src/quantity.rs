//! Quantities such as `100m`, `1.5Gi` or `2e3`: exact arithmetic, and the one form in which each is written.

use std::{cmp::Ordering, fmt, ops, str::FromStr};

/// An amount, exact to a billionth, and the family of suffixes in which it is written.
#[derive(Clone, Copy, Debug)]
pub struct Quantity {
    nanos: i128,
    format: Format,
}

/// The family of suffixes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    /// `n u m k M G T P E`.
    #[default]
    DecimalSi,
    /// `Ki Mi Gi Ti Pi Ei`.
    BinarySi,
    /// `e3`.
    DecimalExponent,
}

/// Why text is not a quantity.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ParseError {
    /// Neither digits nor suffix are where they belong.
    #[error("quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'")]
    Format,
    /// The number is well placed but its suffix is unknown.
    #[error("unable to parse quantity's suffix")]
    Suffix,
}

const NANO: i128 = 1_000_000_000;
const MAX: i128 = i64::MAX as i128 * NANO;

// === impl Quantity ===

impl Quantity {
    /// Nothing.
    pub const ZERO: Quantity = Quantity { nanos: 0, format: Format::DecimalSi };

    /// A whole amount.
    pub fn from_value(value: i64, format: Format) -> Self {
        Self { nanos: i128::from(value) * NANO, format }
    }

    /// An amount in thousandths.
    pub fn from_milli(milli: i64, format: Format) -> Self {
        Self { nanos: i128::from(milli) * (NANO / 1000), format }
    }

    /// The amount as a whole number, rounded away from zero.
    pub fn value(&self) -> i64 {
        saturate(round_away(self.nanos, NANO))
    }

    /// The amount in thousandths, rounded away from zero.
    pub fn milli_value(&self) -> i64 {
        saturate(round_away(self.nanos, NANO / 1000))
    }

    /// The amount as a floating-point number, for scores and metrics.
    pub fn as_f64(&self) -> f64 {
        self.nanos as f64 / NANO as f64
    }

    /// Whether there is nothing.
    pub fn is_zero(&self) -> bool {
        self.nanos == 0
    }

    /// Whether it is below nothing.
    pub fn is_negative(&self) -> bool {
        self.nanos < 0
    }

    /// Whether it is a whole number.
    pub fn is_whole(&self) -> bool {
        self.nanos % NANO == 0
    }

    /// The next whole number that is not less.
    pub fn rounded_up(&self) -> Self {
        Self { nanos: (self.nanos + NANO - 1).div_euclid(NANO) * NANO, format: self.format }
    }

    /// The family of suffixes.
    pub fn format(&self) -> Format {
        self.format
    }
}

fn saturate(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

fn round_away(value: i128, unit: i128) -> i128 {
    let (whole, rest) = (value / unit, value % unit);
    whole + rest.signum()
}

impl Default for Quantity {
    fn default() -> Self {
        Self::ZERO
    }
}

impl FromStr for Quantity {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        let text = text.trim();
        let (negative, unsigned) = match text.as_bytes().first() {
            Some(b'-') => (true, &text[1..]),
            Some(b'+') => (false, &text[1..]),
            _ => (false, text),
        };
        let end = unsigned
            .bytes()
            .position(|byte| !byte.is_ascii_digit() && byte != b'.')
            .unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if whole.len() + fraction.len() == 0 || fraction.contains('.') {
            return Err(ParseError::Format);
        }
        let (format, base, exponent) = parse_suffix(suffix)?;
        let magnitude = magnitude(whole, fraction, base, exponent);
        Ok(Self { nanos: if negative { -magnitude } else { magnitude }, format })
    }
}

fn parse_suffix(suffix: &str) -> Result<(Format, u32, i32), ParseError> {
    let decimal = |exponent| Ok((Format::DecimalSi, 10, exponent));
    let binary = |exponent| Ok((Format::BinarySi, 2, exponent));
    match suffix {
        "n" => decimal(-9),
        "u" => decimal(-6),
        "m" => decimal(-3),
        "" => decimal(0),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(10),
        "Mi" => binary(20),
        "Gi" => binary(30),
        "Ti" => binary(40),
        "Pi" => binary(50),
        "Ei" => binary(60),
        _ => {
            let Some(exponent) = suffix.strip_prefix(['e', 'E']) else {
                let allowed = |letter: char| "eEinumkKMGTP+-".contains(letter) || letter.is_ascii_digit();
                let known = suffix.chars().all(allowed);
                return Err(if known { ParseError::Suffix } else { ParseError::Format });
            };
            let digits = exponent.strip_prefix(['+', '-']).unwrap_or(exponent);
            if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
                return Err(ParseError::Suffix);
            }
            let exponent = exponent.parse::<i32>().map_err(|_| ParseError::Suffix)?;
            Ok((Format::DecimalExponent, 10, exponent.clamp(-1000, 1000)))
        }
    }
}

/// `whole.fraction × base^exponent` in billionths, rounded up and capped.
fn magnitude(whole: &str, fraction: &str, base: u32, exponent: i32) -> i128 {
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    if whole.len() > 30 {
        return if exponent >= -20 { MAX } else { magnitude_of_digits(whole, exponent + 9) };
    }
    if base == 2 {
        let unit = 1i128 << exponent.clamp(0, 60);
        let Ok(whole) = format!("0{whole}").parse::<i128>() else { return MAX };
        let mut total = whole.checked_mul(unit).and_then(|value| value.checked_mul(NANO)).unwrap_or(MAX);
        let (kept, rest) = fraction.split_at(fraction.len().min(9));
        if let Ok(digits) = format!("0{kept}").parse::<i128>() {
            let scale = 10i128.pow(kept.len() as u32);
            let product = digits * unit * NANO;
            total = total.saturating_add(product / scale + (product % scale).signum());
        }
        if !rest.is_empty() {
            total = total.saturating_add(1);
        }
        return total.min(MAX);
    }
    let digits = format!("{whole}{fraction}");
    magnitude_of_digits(&digits, exponent + 9 - fraction.len().min(10_000) as i32)
}

/// `digits × 10^exponent`, rounded up and capped.
fn magnitude_of_digits(digits: &str, exponent: i32) -> i128 {
    let digits = digits.trim_start_matches('0');
    if digits.is_empty() {
        return 0;
    }
    if exponent >= 0 {
        let value = digits.parse::<i128>().ok();
        let scale = 10i128.checked_pow(exponent as u32);
        return value.zip(scale).and_then(|(value, scale)| value.checked_mul(scale)).unwrap_or(MAX).min(MAX);
    }
    let dropped = exponent.unsigned_abs() as usize;
    if dropped >= digits.len() {
        return 1;
    }
    let (kept, rest) = digits.split_at(digits.len() - dropped);
    let up = i128::from(rest.bytes().any(|byte| byte != b'0'));
    kept.parse::<i128>().map_or(MAX, |kept| (kept + up).min(MAX))
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let small = self.nanos.abs() < 1024 * NANO;
        if self.format == Format::BinarySi && !small && self.is_whole() {
            const SUFFIXES: [&str; 7] = ["", "Ki", "Mi", "Gi", "Ti", "Pi", "Ei"];
            let (mut value, mut at) = (self.nanos / NANO, 0);
            while value % 1024 == 0 && at + 1 < SUFFIXES.len() {
                value /= 1024;
                at += 1;
            }
            return write!(f, "{value}{}", SUFFIXES[at]);
        }
        let (mut value, mut exponent) = (self.nanos, -9);
        while value % 1000 == 0 && exponent < 18 && value != 0 {
            value /= 1000;
            exponent += 3;
        }
        if value == 0 {
            return f.write_str("0");
        }
        if self.format == Format::DecimalExponent {
            return if exponent == 0 { write!(f, "{value}") } else { write!(f, "{value}e{exponent}") };
        }
        const SUFFIXES: [&str; 10] = ["n", "u", "m", "", "k", "M", "G", "T", "P", "E"];
        write!(f, "{value}{}", SUFFIXES[((exponent + 9) / 3) as usize])
    }
}

impl PartialEq for Quantity {
    fn eq(&self, other: &Self) -> bool {
        self.nanos == other.nanos
    }
}

impl Eq for Quantity {}

impl PartialOrd for Quantity {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Quantity {
    fn cmp(&self, other: &Self) -> Ordering {
        self.nanos.cmp(&other.nanos)
    }
}

impl ops::AddAssign for Quantity {
    fn add_assign(&mut self, other: Self) {
        if self.is_zero() {
            self.format = other.format;
        }
        self.nanos = self.nanos.saturating_add(other.nanos);
    }
}

impl ops::SubAssign for Quantity {
    fn sub_assign(&mut self, other: Self) {
        if self.is_zero() {
            self.format = other.format;
        }
        self.nanos = self.nanos.saturating_sub(other.nanos);
    }
}

impl ops::Add for Quantity {
    type Output = Self;

    fn add(mut self, other: Self) -> Self {
        self += other;
        self
    }
}

impl ops::Sub for Quantity {
    type Output = Self;

    fn sub(mut self, other: Self) -> Self {
        self -= other;
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, canonical: &str) {
        let parsed: Quantity = text.parse().expect(text);
        assert_eq!(parsed.to_string(), canonical, "{text}");
        let again: Quantity = canonical.parse().expect(canonical);
        assert_eq!(again, parsed, "{text}");
    }

    #[test]
    fn writes_the_canonical_form() {
        for (text, canonical) in [
            ("0", "0"),
            ("0Gi", "0"),
            ("100m", "100m"),
            ("1000m", "1"),
            ("0.1", "100m"),
            ("1.5", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Mi", "1Gi"),
            ("1023", "1023"),
            ("512Ki", "512Ki"),
            ("0.5Ki", "512"),
            ("1e3", "1e3"),
            ("12e6", "12e6"),
            ("1E", "1E"),
            ("1000k", "1M"),
            ("-1.5", "-1500m"),
            ("+5", "5"),
            ("0.1n", "1n"),
            (".5", "500m"),
            ("5.", "5"),
            ("100000", "100k"),
            ("1.1Ki", "1126400m"),
            ("99999999999999999999", "9223372036854775807"),
            ("1e100", "9223372036854775807"),
        ] {
            if canonical == "9223372036854775807" {
                let parsed: Quantity = text.parse().expect(text);
                assert_eq!(parsed.value(), i64::MAX, "{text}");
            } else {
                check(text, canonical);
            }
        }
    }

    #[test]
    fn rejects_what_is_no_quantity() {
        for text in ["", "abc", "1.2.3", "1Q", "1 Gi", "--1", "."] {
            assert_eq!(text.parse::<Quantity>(), Err(ParseError::Format), "{text}");
        }
        for text in ["1mm", "1KiB", "1e", "1e+"] {
            assert!(text.parse::<Quantity>().is_err(), "{text}");
        }
    }

    #[test]
    fn rounds_away_from_zero() {
        let quantity: Quantity = "1500u".parse().expect("quantity");
        assert_eq!((quantity.value(), quantity.milli_value()), (1, 2));
    }

    #[test]
    fn adds_and_keeps_the_format() {
        let mut sum = Quantity::ZERO;
        sum += "64Mi".parse().expect("quantity");
        sum += "64Mi".parse().expect("quantity");
        assert_eq!(sum.to_string(), "128Mi");
    }

    proptest::proptest! {
        #[test]
        fn hostile_text_never_panics(text in "[-+0-9.eEinumkKMGTP]{0,60}") {
            if let Ok(quantity) = text.parse::<Quantity>() {
                let again: Quantity = quantity.to_string().parse().expect("canonical form parses");
                proptest::prop_assert_eq!(again, quantity);
            }
        }
    }
}
