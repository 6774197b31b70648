-- Which database backend is which process?
SELECT pid, application_name
  FROM pg_stat_activity
 WHERE application_name LIKE 'MIQ%'
 ORDER BY application_name, pid;
