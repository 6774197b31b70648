-- Which region is this?
SELECT id, region, created_at, guid
  FROM miq_regions
 ORDER BY id;
