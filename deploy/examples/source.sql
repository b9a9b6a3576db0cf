-- What the source needs, once, run by a superuser in the database that is to be replicated:
--   psql -d shop -f source.sql
-- wal_level = logical is needed too, and a restart for it:  ALTER SYSTEM SET wal_level = 'logical';

-- The role. REPLICATION lets it read the stream. To copy the rows that are there it has to read the tables; for less than
-- all of them: GRANT USAGE ON SCHEMA …, GRANT SELECT ON …, and ALTER DEFAULT PRIVILEGES for tables to come. Tables with
-- row-level security need BYPASSRLS too.
CREATE ROLE replicator LOGIN REPLICATION;
GRANT pg_read_all_data TO replicator;
-- \password replicator

-- The publication, which says what is in the stream. It has to be there before the slot, which the replicator
-- makes. Tables that are made later belong to this one too (TABLES IN SCHEMA: from PostgreSQL 15 on; before, and
-- for a choice: FOR TABLE orders, customers).
CREATE PUBLICATION replicator FOR TABLES IN SCHEMA public WITH (publish_via_partition_root = true);

-- The bound on the disk that the slot can fill while nobody reads from it. Beyond it the slot is lost.
ALTER SYSTEM SET max_slot_wal_keep_size = '50GB';
SELECT pg_reload_conf();
