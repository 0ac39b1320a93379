//! Numbers that may be written as text: ports by name, and counts in percent.

use serde_json::Value;

/// A number or text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum IntOrString {
    /// A number.
    Int(i32),
    /// Text.
    String(String),
}

/// Why a value does not scale.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScaleError {
    /// Text that is not a percentage.
    #[error("invalid value for IntOrString: invalid type: string is not a percentage")]
    NotAPercentage,
    /// A percentage whose number does not parse.
    #[error("invalid value for IntOrString: invalid value {0:?}: {1}")]
    BadNumber(String, String),
}

// === impl IntOrString ===

impl IntOrString {
    /// What a JSON value holds, where it is a number in range or text.
    pub fn from_value(value: &Value) -> Option<Self> {
        match value {
            Value::Number(number) => number.as_i64().and_then(|n| i32::try_from(n).ok()).map(Self::Int),
            Value::String(text) => Some(Self::String(text.clone())),
            _ => None,
        }
    }

    /// The number itself, or the percentage of `total`, rounded up or down.
    pub fn scaled(&self, total: i64, round_up: bool) -> Result<i64, ScaleError> {
        match self {
            Self::Int(number) => Ok(i64::from(*number)),
            Self::String(text) => {
                let digits = text.strip_suffix('%').ok_or(ScaleError::NotAPercentage)?;
                let percent: i64 = digits.parse().map_err(|error: std::num::ParseIntError| {
                    ScaleError::BadNumber(text.clone(), error.to_string())
                })?;
                let product = i128::from(percent) * i128::from(total);
                let scaled = match round_up {
                    true => product.div_euclid(100) + i128::from(product.rem_euclid(100) != 0),
                    false => product.div_euclid(100),
                };
                Ok(i64::try_from(scaled).unwrap_or(if scaled < 0 { i64::MIN } else { i64::MAX }))
            }
        }
    }

    /// Whether it is a percentage.
    pub fn is_percent(&self) -> bool {
        matches!(self, Self::String(text) if text.ends_with('%'))
    }
}

impl From<IntOrString> for Value {
    fn from(value: IntOrString) -> Value {
        match value {
            IntOrString::Int(number) => Value::from(number),
            IntOrString::String(text) => Value::String(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_percentages() {
        let quarter = IntOrString::String("25%".to_owned());
        assert_eq!(quarter.scaled(10, true), Ok(3));
        assert_eq!(quarter.scaled(10, false), Ok(2));
        assert_eq!(IntOrString::Int(4).scaled(10, true), Ok(4));
        assert_eq!(IntOrString::String("http".to_owned()).scaled(10, true), Err(ScaleError::NotAPercentage));
        assert!(IntOrString::String("x%".to_owned()).scaled(10, true).is_err());
    }
}
