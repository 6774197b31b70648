-- Delete the messages that failed.
DELETE FROM miq_queue
 WHERE state IN ('error', 'timeout')
RETURNING id, state, class_name, method_name;
