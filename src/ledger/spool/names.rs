//! File names of the readable state files: `{namespace}/tenant_{user}_{service}.json`, for any strings.
//!
//! Owns: the escaping. Must never: let two containers share a name, or any name leave its folder.
//!
//! In each part, lower-case letters, digits, `-` and inner dots stand for themselves; every other byte of its
//! UTF-8 becomes `%` and two upper-case hexadecimal digits. So `_` only ever separates parts (`a_b` + `c` is
//! `tenant_a%5Fb_c.json`, `a` + `b_c` is `tenant_a_b%5Fc.json`), no part is `.`, `..` or hidden, no name
//! differs from another only by case, and the spool's own names (`_journal`) can be no namespace's.

use std::fmt::Write as _;

use crate::ledger::hash::Hash;

/// The longest file name, in bytes, that common file systems keep.
pub(super) const MAX_NAME: usize = 255;

/// The folder of a namespace.
pub(super) fn folder(namespace: &str) -> String {
    bounded(escape(namespace), "", &[namespace])
}

/// Whether this can be a namespace's folder; others in the spool (`_journal`, `lost+found`, `.snapshot`) are not ours
/// to look into.
pub(super) fn is_folder(name: &str) -> bool {
    let ours = |byte: u8| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'A'..=b'F' | b'-' | b'.' | b'%' | b'_');
    !name.starts_with(['.', '_']) && name.bytes().all(ours)
}

/// The state file of a user's service within its namespace's folder.
pub(super) fn file(user: &str, service_name: &str) -> String {
    bounded(format!("tenant_{}_{}", escape(user), escape(service_name)), ".json", &[user, service_name])
}

/// A name that would be too long keeps its beginning and ends in `__` and the whole SHA-256 of what it names.
/// No short name looks like that: none has two `_` in a row, since no part is empty.
fn bounded(name: String, extension: &str, parts: &[&str]) -> String {
    if name.len() + extension.len() <= MAX_NAME {
        return name + extension;
    }
    let mut unambiguous = String::new();
    for part in parts {
        let _ = write!(unambiguous, "{}:{part}", part.len());
    }
    let ending = format!("__{}{extension}", Hash::of(unambiguous.as_bytes()));
    // ASCII only, so every byte is a boundary.
    format!("{}{ending}", &name[..MAX_NAME - ending.len()])
}

fn escape(part: &str) -> String {
    let mut escaped = String::with_capacity(part.len());
    let last = part.len().saturating_sub(1);
    for (at, byte) in part.bytes().enumerate() {
        match byte {
            b'a'..=b'z' | b'0'..=b'9' | b'-' => escaped.push(char::from(byte)),
            b'.' if at != 0 && at != last => escaped.push('.'),
            _ => {
                let _ = write!(escaped, "%{byte:02X}");
            }
        }
    }
    // An empty part would make "no user" and "no service" look alike.
    if escaped.is_empty() { "%".to_owned() } else { escaped }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_b_and_c_never_meets_a_and_b_c() {
        assert_eq!(file("a_b", "c"), "tenant_a%5Fb_c.json");
        assert_eq!(file("a", "b_c"), "tenant_a_b%5Fc.json");
        assert_eq!(file("alice", "vectors-1.eu"), "tenant_alice_vectors-1.eu.json");
    }

    #[test]
    fn nothing_leaves_the_folder() {
        assert_eq!(file("../../etc", "passwd"), "tenant_%2E.%2F..%2Fetc_passwd.json");
        assert_eq!([folder("."), folder(".."), folder("_journal"), folder("")], ["%2E", "%2E%2E", "%5Fjournal", "%"]);
    }

    #[test]
    fn what_others_keep_in_the_volume_is_no_namespace() {
        assert!(["lost+found", ".snapshot", "_journal", "Team"].iter().all(|name| !is_folder(name)));
    }

    #[test]
    fn long_names_are_bounded_and_stay_apart() {
        let long = "ü".repeat(200);
        let names = [file(&long, "a"), file(&long, "b"), file("a", &long), folder(&long)];
        for name in &names {
            assert_eq!(name.len(), MAX_NAME, "{name}");
        }
        assert_eq!(names.iter().collect::<std::collections::BTreeSet<_>>().len(), 4);
    }

    fn part() -> impl Strategy<Value = String> {
        prop_oneof!["[a-c_.%/]{0,4}", any::<String>(), "[a-z_]{80,200}"]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(1000))]
        #[test]
        fn different_containers_have_different_files(a in part(), b in part(), c in part(), d in part()) {
            prop_assert_eq!(file(&a, &b) == file(&c, &d), (&a, &b) == (&c, &d));
            prop_assert_eq!(folder(&a) == folder(&c), a == c);
            prop_assert!(is_folder(&folder(&a)));
            for name in [file(&a, &b), folder(&a)] {
                prop_assert!(!name.is_empty() && name.len() <= MAX_NAME && !name.starts_with(['.', '_']), "{}", name);
                prop_assert!(name.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'/'), "{}", name);
            }
        }
    }
}
