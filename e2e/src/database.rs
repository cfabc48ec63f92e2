//! The ledger's database, as its administrator sees it.
//!
//! Owns: queries by `psql`. Must never: write.

use std::process::Command;

use crate::kubectl::{self, Error, environment};

/// Runs a query. `values` are its parameters, written as `:'name'`; the rows come back as text, null as empty text.
pub fn rows(query: &str, values: &[(&str, &str)]) -> Result<Vec<Vec<String>>, Error> {
    let mut command = Command::new("psql");
    command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "--field-separator=\x1f"]);
    command.args(["--set", "ON_ERROR_STOP=1"]);
    command.args(values.iter().flat_map(|(name, value)| ["--set".to_owned(), format!("{name}={value}")]));
    command.arg(environment("DATABASE_URL")?);
    let guarded = format!("SET default_transaction_read_only = on;\n{query};\n");
    let text = kubectl::run(&mut command, &guarded)?;
    Ok(text
        .lines()
        .filter(|line| !line.is_empty())
        .map(|line| line.split('\x1f').map(str::to_owned).collect())
        .collect())
}

/// One column of a query.
pub fn column(query: &str, values: &[(&str, &str)]) -> Result<Vec<String>, Error> {
    Ok(rows(query, values)?.into_iter().filter_map(|row| row.into_iter().next()).collect())
}

/// A number.
pub fn count(query: &str, values: &[(&str, &str)]) -> Result<u64, Error> {
    Ok(column(query, values)?.first().and_then(|number| number.parse().ok()).unwrap_or(0))
}

/// The hops of an object's chain, as `from>to reason`.
pub fn hops(uid: &str) -> Result<Vec<String>, Error> {
    column(
        "SELECT coalesce(from_state, '') || '>' || coalesce(to_state, '') || ' ' || reason
         FROM berth.container_status_history WHERE uid = :'uid' ORDER BY sequence",
        &[("uid", uid)],
    )
}

/// The hops from the first record to the head, as [`hops`]: without those that were never shown, since another was. Nothing
/// where the way back from the head has a gap.
pub fn line(uid: &str) -> Result<Vec<String>, Error> {
    let hops = "SELECT coalesce(from_state, '') || '>' || coalesce(to_state, '') || ' ' || reason
                FROM line WHERE EXISTS (SELECT FROM line WHERE sequence = 1) ORDER BY sequence";
    column(&format!("{LINE} {hops}"), &[("uid", uid)])
}

/// Before a SELECT: `line` has the records from the head of the chain `:'uid'` back to its first.
pub const LINE: &str = "
    WITH RECURSIVE line AS (
        SELECT h.* FROM berth.container_status_history h
        JOIN berth.ledger_heads e USING (cluster_id, uid, sequence, hash) WHERE uid = :'uid'
        UNION ALL
        SELECT h.* FROM line l JOIN berth.container_status_history h
        ON (h.cluster_id, h.uid, h.sequence, h.hash) = (l.cluster_id, l.uid, l.sequence - 1, l.prev))";

/// Whether the chain is one line: contiguous from 1, each record's `prev` the hash before it, its end the head.
pub fn is_one_line(uid: &str) -> Result<bool, Error> {
    let broken = count(
        "WITH chain AS (
             SELECT sequence, prev, hash, row_number() OVER (ORDER BY sequence) AS place,
                    lag(hash, 1, '\\x0000000000000000000000000000000000000000000000000000000000000000'::bytea)
                        OVER (ORDER BY sequence) AS before
             FROM berth.container_status_history WHERE uid = :'uid')
         SELECT count(*) FILTER (WHERE sequence <> place OR prev <> before)
              + (SELECT count(*) FROM berth.ledger_heads WHERE uid = :'uid'
                 AND hash IS DISTINCT FROM (SELECT hash FROM chain ORDER BY sequence DESC LIMIT 1))
              + CASE WHEN EXISTS (SELECT FROM berth.ledger_heads WHERE uid = :'uid') THEN 0 ELSE 1 END
         FROM chain",
        &[("uid", uid)],
    )?;
    Ok(broken == 0)
}
