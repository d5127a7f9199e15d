"""The time machine: a past that stays open, read-only, and is moved on or back without being fetched again.

1. `files.py` makes the base backup's files once, and keeps a twin of them, by reflink where the file system has it.
2. `replaying.py` has a server replay to a moment and wait there. Moving on is a new start with a later moment; moving
   back is a start upon a fresh copy of the twin.
3. `journey.py` is the process that holds the past open; `state.py` is how others find it and ask it to move.
"""
