//! Kubernetes resource quantities: `500m`, `1.5`, `2Gi`, `10e3`.
//!
//! Owns: reading them exactly, without floating point. Must never: round towards less than was asked for.
//! Source: the API convention "Quantity" (k8s.io/apimachinery/pkg/api/resource).

use std::{borrow::Cow, fmt, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

/// An amount of a resource, as written; the value is in thousandths of its unit.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Quantity {
    text: String,
    millis: i128,
}

/// Text that is no quantity.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a quantity: write a number with a unit such as 500m, 2, 512Mi or 10Gi")]
pub struct QuantityError(String);

impl Quantity {
    /// In thousandths of the unit (millicores for cpu), rounded up.
    pub fn millis(&self) -> i64 {
        clamp(self.millis)
    }

    /// In whole units (bytes for memory and disk), rounded up.
    pub fn units(&self) -> i64 {
        clamp(self.millis.div_euclid(1000) + i128::from(self.millis.rem_euclid(1000) != 0))
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

impl FromStr for Quantity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let wrong = || QuantityError(text.chars().take(64).collect());
        let digits_end =
            text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '+' || c == '-')).unwrap_or(text.len());
        let (number, suffix) = text.split_at(digits_end);
        let (factor_nanos, binary): (i128, i128) = match suffix {
            "n" => (1, 1),
            "u" => (1_000, 1),
            "m" => (1_000_000, 1),
            "" => (1_000_000_000, 1),
            "k" => (10_i128.pow(12), 1),
            "M" => (10_i128.pow(15), 1),
            "G" => (10_i128.pow(18), 1),
            "T" => (10_i128.pow(21), 1),
            "P" => (10_i128.pow(24), 1),
            "E" => (10_i128.pow(27), 1),
            "Ki" => (1_000_000_000, 1 << 10),
            "Mi" => (1_000_000_000, 1 << 20),
            "Gi" => (1_000_000_000, 1 << 30),
            "Ti" => (1_000_000_000, 1 << 40),
            "Pi" => (1_000_000_000, 1 << 50),
            "Ei" => (1_000_000_000, 1 << 60),
            exponent => {
                let power: u32 = exponent
                    .strip_prefix(['e', 'E'])
                    .and_then(|e| e.parse().ok())
                    .filter(|p| *p <= 18)
                    .ok_or_else(wrong)?;
                (10_i128.pow(9 + power), 1)
            }
        };
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        let (sign, whole) = match whole.strip_prefix('-') {
            Some(rest) => (-1, rest),
            None => (1, whole.strip_prefix('+').unwrap_or(whole)),
        };
        let all_digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
        if (whole.is_empty() && fraction.is_empty())
            || !all_digits(whole)
            || !all_digits(fraction)
            || whole.len() > 19
            || fraction.len() > 9
        {
            return Err(wrong());
        }
        let scale = 10_i128.pow(u32::try_from(fraction.len()).unwrap_or(0));
        let digits: i128 = format!("0{whole}{fraction}").parse().map_err(|_| wrong())?;
        // More than anything has saturates; what the schema accepts never fails to be read.
        let nanos = digits.saturating_mul(factor_nanos).saturating_mul(binary);
        let per_milli = scale * 1_000_000;
        let millis = nanos / per_milli + i128::from(nanos % per_milli != 0);
        Ok(Self { text: text.to_owned(), millis: sign * millis })
    }
}

impl fmt::Display for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for Quantity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for Quantity {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

impl<'de> Deserialize<'de> for Quantity {
    /// Manifests write `cpu: 2` as often as `cpu: "2"`; both are accepted, as in a Pod.
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a quantity such as 500m, 2 or 10Gi")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Quantity, E> {
                text.parse().map_err(E::custom)
            }

            fn visit_i64<E: de::Error>(self, number: i64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }

            fn visit_u64<E: de::Error>(self, number: u64) -> Result<Quantity, E> {
                self.visit_str(&number.to_string())
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for Quantity {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "x-kubernetes-int-or-string": true,
            "maxLength": 32,
            "x-kubernetes-validations": [{
                "rule": "type(self) == int ? self >= 0 : (isQuantity(self) && !quantity(self).isLessThan(quantity('0')) && self.matches('^[0-9]{1,19}([.][0-9]{1,9})?([numkMGTPE]|[KMGTPE]i)?$'))",
                "message": "must be a quantity of zero or more, such as 500m, 2, 512Mi or 10Gi",
            }],
        })
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case("500m", 500, 1)]
    #[case("2", 2_000, 2)]
    #[case("1.5", 1_500, 2)]
    #[case(".5", 500, 1)]
    #[case("1Ki", 1_024_000, 1_024)]
    #[case("1.5Gi", 1_610_612_736_000, 1_610_612_736)]
    #[case("10e3", 10_000_000, 10_000)]
    #[case("1n", 1, 1)]
    #[case("-1", -1_000, -1)]
    #[case("2M", 2_000_000_000, 2_000_000)]
    fn reads_what_kubernetes_reads(#[case] text: &str, #[case] millis: i64, #[case] units: i64) {
        let quantity: Quantity = text.parse().unwrap();
        assert_eq!((quantity.millis(), quantity.units()), (millis, units));
    }

    #[rstest]
    #[case("")]
    #[case("Gi")]
    #[case("1GB")]
    #[case("1 Gi")]
    #[case("--1")]
    #[case("1.2.3")]
    #[case("1\u{0}")]
    #[case("99999999999999999999999999")]
    fn refuses_everything_else(#[case] text: &str) {
        assert!(text.parse::<Quantity>().is_err(), "{text:?}");
    }

    #[test]
    fn integers_are_accepted_as_in_a_pod() {
        assert_eq!(serde_json::from_str::<Quantity>("2").unwrap().millis(), 2_000);
    }

    proptest::proptest! {
        /// An object that the API server took and Berth cannot read could be neither run nor deleted.
        #[test]
        fn what_the_schema_accepts_is_always_read(text in "[0-9]{1,19}([.][0-9]{1,9})?([numkMGTPE]|[KMGTPE]i)?") {
            proptest::prop_assert!(text.parse::<Quantity>().is_ok(), "{text}");
        }
    }
}
