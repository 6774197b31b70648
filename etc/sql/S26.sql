-- Which VMs are there?
SELECT id, name
  FROM vms
 ORDER BY id;
