"""Who is told when recoverability is at risk, and what they read."""
