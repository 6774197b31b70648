-- How many VMs does each manager have?
SELECT ext_management_systems.name, count(vms.id) AS count
  FROM ext_management_systems
  LEFT JOIN vms ON vms.ems_id = ext_management_systems.id
 GROUP BY ext_management_systems.id, ext_management_systems.name
 ORDER BY ext_management_systems.name;
