//! `maxSurge` and friends: a number, or a share of a total.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

/// Which way a share of a total is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Round {
    /// To the next smaller whole number.
    Down,
    /// To the next larger whole number.
    Up,
}

/// The number that `value` means for `total`. What is neither a number nor `N%` means 0: validation
/// refuses it before it is ever stored.
pub fn scaled(value: &IntOrString, total: i32, round: Round) -> i32 {
    match value {
        IntOrString::Int(number) => *number,
        IntOrString::String(text) => {
            let Some(percent) = text.strip_suffix('%').and_then(|digits| digits.parse::<i64>().ok()) else {
                return 0;
            };
            let product = percent.saturating_mul(i64::from(total));
            let share = match round {
                Round::Down => product.div_euclid(100),
                Round::Up => product.saturating_add(99).div_euclid(100),
            };
            i32::try_from(share).unwrap_or(i32::MAX)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_as_told() {
        let quarter = IntOrString::String("25%".into());
        assert_eq!(scaled(&quarter, 10, Round::Up), 3);
        assert_eq!(scaled(&quarter, 10, Round::Down), 2);
        assert_eq!(scaled(&quarter, 0, Round::Up), 0);
        assert_eq!(scaled(&IntOrString::Int(7), 3, Round::Up), 7);
        assert_eq!(scaled(&IntOrString::String("x".into()), 3, Round::Up), 0);
    }
}
