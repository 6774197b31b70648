-- How long do messages of a role wait?
SELECT role, min(created_on) AS first, max(created_on) AS last, count(*) AS count
  FROM miq_queue
 WHERE state = 'ready'
 GROUP BY role
 ORDER BY role;
