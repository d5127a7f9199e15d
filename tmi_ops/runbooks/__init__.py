"""The guide's disasters as runbooks: a plan that is printed, steps that are recorded, evidence at the end."""
