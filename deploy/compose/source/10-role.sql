-- The role that replicates: it reads the stream and the catalog, and no table.
\set password `cat /run/secrets/source-replicator`
CREATE ROLE replicator LOGIN REPLICATION PASSWORD :'password';
