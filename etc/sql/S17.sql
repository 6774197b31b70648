-- What is each worker doing?
SELECT q.handler_id, w.type, w.pid, q.id, q.class_name, q.method_name, q.updated_on
  FROM miq_queue q
  LEFT JOIN miq_workers w ON w.id = q.handler_id
 WHERE q.handler_type = 'MiqWorker' AND q.state = 'dequeue'
 ORDER BY q.handler_id, q.id;
