"""How a database comes under protection, from nothing to proven, and how it leaves again."""
