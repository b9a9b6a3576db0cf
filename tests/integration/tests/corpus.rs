//! SQL in the manner of Postgres' regression suite – `tests/corpus` – runs at the source while it is replicated;
//! at the end each table of the target is that of the source, column by column. Types that the target does not know are
//! made there, or others take their values.

use replicator_harness::{PgVersion, Replicator};
use replicator_integration::{Sinks, Supervisor, World, drain, published, wait_for_copy};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

const SOON: Duration = Duration::from_secs(90);

/// How many tables it comes to at least: fewer mean that files were left out.
const TABLES_MIN: usize = 150;

fn files() -> Vec<PathBuf> {
    files_of(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../corpus"))
}

fn files_of(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("read the corpus");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("read the corpus").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "sql"));
    files.sort();
    files
}

fn text(file: &Path) -> String {
    std::fs::read_to_string(file).unwrap_or_else(|error| panic!("read {}: {error}", file.display()))
}

fn run(world: &World, file: &Path) {
    let outcome = world.source.try_sql("shop", &text(file));
    outcome.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
}

/// Says at its end that something is over, also when that is a panic: threads that wait for it would go on for ever.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// Whether the target knows the types of the corpus from the first.
#[derive(Clone, Copy, PartialEq, Eq)]
enum TargetTypes {
    Made,
    Absent,
}

/// A source that knows the types, a target, and the other files.
fn start(version: PgVersion, target_types: TargetTypes) -> (World, Vec<PathBuf>) {
    let world = World::start(version);
    let mut files = files();
    let types = text(&files.remove(0));
    world.source.sql("shop", &types);
    if target_types == TargetTypes::Made {
        world.target.sql("copy", &types);
    }
    (world, files)
}

/// Compares everything that is published, by and by.
async fn finish(world: &World, what: &str) {
    let source = world.source.client("shop").await;
    let tables = published(&source, |_, _| true).await;
    assert!(tables.len() >= TABLES_MIN, "{} tables", tables.len());
    world.assert_soon_equal(what, SOON, Sinks::Postgres, |_, _| true).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_of_the_corpus_ends_equal_in_postgres_while_the_replicator_is_killed() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let (world, files) = start(version, TargetTypes::Absent);
        // A publication for all tables, those to come too.
        let config = world.postgres_config().set("source.catalog_interval_ms", 500);
        let supervisor = Supervisor::start(&config);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    std::thread::sleep(Duration::from_millis(1900));
                    supervisor.kill9();
                }
            });
            let _over = Over(&is_over);
            files.iter().for_each(|file| run(&world, file));
        });
        finish(&world, &format!("Postgres {}", version.major())).await;
        assert!(supervisor.starts() > 1);
        supervisor.stop();
        drain(&config);
        finish(&world, "drained").await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_table_of_the_corpus_ends_equal_in_postgres_when_half_of_it_was_there_before() {
    let (world, files) = start(PgVersion::V18, TargetTypes::Made);
    let (before, after) = files.split_at(files.len() / 2);
    before.iter().for_each(|file| run(&world, file));
    let supervisor = Supervisor::start(&world.postgres_config().set("source.catalog_interval_ms", 500));
    after.iter().for_each(|file| run(&world, file));
    finish(&world, "half before").await;
    assert_eq!(supervisor.starts(), 1, "it ended");
    supervisor.stop();
}

/// Constraints, triggers, rules and generated columns, whose types ClickHouse prints as Postgres does.
#[tokio::test(flavor = "multi_thread")]
async fn what_constraints_triggers_and_rules_of_the_corpus_do_arrives_in_every_sink() {
    let (world, files) = start(PgVersion::V15, TargetTypes::Made);
    let config = world
        .config()
        .set("source.tables", Vec::<String>::new())
        .set("source.catalog_interval_ms", 500)
        .set_sink("analytics", "tables", vec!["cons.*"]);
    let supervisor = Supervisor::start(&config);
    for file in files.iter().filter(|file| file.ends_with("04_constraints.sql")) {
        run(&world, file);
    }
    world.assert_soon_equal("every sink", SOON, Sinks::All, |schema, _| schema == "cons").await;
    assert_eq!(supervisor.starts(), 1, "it ended");
    supervisor.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn names_of_every_sort_arrive_in_every_sink() {
    for version in [PgVersion::V15, PgVersion::V18] {
        let (world, files) = start(version, TargetTypes::Made);
        let config =
            world.config().set("source.tables", Vec::<String>::new()).set("source.catalog_interval_ms", 500);
        let supervisor = Supervisor::start(&config);
        for file in files.iter().filter(|file| file.ends_with("01_names.sql")) {
            run(&world, file);
        }
        world.assert_soon_equal("every sink", SOON, Sinks::All, |_, _| true).await;
        assert_eq!(supervisor.starts(), 1, "it ended");
        supervisor.stop();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_in_binary_form_is_not_stopped_by_types_that_are_made_on_the_way() {
    let world = World::start(PgVersion::V15);
    world.source.sql("shop", "CREATE TABLE first (id int PRIMARY KEY, v text)");
    let config = world.postgres_config().set("source.binary", "on").set("source.catalog_interval_ms", 500);
    let mut replicator = Replicator::spawn(&config, &[]);
    replicator.wait_until_ready(SOON);
    wait_for_copy(&replicator);
    let asked = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender' AND query ~ 'START_REPLICATION.*binary'";
    assert_eq!(world.source.sql("shop", asked), "1", "the stream is binary as long as it can be");
    world.source.sql("shop", "INSERT INTO first SELECT n, 'v' || n FROM generate_series(1, 1000) n");
    for file in files().iter().filter(|file| file.ends_with("07_types_made_on_the_way.sql")) {
        run(&world, file);
    }
    world.assert_soon_equal("binary", SOON, Sinks::Postgres, |_, _| true).await;
    assert_eq!(world.source.sql("shop", asked), "0");
    replicator.sigterm();
    assert!(replicator.wait(SOON).success(), "{}", replicator.stderr());
}

/// Gives tables that are made without a primary key the whole row as identity.
const WHOLE_ROWS: &str = "
    CREATE FUNCTION public.give_identity() RETURNS event_trigger LANGUAGE plpgsql AS $f$
    DECLARE made record;
    BEGIN
      FOR made IN
        SELECT c.oid::regclass AS name FROM pg_event_trigger_ddl_commands() d
        JOIN pg_class c ON c.oid = d.objid AND d.classid = 'pg_class'::regclass
        WHERE c.relkind IN ('r', 'p') AND c.relpersistence = 'p' AND d.command_tag <> 'ALTER TABLE'
          AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)
      LOOP EXECUTE format('ALTER TABLE %s REPLICA IDENTITY FULL', made.name); END LOOP;
    END $f$;
    CREATE EVENT TRIGGER give_identity ON ddl_command_end
      WHEN TAG IN ('CREATE TABLE', 'CREATE TABLE AS', 'SELECT INTO') EXECUTE FUNCTION public.give_identity()";

/// `CORPUS_FOLDER` names other SQL, file by file in the order of the names; Postgres' own regression suite, for one, of the
/// version that `CORPUS_POSTGRES` names.
/// Statements may fail there. Those that leave a transaction prepared keep new tables from being copied.
#[tokio::test(flavor = "multi_thread")]
async fn a_corpus_with_statements_that_fail_ends_equal_after_each_of_its_files() {
    let named = std::env::var_os("CORPUS_FOLDER").map(PathBuf::from);
    let version = match std::env::var("CORPUS_POSTGRES").as_deref() {
        Ok("15") => PgVersion::V15,
        Ok("18") => PgVersion::V18,
        Ok("17") | Err(_) => PgVersion::V17,
        Ok(other) => panic!("CORPUS_POSTGRES is {other:?}: 15, 17 or 18"),
    };
    let world = World::start(version);
    world.source.sql("shop", WHOLE_ROWS);
    world.source.sql("shop", "CREATE TABLE whichever_files_come (id int PRIMARY KEY)");
    let supervisor = Supervisor::start(&world.postgres_config().set("source.catalog_interval_ms", 500));
    for file in named.as_deref().map_or_else(files, files_of) {
        let mut psql = world.source.tool("psql", "shop");
        psql.args(["-X", "-q", "-c", "SELECT 1/0", "-f"]).arg(&file);
        let output = psql.env("PGOPTIONS", "-c statement_timeout=60s").output().expect("run psql");
        let errors = String::from_utf8_lossy(&output.stderr).matches("ERROR:").count();
        assert!(errors > 0, "statements go on behind one that fails");
        world.assert_soon_equal(&file.display().to_string(), SOON, Sinks::Postgres, |_, _| true).await;
        assert_eq!(supervisor.starts(), 1, "it ended in {}: {}", file.display(), supervisor.last_lines(25));
    }
    supervisor.stop();
}
