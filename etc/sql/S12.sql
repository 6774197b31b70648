-- How many messages by state, zone and role?
SELECT state, zone, role, count(*) AS count
  FROM miq_queue
 GROUP BY state, zone, role
 ORDER BY state, zone, role;
