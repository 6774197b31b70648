-- Which VMs are linked clones?
SELECT name, vendor
  FROM vms
 WHERE linked_clone
 ORDER BY vendor, name, id;
