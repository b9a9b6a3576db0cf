//! The loads: what lies in the source before the slots, and what is written behind them.

use replicator_harness::Postgres;

/// One of the loads that the project's figures are stated for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Workload {
    /// Narrow inserts, 1000 a transaction.
    W1,
    /// `pgbench -N`: an update and an insert a transaction.
    W2,
    /// Inserts of 60 mixed columns, 1000 a transaction.
    W3,
    /// Updates under REPLICA IDENTITY FULL, beside an unchanged column of 8 kB; 100 a transaction.
    W4,
    /// The inserts of W1 in one transaction.
    W5,
}

/// A table whose arrival is checked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Table {
    pub(crate) name: &'static str,
    /// An integer column. Rows are told apart by it where `is_keyed`.
    pub(crate) key: &'static str,
    /// Another, whose value is part of the checksum.
    pub(crate) number: &'static str,
    pub(crate) is_keyed: bool,
    /// Which rows the stream has touched; all others are no business of sinks that began empty.
    pub(crate) touched: &'static str,
}

/// The table of workload W1.
pub(crate) const W1_TABLE: &str = "CREATE TABLE w1 (id bigint PRIMARY KEY, n int, code varchar(8), \
                                   amount numeric(12,2), note text, at timestamptz)";

/// The statement that fills it, keys `from` to `to`, which are expressions.
pub(crate) fn insert_w1(from: &str, to: &str) -> String {
    format!(
        "INSERT INTO w1 SELECT n, n % 1000, lpad((n % 100000000)::text, 8, '0'), (n % 1000000) / 100.0, \
         repeat(chr(97 + (n % 26)::int), 100), now() FROM generate_series({from}, {to}) n"
    )
}

/// Rows a transaction of W1 and W3.
const INSERTS_A_TRANSACTION: usize = 1000;
/// Updates a transaction of W4.
const UPDATES_A_TRANSACTION: usize = 100;
/// How often W4 updates each row. Two of one row are far enough apart to be in two batches.
const W4_PASSES: usize = 10;
/// pgbench's sessions.
const CLIENTS: usize = 4;
/// Rows of `pgbench_accounts` for each unit of scale.
const ACCOUNTS_A_SCALE: usize = 100_000;

const W3_COLUMNS: usize = 60;

/// A column of W3 by its number: type, and its value in row `n`.
fn w3_column(number: usize) -> (&'static str, String) {
    match number % 10 {
        0 => ("bigint", format!("n * {number}")),
        1 => ("int", format!("(n * {number} % 2000000)::int")),
        2 => ("text", format!("repeat(chr(97 + (n % 26)::int), {})", 10 + number)),
        3 => ("numeric(12,2)", format!("(n * {number} % 1000000) / 100.0")),
        4 => ("timestamptz", format!("timestamptz '2026-01-01 00:00:00+00' + n * interval '{number} ms'")),
        5 => ("boolean", "n % 2 = 0".into()),
        6 => ("date", "date '2000-01-01' + (n % 10000)::int".into()),
        7 => ("double precision", format!("n / {number}.0")),
        8 => ("uuid", format!("lpad(to_hex(n * {number}), 32, '0')::uuid")),
        // One in ten is mostly NULL.
        _ => ("varchar(20)", "CASE WHEN n % 8 = 0 THEN 'v' || n % 100000 END".into()),
    }
}

impl Workload {
    pub(crate) const ALL: [Self; 5] = [Self::W1, Self::W2, Self::W3, Self::W4, Self::W5];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::W1 => "W1",
            Self::W2 => "W2",
            Self::W3 => "W3",
            Self::W4 => "W4",
            Self::W5 => "W5",
        }
    }

    /// What it is, for a heading.
    pub(crate) fn title(self, changes: usize) -> String {
        let what = match self {
            Self::W1 => "narrow inserts, 1000 a transaction",
            Self::W2 => "changes of pgbench -N, an update and an insert a transaction",
            Self::W3 => "inserts of 60 mixed columns, 1000 a transaction",
            Self::W4 => "updates, REPLICA IDENTITY FULL, an unchanged column of 8 kB, 100 a transaction",
            Self::W5 => "narrow inserts in one transaction",
        };
        format!("{}: {changes} {what}", self.name())
    }

    /// As many as the baselines have.
    pub(crate) fn default_changes(self) -> usize {
        match self {
            Self::W1 => 2_000_000,
            Self::W2 => 400_000,
            Self::W3 | Self::W4 => 300_000,
            Self::W5 => 1_000_000,
        }
    }

    /// About so many changes as it can have: whole transactions.
    pub(crate) fn rounded(self, changes: usize) -> usize {
        let unit = match self {
            Self::W1 | Self::W3 => INSERTS_A_TRANSACTION,
            Self::W2 => 2 * CLIENTS,
            Self::W4 => UPDATES_A_TRANSACTION * W4_PASSES,
            Self::W5 => 1,
        };
        changes.div_ceil(unit).max(1) * unit
    }

    pub(crate) fn tables(self) -> &'static [Table] {
        const fn plain(name: &'static str, number: &'static str) -> Table {
            Table { name, key: "id", number, is_keyed: true, touched: "true" }
        }
        match self {
            Self::W1 | Self::W5 => const { &[plain("w1", "n")] },
            Self::W2 => {
                const {
                    &[
                        Table {
                            name: "pgbench_accounts",
                            key: "aid",
                            number: "abalance",
                            is_keyed: true,
                            touched: "aid IN (SELECT aid FROM pgbench_history)",
                        },
                        Table {
                            name: "pgbench_history",
                            key: "aid",
                            number: "delta",
                            is_keyed: false,
                            touched: "true",
                        },
                    ]
                }
            }
            Self::W3 => const { &[plain("w3", "c1")] },
            Self::W4 => const { &[plain("w4", "n")] },
        }
    }

    /// Makes the tables and the rows that are there before the stream, the same at every call.
    pub(crate) fn create(self, server: &Postgres, database: &str, changes: usize) {
        match self {
            Self::W1 | Self::W5 => drop(server.sql(database, W1_TABLE)),
            Self::W2 => {
                let scale = changes.div_ceil(4 * ACCOUNTS_A_SCALE).clamp(1, 10).to_string();
                server.pgbench(database, &["-i", "-I", "dtGp", "-q", "-s", &scale]);
            }
            Self::W3 => {
                let columns: Vec<String> =
                    (1..W3_COLUMNS).map(|number| format!("c{number} {}", w3_column(number).0)).collect();
                server.sql(
                    database,
                    &format!("CREATE TABLE w3 (id bigint PRIMARY KEY, {})", columns.join(", ")),
                );
            }
            Self::W4 => {
                // Hexadecimal digits of hashes: too little in them repeats for them to be compressed.
                let sql = format!(
                    "CREATE TABLE w4 (id bigint PRIMARY KEY, n int, at timestamptz, big text);
                     ALTER TABLE w4 REPLICA IDENTITY FULL;
                     INSERT INTO w4 SELECT id, 0, timestamptz '2026-01-01 00:00:00+00',
                       (SELECT string_agg(md5((id * 1000 + part)::text), '') FROM generate_series(1, 256) part)
                       FROM generate_series(1, {}) id",
                    changes / W4_PASSES
                );
                server.sql(database, &sql);
            }
        }
        server.sql(database, &format!("CREATE TABLE {END_TABLE} (id int PRIMARY KEY)"));
        server.sql(database, "CHECKPOINT");
    }

    /// Writes the backlog, and a last transaction by which its end is seen.
    pub(crate) fn load(self, server: &Postgres, database: &str, changes: usize) {
        let loop_of = |transactions: usize, statement: &str| {
            format!(
                "DO $$ BEGIN FOR t IN 0..{} LOOP {statement}; COMMIT; END LOOP; END $$",
                transactions.saturating_sub(1)
            )
        };
        let (from, to) = (
            format!("t * {INSERTS_A_TRANSACTION}::bigint + 1"),
            format!("(t + 1) * {INSERTS_A_TRANSACTION}::bigint"),
        );
        match self {
            Self::W1 => {
                server.sql(database, &loop_of(changes / INSERTS_A_TRANSACTION, &insert_w1(&from, &to)));
            }
            Self::W2 => {
                let (clients, each) = (CLIENTS.to_string(), (changes / 2 / CLIENTS).to_string());
                server.pgbench(database, &["-n", "-N", "-c", &clients, "-t", &each, "--random-seed", "15"]);
            }
            Self::W3 => {
                let values: Vec<String> = (1..W3_COLUMNS).map(|number| w3_column(number).1).collect();
                let insert = format!(
                    "INSERT INTO w3 SELECT n, {} FROM generate_series({from}, {to}) n",
                    values.join(", ")
                );
                server.sql(database, &loop_of(changes / INSERTS_A_TRANSACTION, &insert));
            }
            Self::W4 => {
                let rows = changes / W4_PASSES;
                let update = format!(
                    "UPDATE w4 SET n = n + 1 + (id % 7)::int, at = at + interval '1 s' \
                     WHERE id BETWEEN (t * {UPDATES_A_TRANSACTION} % {rows}) + 1 \
                     AND (t * {UPDATES_A_TRANSACTION} % {rows}) + {UPDATES_A_TRANSACTION}"
                );
                server.sql(database, &loop_of(changes / UPDATES_A_TRANSACTION, &update));
            }
            Self::W5 => drop(server.sql(database, &insert_w1("1", &changes.to_string()))),
        }
        server.sql(database, &format!("INSERT INTO {END_TABLE} VALUES (1)"));
    }
}

/// Has a row as soon as everything before it is there.
pub(crate) const END_TABLE: &str = "bench_end";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_load_is_of_whole_transactions() {
        for workload in Workload::ALL {
            let full = workload.default_changes();
            assert_eq!(workload.rounded(full), full, "{workload:?}");
            let small = workload.rounded(1);
            assert!(small >= 1 && workload.rounded(small) == small, "{workload:?}");
        }
        assert_eq!(Workload::W4.rounded(1500), 2000);
    }
}
