"""A past that stays open, read-only, and can be moved forward or back without fetching the backup again.

1. `open_past.py` is the process that holds the past open. It keeps a second copy ("twin") of the base backup's files,
   by reflink if the file system supports it.
2. `replaying.py` lets a server replay to a moment and wait there. Moving forward restarts it with a later moment;
   moving back restarts it on a fresh copy of the twin.
3. `state.py` is how other processes find the open past and ask it to move.
"""
