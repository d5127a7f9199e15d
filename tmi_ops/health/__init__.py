"""Is the database well? Probes: a query, a typed reading, a verdict. And the upkeep that health asks for."""
