-- Which process is which worker?
SELECT pid, type, queue_name, miq_server_id
  FROM miq_workers
 ORDER BY miq_server_id, pid;
