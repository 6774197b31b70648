-- Which rows of workers are left over?
SELECT id, type, pid, last_heartbeat, system_uid, guid
  FROM miq_workers
 WHERE last_heartbeat IS NULL OR last_heartbeat < utc_now() - interval '10 minutes'
 ORDER BY last_heartbeat NULLS FIRST, id;
