-- What is in the queue?
SELECT id, priority, method_name, state, queue_name, zone, role, created_on, class_name
  FROM miq_queue
 ORDER BY priority, id;
