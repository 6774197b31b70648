-- The rows that the cookbook's golden answers are about.
INSERT INTO miq_regions (id, region, guid) VALUES (1, 0, 'region-guid');
INSERT INTO zones (id, name, visible) VALUES (1, 'default', true), (2, 'east', true);
INSERT INTO server_roles (id, name) VALUES (1, 'ems_operations'), (2, 'event'), (3, 'scheduler');
INSERT INTO miq_servers (id, guid, name, zone_id, status, pid, version, is_master, hostname, last_heartbeat)
VALUES (1, 'server-guid', 'EVM', 1, 'started', 100, '0.1.0', true, 'here', '2026-01-01 00:00:00');
INSERT INTO assigned_server_roles (miq_server_id, server_role_id, active, priority)
VALUES (1, 1, true, 2), (1, 2, true, 2), (1, 3, false, 3);
INSERT INTO miq_workers (id, guid, type, status, pid, queue_name, miq_server_id, last_heartbeat, sql_spid)
VALUES (1, 'w-1', 'MiqGenericWorker', 'started', 101, 'generic', 1, utc_now(), pg_backend_pid()),
       (2, 'w-2', 'MiqScheduleWorker', 'started', 102, NULL, 1, '2026-01-01 00:00:00', NULL);
INSERT INTO miq_queue (id, priority, class_name, method_name, state, queue_name, zone, role, created_on, updated_on,
                       msg_timeout, handler_type, handler_id, task_id, instance_id, target_id, last_error)
VALUES
 (1, 100, 'EmsRefresh', 'refresh', 'ready', 'ems_1', 'default', 'ems_inventory', '2026-01-01 10:00', NULL, 7200, NULL, NULL, NULL, NULL, NULL, NULL),
 (2, 20, 'ExtManagementSystem', 'authentication_check_types', 'ready', 'generic', 'default', 'ems_operations', '2026-01-01 10:01', NULL, 120, NULL, NULL, NULL, 1, NULL, NULL),
 (3, 100, 'EmsEvent', 'add', 'ready', 'ems', 'default', 'event', '2026-01-01 10:02', NULL, 600, NULL, NULL, NULL, NULL, NULL, NULL),
 (4, 100, 'Vm', 'perf_capture_realtime', 'ready', 'ems_metrics_collector', 'west', 'ems_metrics_collector', '2026-01-01 10:03', NULL, 600, NULL, NULL, NULL, NULL, 7, NULL),
 (5, 100, 'MiqTask', 'work', 'dequeue', 'generic', 'default', NULL, '2026-01-01 10:04', '2026-01-01 10:05', 600, 'MiqWorker', 1, 'one-by-one', NULL, NULL, NULL),
 (6, 50, 'MiqTask', 'work', 'ready', 'generic', NULL, NULL, '2026-01-01 10:06', NULL, 600, NULL, NULL, 'one-by-one', NULL, NULL, NULL),
 (7, 100, 'MiqAeEngine', 'deliver', 'error', 'generic', 'default', 'automate', '2026-01-01 10:07', '2026-01-01 10:08', 600, NULL, NULL, NULL, NULL, NULL, 'broken'),
 (8, 100, 'MiqProvision', 'do_post_provision', 'ready', 'generic', 'east', 'ems_operations', utc_now(), NULL, 600, NULL, NULL, 'miq_provision_5', 5, NULL, NULL);
INSERT INTO jobs (guid, state, zone, type) VALUES ('j-1', 'waiting_to_start', 'default', 'VmScan');
INSERT INTO ext_management_systems (id, name, type, zone_id) VALUES (1, 'prod', 'ManageIQ::Providers::Amazon::CloudManager', 1), (2, 'test', 'ManageIQ::Providers::Amazon::CloudManager', 1);
INSERT INTO vms (id, name, guid, ems_id, ems_ref, vendor, template, linked_clone)
VALUES (1, 'web', 'vm-1', 1, 'i-1', 'amazon', false, NULL), (2, 'image', 'vm-2', 1, 'ami-1', 'amazon', true, NULL),
       (3, 'clone', 'vm-3', NULL, 'vm-9', 'vmware', false, true);
INSERT INTO settings_changes (resource_type, resource_id, key, value) VALUES ('MiqServer', 1, '/server/role', 'event');
