"""Steps that runbooks share: each with its action, how it is undone, and the facts it records."""
