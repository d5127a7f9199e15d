"""Point-in-time recovery: restores a cluster from base backups and archived WAL to a target.

1. `facts.py` reads the store once; 2. `planning.py` chooses the base backup or chain, the timeline and the WAL that
lead to the target, or says why none do; 3. `execution.py` carries the plan out.
"""
