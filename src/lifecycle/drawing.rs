//! The table of transitions as a picture: the Mermaid diagram in docs/lifecycle.md.
//!
//! Owns: how it is drawn. Must never: know a transition that the table does not have.

use super::{State, TRANSITIONS};

/// The diagram, one line for each transition, with when it happens. GitHub and most viewers of Markdown draw it.
pub fn mermaid() -> String {
    let mut lines = vec!["stateDiagram-v2".to_owned()];
    let place = |state: Option<State>| state.map_or("[*]", State::as_str);
    // Mermaid takes a colon for the end of a name and a comma for one of its own: the label is plain words.
    lines.extend(
        TRANSITIONS
            .iter()
            .map(|(from, to, when)| format!("    {} --> {to}: {}", place(*from), when.replace(": ", " - "))),
    );
    lines.push(format!("    {} --> [*]", State::Deleted));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEGIN: &str = "<!-- drawn from src/lifecycle/transition.rs by `make generate` -->\n";
    const END: &str = "<!-- end -->";

    /// With `BERTH_GENERATE` in the environment (`make generate`) it writes the file instead.
    #[test]
    fn the_picture_in_docs_is_drawn_from_the_table() {
        let path = format!("{}/docs/lifecycle.md", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(&path).unwrap();
        let (before, rest) = text.split_once(BEGIN).unwrap();
        let (_, after) = rest.split_once(END).unwrap();
        let drawn = format!("{before}{BEGIN}```mermaid\n{}\n```\n{END}{after}", mermaid());
        if std::env::var_os("BERTH_GENERATE").is_some() {
            std::fs::write(&path, drawn).unwrap();
        } else {
            assert!(text == drawn, "{path} is out of date: run `make generate`");
        }
    }

    #[test]
    fn every_transition_is_drawn_once() {
        let drawn = mermaid();
        for (from, to, _) in TRANSITIONS {
            let edge = format!(" {} --> {to}: ", from.map_or("[*]", State::as_str));
            assert_eq!(drawn.matches(&edge).count(), 1, "{edge}");
        }
        assert_eq!(drawn.lines().count(), TRANSITIONS.len() + 2);
    }
}
