-- Which settings were changed, for whom?
SELECT key, value, resource_type, resource_id
  FROM settings_changes
 ORDER BY resource_type, resource_id, key;
