-- The statements that lock or move sets of messages. Each begins with "-- name: NAME" and says what it does.
-- %(now)s is NULL in production (the database's clock); tests give a time.

-- name: claim
-- Takes ready messages for one handler, most urgent first; nobody waits for anybody (SKIP LOCKED). The partial index
-- miq_queue_get_idx is in claim order. The subquery is MATERIALIZED so that the planner cannot take more rows than LIMIT.
WITH next AS MATERIALIZED (
    SELECT id FROM miq_queue AS q
     WHERE state = 'ready'
       AND queue_name = %(queue_name)s
       AND priority <= %(max_priority)s
       AND (zone IS NULL OR zone = %(zone)s)
       AND (role IS NULL OR role = ANY(string_to_array(%(roles)s, ',')))
       AND (server_guid IS NULL OR server_guid = %(server_guid)s)
       AND (deliver_on IS NULL OR deliver_on <= coalesce(%(now)s::timestamp, utc_now()))
       AND (expires_on IS NULL OR expires_on > coalesce(%(now)s::timestamp, utc_now()))
       AND (task_id IS NULL OR NOT EXISTS (
               SELECT 1 FROM miq_queue AS busy WHERE busy.state = 'dequeue' AND busy.task_id = q.task_id))
     ORDER BY priority, id
     LIMIT %(limit)s
       FOR UPDATE SKIP LOCKED)
UPDATE miq_queue AS q
   SET state = 'dequeue', handler_type = %(handler_type)s, handler_id = %(handler_id)s,
       updated_on = coalesce(%(now)s::timestamp, utc_now()), lock_version = coalesce(lock_version, 0) + 1
  FROM next
 WHERE q.id = next.id
RETURNING q.id, q.class_name, q.method_name, q.instance_id, q.target_id, q.args, q.miq_callback, q.msg_timeout,
          q.task_id, q.miq_task_id, q.attempts, q.tracking_label, q.queue_name, q.zone, q.role, q.priority,
          extract(epoch FROM utc_now() - greatest(q.created_on, q.deliver_on))::float8 AS waited

-- name: next_due
-- Seconds until a message of this queue that is not due yet will be; NULL when there is none.
SELECT extract(epoch FROM min(deliver_on) - utc_now())::float8 FROM miq_queue
 WHERE state = 'ready' AND queue_name = %(queue_name)s AND deliver_on > utc_now()

-- name: finish
-- Deletes messages that ended well.
DELETE FROM miq_queue WHERE id = ANY(%(ids)s)

-- name: fail
-- Keeps a message that ended badly, with what was wrong; its handler lets go of it.
UPDATE miq_queue
   SET state = %(state)s, last_error = %(error)s, updated_on = utc_now(), handler_type = NULL, handler_id = NULL
 WHERE id = %(id)s

-- name: give_back
-- Puts messages that were held back to ready. The guard leaves those alone that have a waiting twin (see merge_into_twin).
UPDATE miq_queue AS q
   SET state = 'ready', handler_type = NULL, handler_id = NULL, deliver_on = coalesce(%(deliver_on)s::timestamp, deliver_on),
       updated_on = utc_now(), attempts = attempts + %(attempt)s
 WHERE id = ANY(%(ids)s)
   AND (merge_key IS NULL OR NOT EXISTS (
           SELECT 1 FROM miq_queue AS twin WHERE twin.merge_key = q.merge_key AND twin.state = 'ready'))
RETURNING id, queue_name

-- name: merge_into_twin
-- What give_back left: the twin that waits does the work, and takes over task and callback if it has none.
WITH gone AS (
    DELETE FROM miq_queue AS q USING miq_queue AS twin
     WHERE q.id = ANY(%(ids)s) AND q.state = 'dequeue' AND twin.merge_key = q.merge_key AND twin.state = 'ready'
    RETURNING q.id, twin.id AS twin_id, q.miq_task_id, q.miq_callback)
UPDATE miq_queue AS twin
   SET miq_task_id = coalesce(twin.miq_task_id, gone.miq_task_id),
       miq_callback = coalesce(twin.miq_callback, gone.miq_callback), lock_version = coalesce(lock_version, 0) + 1
  FROM gone WHERE twin.id = gone.twin_id
RETURNING gone.id, twin.id, gone.miq_task_id IS DISTINCT FROM twin.miq_task_id

-- name: held_by
-- What a handler holds.
SELECT id, class_name, method_name, miq_callback, miq_task_id, attempts, queue_name FROM miq_queue
 WHERE state = 'dequeue' AND handler_type = %(handler_type)s AND handler_id = %(handler_id)s
   FOR UPDATE

-- name: wake
-- Tells the listeners of a queue that something was put back.
SELECT pg_notify('miq_queue:' || left(%(queue_name)s, 50), '')

-- name: task_active
-- The task of a message that starts.
UPDATE miq_tasks
   SET state = 'Active', status = 'Ok', message = 'Task starting', started_on = coalesce(started_on, utc_now()),
       updated_on = utc_now(), miq_server_id = coalesce(miq_server_id, %(server_id)s)
 WHERE id = %(id)s AND state <> 'Finished'

-- name: purge_failed
-- Failed messages that are old enough.
DELETE FROM miq_queue
 WHERE state IN ('warn', 'error', 'timeout', 'expired') AND updated_on < utc_now() - make_interval(secs => %(seconds)s)

-- name: purge_exits
-- Exits of workers that are old enough.
DELETE FROM miq_worker_exits WHERE ended_on < utc_now() - make_interval(secs => %(seconds)s)
