-- Which servers are there?
SELECT id, guid, name, version, status, hostname, pid, zone_id, is_master, last_heartbeat
  FROM miq_servers
 ORDER BY id;
