-- What waits, by zone, queue, role and method, and since when?
SELECT zone, queue_name, role, class_name, method_name,
       min(coalesce(deliver_on, created_on)) AS oldest,
       count(*) AS count
  FROM miq_queue
 GROUP BY zone, queue_name, role, class_name, method_name
 ORDER BY zone, queue_name, role, oldest DESC;
