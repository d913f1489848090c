-- transactions/ holds year=…/month=… folders: both are columns.
DESCRIBE s3.transactions;

SELECT year, month, count(*) AS transactions, sum(quantity) AS quantity
FROM s3.transactions
GROUP BY year, month
ORDER BY year, month;

-- A filter on them chooses files: the plan lists those that are left.
EXPLAIN SELECT sum(quantity) FROM s3.transactions WHERE year = 2024 AND month >= 2;

SELECT sum(quantity) FROM s3.transactions WHERE year = 2024 AND month >= 2;

-- One month, read as a table of its own.
SELECT * FROM s3."s3://lake/shop/transactions/year=2024/month=1/" ORDER BY id;
