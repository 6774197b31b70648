-- How long may each message run?
SELECT id, priority, method_name, state, queue_name, class_name, zone, role, msg_timeout
  FROM miq_queue
 ORDER BY priority, id;
