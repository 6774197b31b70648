-- Which messages run longer than they may?
SELECT id, class_name, method_name, handler_type, handler_id, updated_on, msg_timeout
  FROM miq_queue
 WHERE state = 'dequeue'
   AND extract(epoch FROM updated_on) + msg_timeout < extract(epoch FROM utc_now())
 ORDER BY updated_on, id;
