-- The role that replicates: it reads the stream and the catalog, and for the initial copy the tables.
\set password `cat /run/secrets/source-replicator`
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'password';
GRANT pg_read_all_data TO replicator;
