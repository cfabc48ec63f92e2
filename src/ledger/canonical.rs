//! The canonical text of the ledger: JSON whose bytes follow from its value alone.
//!
//! It is the subset of RFC 8785 (JSON Canonicalization Scheme) that any language writes with its own
//! library: object keys sorted, no white space, UTF-8 unescaped, integers within ±2^53 and no other numbers,
//! and no control characters in strings (they are made visible by [`visible`] before they come here), so
//! that only `"` and `\` are escaped.
//!
//! Owns: that encoding and the cleaning of strings. Must never: know the fields of a record.

use serde_json::Value;

/// The largest integer that every JSON reader keeps exactly (2^53 - 1, RFC 8259 section 6).
pub(super) const MAX_INTEGER: i64 = (1 << 53) - 1;

/// The canonical text of `value`.
///
/// Keys are sorted because `serde_json::Map` is a B-tree here (the crate's `preserve_order` is off, which a
/// test guards), by the bytes of their UTF-8. Numbers that are no integers within ±2^53 become strings.
pub(super) fn encode(value: &Value) -> String {
    plain(value).to_string()
}

fn plain(value: &Value) -> Value {
    match value {
        Value::Null | Value::Bool(_) => value.clone(),
        Value::Number(number) => match number.as_i64() {
            Some(integer) if integer.abs() <= MAX_INTEGER => value.clone(),
            _ => Value::String(number.to_string()),
        },
        Value::String(text) => Value::String(visible(text, usize::MAX)),
        Value::Array(items) => Value::Array(items.iter().map(plain).collect()),
        Value::Object(fields) => {
            Value::Object(fields.iter().map(|(key, item)| (visible(key, usize::MAX), plain(item))).collect())
        }
    }
}

/// `text` with every control character written as its visible escape (`\u{0}` becomes the six characters
/// `\u0000`), cut to at most `limit` characters with an ellipsis in the place of what was cut.
///
/// PostgreSQL refuses NUL in text, terminals obey escape sequences, and a hash must not depend on how either
/// is transported; so none of them ever reaches a record.
pub fn visible(text: &str, limit: usize) -> String {
    let mut clean = String::with_capacity(text.len().min(limit));
    for (length, character) in text.chars().enumerate() {
        if length == limit {
            clean.pop();
            clean.push('…');
            break;
        }
        if is_hidden(character) {
            clean.push_str(&format!("\\u{:04x}", u32::from(character)));
        } else {
            clean.push(character);
        }
    }
    clean
}

/// Control characters, and those that reorder or hide the text around them.
fn is_hidden(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_sorted_and_nothing_is_padded() {
        assert_eq!(encode(&json!({"b": 1, "a": ["x", null, true]})), r#"{"a":["x",null,true],"b":1}"#);
    }

    #[test]
    fn what_json_readers_disagree_about_becomes_text() {
        assert_eq!(
            encode(&json!({"big": 9_007_199_254_740_993_i64, "real": 0.5})),
            r#"{"big":"9007199254740993","real":"0.5"}"#
        );
    }

    #[test]
    fn control_characters_are_made_visible_and_long_text_is_cut() {
        assert_eq!(visible("a\u{0}b\n\u{1b}[31m", 99), "a\\u0000b\\u000a\\u001b[31m");
        assert_eq!(visible("naïve", 3), "na…");
    }

    proptest! {
        #[test]
        fn encoding_is_stable_and_holds_no_control_character(text in any::<String>()) {
            let once = encode(&json!({"text": text}));
            let back: Value = serde_json::from_str(&once).unwrap();
            prop_assert_eq!(&encode(&back), &once);
            prop_assert!(!once.chars().any(char::is_control));
        }
    }
}
