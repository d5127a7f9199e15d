"""What application the database belongs to: what it needs, what hangs together in it, and what its own checks ask.

`tmi` is TMI; `none` knows nothing of the application; a YAML file says what there is to know of another one.
"""

from tmi_ops.profile.facts import Profile, Root, SqlCheck, Tie
from tmi_ops.profile.reading import NONE, read_profile

__all__ = ["NONE", "Profile", "Root", "SqlCheck", "Tie", "read_profile"]
