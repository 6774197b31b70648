-- Why is a metrics capture not taken? (Compare zone and queue with those of the workers.)
SELECT id, target_id, method_name, class_name, queue_name, zone, created_on
  FROM miq_queue
 WHERE method_name LIKE 'perf_capture%' AND state = 'ready'
 ORDER BY created_on, id;
