-- The role that writes the copy: it makes the tables, and keeps triggers and foreign keys out of the way.
\set password `cat /run/secrets/copy-replicator`
CREATE ROLE replicator LOGIN PASSWORD :'password';
ALTER DATABASE copy OWNER TO replicator;
ALTER SCHEMA public OWNER TO replicator;
GRANT SET ON PARAMETER session_replication_role TO replicator;
