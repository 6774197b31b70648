-- Which zones have work?
SELECT DISTINCT zone
  FROM miq_queue
 ORDER BY zone;
