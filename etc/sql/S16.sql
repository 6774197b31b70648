-- Which messages wait for a provision?
SELECT id, class_name, method_name, instance_id, task_id, state, created_on
  FROM miq_queue
 WHERE state = 'ready'
   AND ((class_name = 'MiqProvision' AND method_name = 'do_post_provision') OR task_id LIKE 'miq_provision_%')
 ORDER BY id;
