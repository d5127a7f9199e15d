"""Health of the database: probes (a query, a typed reading, an answer), and the maintenance they call for."""
