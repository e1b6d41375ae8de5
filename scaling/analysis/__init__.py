"""Laws fitted to records: the fit, the frontier, the plan for the next run, the report."""
