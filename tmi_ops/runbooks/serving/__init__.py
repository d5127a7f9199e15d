"""A recovered cluster goes into service: its configuration on this machine, its server, and how it is reached."""
