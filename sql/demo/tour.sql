-- A first look: every file and every folder of files under the root is a table.
SHOW TABLES;

-- Columns and types come from the files.
DESCRIBE s3.articles;

SELECT * FROM s3.articles ORDER BY id;

-- Parquet, CSV and JSON join as they are.
SELECT c.name AS customer, a.name AS article, t.quantity, t.quantity * a.price AS total
FROM s3.transactions t
JOIN s3.articles a ON a.id = t.article
JOIN s3.customers c ON c.id = t.customer
WHERE t.year = 2024
ORDER BY t.id
LIMIT 10;

-- Lists and structs of JSON are columns too.
SELECT email, tags[1] AS first_tag FROM s3.users ORDER BY id;

-- A file that has no table name of its own is read by its full name or path.
SELECT count(*) FROM s3."customers.csv";
