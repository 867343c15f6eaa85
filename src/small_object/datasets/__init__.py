"""Detection data sets: their model, checks, repairs, statistics, conversions and splits."""
