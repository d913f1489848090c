-- What reaches the files: only the columns that are asked for, the filter as a predicate, the limit.
EXPLAIN SELECT name FROM s3.articles WHERE price > 1 LIMIT 5;

-- Counts and extremes of Parquet come from the footers: the plan reads nothing.
EXPLAIN SELECT count(*), min(id), max(id) FROM s3.transactions;

SELECT count(*), min(id), max(id) FROM s3.transactions;
