-- Who waits for a lock, and who has it?
SELECT l.pid, a.application_name, l.locktype, l.relation::regclass AS relation, l.mode, pg_blocking_pids(l.pid) AS blocked_by
  FROM pg_locks l
  LEFT JOIN pg_stat_activity a ON a.pid = l.pid
 WHERE NOT l.granted
 ORDER BY l.pid;
