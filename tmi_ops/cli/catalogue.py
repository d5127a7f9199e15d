"""`tmi-ops catalogue rebuild`."""

from __future__ import annotations

import click

from tmi_ops.cli.environment import open_environment
from tmi_ops.cli.terminal import format_size, out


@click.group()
def catalogue() -> None:
    """Rebuild the catalogue, which commands read instead of every manifest. It is derived from the manifests."""


@catalogue.command()
def rebuild() -> int:
    """Rebuild the catalogue and the WAL indexes.

    They are derived from the manifests, verification results, holds, drills and segments. Run this after you added or
    removed objects in the store by hand, so that commands see it at once. Only derived objects are written.
    """
    from tmi_ops.store.overview import rebuild as rebuild_catalogue
    from tmi_ops.wal.archive import list_clusters, list_wal

    _, store = open_environment()
    view = rebuild_catalogue(store)
    size = sum(document.size for document in view.documents.values())
    out.print(f"Catalogue: {len(view.committed)} backups, {len(view.documents)} documents, {format_size(size)}.")
    for cluster in list_clusters(store):
        archive = list_wal(store, cluster, whole=True)
        count = sum(map(len, archive.segments.values()))
        out.print(f"WAL of {cluster}: {count:,} segments, {format_size(archive.size)}.")
    return 0
