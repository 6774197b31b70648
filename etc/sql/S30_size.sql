-- How large is the database?
SELECT current_database() AS datname, pg_database_size(current_database()) AS pg_database_size;
