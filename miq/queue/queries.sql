-- The statements that lock or move sets of messages. Each begins with "-- name: NAME" and says what it does.
-- %(now)s is NULL in production (the database's clock); tests give a time.

-- name: put
-- One message. No row when an equal one is ready (merge_key), or when its zone is not there or in maintenance.
INSERT INTO miq_queue (class_name, method_name, args, instance_id, target_id, queue_name, zone, role, server_guid,
                       priority, deliver_on, expires_on, msg_timeout, task_id, miq_task_id, tracking_label,
                       miq_callback, msg_data, user_id, group_id, tenant_id, merge_key)
SELECT %(class_name)s, %(method_name)s, %(args)s, %(instance_id)s::bigint, %(target_id)s::bigint, %(queue_name)s,
       %(zone)s::varchar, %(role)s, %(server_guid)s, %(priority)s::integer, %(deliver_on)s::timestamp,
       %(expires_on)s::timestamp, %(msg_timeout)s::integer, %(task_id)s, %(miq_task_id)s::bigint, %(tracking_label)s,
       %(miq_callback)s, %(msg_data)s::bytea, %(user_id)s::bigint, %(group_id)s::bigint, %(tenant_id)s::bigint,
       %(merge_key)s
 WHERE %(zone)s::varchar IS NULL OR EXISTS (
       SELECT 1 FROM zones WHERE name = %(zone)s::varchar
          AND NOT EXISTS (SELECT 1 FROM miq_regions WHERE maintenance_zone_id = zones.id))
ON CONFLICT (merge_key) WHERE state = 'ready' AND merge_key IS NOT NULL DO NOTHING
RETURNING id

-- name: zone_takes
-- Whether a zone is not the one for maintenance; no row when there is no such zone.
SELECT NOT EXISTS (SELECT 1 FROM miq_regions WHERE maintenance_zone_id = zones.id) FROM zones WHERE name = %(zone)s

-- name: find_waiting
-- The one message of a kind that is ready, locked: no worker takes it until the transaction ends.
SELECT id, args, msg_data, priority, msg_timeout, deliver_on, miq_task_id, miq_callback FROM miq_queue
 WHERE merge_key = %(key)s AND state = 'ready' FOR UPDATE

-- name: lock_key
-- Those who ask for a kind that is ready or executed go one after the other: no index can guard both states.
SELECT pg_advisory_xact_lock(hashtextextended(%(key)s, 0))

-- name: find_busy
-- A message of a kind that is being executed.
SELECT id FROM miq_queue WHERE merge_key = %(key)s AND state = 'dequeue' LIMIT 1

-- name: claim
-- Takes ready messages for one handler, most urgent first, at most one of a task_id; nobody waits for anybody (SKIP
-- LOCKED). The partial index miq_queue_get_idx is in claim order; a handler that works its way through it begins behind
-- what it took last (after_*). The subquery is MATERIALIZED so that the planner cannot take more rows than LIMIT.
-- It is committed without waiting for the disk: see `flush`.
WITH next AS MATERIALIZED (
    SELECT id, task_id, priority FROM miq_queue
     WHERE state = 'ready'
       AND queue_name = %(queue_name)s
       AND (priority, id) > (%(after_priority)s, %(after_id)s)
       AND priority <= %(max_priority)s
       AND (zone IS NULL OR zone = %(zone)s)
       AND (role IS NULL OR role = ANY(string_to_array(%(roles)s, ',')))
       AND (server_guid IS NULL OR server_guid = %(server_guid)s)
       AND (deliver_on IS NULL OR deliver_on <= coalesce(%(now)s::timestamp, utc_now()))
       AND (expires_on IS NULL OR expires_on > coalesce(%(now)s::timestamp, utc_now()))
       AND (task_id IS NULL OR task_id <> ALL (ARRAY(
               SELECT busy.task_id FROM miq_queue AS busy WHERE busy.state = 'dequeue' AND busy.task_id IS NOT NULL)))
     ORDER BY priority, id
     LIMIT %(limit)s
       FOR UPDATE SKIP LOCKED),
taken AS (
    SELECT id,
           CASE WHEN task_id IS NULL THEN 1 ELSE row_number() OVER (PARTITION BY task_id ORDER BY priority, id) END AS nth
      FROM next, (SELECT set_config('synchronous_commit', 'off', true)) AS without_waiting)
UPDATE miq_queue AS q
   SET state = 'dequeue', handler_type = %(handler_type)s, handler_id = %(handler_id)s,
       updated_on = coalesce(%(now)s::timestamp, utc_now()),
       lock_version = CASE WHEN lock_version < 2147483647 THEN lock_version + 1 ELSE 1 END
  FROM taken
 WHERE q.id = taken.id AND taken.nth = 1
RETURNING q.id, q.class_name, q.method_name, q.instance_id, q.target_id, q.args, q.miq_callback, q.msg_timeout,
          q.task_id, q.miq_task_id, q.attempts, q.tracking_label, q.queue_name, q.zone, q.role, q.priority, q.msg_data,
          q.server_guid, q.user_id, q.group_id, q.tenant_id,
          CASE WHEN q.deliver_on >= '0001-01-01' THEN q.deliver_on END AS deliver_on,
          CASE WHEN isfinite(greatest(q.created_on, q.deliver_on))
               THEN extract(epoch FROM utc_now() - greatest(q.created_on, q.deliver_on)) END::float8 AS waited

-- name: flush
-- Waits until everything that was committed before is on disk, earlier commits that did not wait, too.
SELECT pg_logical_emit_message(true, 'miq', '')

-- name: next_due
-- Seconds until a message of this queue that is not due yet will be; NULL when there is none.
SELECT extract(epoch FROM min(deliver_on) - utc_now())::float8 FROM miq_queue
 WHERE state = 'ready' AND queue_name = %(queue_name)s AND deliver_on > utc_now() AND deliver_on < 'infinity'

-- name: finish
-- Deletes messages of a handler that ended well. The guard is written so that no index fits it but that of the ids:
-- miq_queue_handler_idx holds the dead rows of all that the handler has taken while a long report runs.
DELETE FROM miq_queue
 WHERE id = ANY(%(ids)s)
   AND (state, handler_type, handler_id)
       IS NOT DISTINCT FROM ('dequeue'::varchar, %(handler_type)s::varchar, %(handler_id)s::bigint)

-- name: wake_chain
-- Tells the queues where the next messages of these task_ids wait; their turn has come.
SELECT pg_notify('miq_queue:' || left(queue_name, 50), '')
  FROM (SELECT DISTINCT queue_name FROM miq_queue
         WHERE state = 'ready' AND task_id = ANY(%(task_ids)s) AND octet_length(left(queue_name, 50)) < 54) AS queues

-- name: fail
-- Keeps a message of a handler that ended badly, with what was wrong; the handler lets go of it.
UPDATE miq_queue
   SET state = %(state)s, last_error = %(error)s, attempts = least(attempts, 2147483646) + 1, updated_on = utc_now(),
       handler_type = NULL, handler_id = NULL
 WHERE id = %(id)s AND state = 'dequeue' AND handler_type = %(handler_type)s AND handler_id = %(handler_id)s

-- name: fail_unheld
-- The same for a message whose handler is gone, or that never had one.
UPDATE miq_queue
   SET state = %(state)s, last_error = %(error)s, attempts = %(attempts)s, updated_on = utc_now(), handler_type = NULL,
       handler_id = NULL
 WHERE id = %(id)s

-- name: fail_task
-- The task of a message that ended badly without a callback.
UPDATE miq_tasks SET state = 'Finished', status = %(status)s, message = %(error)s, updated_on = utc_now()
 WHERE id = %(id)s AND state <> 'Finished'

-- name: put_callback
-- A callback whose message was ended by a process that runs no flow.
INSERT INTO miq_queue (class_name, method_name, instance_id, args, queue_name, priority)
VALUES (%(class_name)s, %(method_name)s, %(instance_id)s, %(args)s, 'generic', 20)

-- name: give_back
-- Puts messages that a handler holds back to ready. One that meets a waiting twin, or comes back with one, is no longer
-- of its kind: both wait.
WITH held AS MATERIALIZED (
    SELECT id, merge_key FROM miq_queue
     WHERE id = ANY(%(ids)s) AND state = 'dequeue' AND handler_type = %(handler_type)s AND handler_id = %(handler_id)s
     ORDER BY id FOR UPDATE),
kind AS (
    SELECT id, CASE WHEN row_number() OVER (PARTITION BY merge_key ORDER BY id) = 1 AND NOT EXISTS (
                         SELECT 1 FROM miq_queue AS twin WHERE twin.merge_key = held.merge_key AND twin.state = 'ready')
                    THEN merge_key END AS merge_key
      FROM held)
UPDATE miq_queue AS q
   SET state = 'ready', handler_type = NULL, handler_id = NULL, updated_on = utc_now(),
       attempts = greatest(attempts, 0) + %(attempt)s,
       deliver_on = CASE WHEN %(delay)s::float8 > 0 THEN utc_now() + make_interval(secs => %(delay)s::float8)
                         ELSE coalesce(%(deliver_on)s::timestamp, deliver_on) END,
       merge_key = kind.merge_key
  FROM kind
 WHERE q.id = kind.id
RETURNING q.queue_name

-- name: merge_into_twin
-- Those that meet a waiting twin that asks for the same end here; the twin takes over task and callback, unless it has
-- a task or callback of its own that somebody waits for.
WITH pairs AS MATERIALIZED (
    SELECT q.id, twin.id AS twin_id
      FROM miq_queue AS q JOIN miq_queue AS twin ON twin.merge_key = q.merge_key AND twin.state = 'ready'
     WHERE q.id = ANY(%(ids)s) AND q.state = 'dequeue'
       AND q.handler_type = %(handler_type)s AND q.handler_id = %(handler_id)s
       AND twin.args IS NOT DISTINCT FROM q.args AND twin.msg_data IS NOT DISTINCT FROM q.msg_data
       AND (q.miq_task_id IS NULL AND q.miq_callback IS NULL OR twin.miq_task_id IS NULL AND twin.miq_callback IS NULL)
       AND NOT EXISTS (SELECT 1 FROM miq_queue AS other
                        WHERE other.id = ANY(%(ids)s) AND other.merge_key = q.merge_key AND other.id < q.id)
       FOR UPDATE OF q, twin),
gone AS (
    DELETE FROM miq_queue AS q USING pairs WHERE q.id = pairs.id
    RETURNING pairs.twin_id, q.miq_task_id, q.miq_callback)
UPDATE miq_queue AS twin
   SET miq_task_id = coalesce(twin.miq_task_id, gone.miq_task_id),
       miq_callback = coalesce(twin.miq_callback, gone.miq_callback), lock_version = coalesce(lock_version, 0) + 1
  FROM gone WHERE twin.id = gone.twin_id
RETURNING twin.queue_name

-- name: held_by
-- What a handler holds.
SELECT id, class_name, method_name, miq_callback, miq_task_id, greatest(0, least(attempts, 2147483646)) FROM miq_queue
 WHERE state = 'dequeue' AND handler_type = %(handler_type)s AND handler_id = %(handler_id)s
   FOR UPDATE

-- name: end_earlier
-- Ends what a connection that this very worker has lost may have left running.
SELECT pg_terminate_backend(pid, 1000) FROM pg_stat_activity
 WHERE datname = current_database() AND pid <> pg_backend_pid()
   AND starts_with(application_name, 'MIQ|') AND application_name = current_setting('application_name')

-- name: wake
-- Tells the listeners of a queue that something was put back. A name that is too long for a channel has none.
SELECT pg_notify('miq_queue:' || left(%(queue_name)s, 50), '') WHERE octet_length(left(%(queue_name)s, 50)) < 54

-- name: forget_shutdowns
-- Words to stop that a server left behind: taken, or for a run of it that is over.
DELETE FROM miq_queue
 WHERE queue_name = 'miq_server' AND class_name = 'MiqServer' AND method_name = 'shutdown_and_exit'
   AND (state = 'ready' AND server_guid = %(guid)s
        OR state = 'dequeue' AND handler_type = 'MiqServer' AND handler_id = %(handler_id)s)

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

-- The other verbs of the queue, and tasks.

-- name: choose_failed
-- Failed messages that agree with what is said, locked: nobody else puts them back or deletes them meanwhile.
SELECT id FROM miq_queue
 WHERE state IN ('warn', 'error', 'timeout', 'expired')
   AND (%(ids)s::bigint[] IS NULL OR id = ANY(%(ids)s::bigint[]))
   AND (%(state)s::text IS NULL OR state = %(state)s)
   AND (%(class_name)s::text IS NULL OR class_name = %(class_name)s)
   AND (%(method_name)s::text IS NULL OR method_name = %(method_name)s)
   AND (%(queue_name)s::text IS NULL OR queue_name = %(queue_name)s)
   AND (%(older_than)s::float8 IS NULL OR updated_on < utc_now() - make_interval(secs => %(older_than)s::float8))
 ORDER BY id FOR UPDATE

-- name: retry_failed
-- Puts failed messages back to ready, as if they were new. One whose twin is ready, or goes back with it, is no longer
-- of its kind: both wait.
WITH kind AS MATERIALIZED (
    SELECT id, CASE WHEN row_number() OVER (PARTITION BY merge_key ORDER BY id) = 1 AND NOT EXISTS (
                         SELECT 1 FROM miq_queue AS twin
                          WHERE twin.merge_key = failed.merge_key AND twin.state = 'ready')
                    THEN merge_key END AS merge_key
      FROM miq_queue AS failed WHERE id = ANY(%(ids)s))
UPDATE miq_queue AS q
   SET state = 'ready', attempts = 0, deliver_on = NULL, expires_on = NULL, handler_type = NULL, handler_id = NULL,
       updated_on = utc_now(), lock_version = coalesce(lock_version, 0) + 1, merge_key = kind.merge_key
  FROM kind
 WHERE q.id = kind.id
RETURNING q.queue_name

-- name: due_by_address
-- What is ready, due and not expired, by who may take it and what it calls: one pass over the table.
SELECT queue_name, zone, role, server_guid, priority, concat_ws('.', class_name, method_name), count(*),
       min(coalesce(deliver_on, created_on))
  FROM miq_queue
 WHERE state = 'ready'
   AND (deliver_on IS NULL OR deliver_on <= utc_now())
   AND (expires_on IS NULL OR expires_on > utc_now())
 GROUP BY queue_name, zone, role, server_guid, priority, class_name, method_name

-- name: task_create
-- A task whose work is asked for.
INSERT INTO miq_tasks (name, userid, state, status, message, zone, identifier, updated_on)
VALUES (%(name)s, %(userid)s, 'Queued', 'Ok', %(message)s, %(zone)s, %(identifier)s, utc_now())
RETURNING id

-- name: task_update
-- Moves a task from one of the states from which it may go; its server is the one whose worker does the work.
UPDATE miq_tasks
   SET state = %(state)s::text, status = %(status)s, message = %(message)s, results = coalesce(%(results)s, results),
       updated_on = utc_now(),
       started_on = CASE WHEN %(state)s::text = 'Active' THEN coalesce(started_on, utc_now()) ELSE started_on END,
       miq_server_id = coalesce(miq_server_id, (
           SELECT worker.miq_server_id
             FROM miq_queue AS running JOIN miq_workers AS worker ON worker.id = running.handler_id
            WHERE running.id = %(running_id)s AND running.handler_type = 'MiqWorker'))
 WHERE id = %(id)s AND state = ANY(string_to_array(%(from)s, ','))

-- name: task_progress
-- How far the work of a task is.
UPDATE miq_tasks
   SET pct_complete = coalesce(%(pct_complete)s::integer, pct_complete), message = coalesce(%(message)s::text, message),
       updated_on = utc_now()
 WHERE id = %(id)s AND state = 'Active'

-- name: task_remove
-- Deletes a task that is not at work, with its job.
WITH gone AS (
    DELETE FROM miq_tasks AS task
     WHERE id = %(id)s AND state IN ('Queued', 'Finished')
       AND NOT EXISTS (SELECT 1 FROM jobs
                        WHERE miq_task_id = task.id AND state NOT IN ('waiting_to_start', 'finished'))
    RETURNING id),
its_job AS (DELETE FROM jobs USING gone WHERE jobs.miq_task_id = gone.id)
SELECT id FROM gone

-- Upkeep (upkeep.py). Each takes at most %(limit)s rows and may run twice.

-- name: adopt_unheld
-- Messages that are taken but have no handler: a worker that never was holds them from now on.
UPDATE miq_queue SET handler_type = 'MiqWorker', handler_id = 0
 WHERE id IN (SELECT id FROM miq_queue
               WHERE state = 'dequeue' AND (handler_type IS NULL OR handler_id IS NULL)
                 AND coalesce(updated_on, created_on, '-infinity') < utc_now() - make_interval(secs => %(grace)s)
               ORDER BY id LIMIT %(limit)s)

-- name: lost_handlers
-- Handlers of taken messages that have no row.
SELECT handler_type, handler_id FROM miq_queue AS q
 WHERE state = 'dequeue' AND handler_type IS NOT NULL AND handler_id IS NOT NULL
   AND coalesce(updated_on, created_on, '-infinity') < utc_now() - make_interval(secs => %(grace)s)
   AND NOT (handler_type = 'MiqWorker' AND EXISTS (SELECT 1 FROM miq_workers WHERE id = q.handler_id))
   AND NOT (handler_type = 'MiqServer' AND EXISTS (SELECT 1 FROM miq_servers WHERE id = q.handler_id))
 GROUP BY handler_type, handler_id
 ORDER BY handler_type, handler_id
 LIMIT %(limit)s

-- name: expire
-- Ready messages that nobody has taken in time.
WITH late AS MATERIALIZED (
    SELECT id FROM miq_queue WHERE state = 'ready' AND expires_on <= utc_now()
     ORDER BY expires_on LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
UPDATE miq_queue AS q
   SET state = 'expired', updated_on = utc_now(),
       last_error = 'no worker took it before it expired at ' || date_trunc('second', expires_on) || ' UTC'
  FROM late
 WHERE q.id = late.id
RETURNING q.id, class_name, method_name, miq_callback, miq_task_id, attempts, last_error

-- name: end_unclaimable
-- Ready messages that no claim can find. The queues are read by leaps over miq_queue_get_idx, not row by row: it takes
-- as long for a million messages as for ten.
WITH RECURSIVE queues AS (
    SELECT min(queue_name) AS queue_name FROM miq_queue WHERE state = 'ready'
    UNION ALL
    SELECT (SELECT min(queue_name) FROM miq_queue WHERE state = 'ready' AND queue_name > queues.queue_name)
      FROM queues WHERE queues.queue_name IS NOT NULL),
unclaimable AS MATERIALIZED (
    (SELECT id FROM miq_queue WHERE state IS NULL)
    UNION ALL
    (SELECT id FROM miq_queue WHERE state = 'ready' AND queue_name IS NULL)
    UNION ALL
    (SELECT id FROM queues JOIN miq_queue AS q USING (queue_name) WHERE q.state = 'ready' AND q.priority IS NULL)
    UNION ALL
    (SELECT id FROM queues JOIN miq_queue AS q USING (queue_name) WHERE q.state = 'ready' AND q.priority > 200)
    LIMIT %(limit)s)
UPDATE miq_queue AS q
   SET state = 'error', updated_on = utc_now(),
       last_error = CASE WHEN state IS NULL THEN 'state is NULL: no worker looks for it; write ready'
                         WHEN queue_name IS NULL THEN 'queue_name is NULL: no worker serves it; write one, e.g. generic'
                         WHEN priority IS NULL THEN 'priority is NULL: no worker takes it; write 0 (soon) to 200'
                         ELSE 'priority is ' || priority || ': no worker takes it; write 0 (soon) to 200' END
  FROM unclaimable
 WHERE q.id = unclaimable.id
   AND (state IS NULL OR state = 'ready' AND (queue_name IS NULL OR priority IS NULL OR priority > 200))
RETURNING q.id, class_name, method_name, miq_callback, miq_task_id, attempts, last_error

-- name: time_out_tasks
-- Tasks that nobody works on any more; those of jobs are the jobs'.
UPDATE miq_tasks
   SET state = 'Finished', status = 'Error', updated_on = utc_now(),
       message = 'Task [' || id || '] timed out - not active for more than ' || %(seconds)s::integer || ' seconds'
 WHERE id IN (SELECT id FROM miq_tasks AS task
               WHERE state = 'Active'
                 AND coalesce(updated_on, created_on) < utc_now() - make_interval(secs => %(seconds)s)
                 AND NOT EXISTS (SELECT 1 FROM jobs WHERE miq_task_id = task.id)
               ORDER BY id LIMIT %(limit)s FOR UPDATE SKIP LOCKED)

-- name: purge_tasks
-- Finished tasks that are old enough, from an id on; those of active jobs stay.
DELETE FROM miq_tasks
 WHERE id IN (SELECT id FROM miq_tasks AS task
               WHERE id > %(after)s AND state = 'Finished'
                 AND coalesce(updated_on, created_on) < utc_now() - make_interval(secs => %(seconds)s)
                 AND NOT EXISTS (SELECT 1 FROM jobs WHERE miq_task_id = task.id AND state IS DISTINCT FROM 'finished')
               ORDER BY id LIMIT %(limit)s)
RETURNING id

-- name: indexes
-- The indexes of a table.
SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = %(table)s::regclass AND indisvalid ORDER BY 1

-- name: broken_indexes
-- What REINDEX CONCURRENTLY leaves when it is interrupted.
SELECT indexrelid::regclass::text FROM pg_index JOIN pg_class ON pg_class.oid = indexrelid
 WHERE indrelid = %(table)s::regclass AND NOT indisvalid AND relname ~ '_cc(new|old)[0-9]*$' ORDER BY 1
