"""May this job enter: bounds, pool, price, rate and quota. Pure functions and one ledger."""
