-- What would the generic workers be given next?
SELECT id, lock_version, priority, role
  FROM miq_queue
 WHERE state = 'ready'
   AND queue_name = 'generic'
   AND (zone IS NULL OR zone IN (SELECT z.name FROM miq_servers s JOIN zones z ON z.id = s.zone_id))
   AND (role IS NULL OR role IN (SELECT r.name
                                   FROM assigned_server_roles a
                                   JOIN server_roles r ON r.id = a.server_role_id
                                  WHERE a.active))
   AND (server_guid IS NULL OR server_guid IN (SELECT guid FROM miq_servers))
   AND (deliver_on IS NULL OR deliver_on <= utc_now())
   AND priority <= 200
 ORDER BY priority, id
 LIMIT 1000;
