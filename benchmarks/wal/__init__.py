"""WAL into S3 and out of it, beside pgBackRest (asynchronous, two processes) and barman-cloud.

`backlog.py`: how fast segments that lie ready are archived. `load.py`: how far an archiver stays behind a server under
load. `restore.py`: how fast they come back and are replayed. All on one server and one S3 server; see `../peers.py`.
"""
