-- Which server has which roles?
SELECT s.name AS server, r.name AS role, a.active, a.priority
  FROM assigned_server_roles a
  JOIN server_roles r ON r.id = a.server_role_id
  JOIN miq_servers s ON s.id = a.miq_server_id
 ORDER BY s.id, r.name;
