-- How long is the queue?
SELECT count(*) AS count FROM miq_queue;
