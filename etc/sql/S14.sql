-- Is there an event storm?
SELECT count(*) AS count, min(created_on) AS oldest
  FROM miq_queue
 WHERE role = 'event' AND class_name = 'EmsEvent' AND state = 'ready';
