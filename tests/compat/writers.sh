#!/usr/bin/env bash
# Makes Parquet files by pyarrow, DuckDB and Polars, for the test that reads them back.
#
#   eval "$(tests/compat/writers.sh)"     make the files, and export S3_COMPAT_FILES, the folder that holds them
#
# Needs python3 with pip. What it installs and writes goes to target/ci-tools.
set -euo pipefail

pyarrow=26.0.1
duckdb=2.0.1
polars=2.1.0

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
tools=$root/target/ci-tools/writers-$pyarrow-$duckdb-$polars

if [[ ! -d $tools/packages ]]; then
    echo "writers: installing pyarrow $pyarrow, duckdb $duckdb and polars $polars" >&2
    # Into a folder of its own and then renamed: an install cut short is never taken for whole.
    mkdir -p "$tools"
    fresh=$(mktemp -d "$tools/fresh.XXXXXX")
    PIP_ROOT_USER_ACTION=ignore python3 -m pip install --quiet --disable-pip-version-check --only-binary :all: \
        --target "$fresh" "pyarrow==$pyarrow" "duckdb==$duckdb" "polars==$polars" >&2
    mv -T "$fresh" "$tools/packages"
fi
rm -rf "$tools/files"
PYTHONPATH=$tools/packages python3 "$root/tests/compat/writers.py" "$tools/files" >&2
echo "export S3_COMPAT_FILES='$tools/files'"
