-- Which messages are older than a day?
SELECT *
  FROM miq_queue
 WHERE created_on < utc_now() - interval '1 day'
 ORDER BY created_on, id;
