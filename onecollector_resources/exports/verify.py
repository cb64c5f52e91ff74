"""Whether an exported partition is what its manifest says: every byte is read, and what lies about besides is told."""

from __future__ import annotations

import hashlib

from onecollector_resources.exports.partitions import Manifest
from onecollector_resources.storage.object_file import ObjectFile
from onecollector_resources.storage.objects import ObjectStore

HASH_BYTES = 8 << 20


def faults_of(store: ObjectStore, manifest: Manifest) -> list[str]:
    """A sentence for each fault, none where all is well. Raises StoreError."""
    prefix = manifest.partition.prefix
    faults: list[str] = []
    there = {info.key: info.size for info in store.list(prefix)}
    for file in manifest.files:
        key = prefix + file.name
        where, size = f"{store.url}/{key}", there.pop(key, None)
        if size is None:
            faults.append(f"{where}: is gone; export the hour again with --force")
        elif size != file.bytes:
            faults.append(f"{where}: expected {file.bytes:,} bytes, found {size:,}; export the hour again with --force")
        elif (digest := _sha256(store, key, size)) != file.sha256:
            faults.append(
                f"{where}: expected sha256 {file.sha256[:12]}…, found {digest[:12]}…; "
                "remove it and export the hour again with --force"
            )
        elif (rows := _rows(store, key, size)) != file.rows:
            faults.append(
                f"{where}: expected {file.rows:,} rows, found {rows:,}; remove it and export the hour again with --force"
            )
    if (rows := sum(file.rows for file in manifest.files)) != manifest.rows:
        faults.append(
            f"{store.url}/{manifest.partition.manifest_key}: expected {manifest.rows:,} rows, its files have {rows:,}"
        )
    faults += [
        f"{store.url}/{key}: no manifest names it, an export was killed here or is at work; readers of the bare folder "
        "see its lines twice: export the hour again with --force"
        for key in there
        if key.endswith(".parquet")
    ]
    return faults


def _sha256(store: ObjectStore, key: str, size: int) -> str:
    digest = hashlib.sha256()
    with ObjectFile(store, key, size) as file:
        while data := file.read(HASH_BYTES):
            digest.update(data)
    return digest.hexdigest()


def _rows(store: ObjectStore, key: str, size: int) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    with ObjectFile(store, key, size) as file, pa.PythonFile(file, mode="r") as source:
        return pq.ParquetFile(source).metadata.num_rows
