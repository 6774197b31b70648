-- Which messages failed?
SELECT id, priority, method_name, state, queue_name, zone, role, created_on, class_name, last_error
  FROM miq_queue
 WHERE state IN ('error', 'timeout', 'warn', 'expired')
 ORDER BY updated_on DESC NULLS LAST, id DESC;
