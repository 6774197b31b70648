-- Who is connected, and what do they do?
SELECT client_addr, datname, pid, wait_event_type, wait_event, query
  FROM pg_stat_activity
 WHERE datname = current_database()
 ORDER BY pid;
