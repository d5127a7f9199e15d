"""Point-in-time recovery: a whole cluster brought back, from its base backups and archived WAL, as it was at a moment.

1. `facts.py` reads the store once; 2. `planning.py` decides from that alone which base or chain, which timeline and
which WAL lead to the target, or says precisely why none does; 3. `execution.py` does it.
"""
