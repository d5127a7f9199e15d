"""The profile of the application that the database belongs to: its tables, how its rows relate, and its own checks.

`tmi` is TMI; `none` declares nothing; a YAML file describes another application.
"""

from tmi_ops.profile.facts import Profile, Root, SqlCheck, Tie
from tmi_ops.profile.reading import NONE, read_profile

__all__ = ["NONE", "Profile", "Root", "SqlCheck", "Tie", "read_profile"]
