"""Are we safe? Recoverability measured and judged against the objectives, and what is done about it."""
