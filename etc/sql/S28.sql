-- Which SQL does each worker run?
SELECT w.id, w.type, w.pid, w.sql_spid, a.state, a.query_start, a.query
  FROM miq_workers w
  JOIN pg_stat_activity a ON a.pid = w.sql_spid
 ORDER BY w.id;
