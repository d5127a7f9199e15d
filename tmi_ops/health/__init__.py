"""Health of the database: probes (a query, a typed reading, a verdict), and the maintenance they call for."""
