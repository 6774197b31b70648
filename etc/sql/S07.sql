-- What has the automation engine queued?
SELECT id, priority, method_name, state, queue_name, class_name, zone, role, msg_timeout
  FROM miq_queue
 WHERE class_name LIKE '%Automation%' OR class_name LIKE '%MiqAe%'
 ORDER BY priority, id;
