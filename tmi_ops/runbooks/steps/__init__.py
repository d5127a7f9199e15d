"""Steps that runbooks share: each a deed, its undoing, and what it writes down for those after it."""
