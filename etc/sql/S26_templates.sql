-- Which templates are there?
SELECT name, guid
  FROM vms
 WHERE template
 ORDER BY name, id;
