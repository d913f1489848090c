"""Writes Parquet files by pyarrow, DuckDB and Polars into a folder, with what they hold as Arrow IPC beside
them: as DuckDB reads its own, and pyarrow the others.

    python3 tests/compat/writers.py FOLDER

Each `<name>.parquet` holds every type that its writer can write there, with a NULL in each column.
"""

import datetime as dt
import decimal
import os
import sys

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq

folder = sys.argv[1]
os.makedirs(folder, exist_ok=True)


def path(name):
    return os.path.join(folder, f"{name}.parquet")


def pyarrow_columns():
    day = dt.date(2024, 2, 29)
    at = dt.datetime(2024, 2, 29, 12, 30, 45, 123456)
    clock = dt.time(23, 59, 58, 123456)
    seconds = at.replace(microsecond=0)
    millis = at.replace(microsecond=123000)
    text = ["Äpfel, \"rot\"", "", "line\nend"]
    number = decimal.Decimal
    return {
        "boolean": pa.array([True, False, None]),
        **{f"int{bits}": pa.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1, None], getattr(pa, f"int{bits}")()) for bits in (8, 16, 32, 64)},
        **{f"uint{bits}": pa.array([0, 2**bits - 1, None], getattr(pa, f"uint{bits}")()) for bits in (8, 16, 32, 64)},
        "float16": pa.array([0.5, -2.0, None], pa.float16()),
        "float32": pa.array([0.1, float("inf"), None], pa.float32()),
        "float64": pa.array([0.1, -1e300, None], pa.float64()),
        "decimal5": pa.array([number("123.45"), number("-0.01"), None], pa.decimal128(5, 2)),
        "decimal18": pa.array([number("123456789012.345678"), number("-1"), None], pa.decimal128(18, 6)),
        "decimal38": pa.array([number("1234567890123456789012345678.0123456789"), number("-1"), None], pa.decimal128(38, 10)),
        "decimal76": pa.array([number("12345678901234567890123456789012345678901234567890.5"), number("-1"), None], pa.decimal256(76, 10)),
        "date32": pa.array([day, dt.date(1582, 10, 15), None], pa.date32()),
        "date64": pa.array([day, dt.date(9999, 12, 31), None], pa.date64()),
        "time32_s": pa.array([clock.replace(microsecond=0), dt.time(0), None], pa.time32("s")),
        "time32_ms": pa.array([clock.replace(microsecond=123000), dt.time(0), None], pa.time32("ms")),
        "time64_us": pa.array([clock, dt.time(0), None], pa.time64("us")),
        "time64_ns": pa.array([clock, dt.time(0), None], pa.time64("ns")),
        "timestamp_s": pa.array([seconds, None, seconds], pa.timestamp("s")),
        "timestamp_ms": pa.array([millis, None, millis], pa.timestamp("ms")),
        "timestamp_us": pa.array([at, None, at], pa.timestamp("us")),
        "timestamp_ns": pa.array([at, None, at], pa.timestamp("ns")),
        "timestamp_utc": pa.array([at, None, at], pa.timestamp("us", "UTC")),
        "timestamp_zone": pa.array([millis, None, millis], pa.timestamp("ms", "+02:00")),
        "duration_s": pa.array([dt.timedelta(days=1), None, dt.timedelta(0)], pa.duration("s")),
        "duration_ns": pa.array([dt.timedelta(microseconds=1), None, dt.timedelta(0)], pa.duration("ns")),
        "string": pa.array([text[0], text[2], None]),
        "large_string": pa.array([text[0], text[1], None], pa.large_string()),
        "string_view": pa.array([text[0], text[1], None], pa.string_view()),
        "binary": pa.array([b"\x00\xff", b"", None]),
        "large_binary": pa.array([b"\x00\xff", b"", None], pa.large_binary()),
        "fixed_binary": pa.array([b"abc", b"\x00\x01\x02", None], pa.binary(3)),
        "dictionary": pa.array(["a", "b", None]).dictionary_encode(),
        "null": pa.nulls(3),
        "list": pa.array([[1, None], [], None], pa.list_(pa.int32())),
        "large_list": pa.array([["a"], [None], None], pa.large_list(pa.string())),
        "fixed_list": pa.array([[1, 2], [3, None], None], pa.list_(pa.int16(), 2)),
        "struct": pa.array([{"x": 1, "y": "a"}, {"x": None, "y": None}, None], pa.struct([("x", pa.int32()), ("y", pa.string())])),
        "list_of_structs": pa.array([[{"x": 1}, None], [], None], pa.list_(pa.struct([("x", pa.int64())]))),
        "map": pa.array([[("a", 1), ("b", None)], [], None], pa.map_(pa.string(), pa.int64())),
        "map_of_lists": pa.array([[("a", [1, 2])], [], None], pa.map_(pa.string(), pa.list_(pa.int64()))),
    }


def write_pyarrow():
    table = pa.table(pyarrow_columns())
    pq.write_table(table, path("pyarrow_types"))
    pq.write_table(table, path("pyarrow_without_arrow_schema"), store_schema=False)
    pq.write_table(table, path("pyarrow_v1"), version="1.0", data_page_version="1.0", use_dictionary=False)
    pq.write_table(table, path("pyarrow_pages_v2"), data_page_version="2.0", write_page_index=True, write_page_checksum=True)
    # INT96 has no zone, which pyarrow then does not read back.
    times = table.select(["timestamp_s", "timestamp_ms", "timestamp_us", "timestamp_ns"])
    pq.write_table(times, path("pyarrow_int96"), use_deprecated_int96_timestamps=True)
    many = pa.table({"id": pa.array(range(10_000)), "name": pa.array([f"n{n % 7}" for n in range(10_000)])})
    for codec in ("none", "snappy", "gzip", "brotli", "lz4", "zstd"):
        pq.write_table(many, path(f"pyarrow_{codec}"), compression=codec, row_group_size=999)
    for encoding in ("DELTA_BINARY_PACKED", "BYTE_STREAM_SPLIT"):
        ids = many.select(["id"])
        pq.write_table(ids, path(f"pyarrow_{encoding.lower()}"), use_dictionary=False, column_encoding={"id": encoding})
    for encoding in ("DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"):
        names = many.select(["name"])
        pq.write_table(names, path(f"pyarrow_{encoding.lower()}"), use_dictionary=False, column_encoding={"name": encoding})
    pq.write_table(many, path("pyarrow_without_statistics"), write_statistics=False)
    pq.write_table(many.slice(0, 0), path("pyarrow_empty"))


def write_duckdb():
    select = """
        SELECT unnest([true, NULL]) AS "boolean",
            unnest([(-128)::TINYINT, NULL]) AS "tinyint", unnest([(-32768)::SMALLINT, NULL]) AS "smallint",
            unnest([(-2147483648)::INTEGER, NULL]) AS "integer", unnest([9223372036854775807::BIGINT, NULL]) AS "bigint",
            unnest([255::UTINYINT, NULL]) AS "utinyint", unnest([65535::USMALLINT, NULL]) AS "usmallint",
            unnest([4000000::UINTEGER, NULL]) AS "uinteger", unnest([18446744073709551615::UBIGINT, NULL]) AS "ubigint",
            unnest([1.5::FLOAT, NULL]) AS "float", unnest([1e300::DOUBLE, NULL]) AS "double",
            unnest([1.25::DECIMAL(4,2), NULL]) AS "decimal4", unnest([1.25::DECIMAL(18,3), NULL]) AS "decimal18",
            unnest([1.25::DECIMAL(38,9), NULL]) AS "decimal38",
            unnest([DATE '2024-02-29', NULL]) AS "date", unnest([TIME '23:59:58.123456', NULL]) AS "time",
            unnest([TIMESTAMP '2024-02-29 12:30:45.123456', NULL]) AS "timestamp",
            unnest([TIMESTAMP_S '2024-02-29 12:30:45', NULL]) AS "timestamp_s",
            unnest([TIMESTAMP_MS '2024-02-29 12:30:45.123', NULL]) AS "timestamp_ms",
            unnest([TIMESTAMP_NS '2024-02-29 12:30:45.123456789', NULL]) AS "timestamp_ns",
            unnest([TIMESTAMPTZ '2024-02-29 12:30:45.123456+00', NULL]) AS "timestamptz",
            unnest(['Äpfel'::VARCHAR, NULL]) AS "varchar", unnest(['\\x00\\xFF'::BLOB, NULL]) AS "blob",
            unnest(['b'::ENUM('a', 'b'), NULL]) AS "enum",
            unnest([[1, NULL], NULL]) AS "list", unnest([{'x': 1, 'y': 'a'}, NULL]) AS "struct",
            unnest([MAP {'a': 1}, NULL]) AS "map", unnest([[[1], []], NULL]) AS "list_of_lists"
    """
    # No 2^32 - 1: what DuckDB 2.0 writes of it in V2 neither pyarrow nor the crate parquet reads.
    for version, codec in (("V1", "snappy"), ("V2", "zstd")):
        name = path(f"duckdb_{version.lower()}")
        duckdb.execute(f"COPY ({select}) TO '{name}' (FORMAT parquet, PARQUET_VERSION {version}, COMPRESSION {codec})")
    duckdb.execute(f"COPY (SELECT range AS id, 'n' || range % 7 AS name FROM range(10000)) TO '{path('duckdb_groups')}' (FORMAT parquet, ROW_GROUP_SIZE 2048)")


def write_polars():
    day, at, clock = dt.date(2024, 2, 29), dt.datetime(2024, 2, 29, 12, 30, 45, 123456), dt.time(23, 59, 58)
    frame = pl.DataFrame({
        "boolean": [True, None],
        **{name: pl.Series([1, None], dtype=getattr(pl, name)) for name in ("Int8", "Int16", "Int32", "Int64", "UInt8", "UInt16", "UInt32", "UInt64", "Float32", "Float64")},
        "decimal": pl.Series([decimal.Decimal("1.25"), None], dtype=pl.Decimal(20, 4)),
        "date": [day, None],
        "time": [clock, None],
        **{f"datetime_{unit}": pl.Series([at, None], dtype=pl.Datetime(unit)) for unit in ("ms", "us", "ns")},
        "datetime_utc": pl.Series([at, None], dtype=pl.Datetime("us", "UTC")),
        "duration": pl.Series([dt.timedelta(days=1), None], dtype=pl.Duration("us")),
        "string": ["Äpfel", None],
        "binary": [b"\x00\xff", None],
        "categorical": pl.Series(["a", None], dtype=pl.Categorical),
        "enum": pl.Series(["b", None], dtype=pl.Enum(["a", "b"])),
        "list": [[1, None], None],
        "array": pl.Series([[1, 2], None], dtype=pl.Array(pl.Int32, 2)),
        "struct": [{"x": 1, "y": "a"}, None],
        "null": pl.Series([None, None], dtype=pl.Null),
    })
    for compression in ("zstd", "lz4", "uncompressed"):
        frame.write_parquet(path(f"polars_{compression}"), compression=compression)
    many = pl.DataFrame({"id": range(10_000)}).with_columns(name="n" + (pl.col("id") % 7).cast(pl.String))
    many.write_parquet(path("polars_groups"), row_group_size=1_000)


write_pyarrow()
write_duckdb()
write_polars()
for name in sorted(os.listdir(folder)):
    if name.endswith(".parquet"):
        source = os.path.join(folder, name)
        # pyarrow does not read all that DuckDB writes.
        if name.startswith("duckdb"):
            table = duckdb.sql(f"SELECT * FROM '{source}'").to_arrow_table()
        else:
            table = pq.ParquetFile(source).read()
        with pa.OSFile(source.removesuffix(".parquet") + ".arrow", "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
            writer.write_table(table)
