//! Writers that know what they committed.
//!
//! Each has rows of its own, told apart by `owner`. A transaction also writes its number into `marks`; when the
//! connection is lost at a commit, that tells whether it was made.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use replicator_integration::Table;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio_postgres::{Client, NoTls};

/// How the tables are made.
pub(crate) const SCHEMA: &str = "
    CREATE TABLE accounts (id bigint PRIMARY KEY, owner int NOT NULL, n bigint NOT NULL, note text, body text);
    ALTER TABLE accounts ALTER body SET STORAGE EXTERNAL;
    CREATE TABLE log (owner int NOT NULL, line text NOT NULL);
    CREATE TABLE scratch (owner int, id int, v text, PRIMARY KEY (owner, id));
    CREATE TABLE marks (owner int PRIMARY KEY, number bigint NOT NULL);";

/// What is compared.
pub(crate) const TABLES: [Table; 4] = [
    Table { name: "accounts", key: &["id"] },
    Table { name: "log", key: &[] },
    Table { name: "scratch", key: &["owner", "id"] },
    Table { name: "marks", key: &["owner"] },
];

/// Pause between two transactions of a writer.
const PAUSE: Duration = Duration::from_millis(4);

/// A row of `accounts`, without its key.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Account {
    n: i64,
    note: Option<String>,
    /// Number of characters: large enough to be stored aside, so that it is not sent with each update.
    body: Option<i32>,
}

/// What a writer's rows are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    accounts: BTreeMap<i64, Account>,
    lines: u64,
    scratch: BTreeMap<i32, String>,
}

/// A writer, and its ledger.
pub(crate) struct Writer {
    owner: i32,
    url: String,
    random: StdRng,
    number: i64,
    /// The next key that was never used.
    next: i64,
    state: State,
    client: Option<Client>,
    made: u64,
    /// Commits whose answer was lost.
    unanswered: u64,
}

impl Writer {
    pub(crate) fn new(owner: i32, url: String, seed: u64) -> Self {
        Self {
            owner,
            url,
            random: StdRng::seed_from_u64(seed ^ u64::from(owner.unsigned_abs()) << 32),
            number: 0,
            next: i64::from(owner) << 40,
            state: State::default(),
            client: None,
            made: 0,
            unanswered: 0,
        }
    }

    /// Transactions that were made, and those of which that was not clear at once, since the last call.
    pub(crate) fn take_counts(&mut self) -> (u64, u64) {
        (std::mem::take(&mut self.made), std::mem::take(&mut self.unanswered))
    }

    /// Writes until it is told to stop, and then knows what is there.
    pub(crate) async fn write(mut self, stop: Arc<AtomicBool>) -> Self {
        while !stop.load(Ordering::Relaxed) {
            self.transaction().await;
            tokio::time::sleep(PAUSE).await;
        }
        self
    }

    async fn transaction(&mut self) {
        let mut after = self.state.clone();
        let mut sql = String::from("BEGIN;");
        let steps = if self.random.random_bool(0.02) { 200 } else { self.random.random_range(1..6) };
        for _ in 0..steps {
            self.step(&mut after, &mut sql);
        }
        if self.random.random_bool(0.05) {
            // Goes nowhere; what a subtransaction did is taken back.
            sql.push_str("SAVEPOINT s;");
            let mut nowhere = after.clone();
            self.step(&mut nowhere, &mut sql);
            sql.push_str("ROLLBACK TO s;");
        }
        let (owner, number) = (self.owner, self.number + 1);
        sql.push_str(&format!(
            "INSERT INTO marks VALUES ({owner}, {number}) ON CONFLICT (owner) DO UPDATE SET number = {number};"
        ));
        if self.random.random_bool(0.03) {
            sql.push_str("ROLLBACK;");
            let _ = self.execute(&sql).await;
            return;
        }
        sql.push_str("COMMIT;");
        let is_made = match self.execute(&sql).await {
            Ok(()) => true,
            Err(()) => {
                self.unanswered += 1;
                self.was_made(number).await
            }
        };
        if is_made {
            (self.number, self.state) = (number, after);
            self.made += 1;
        }
    }

    fn step(&mut self, state: &mut State, sql: &mut String) {
        let owner = self.owner;
        let picked = {
            let count = state.accounts.len();
            let at = self.random.random_range(0..count.max(1));
            state.accounts.keys().nth(at).copied()
        };
        let what = self.random.random_range(0..100);
        match (what, picked) {
            (0..35, _) | (_, None) => {
                self.next += 1;
                let (id, n) = (self.next, self.random.random_range(-1000..1000));
                let body = self.random.random_bool(0.2).then(|| self.random.random_range(3000..20_000));
                let note = self.random.random_bool(0.8).then(|| format!("it's {n}\\N"));
                let quoted =
                    note.as_ref().map_or("NULL".to_owned(), |note| format!("'{}'", note.replace('\'', "''")));
                let text = body.map_or("NULL".to_owned(), body_sql);
                sql.push_str(&format!("INSERT INTO accounts VALUES ({id}, {owner}, {n}, {quoted}, {text});"));
                state.accounts.insert(id, Account { n, note, body });
            }
            (35..65, Some(id)) => {
                sql.push_str(&format!("UPDATE accounts SET n = n + 1 WHERE id = {id};"));
                if let Some(account) = state.accounts.get_mut(&id) {
                    account.n += 1;
                }
            }
            (65..70, Some(id)) => {
                let length = self.random.random_range(3000..20_000);
                sql.push_str(&format!("UPDATE accounts SET body = {} WHERE id = {id};", body_sql(length)));
                if let Some(account) = state.accounts.get_mut(&id) {
                    account.body = Some(length);
                }
            }
            (70..78, Some(id)) => {
                // Another key, the body unsent.
                self.next += 1;
                let new = self.next;
                sql.push_str(&format!("UPDATE accounts SET id = {new} WHERE id = {id};"));
                if let Some(account) = state.accounts.remove(&id) {
                    state.accounts.insert(new, account);
                }
            }
            (78..88, Some(id)) => {
                sql.push_str(&format!("DELETE FROM accounts WHERE id = {id};"));
                state.accounts.remove(&id);
            }
            (88..94, _) => {
                state.lines += 1;
                sql.push_str(&format!("INSERT INTO log VALUES ({owner}, 'line');"));
            }
            _ => {
                let id = self.random.random_range(0..20);
                if state.scratch.remove(&id).is_some() {
                    sql.push_str(&format!("DELETE FROM scratch WHERE owner = {owner} AND id = {id};"));
                } else {
                    state.scratch.insert(id, format!("v{id}"));
                    sql.push_str(&format!("INSERT INTO scratch VALUES ({owner}, {id}, 'v{id}');"));
                }
            }
        }
    }

    async fn execute(&mut self, sql: &str) -> Result<(), ()> {
        let client = self.connected().await;
        let outcome = client.batch_execute(sql).await;
        if outcome.is_err() {
            self.client = None;
        }
        outcome.map_err(drop)
    }

    /// Whether the commit of that transaction, whose answer was lost, was made.
    async fn was_made(&mut self, number: i64) -> bool {
        loop {
            let owner = self.owner;
            let client = self.connected().await;
            match client.query_opt("SELECT number FROM marks WHERE owner = $1", &[&owner]).await {
                Ok(row) => return row.is_some_and(|row| row.get::<_, i64>(0) == number),
                Err(_) => self.client = None,
            }
        }
    }

    async fn connected(&mut self) -> &Client {
        let client = match self.client.take().filter(|client| !client.is_closed()) {
            Some(client) => client,
            None => connect(&self.url).await,
        };
        self.client.insert(client)
    }

    /// What differs between the ledger and the source.
    pub(crate) async fn compare(&mut self) -> Option<String> {
        let owner = self.owner;
        let client = self.connected().await;
        let rows = client
            .query(
                "SELECT id, n, note, length(body), body = left(repeat(md5(length(body)::text), 700), length(body))
                 FROM accounts WHERE owner = $1",
                &[&owner],
            )
            .await
            .unwrap_or_else(|error| panic!("reading accounts: {error}"));
        let mut found = State::default();
        for row in rows {
            let account = Account { n: row.get(1), note: row.get(2), body: row.get(3) };
            if row.get::<_, Option<bool>>(4) == Some(false) {
                return Some(format!("the source's row {:?} has another body", row.get::<_, i64>(0)));
            }
            found.accounts.insert(row.get(0), account);
        }
        let lines = client.query_one("SELECT count(*) FROM log WHERE owner = $1", &[&owner]).await;
        found.lines = lines.map_or(0, |row| row.get::<_, i64>(0).unsigned_abs());
        let scratch = client.query("SELECT id, v FROM scratch WHERE owner = $1", &[&owner]).await;
        found.scratch = scratch.unwrap_or_default().iter().map(|row| (row.get(0), row.get(1))).collect();
        (found != self.state).then(|| {
            format!(
                "writer {owner} committed {} accounts, {} lines, {} of scratch; the source has {}, {}, {}",
                self.state.accounts.len(),
                self.state.lines,
                self.state.scratch.len(),
                found.accounts.len(),
                found.lines,
                found.scratch.len()
            )
        })
    }
}

/// A connection; the server may take a while to be there.
async fn connect(url: &str) -> Client {
    loop {
        if let Ok((client, connection)) = tokio_postgres::connect(url, NoTls).await {
            tokio::spawn(connection);
            return client;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// A text of that length, which says its length.
fn body_sql(length: i32) -> String {
    format!("left(repeat(md5('{length}'), 700), {length})")
}
