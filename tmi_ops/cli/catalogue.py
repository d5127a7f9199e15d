"""`tmi-ops catalogue rebuild`: the derived catalogue of backups and the indexes of WAL, made anew."""

from __future__ import annotations

import click

from tmi_ops.cli.environment import open_environment
from tmi_ops.cli.terminal import out, size_words


@click.group()
def catalogue() -> None:
    """The catalogue that commands read instead of every manifest. It is derived, and never the truth itself."""


@catalogue.command()
def rebuild() -> int:
    """Make the catalogue and the indexes of WAL anew, from the manifests, verdicts, holds, drills and segments.

    Needed after something was put into the store or taken out by hand, where a look shall know of it at once. Nothing
    but derived objects is written.
    """
    from tmi_ops.store.overview import rebuild as rebuild_catalogue
    from tmi_ops.wal.archive import list_clusters, list_wal

    _, store = open_environment()
    view = rebuild_catalogue(store)
    size = sum(len(document.data) for document in view.documents.values())
    out.print(f"Catalogue: {len(view.committed)} backups, {len(view.documents)} documents, {size_words(size)}.")
    for cluster in list_clusters(store):
        archive = list_wal(store, cluster, whole=True)
        count = sum(map(len, archive.segments.values()))
        out.print(f"WAL of {cluster}: {count:,} segments, {size_words(archive.size)}.")
    return 0
