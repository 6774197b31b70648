-- How many jobs by state, zone and type?
SELECT state, zone, type, count(*) AS count
  FROM jobs
 GROUP BY state, zone, type
 ORDER BY state, zone, type;
